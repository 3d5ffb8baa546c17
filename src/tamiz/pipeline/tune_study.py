"""A study of trials in one SQLite file that any number of processes work on, any of which may be killed.

Optuna draws the values and keeps them. What several processes could spoil is done under one lock: beginning a trial
within the budget, reporting, ending. Each process also holds a lock of its own for as long as it lives, and a trial
names the process that runs it; the operating system frees the lock of a killed process, so that its trial is known to
have been interrupted at once, by anybody, and is queued again.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tamiz.blobs.local import LocalBlobs
from tamiz.config import TuneConfig
from tamiz.errors import BusyError, StoreError
from tamiz.extras import require
from tamiz.pipeline.evidence import Answers
from tamiz.pipeline.tune_score import Scored
from tamiz.pipeline.tune_spaces import Space
from tamiz.types import FloatArray

__all__ = ["Claim", "Study"]

_DATABASE = "studies.db"
_WAIT_S = 600.0  # for the lock, which is held for moments
_DATABASE_WAIT_S = 60.0
_MOST_WORKERS = 256
_MOST_ATTEMPTS = 3  # of one trial; what ends the process each time will do so again
_STARTUP_TRIALS = 4  # before anything is given up


@dataclass(frozen=True)
class Claim:
    """A trial that this process runs.

    Attributes:
        number: of the trial in its study.
        values: the parameters.
        is_default: whether it is the candidate as it stands.
        trial: Optuna's own.
    """

    number: int
    values: dict[str, Any]
    is_default: bool
    trial: Any


class Study:
    """One study, opened by one process for the length of a `with` block.

    Args:
        folder: of the studies.
        name: of this one; from a fingerprint of all that its values depend on.
        higher: whether a higher value is better.
        settings: sampler's seed and pruning.
        space: what is searched.
        steps: of a trial, for the pruner.
        owner: who works, for messages of locks.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        higher: bool,
        settings: TuneConfig,
        space: Space,
        steps: Sequence[int],
        owner: str,
    ) -> None:
        self.name = name
        self._folder, self._owner = folder, owner
        self._higher, self._settings, self._space, self._steps = higher, settings, space, steps
        self._optuna = require("optuna", extra="tune")
        self._blobs = LocalBlobs(folder)
        self._token = secrets.token_hex(8)
        self._slot = -1
        self._held = ExitStack()
        self._study: Any = None

    @property
    def database(self) -> Path:
        """The SQLite file, which `optuna-dashboard` and Optuna itself can read."""
        return self._folder / _DATABASE

    def __enter__(self) -> Self:
        """Take a slot, and make or open database and study."""
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        try:
            self._take_slot()
            with self.locked():
                self._open()
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Let the slot go; a trial that has not ended is then known as interrupted."""
        self._held.close()

    def locked(self) -> AbstractContextManager[Any]:
        """Keep all other processes out of the study's folder for the length of a `with` block."""
        return self._blobs.lock("studies", wait_s=_WAIT_S, owner=self._owner)

    def _take_slot(self) -> None:
        for slot in range(_MOST_WORKERS):
            try:
                self._held.enter_context(self._blobs.lock(f"workers/{slot}", wait_s=0, owner=self._owner))
            except BusyError:
                continue
            self._slot = slot
            return
        raise BusyError(f"{_MOST_WORKERS} processes work in {self._folder} already; wait until one ends")

    def _open(self) -> None:
        storages = self._optuna.storages
        options = {"connect_args": {"timeout": _DATABASE_WAIT_S}}
        if not self.database.exists():
            # Optuna makes its tables in many steps; a database whose making was cut off would never work again.
            unfinished = self.database.with_name(f".{_DATABASE}.tmp")
            unfinished.unlink(missing_ok=True)
            storages.RDBStorage(f"sqlite:///{unfinished}").engine.dispose()
            unfinished.replace(self.database)
        try:
            storage = storages.RDBStorage(f"sqlite:///{self.database}", engine_kwargs=options)
            self._study = self._optuna.create_study(
                study_name=self.name,
                storage=storage,
                direction="maximize" if self._higher else "minimize",
                pruner=self._pruner(),
                load_if_exists=True,
            )
        except Exception as error:  # what SQLAlchemy and Optuna raise for a file that is none of theirs
            first = str(error).strip().split("\n", 1)[0][:300]
            raise StoreError(
                f"the studies in {self.database} cannot be opened: {first}; move the file away or name another "
                "`tune.storage`"
            ) from error
        self._held.callback(storage.engine.dispose)

    def _pruner(self) -> Any:
        pruners = self._optuna.pruners
        if self._settings.pruning == "median":
            return pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS)
        if self._settings.pruning == "halving":
            return pruners.SuccessiveHalvingPruner(min_resource=self._steps[0], reduction_factor=3)
        return pruners.NopPruner()

    # --- trials

    @property
    def optuna_study(self) -> Any:
        """Optuna's own study."""
        return self._study

    def trials(self, *states: str) -> list[Any]:
        """Return Optuna's records of trials, of these states if any are named."""
        found = self._study.get_trials(deepcopy=False)
        return [trial for trial in found if not states or trial.state.name in states]

    def spent(self) -> int:
        """Return how many trials of the budget are done or under way; interrupted ones count once, when done again."""
        again = self._queued_again()
        return sum(trial.state.name != "WAITING" and trial.number not in again for trial in self.trials())

    def default(self) -> Any:
        """Return the finished trial of the candidate as it stands, `None` if there is none yet."""
        return next((t for t in self.trials("COMPLETE") if t.user_attrs.get("default")), None)

    def best(self) -> Any:
        """Return the best finished trial, the earliest of equals; `None` if there is none yet."""
        sign = 1 if self._higher else -1
        return max(self.trials("COMPLETE"), key=lambda trial: (sign * trial.value, -trial.number), default=None)

    def claim(self, budget: int) -> Claim | None:
        """Begin the next trial, `None` where the budget is spent."""
        with self.locked():
            self._queue_interrupted()
            default = [t for t in self.trials("COMPLETE", "RUNNING", "WAITING") if t.user_attrs.get("default")]
            if not default:
                self._study.enqueue_trial(self._space.start(), user_attrs={"default": True})
            if self.spent() >= budget:
                return None
            self._study.sampler = self._sampler()
            trial = self._study.ask()
            trial.set_user_attr("worker", f"{self._slot}:{self._token}")
            is_default = bool(trial.user_attrs.get("default"))
            places = self._space.start()
            # The candidate as it stands may lie outside the space in some parameter: the trial is then without it.
            wanted = [d for d in self._space.dimensions if not is_default or d.name in places]
            values = {} if is_default else dict(self._space.fixed)
            for dimension in wanted:
                stored = dimension.suggest(trial)
                if not is_default:
                    values[dimension.name] = dimension.value(stored)
            return Claim(trial.number, values, is_default, trial)

    def _sampler(self) -> Any:
        """Return a sampler whose draws depend on seed and earlier trials alone: a resumed search goes on as it was."""
        text = f"{self._settings.seed}:{self.spent()}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna 4 calls `constant_liar` experimental
            return self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def report(self, claim: Claim, step: int, value: float) -> bool:
        """Note how a trial goes; say whether it should be given up."""
        with self.locked():
            claim.trial.report(value, step)
            return bool(not claim.is_default and step != self._steps[-1] and claim.trial.should_prune())

    def complete(self, claim: Claim, scored: Scored) -> None:
        """End a trial with what it came to; keep its answers if it is the best or the candidate as it stands."""
        with self.locked():
            sign, best = (1 if self._higher else -1), self.best()
            if claim.is_default or best is None or sign * scored.value > sign * best.value:
                self._keep(claim.number, scored)
            claim.trial.set_user_attr("seconds", scored.seconds)
            claim.trial.set_user_attr("metrics", scored.metrics)
            self._study.tell(claim.trial, scored.value)
            self._forget()

    def prune(self, claim: Claim, seconds: float) -> None:
        """End a trial that is given up."""
        with self.locked():
            claim.trial.set_user_attr("seconds", seconds)
            self._study.tell(claim.trial, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, claim: Claim, why: str) -> None:
        """End a trial whose parameters do not work."""
        with self.locked():
            claim.trial.set_user_attr("why", why[:1000])
            self._study.tell(claim.trial, state=self._optuna.trial.TrialState.FAIL)

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON-able value with the study."""
        self._study.set_user_attr(key, value)

    def noted(self, key: str) -> Any:
        """Return what `note` kept, `None` if nothing."""
        return self._study.user_attrs.get(key)

    # --- interrupted trials

    def _queued_again(self) -> dict[int, int]:
        """Return the number of each interrupted trial that was queued again, with its successor's."""
        return {t.user_attrs["again"]: t.number for t in self.trials() if "again" in t.user_attrs}

    def interrupted(self) -> int:
        """Return how many trials were interrupted and queued again."""
        return len(self._queued_again())

    def _queue_interrupted(self) -> None:
        """Mark trials of ended processes as failed and queue them again; done in an order that may end anywhere."""
        known = self._queued_again()
        for trial in self.trials("RUNNING"):
            if self._is_alive(str(trial.user_attrs.get("worker", ""))):
                continue
            attempt = int(trial.user_attrs.get("attempt", 1))
            if trial.number not in known and attempt < _MOST_ATTEMPTS:
                kept = {"again": trial.number, "attempt": attempt + 1}
                kept |= {"default": True} if trial.user_attrs.get("default") else {}
                self._study.enqueue_trial(dict(trial.params), user_attrs=kept)
            self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def _is_alive(self, worker: str) -> bool:
        """Say whether the process that a trial names still holds its slot; a trial without one was never begun."""
        slot, _, token = worker.partition(":")
        if not token:
            return False
        if int(slot) == self._slot:
            return token == self._token
        try:
            with self._blobs.lock(f"workers/{slot}", wait_s=0, owner=self._owner):
                return False
        except BusyError:
            return True

    # --- answers

    def answers(self, number: int) -> tuple[Answers, NDArray[Any]] | None:
        """Return the answers of a trial and the targets, if they were kept."""
        try:
            with np.load(self._path(number), allow_pickle=False) as file:
                probabilities: FloatArray = file["probabilities"]
                return Answers(probabilities, file["decided"]), file["targets"]
        except (OSError, ValueError, KeyError):
            return None

    def _keep(self, number: int, scored: Scored) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, targets=scored.targets, **scored.answers._asdict())
        self._blobs.write(f"answers/{self.name}/{number}.npz", buffer.getvalue())

    def _forget(self) -> None:
        """Delete the answers of all trials but two."""
        kept = {str(t.number) for t in (self.best(), self.default()) if t is not None}
        for key in self._blobs.list(f"answers/{self.name}"):
            if Path(key).stem not in kept:
                self._blobs.delete(key)

    def _path(self, number: int) -> Path:
        return self._folder / "answers" / self.name / f"{number}.npz"

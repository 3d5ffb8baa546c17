"""What is served: one loaded version, how it is tried, and what the doors ask of all that is served."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from tamiz.errors import ModelNotFoundError, PackageError, TamizError
from tamiz.metrics.choice import Best, Mode
from tamiz.model import PARITY_TEXTS, Model

__all__ = [
    "Listener",
    "ModelCard",
    "Models",
    "Served",
    "Trial",
    "check_parity",
    "cost_of",
    "load_package",
    "tried",
    "unknown_name",
    "warm_up",
]

INLINE_BUDGET_S = 0.005
INLINE_MOST = 20_000
TEXT_COST = 100  # characters that a text costs besides its own: a thousand empty texts are work too
WARM_UP_TEXT = "A text to warm up with, of the length of a short paragraph, so that its time tells something. " * 10
SHORT_TEXT = WARM_UP_TEXT[:100]
TOGETHER = 8
LEAST_GAIN = 1.3  # texts together must be this much faster than one by one, or waiting for company does not pay
WORTH_WAITING_S = 0.001  # a text that takes less is answered before its company has come
PARITY_TOLERANCE = 0.01  # of a probability; 8-bit weights round differently on other processors


@dataclass(frozen=True, slots=True)
class Served:
    """One loaded version.

    Attributes:
        name: name under which it is served.
        version: its version in the store, if it has one.
        model: the model itself.
        inline_cost: the most that `cost_of` may be for an answer on the event loop, which it holds up meanwhile.
        pace_s: about the seconds that a unit of cost takes.
        batched: whether texts of several requests are faster together.
    """

    name: str
    version: str | None
    model: Model
    inline_cost: int
    pace_s: float = 1e-6
    batched: bool = False


class Trial(NamedTuple):
    """What trying a model told.

    Attributes:
        inline_cost: the cost up to which it answers within the event loop's budget.
        pace_s: seconds for a unit of cost.
        batched: whether texts of several requests should be answered together.
    """

    inline_cost: int
    pace_s: float
    batched: bool


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a served model besides what it answers."""

    name: str
    served: Served | None
    aliases: dict[str, str]
    versions: list[str]


Listener = Callable[[Sequence[Served]], None]


class Models(Protocol):
    """The models behind the doors."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names that are, or will be, served; the default model first."""

    @property
    def default(self) -> str:
        """Name that doors without a model in their path use."""

    @property
    def ready(self) -> bool:
        """Whether every model has been loaded and the server is not about to stop."""

    def get(self, name: str | None = None) -> Served:
        """Return what is served under `name` now (`None`: the default model)."""

    def served(self) -> tuple[Served, ...]:
        """Return all that is served now."""

    def challenger(self, name: str) -> Served | None:
        """Return the version that sees copies of the requests to `name`, if there is one."""

    def card(self, name: str) -> ModelCard:
        """Describe a model; may read the store."""

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with all that is served, now and after each swap."""

    def start(self) -> None:
        """Load, and follow changes, in the background."""

    def stop(self) -> None:
        """End what `start` began."""

    def drain(self) -> None:
        """Report not ready from now on, and go on answering."""

    def best(self, name: str, metric: str, mode: Mode | None) -> Best:
        """Return the version with the best figure in the store."""

    def deploy(self, name: str, *, version: str | None, alias: str | None, by: str, best: Best | None = None) -> Served:
        """Make a version the champion and serve it; returns once it is served."""

    def rollback(self, name: str, *, by: str) -> Served:
        """Go back to the previous champion; returns once it is served."""


def cost_of(texts: Sequence[str]) -> int:
    """Return about how much work the texts are, in characters."""
    return sum(map(len, texts)) + TEXT_COST * len(texts)


def tried(name: str, version: str | None, model: Model) -> Served:
    """Return a loaded model as it is served, after its parity check and its warm-up.

    Raises:
        PackageError: it does not answer as it must.
    """
    check_parity(model)
    trial = warm_up(model)
    return Served(name, version, model, trial.inline_cost, trial.pace_s, trial.batched)


def check_parity(model: Model) -> None:
    """Compare the model's answers with those that were recorded when its package was made.

    Raises:
        PackageError: they are not the same: another library or processor makes another model of it.
    """
    recorded = np.array(model.manifest.parity, np.float64)
    if not recorded.size:
        return
    found = model.predict_proba(PARITY_TEXTS)
    if recorded.shape != found.shape:
        raise PackageError(f"parity: {recorded.shape} probabilities are recorded, and the model gives {found.shape}")
    apart = np.abs(recorded - found).max()
    if not apart <= PARITY_TOLERANCE:
        raise PackageError(
            f"parity: a probability is {apart:.3g} from the one recorded when the package was made; allowed: "
            f"{PARITY_TOLERANCE}. Compare the versions of libraries in model.json with those installed, or train again"
        )


def warm_up(model: Model) -> Trial:
    """Try a model: that it answers, how long it takes, and whether texts are faster together.

    Raises:
        PackageError: it does not answer as it must.
    """
    predictions = model.predict([WARM_UP_TEXT])
    shape = (len(model.labels),)
    if len(predictions) != 1 or predictions[0].probabilities.shape != shape:
        raise PackageError(f"the model does not give one row of {shape[0]} probabilities for one text")
    if not np.isfinite(predictions[0].probabilities).all():
        raise PackageError("the model gives probabilities that are not numbers")
    pace_s = _least_s(model, [WARM_UP_TEXT]) / cost_of([WARM_UP_TEXT])
    short_s = _least_s(model, [SHORT_TEXT])
    gain = TOGETHER * short_s / _least_s(model, [SHORT_TEXT] * TOGETHER)
    affordable = min(INLINE_BUDGET_S / pace_s, INLINE_MOST)
    return Trial(int(affordable), pace_s, gain >= LEAST_GAIN and short_s >= WORTH_WAITING_S)


def _least_s(model: Model, texts: Sequence[str]) -> float:
    """Return the seconds of the quickest of three answers; the others were held up by something else."""
    times_s = []
    for _ in range(3):
        begun = time.perf_counter()
        model.predict(texts)
        times_s.append(time.perf_counter() - begun)
    return max(min(times_s), 1e-9)


def unknown_name(names: Sequence[str]) -> ModelNotFoundError:
    """Return the error for a name that is not among `names`; it does not repeat the name, which is the caller's."""
    return ModelNotFoundError(f"No model of this name is served here; allowed: {', '.join(names) or 'none'}.")


def load_package(folder: Path) -> Model:
    """Load a package and ask it once, whatever goes wrong in that being the package's fault.

    Raises:
        PackageError: it cannot be loaded, or does not answer.
    """
    try:
        model = Model.load(folder)
        model.predict([""])  # weights of a wrong shape show when they are first used
        return model
    except TamizError:
        raise
    except Exception as error:
        raise PackageError(f"the model package cannot be loaded: {type(error).__name__}") from error

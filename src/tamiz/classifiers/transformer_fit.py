"""Fine-tune an encoder, export it, and settle how it reads and in which form it serves."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.classifiers.transformer_checkpoints import Checkpoints
from tamiz.classifiers.transformer_choices import Judge, Parity, check_metric, choose_policy, parity
from tamiz.classifiers.transformer_loop import FineTuning, Outcome
from tamiz.classifiers.transformer_network import load_network, one_pad, threads
from tamiz.classifiers.transformer_params import TransformerParams
from tamiz.classifiers.transformer_reading import MODEL, TOLERANCE, Reader, Rows
from tamiz.encoders.export import export
from tamiz.encoders.find import Weights, find
from tamiz.encoders.forms import make_form
from tamiz.encoders.runtime import TOKENIZER, OnnxModel, Tokenizer, open_model
from tamiz.encoders.trace import readable
from tamiz.errors import ConfigError
from tamiz.extras import require
from tamiz.types import EARLIER_SECONDS, BoolArray, Point, Progress, Task, Validation

__all__ = ["FineTuned", "Fitter", "Settled"]

_SMALL = "int8"  # the form that `auto` tries

_POLICY_TEXTS = 1000  # of validation, by which the policy for long texts is chosen
_PARITY_TEXTS = 500
_EXPORT_TEXTS = 16
_EXPORT_SHIFT = 1e-3  # of a probability, between PyTorch and the exported model


@dataclass(frozen=True)
class Settled:
    """What a fit settled that predicting and a refit need.

    Attributes:
        policy: what is read of long texts when predicting.
        max_length: most tokens of a piece, special ones included.
        prefix: stands before every text.
        epochs: how many were the best; `None` without validation.
        form: of the model for serving.
    """

    policy: str
    max_length: int
    prefix: str
    epochs: float | None
    form: str


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model.

    Attributes:
        settled: what was chosen.
        history: figures by step.
        figures: what they come to.
        facts: what the record of the model should say.
    """

    settled: Settled
    history: list[Point]
    figures: dict[str, float]
    facts: dict[str, Any]


class Fitter:
    """One fit.

    Args:
        params: how.
        labels: labels in order.
        task: what kind of answer is given.
        seed: of head, order, dropout and samples.
        progress: told how far the fit has come.
        before: what an earlier fit settled, which is not chosen again.

    Raises:
        ConfigError: the task has no such metric, or none that the training can know.
        MissingExtraError: the runtime of the form is not installed.
    """

    def __init__(
        self,
        params: TransformerParams,
        labels: tuple[str, ...],
        task: Task,
        *,
        seed: int,
        progress: Progress | None,
        before: Settled | None,
    ) -> None:
        check_metric(params.metric, task, labels)
        if params.form == "bf16":
            require("openvino", extra="openvino")  # said now rather than after the training
        self._params, self._labels, self._task = params, labels, task
        self._seed, self._progress, self._before = seed, progress, before
        self._loop: FineTuning | None = None

    def history(self) -> list[Point]:
        """Return the figures so far, by step."""
        return self._loop.outcome.history() if self._loop else []

    def fit(
        self,
        texts: Sequence[str],
        has: BoolArray,
        targets: NDArray[Any],
        validation: Validation | None,
        *,
        target: Path,
        checkpoints: Path | None,
    ) -> FineTuned:
        """Fine-tune on texts and write model and tokenizer to the folder `target`.

        Args:
            texts: the examples.
            has: which labels each has, `(n, k)`.
            targets: the same as `fit` of a classifier has them.
            validation: for early stopping and choices.
            target: an empty folder.
            checkpoints: where the state of the training is kept, if anywhere.

        Raises:
            ConfigError: the model, or what is asked of it, does not fit; validation does not define the metric.
            SourceError: the encoder's files are damaged.
            MissingExtraError: the encoder or a library is not on this machine.
        """
        held = self._held(validation)
        weights = find(self._params.encoder, progress=self._progress)
        texts, has, targets = self._sample(texts, has, targets, self._params.train_size)
        with threads(self._params.num_threads), _seeded(self._seed):
            network = load_network(weights.folder, self._labels, self._params)
            reader = self._reader(weights, network)
            self._say("tokenising")
            outcome, loop = self._train(network, reader, weights, texts, has, held, checkpoints)
            shutil.copyfile(weights.folder / TOKENIZER, target / TOKENIZER)
            self._say("exporting")
            _export(network, weights.folder, target)
            known = held or self._drawn(texts, targets, _PARITY_TEXTS)
            exported = self._exported_shift(loop, target / MODEL, reader, known)
        policy, policies = self._policy(target / MODEL, reader, held)
        form, gate = self._form(target, reader.by(policy), known)
        epochs = None if outcome.best_step is None else outcome.best_step / self._per_epoch
        settled = Settled(policy, reader.max_length, reader.prefix, epochs, form)
        facts = {
            "encoder": weights.name,
            "encoder_sha256": weights.sha256,
            "device": loop.device,
            "precision": loop.precision,
            "steps": outcome.step,
            "long_texts": policy,
            "long_texts_validation": policies,
            "form": form,
            "export_shift": exported,
            "parity": gate,
        }
        return FineTuned(settled, outcome.history(), self._figures(outcome, loop.earlier_s), facts)

    def _sample(
        self, texts: Sequence[str], has: BoolArray, targets: NDArray[Any], most: int | None
    ) -> tuple[Sequence[str], BoolArray, NDArray[Any]]:
        if most is None or len(texts) <= most:
            return texts, has, targets
        chosen = np.sort(np.random.default_rng(self._seed).permutation(len(texts))[:most])
        return [texts[place] for place in chosen.tolist()], has[chosen], targets[chosen]

    def _held(self, validation: Validation | None) -> Validation | None:
        if validation is None or not len(validation.texts):
            return None
        held = self._drawn(validation.texts, np.asarray(validation.targets), self._params.validation_size)
        if self._params.metric not in Judge(held.targets, self._task, self._labels).defined():
            raise ConfigError(
                f"metric: {self._params.metric!r} is undefined on the {len(held.texts)} validation texts, which have "
                "too few different labels; take log_loss, or a larger validation"
            )
        return held

    def _drawn(self, texts: Sequence[str], targets: NDArray[Any], most: int | None) -> Validation:
        """Return so many examples in random order: a table may be sorted by label, and later the first are taken."""
        order = np.random.default_rng(self._seed).permutation(len(texts))[:most]
        return Validation([texts[place] for place in order.tolist()], targets[order])

    def _reader(self, weights: Weights, network: Any) -> Reader:
        params, config = self._params, network.config
        limit = readable(network, getattr(config, "max_position_embeddings", None)) or params.max_length
        tokenizer = Tokenizer(weights.folder / TOKENIZER)
        tokenizer.check(len(network.get_input_embeddings().weight))
        length = min(params.max_length, limit)
        policy = params.train_long_texts if params.long_texts == "auto" else params.long_texts
        about = (params.window_overlap, params.max_windows, params.window_pooling)
        return Reader(tokenizer, weights.prefix, length, policy, *about)

    def _train(
        self,
        network: Any,
        reader: Reader,
        weights: Weights,
        texts: Sequence[str],
        has: BoolArray,
        held: Validation | None,
        folder: Path | None,
    ) -> tuple[Outcome, FineTuning]:
        rows, params = reader.rows(texts), self._params
        self._per_epoch = -(-len(rows.ids) // (params.batch_size * params.accumulate))
        evaluate = None
        if held is not None:
            held_rows, judge = reader.rows(held.texts), Judge(held.targets, self._task, self._labels)

            def evaluate(predict: Any) -> dict[str, float]:
                return judge(reader.probabilities(predict(held_rows.ids), held_rows, self._task))

        checkpoints = Checkpoints(folder, self._identity(weights, rows, has), params.checkpoint_seconds)
        pad = one_pad(network, reader.tokenizer)
        about: dict[str, Any] = {"pad": pad, "seed": self._seed, "progress": self._progress}
        self._loop = loop = FineTuning(network, params, self._task, checkpoints=checkpoints, **about)
        stop = self._before.epochs if self._before else None
        outcome = loop.run(rows.ids, has[rows.owners], evaluate, stop_after=stop)
        network.to("cpu")
        return outcome, loop

    def _identity(self, weights: Weights, rows: Rows, has: BoolArray) -> str:
        """Return the fingerprint of a training: its weights follow from this alone."""
        found = hashlib.sha256(has[rows.owners].tobytes())
        for ids in rows.ids:
            found.update(ids.tobytes())
        params = self._params.model_dump(exclude={"checkpoint_seconds", "form", "parity_agreement", "parity_shift"})
        settled = asdict(self._before) if self._before else None
        about = [params, weights.sha256, self._labels, str(self._task), self._seed, settled]
        found.update(json.dumps([*about, require("torch", extra="transformers").__version__]).encode())
        return found.hexdigest()

    def _exported_shift(self, loop: FineTuning, path: Path, reader: Reader, known: Validation) -> float:
        """Return how far the exported model is from the network.

        Raises:
            ConfigError: too far; the export does not know this architecture well enough.
        """
        rows = reader.rows(known.texts[:_EXPORT_TEXTS])
        # Cut to several lengths, so that some are filled up, and asked of PyTorch one by one.
        cut = [ids[: max(1, len(ids) // (1 + place % 4) - place % 3)] for place, ids in enumerate(rows.ids)]
        rows = replace(rows, ids=cut)
        p = reader.answers(OnnxModel(path, threads=self._params.num_threads), rows, self._task)
        alone = np.concatenate([loop.logits([ids], exact=True) for ids in rows.ids])
        trained = reader.probabilities(alone, rows, self._task)
        shift = float(np.abs(p - trained).max())
        if shift > _EXPORT_SHIFT:
            raise ConfigError(
                f"encoder: {self._params.encoder!r} was trained, but exported it gives probabilities that differ by "
                f"{shift:.2g} (allowed: {_EXPORT_SHIFT:g}); take another architecture, such as BERT or RoBERTa"
            )
        return shift

    def _policy(self, path: Path, reader: Reader, held: Validation | None) -> tuple[str, dict[str, float]]:
        if self._before is not None:
            return self._before.policy, {}
        if self._params.long_texts != "auto" or held is None:
            return reader.policy, {}
        self._say("choosing what is read of long texts")
        judge = Judge(held.targets[:_POLICY_TEXTS], self._task, self._labels)
        run = OnnxModel(path, threads=self._params.num_threads).run
        tokens = reader.tokens(held.texts[:_POLICY_TEXTS])
        return choose_policy(lambda ids: _logits(run, ids), reader, tokens, judge, self._params.metric)

    def _form(self, folder: Path, reader: Reader, known: Validation) -> tuple[str, dict[str, Any]]:
        """Make the smaller form and keep it in place of fp32 if it answers the same; return form and figures."""
        form = _SMALL if self._params.form == "auto" else self._params.form
        if form == "fp32":
            return form, {}
        self._say(f"comparing {form} with fp32")
        exact, small = folder / MODEL, folder / f"small-{MODEL}"
        make_form(exact, small, form)
        rows = reader.rows(known.texts[:_PARITY_TEXTS])
        whole, other = (
            open_model(path, form=one, threads=self._params.num_threads)
            for path, one in ((exact, "fp32"), (small, form))
        )
        p = reader.answers(whole, rows, self._task)
        found: Parity = parity(p, lambda ids: _logits(other.run, ids), reader, rows, self._task)
        kept = found.within(self._params.parity_agreement, self._params.parity_shift, TOLERANCE)
        tolerance = {
            "agreement": self._params.parity_agreement,
            "shift_99": self._params.parity_shift,
            "alone": TOLERANCE,
        }
        if kept:
            small.replace(exact)
            exact.with_name(f"{exact.name}.data").unlink(missing_ok=True)  # the fp32 weights of a large model
        small.unlink(missing_ok=True)
        return form if kept else "fp32", {"form": form, "kept": kept, **asdict(found), "tolerance": tolerance}

    def _figures(self, outcome: Outcome, earlier_s: float) -> dict[str, float]:
        figures = {EARLIER_SECONDS: earlier_s} if earlier_s else {}
        if outcome.best_step is None:
            return figures
        best = outcome.best()
        figures["best_epoch"] = outcome.best_step / self._per_epoch
        return {**figures, "best_val_f1": best["f1_macro"]} if "f1_macro" in best else figures

    def _say(self, what: str) -> None:
        if self._progress:
            self._progress(what)


def _logits(run: Any, ids: Sequence[Any]) -> Any:
    return np.asarray(run(ids), np.float64)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch, and leave its generators as they were afterwards."""
    torch = require("torch", extra="transformers")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _export(network: Any, source: Path, target: Path) -> None:
    """Write a network as ONNX, through a folder of its own."""
    folder = target / "weights"
    network.save_pretrained(folder)
    shutil.copyfile(source / TOKENIZER, folder / TOKENIZER)
    export(folder, target / MODEL, head="classification")
    shutil.rmtree(folder)

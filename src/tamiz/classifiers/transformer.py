"""Fine-tuned encoders: PyTorch to train them, ONNX Runtime to ask them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from tamiz.classifiers import base
from tamiz.classifiers.transformer_params import TransformerParams
from tamiz.classifiers.transformer_reading import MODEL, TOLERANCE, Reader
from tamiz.encoders.runtime import TOKENIZER, Tokenizer, copy_model, open_model
from tamiz.errors import PackageError, SourceError
from tamiz.extras import require
from tamiz.types import FloatArray, Point, Progress, Task, Validation

if TYPE_CHECKING:
    from tamiz.classifiers.transformer_fit import FineTuned, Fitter, Settled

__all__ = ["TransformerClassifier"]

_SETTLED = "transformer.json"
_CHUNK = 2000  # texts whose tokens are held together


class TransformerClassifier(base.Family[TransformerParams]):
    """An encoder with a classification head, fine-tuned as a whole.

    Args:
        labels: labels in order.
        task: what kind of answer is given.
        seed: of the head, the order of the texts and dropout, unless the parameters have one.
        params: see `TransformerParams`.

    Source: Devlin, Chang, Lee & Toutanova (2019), "BERT: pre-training of deep bidirectional transformers for language
    understanding", section 4.
    """

    Params = TransformerParams
    tolerance = TOLERANCE

    def __init__(self, labels: Sequence[str], task: Task, *, seed: int = 0, **params: Any) -> None:
        super().__init__(labels, task, seed=seed, **params)
        if self.params.training_seed is not None:
            self._seed = self.params.training_seed
        self._before: Settled | None = None
        self._checkpoints: Path | None = None
        self._fitter: Fitter | None = None  # during a fit
        self._fitted: FineTuned | None = None
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._folder: Path | None = None
        self._facts: dict[str, Any] = {}
        self._settled: dict[str, Any] = {}

    def keep_in(self, folder: Path | None) -> None:
        """Keep the state of the next fit in `folder`."""
        self._checkpoints = folder

    def fit(
        self,
        texts: Sequence[str],
        targets: NDArray[Any],
        *,
        validation: Validation | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Fine-tune on texts; `validation` decides when to stop, how long texts are read and in which form it serves.

        Raises:
            LabelError: targets do not fit.
            ConfigError: the model, or what is asked of it, does not fit.
            MissingExtraError: the model, PyTorch or another library is not on this machine.
        """
        has = base.indicators(targets, len(self.labels), self.task, len(texts))
        require("torch", extra="transformers")
        from tamiz.classifiers.transformer_fit import Fitter

        about: dict[str, Any] = {"seed": self._seed, "progress": progress, "before": self._before}
        own = tempfile.TemporaryDirectory(prefix="tamiz-")
        self._fitter = Fitter(self.params, self.labels, self.task, **about)
        where: dict[str, Any] = {"target": Path(own.name), "checkpoints": self._checkpoints}
        try:
            self._fitted = self._fitter.fit(texts, has, np.asarray(targets), validation, **where)
        finally:
            self._fitter = None
        self._own, self._facts, self._settled = own, self._fitted.facts, asdict(self._fitted.settled)
        self._open(Path(own.name))
        return self

    def refit(
        self, texts: Sequence[str], targets: NDArray[Any], *, seed: int, progress: Progress | None = None
    ) -> Self:
        """Return a new classifier trained for as many epochs as were best, which reads long texts as this one does."""
        from tamiz.classifiers.transformer_fit import Settled

        new = self.anew(seed)
        new._before = Settled(**self._settled)
        new.keep_in(self._checkpoints)
        return new.fit(texts, targets, progress=progress)

    def history(self) -> Sequence[Point]:
        """Return training loss and validation figures by step, during a fit those so far; none if loaded."""
        if self._fitter is not None:
            return self._fitter.history()
        return self._fitted.history if self._fitted else []

    def figures(self) -> Mapping[str, float]:
        """Return the best epoch and its macro-F1 on validation; none for a loaded classifier."""
        return self._fitted.figures if self._fitted else {}

    def facts(self) -> Mapping[str, Any]:
        """Return which encoder it is, how it was trained, what it reads, and how its form compares with fp32."""
        return self._facts

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        """Return probabilities `(n, k)`."""
        if self._folder is None:
            raise RuntimeError("the classifier is not fitted; call fit first")
        parts = [self._probabilities(texts[start : start + _CHUNK]) for start in range(0, len(texts), _CHUNK)]
        return np.vstack([np.empty((0, len(self.labels))), *parts])

    def _probabilities(self, texts: Sequence[str]) -> FloatArray:
        rows = self._reader.rows(texts)
        return self._reader.answers(self._model, rows, self.task)

    def _open(self, folder: Path) -> None:
        """Make ready to predict with the model in a folder."""
        tokenizer, params, settled = Tokenizer(folder / TOKENIZER), self.params, self._settled
        self._model = open_model(folder / MODEL, form=settled["form"], threads=params.num_threads)
        about = (params.window_overlap, params.max_windows, params.window_pooling)
        self._reader = Reader(tokenizer, settled["prefix"], settled["max_length"], settled["policy"], *about)
        self._folder = folder

    def save(self, folder: Path) -> None:
        """Write model, tokenizer, parameters and what was settled."""
        if self._folder is None:
            raise RuntimeError("the classifier is not fitted; call fit first")
        self.write_settings(folder)
        copy_model(self._folder, folder, MODEL)
        record = {"settled": self._settled, "facts": self._facts}
        (folder / _SETTLED).write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; neither PyTorch nor transformers is needed.

        Raises:
            PackageError: a file is missing or damaged.
            MissingExtraError: ONNX Runtime or tokenizers is not installed.
        """
        model = cls.from_settings(folder)
        try:
            record = json.loads((folder / _SETTLED).read_text(encoding="utf-8"))
            model._settled, model._facts = record["settled"], record["facts"]
            model._open(folder)
        except (OSError, ValueError, KeyError, TypeError, SourceError) as error:
            raise PackageError(f"the fine-tuned model's files are missing or damaged: {error}") from error
        return model

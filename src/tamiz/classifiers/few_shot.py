"""Logistic regression over the embeddings of a frozen encoder: for a handful of examples a label.

The encoder is not trained. A package holds all of it; serving needs ONNX Runtime and tokenizers, and no network.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tamiz.classifiers import base
from tamiz.classifiers.head import Fit, Head
from tamiz.encoders.embedding import MODEL, Embedder
from tamiz.encoders.runtime import copy_model
from tamiz.errors import PackageError, SourceError
from tamiz.types import FloatArray, Progress, Task, Validation

__all__ = ["FewShotClassifier"]

_HEAD, _ABOUT = "head.npz", "few_shot.json"


class FewShotParams(base.Params):
    """Parameters of the `few_shot` family."""

    encoder: Annotated[str, Field(min_length=1)] = "minilm"
    """Encoder: a name that `tamiz models` lists (`minilm` for English, `e5-small` for about a hundred languages), a
    folder in Hugging Face layout, or a hub id such as `organisation/name@revision`."""
    prefix: str | None = None
    """Text put before every text; by default what the encoder expects."""
    max_length: Annotated[int, Field(ge=8)] = 256
    """Tokens that are read of a text, from its beginning; at most as many as the encoder can."""
    form: Literal["fp32", "int8", "bf16", "weight8"] = "int8"
    """Form of the encoder, in training and serving alike: `int8`, a quarter of the size of `fp32` and about twice as
    fast; `fp32`; `bf16`, two fifths of the size, the fastest on processors with bfloat16 arithmetic (AMX, AVX512-BF16),
    run by OpenVINO (extra `openvino`); `weight8`, a quarter of the size and as fast as `fp32`."""
    C: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Inverse strength of the L2 penalty; `auto`: the one of 1, 3, 10, 30, 100 and 300 with the lowest log loss in
    cross-validation on the training examples, or 30 where they are too few for it."""
    class_weight: Literal["balanced"] | None = None
    """`balanced` weights labels by the inverse of their frequency."""
    remember: bool = True
    """Keep the embeddings of training texts in the user's cache, by the SHA-256 of their tokens, for the next fit."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the encoder; 0 for all cores."""


class FewShotClassifier(base.Family[FewShotParams]):
    """A frozen encoder with a logistic head.

    Args:
        labels: labels in order.
        task: what kind of answer is given.
        seed: of the folds that choose `C`.
        params: see `FewShotParams`.

    Source: Reimers & Gurevych (2019), "Sentence-BERT", section 5: logistic regression over fixed sentence embeddings.
    """

    Params = FewShotParams
    tolerance = 1e-6

    def __init__(self, labels: Sequence[str], task: Task, *, seed: int = 0, **params: Any) -> None:
        super().__init__(labels, task, seed=seed, **params)
        self.head_: Head | None = None
        self._embedder: Embedder | None = None
        self._folder: Path | None = None  # of the encoder's files
        self._about: dict[str, Any] = {}

    def fit(
        self,
        texts: Sequence[str],
        targets: NDArray[Any],
        *,
        validation: Validation | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Embed the texts and fit the head; `validation` is not used.

        Raises:
            LabelError: targets do not fit.
            ConfigError: there is no such encoder.
            SourceError: the encoder's files are damaged.
            MissingExtraError: the encoder or a library is not on this machine; the message says how to get it.
        """
        has = base.indicators(targets, len(self.labels), self.task, len(texts))
        embedder = self.prepare(progress)
        x = np.asarray(embedder(texts, progress), np.float64)
        how = Fit(self.task, self.params.class_weight, self._seed)
        strength = how.strength(x, has, progress) if self.params.C == "auto" else self.params.C
        self.head_ = how.head(x, has, strength)
        self._about["C"] = strength
        return self

    def prepare(self, progress: Progress | None = None) -> Embedder:
        """Find the encoder, make it ready and return what embeds training texts.

        Raises:
            ConfigError: there is no such encoder.
            SourceError: the encoder's files are damaged.
            MissingExtraError: the encoder or a library is not on this machine; the message says how to get it.
        """
        from tamiz.encoders.find import find
        from tamiz.encoders.memory import ready

        weights = find(self.params.encoder, progress=progress)
        self._folder = ready(weights, self.params.form, progress)
        prefix = weights.prefix if self.params.prefix is None else self.params.prefix
        self._about = {"encoder": weights.sha256, "prefix": prefix, "max_length": self.params.max_length}
        self._about["form"] = self.params.form
        self._embedder = self._open(self._folder)
        return self._embedder.remembering() if self.params.remember else self._embedder

    def remembering(self) -> Self:
        """Return a classifier that embeds each text once, unless `remember` is off; it shares all with this one."""
        if self._embedder is None or not self.params.remember:
            return self
        other = copy.copy(self)
        other._embedder = self._embedder.remembering()
        return other

    def _open(self, folder: Path) -> Embedder:
        about = {name: self._about[name] for name in ("prefix", "max_length", "form")}
        return Embedder(folder, threads=self.params.num_threads, **about)

    def facts(self) -> Mapping[str, Any]:
        """Return the encoder's checksum and form, what is put before texts, the tokens read, and `C`."""
        return dict(self._about)

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        """Return probabilities `(n, k)`; nothing is remembered of the texts but by what `remembering` returns."""
        if self._embedder is None or self.head_ is None:
            raise RuntimeError("the classifier is not fitted; call fit first")
        if not len(texts):
            return np.empty((0, len(self.labels)))
        return base.probabilities(self.head_.scores(np.asarray(self._embedder(texts), np.float64)), self.task)

    def save(self, folder: Path) -> None:
        """Write the encoder, its tokenizer, the head, parameters and what was settled."""
        if self._folder is None or self.head_ is None:
            raise RuntimeError("the classifier is not fitted; call fit first")
        self.write_settings(folder)
        copy_model(self._folder, folder, MODEL)
        np.savez(folder / _HEAD, coef=self.head_.coef, intercept=self.head_.intercept)
        (folder / _ABOUT).write_text(json.dumps(self._about, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            PackageError: a file is missing or damaged.
            MissingExtraError: ONNX Runtime or tokenizers is not installed.
        """
        model = cls.from_settings(folder)
        arrays = base.read_arrays(folder / _HEAD)
        try:
            model._about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            model.head_ = Head(arrays["coef"], arrays["intercept"])
            model._embedder, model._folder = model._open(folder), folder
        except (OSError, ValueError, KeyError, TypeError, SourceError) as error:
            raise PackageError(f"the few-shot model's files are missing or damaged: {error}") from error
        return model

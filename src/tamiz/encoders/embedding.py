"""Embeddings of texts by a frozen encoder; what serving needs, and no more."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tamiz.encoders.runtime import TOKENIZER, Tokenizer, open_model
from tamiz.types import Progress

__all__ = ["MODEL", "Embedder"]

MODEL = "encoder.onnx"

_CHUNK = 512  # texts whose tokens are held together


class Embedder:
    """An encoder and its tokenizer, which turn texts into vectors of length one.

    Args:
        folder: holds `MODEL` and `TOKENIZER`.
        prefix: put before every text.
        max_length: tokens that are read of a text, special ones included; fewer where the encoder reads fewer.
        form: of the encoder, one of `tamiz.encoders.forms.FORMS`.
        threads: for the work inside one batch; 0 takes all cores.

    Raises:
        SourceError: a file is missing or damaged.
        MissingExtraError: ONNX Runtime or tokenizers is not installed.
    """

    def __init__(self, folder: Path, *, prefix: str, max_length: int, form: str = "fp32", threads: int = 0) -> None:
        self._folder = folder
        self._tokenizer = Tokenizer(folder / TOKENIZER)
        self._model: Any = open_model(folder / MODEL, form=form, threads=threads)
        self._prefix = prefix
        self.max_length = min(max_length, self._model.max_length or max_length)

    def remembering(self) -> Self:
        """Return an embedder that shares this one's model and keeps on disk what that says of texts."""
        from tamiz.encoders.memory import Memory

        other = copy.copy(self)
        other._model = Memory(self._model, self._folder)
        return other

    def __call__(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float32]:
        """Return the embeddings, float32 `(n, d)`."""
        room = self.max_length - self._tokenizer.specials
        parts = []
        for start in range(0, max(len(texts), 1), _CHUNK):
            some = (self._prefix + text for text in texts[start : start + _CHUNK])
            rows = [self._tokenizer.wrap(ids[:room]) for ids in self._tokenizer.read(some)]
            parts.append(self._model.run(rows))
            if progress:
                progress("embedding texts", start + len(rows), len(texts))
        return np.vstack(parts)

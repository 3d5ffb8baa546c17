"""Scores of texts for sentences about labels: by a sentence encoder, or by a model of natural language inference.

A score is on the scale of log-odds up to a constant: softmax or sigmoid makes probabilities of it. Serving needs ONNX
Runtime and tokenizers alone.
"""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from tamiz.classifiers.transformer_reading import Reader
from tamiz.classifiers.zero_shot_adapt import adapted, unit
from tamiz.classifiers.zero_shot_templates import Prompts
from tamiz.encoders.embedding import MODEL
from tamiz.encoders.lengths import pieces, pool
from tamiz.encoders.runtime import TOKENIZER, Tokenizer, open_model
from tamiz.errors import ConfigError
from tamiz.types import FloatArray, IntArray, Progress

__all__ = ["EmbeddingScorer", "EntailmentScorer", "NliLabels", "NoEntailmentError", "Read", "Scorer", "nli_labels"]

_CHUNK = 512  # texts whose tokens are held together
_ROWS = 4096  # pairs that are held together
_REMEMBERED = 4096  # sentences whose vectors are kept
_LABEL_SETS = 4  # whose vectors are kept, however many they are


@dataclass(frozen=True, slots=True)
class Read:
    """Some texts as vectors.

    Attributes:
        vectors: of their pieces, `(pieces, d)`.
        owners: to which text each piece belongs, `(pieces,)`.
        n: how many texts.
    """

    vectors: FloatArray
    owners: IntArray
    n: int


class NoEntailmentError(ConfigError):
    """A model says nothing of entailment."""


@dataclass(frozen=True, slots=True)
class NliLabels:
    """Which answers of a model of natural language inference mean what.

    Attributes:
        entailment: column of the logits.
        contradiction: column of the logits.
    """

    entailment: int
    contradiction: int


def nli_labels(config: Mapping[str, Any], name: str) -> NliLabels:
    """Read the order of a model's labels from what its `config.json` says.

    Where no label is called a contradiction, as with `not_entailment`, it is the first or last one that is not
    entailment, as in Transformers.

    Args:
        config: the model's `config.json`.
        name: of the model, for the message.

    Raises:
        NoEntailmentError: no label begins with `entail`.
        ConfigError: the labels are not given as an object with their numbers.
    """
    try:
        given = config.get("label2id") or {label: number for number, label in (config.get("id2label") or {}).items()}
        places = {str(label).lower(): int(number) for label, number in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"model: label2id and id2label in the config.json of {name!r} are no objects of labels and whole numbers; "
            "take the config.json that came with the weights"
        ) from error
    entailment = next((place for label, place in places.items() if label.startswith("entail")), None)
    if entailment is None:
        raise NoEntailmentError(
            f"model: {name!r} is no model of natural language inference: none of its labels "
            f"({', '.join(places) or '-'}) begins with 'entail'. "
            "Give one that is, correct label2id in its config.json, or take method: embedding"
        )
    named = next((place for label, place in places.items() if label.startswith("contradict")), None)
    other = (max(places.values()) if entailment == 0 else 0) if named is None else named
    return NliLabels(entailment, other)


class Scorer(ABC):
    """A model that scores texts for sentences; several threads may use it at once.

    Args:
        folder: holds the ONNX model and its tokenizer.
        form: of the model, one of `tamiz.encoders.forms.FORMS`.
        threads: for the work inside one batch; 0 takes all cores.
        max_length: most tokens of a row; fewer where the model reads fewer.
        reading: the other fields of `Reader`.

    Raises:
        SourceError: a file is missing or damaged.
        MissingExtraError: ONNX Runtime or tokenizers is not installed.
    """

    def __init__(self, folder: Path, *, form: str, threads: int, max_length: int, **reading: Any) -> None:
        self._model: Any = open_model(folder / MODEL, form=form, threads=threads)
        length = min(max_length, self._model.max_length or max_length)
        self._reader = Reader(Tokenizer(folder / TOKENIZER), max_length=length, **reading)

    @abstractmethod
    def check(self, prompts: Prompts) -> None:
        """Refuse sentences that cannot be read.

        Raises:
            ConfigError: one is too long.
        """

    @abstractmethod
    def scores(
        self, texts: Sequence[str], prompts: Prompts, *, multi_label: bool, progress: Progress | None = None
    ) -> FloatArray:
        """Return scores `(n, k)`.

        Args:
            texts: the texts.
            prompts: sentences about `k` labels; the scores of a label's sentences are averaged.
            multi_label: whether a score must mean something by itself, and not only beside those of other labels.
            progress: told how many texts are done.
        """


class EmbeddingScorer(Scorer):
    """Cosine of a text's vector with the mean vector of a label's sentences.

    Scores that stand by themselves are differences to the same sentence about nothing in particular: some encoders find
    all texts alike, and only what goes beyond that counts.

    Args:
        folder: as for `Scorer`.
        known: vectors of sentences that need not be computed.
        moved: of each label's sentences, the vector that `adapt` gave it.
        about: as for `Scorer`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        known: Mapping[str, FloatArray] | None = None,
        moved: Mapping[tuple[str, ...], FloatArray] | None = None,
        **about: Any,
    ) -> None:
        super().__init__(folder, **about)
        self._folder = folder
        self._moved = dict(moved or {})
        self._known: OrderedDict[str, FloatArray] = OrderedDict(known or {})
        self._matrices: OrderedDict[Prompts, FloatArray] = OrderedDict()
        self._lock = threading.Lock()

    def remembering(self) -> Self:
        """Return a scorer that shares all with this one and keeps on disk what the model says of texts."""
        from tamiz.encoders.memory import Memory

        other = copy.copy(self)
        other._model = Memory(self._model, self._folder)
        return other

    def check(self, prompts: Prompts) -> None:
        """Refuse nothing: what is too long is cut off."""

    def vectors(self, sentences: Sequence[str]) -> FloatArray:
        """Return the vectors of sentences `(n, d)`, computed once."""
        with self._lock:
            found = {one: self._known[one] for one in sentences if one in self._known}
            for one in found:
                self._known.move_to_end(one)
        missing = [one for one in dict.fromkeys(sentences) if one not in found]
        if missing:
            rows = self._reader.by("head").rows(missing)
            new = np.asarray(self._model.run(rows.ids), np.float64)
            found.update(zip(missing, new, strict=True))
            with self._lock:
                self._known.update(zip(missing, new, strict=True))
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return np.stack([found[one] for one in sentences])

    def label_vectors(self, prompts: Prompts) -> FloatArray:
        """Return one vector of length one a label, `(k, d)`; those of the last sets of labels are kept.

        They are the moved ones only where all labels were moved, since those lie nearer to texts.
        """
        with self._lock:
            if prompts in self._matrices:
                self._matrices.move_to_end(prompts)
                return self._matrices[prompts]
        if self.has_moved(prompts):
            matrix = np.stack([self._moved[one] for one in prompts.sentences])
        else:
            matrix = self._of_sentences(prompts)
        with self._lock:
            self._matrices[prompts] = matrix
            while len(self._matrices) > _LABEL_SETS:
                self._matrices.popitem(last=False)
        return matrix

    def _of_sentences(self, prompts: Prompts) -> FloatArray:
        found = self.vectors(prompts.flat())
        return unit(found.reshape(len(prompts.sentences), len(prompts.sentences[0]), -1).mean(axis=1))

    def has_moved(self, prompts: Prompts) -> bool:
        """Tell whether the vectors of all these labels were moved towards texts."""
        return bool(self._moved) and all(one in self._moved for one in prompts.sentences)

    def adapt(self, texts: Sequence[Read], prompts: Prompts, *, temperature: float) -> Self:
        """Return a scorer whose vectors of these labels have moved towards texts; it shares the model with this one.

        Args:
            texts: texts without labels, as `read` gives them.
            prompts: sentences about the labels.
            temperature: by which cosines are divided.
        """
        vectors = np.vstack([pool(one.vectors, one.owners, one.n, "mean") for one in texts])
        other = copy.copy(self)
        other._matrices = OrderedDict()
        moved = adapted(self._of_sentences(prompts), vectors, temperature=temperature)
        other._moved = dict(zip(prompts.sentences, moved, strict=True))
        return other

    def read(self, texts: Sequence[str], progress: Progress | None = None) -> Iterator[Read]:
        """Yield texts as vectors, a few hundred at a time."""
        for start in range(0, len(texts), _CHUNK):
            rows = self._reader.rows(texts[start : start + _CHUNK])
            yield Read(np.asarray(self._model.run(rows.ids), np.float64), rows.owners, rows.n)
            if progress:
                progress("scoring texts", start + rows.n, len(texts))

    def scores(
        self, texts: Sequence[str], prompts: Prompts, *, multi_label: bool, progress: Progress | None = None
    ) -> FloatArray:
        """Return cosines, or for `multi_label` differences of cosines."""
        return self.scores_of(self.read(texts, progress), prompts, multi_label=multi_label)

    def scores_of(self, texts: Iterable[Read], prompts: Prompts, *, multi_label: bool) -> FloatArray:
        """Return what `scores` does, of texts that were read already."""
        labels = self.label_vectors(prompts)
        if multi_label:
            labels = labels - unit(self.vectors(prompts.neutral).mean(axis=0, keepdims=True))
        parts = [np.empty((0, len(labels)))]
        parts += [pool(one.vectors @ labels.T, one.owners, one.n, self._reader.pooling) for one in texts]
        return np.vstack(parts)


class EntailmentScorer(Scorer):
    """Whether a sentence about a label follows from the text: the logit of entailment, by itself or over contradiction.

    Args:
        folder: as for `Scorer`.
        nli: which logits mean what.
        about: as for `Scorer`.

    Source: Yin, Hay & Roth (2019), "Benchmarking zero-shot text classification", section 5.
    """

    def __init__(self, folder: Path, *, nli: NliLabels, **about: Any) -> None:
        super().__init__(folder, **about)
        self._nli = nli

    def check(self, prompts: Prompts) -> None:
        """Refuse sentences that leave no room for a text.

        Raises:
            ConfigError: one is too long.
        """
        for number, ids in enumerate(self._reader.tokenizer.encode(prompts.flat())):
            if self._room(ids) < 1:
                label = number // len(prompts.sentences[0])
                raise ConfigError(
                    f"labels[{label}]: it takes {len(ids)} tokens in its template, and the model reads "
                    f"{self._reader.max_length} with the text; shorten the label or its description"
                )

    def scores(
        self, texts: Sequence[str], prompts: Prompts, *, multi_label: bool, progress: Progress | None = None
    ) -> FloatArray:
        """Return logits of entailment, or for `multi_label` what they exceed those of contradiction by."""
        sentences = self._reader.tokenizer.encode(prompts.flat())
        shape = (len(prompts.sentences), len(prompts.sentences[0]), -1)
        parts = [np.empty((0, shape[0]))]
        size = max(1, _ROWS // len(sentences))
        for start in range(0, len(texts), size):
            chunk = self._reader.tokenizer.encode([self._reader.prefix + one for one in texts[start : start + size]])
            logits = self._logits(chunk, sentences, multi_label=multi_label)
            parts.append(logits.reshape(shape).mean(axis=1).T)
            if progress:
                progress("scoring texts", start + len(chunk), len(texts))
        return np.vstack(parts)

    def _logits(
        self, texts: Sequence[Sequence[int]], sentences: Sequence[Sequence[int]], *, multi_label: bool
    ) -> FloatArray:
        """Return the pooled scores of each sentence for each text, `(sentences * texts,)`."""
        rows: list[list[int]] = []
        types: list[list[int]] = []
        owners: list[int] = []
        for number, sentence in enumerate(sentences):
            for place, text in enumerate(texts):
                for piece in self._pieces(text, sentence):
                    ids, kinds = self._reader.tokenizer.wrap_pair(piece, sentence)
                    rows.append(ids)
                    types.append(kinds)
                    owners.append(number * len(texts) + place)
        found = np.asarray(self._model.run(rows, types=types), np.float64)
        scores = found[:, self._nli.entailment]
        if multi_label:
            scores = scores - found[:, self._nli.contradiction]
        owned: IntArray = np.asarray(owners, np.int64)
        return pool(scores[:, None], owned, len(sentences) * len(texts), self._reader.pooling)[:, 0]

    def _pieces(self, text: Sequence[int], sentence: Sequence[int]) -> list[list[int]]:
        """Cut the text, never the sentence, to what the model reads."""
        room, reader = self._room(sentence), self._reader
        return pieces(text, room, reader.policy, overlap=int(reader.overlap * room), most=reader.most)

    def _room(self, sentence: Sequence[int]) -> int:
        return int(self._reader.max_length - self._reader.tokenizer.pair_specials - len(sentence))

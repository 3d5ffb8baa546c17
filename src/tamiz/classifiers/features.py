"""TF-IDF features of word and character n-grams: fitted with scipy's sparse matrices, read with numpy alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tamiz.classifiers import base
from tamiz.classifiers.ngrams import CharSequences, Counts, NgramIndex, WordSequences
from tamiz.errors import LabelError
from tamiz.types import Contribution, FloatArray, IntArray, Progress

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "FeatureParams",
    "Features",
    "Lengths",
    "NgramFeatures",
    "Row",
    "fit_features",
    "sparse",
    "spread_parts",
    "word_contributions",
]

Lengths = tuple[Annotated[int, Field(ge=1, le=8)], Annotated[int, Field(ge=1, le=8)]]

_TINY = np.finfo(np.float64).tiny
_DUST = 1e-12  # what rounding leaves of sums that are zero
_WORD_OR_MARKS = re.compile(r"\w+|[^\w\s]+")
_ROOM_FOR_SHARED_KEYS = 1000  # values; n-grams that share a key stand in more texts than were counted
_MANY_VALUES = 100_000_000  # above so many feature values, training keeps 4 bytes of each rather than 8


class FeatureParams(base.Params):
    """What decides the features."""

    words: Lengths | None = (1, 2)
    """Shortest and longest word n-gram; `null` for none."""
    characters: Lengths | None = None
    """Shortest (at least 2) and longest character n-gram inside words; `null` for none."""
    tokens: Literal["words", "long_words", "words_and_marks"] = "words_and_marks"
    """What a word is: letters and digits; the same, at least two; or letters and digits with apostrophes inside, and
    each other mark by itself."""
    min_df: Annotated[int, Field(ge=1)] = 2
    """Word n-grams in fewer texts are left out."""
    characters_min_df: Annotated[int, Field(ge=1)] = 3
    """Character n-grams in fewer texts are left out."""
    characters_weight: Annotated[float, Field(gt=0)] = 0.5
    """Weight of the character features beside the word features."""
    max_features: Annotated[int, Field(ge=1)] | None = 2_000_000
    """Keep only so many n-grams of each kind, the most widespread; `null` for all. This bounds memory."""
    tf: Literal["log", "binary", "count"] = "log"
    """How counts enter: 1 + log(count), 0 or 1, or as they are."""
    idf: bool = True
    """Weight n-grams by smoothed inverse document frequency."""
    norm: bool = True
    """Scale each text's features to length one: words and characters each for themselves, then, weighted, together."""

    @model_validator(mode="after")
    def _some_features(self) -> Self:
        if self.words is None and self.characters is None:
            raise ValueError("words and characters are both null; one of them must be given")
        for lengths in (self.words, self.characters):
            if lengths is not None and lengths[0] > lengths[1]:
                raise ValueError("n-gram lengths go from shortest to longest")
        if self.characters is not None and self.characters[0] < 2:
            raise ValueError("character n-grams have at least 2 characters")
        return self


class Row(NamedTuple):
    """The features of one text: int64 numbers and float64 values."""

    indices: IntArray
    values: FloatArray


def sparse(rows: Sequence[Row], columns: int) -> csr_matrix:
    """Return the features of texts as a matrix `(n, columns)`."""
    from scipy.sparse import csr_matrix

    indptr = np.cumsum([0, *(len(row.indices) for row in rows)])
    indices = np.concatenate([np.empty(0, np.int64), *(row.indices for row in rows)])
    values = np.concatenate([np.empty(0), *(row.values for row in rows)])
    return csr_matrix((values, indices, indptr), shape=(len(rows), columns))


class _Block:
    """The features of one kind of n-gram."""

    def __init__(self, index: NgramIndex, options: FeatureParams, weight: float, idf: FloatArray | None = None) -> None:
        self.index = index
        self.weight = weight
        self.idf = np.empty(0) if idf is None else idf
        self._options = options

    def __len__(self) -> int:
        return len(self.index)

    @property
    def kind(self) -> str:
        return "words" if isinstance(self.index.sequences, WordSequences) else "characters"

    def weigh(self, counts: Counts) -> FloatArray:
        """Turn counts into values: term frequency, inverse document frequency, length one, weight of the block."""
        if self._options.tf == "log":
            values = np.log(counts.values)
            values += 1.0
        else:
            values = np.ones(len(counts.values)) if self._options.tf == "binary" else counts.values.astype(np.float64)
        if self._options.idf:
            values *= self.idf.take(counts.indices)
        if self._options.norm and len(counts.indptr) == 2:
            values /= math.sqrt(max(values.dot(values), _TINY))
        elif self._options.norm:
            # Row by row: a text's values must not depend on the texts beside it, not even in the last digit.
            squares = [np.dot(values[a:b], values[a:b]) for a, b in pairwise(counts.indptr.tolist())]
            values /= np.repeat(np.sqrt(np.maximum(squares, _TINY)), np.diff(counts.indptr))
        return np.asarray(values if self.weight == 1.0 else values * self.weight)

    def fit_values(self, texts: Sequence[str], min_df: int, told: Callable[[int], None]) -> csr_matrix:
        """Choose features and return their values in `texts`, `(n, features)`."""
        from scipy.sparse import csr_matrix

        counted = self.index.fit_count(texts, min_df=min_df, max_features=self._options.max_features, told=told)
        values, indices, sizes, done = np.empty(0), np.empty(0, np.int32), [np.zeros(1, np.int64)], 0
        for counts in counted:
            if len(sizes) == 1:
                # Room for all values at once: parts that are joined later would need twice the memory.
                self.idf = np.log((1.0 + len(texts)) / (1.0 + self.index.frequencies)) + 1.0
                room = int(self.index.frequencies.sum()) + _ROOM_FOR_SHARED_KEYS
                values = np.empty(room, np.float32 if room > _MANY_VALUES else np.float64)
                indices = np.empty(room, np.int32)
            end = done + len(counts.indices)
            indices[done:end], values[done:end] = counts.indices, self.weigh(counts)
            sizes.append(np.diff(counts.indptr))
            done = end
        indptr = np.cumsum(np.concatenate(sizes))
        return csr_matrix((values[:done], indices[:done], indptr), shape=(len(texts), len(self.index)))


class Features(Protocol):
    """A vectoriser that chooses its features from texts."""

    @property
    def kinds(self) -> int:
        """Number of times that all texts are counted."""

    @property
    def ngrams(self) -> int:
        """Number of features that are n-grams."""

    def fit_values(self, texts: Sequence[str], told: Callable[[int], None]) -> csr_matrix:
        """Choose features and return their values `(n, features)`; `told` hears of each text twice for each kind."""


def fit_features(features: Features, texts: Sequence[str], min_df: int, progress: Progress | None) -> csr_matrix:
    """Choose features and return their values `(n, features)`.

    Raises:
        LabelError: no n-gram stands in `min_df` texts.
    """
    x = features.fit_values(texts, base.Counter(progress, "counting n-grams", 2 * len(texts) * features.kinds))
    if features.ngrams == 0:
        raise LabelError(f"no n-gram stands in {min_df} of the {len(texts)} texts; lower min_df or give more texts")
    return x


class NgramFeatures:
    """Word features, then character features, each block scaled to length one and weighted.

    The IDF is `log((1 + n) / (1 + df)) + 1`, the term frequency `1 + log(count)` by default.

    Args:
        options: what decides the features.
    """

    def __init__(self, options: FeatureParams) -> None:
        self._options = options
        self._blocks: list[_Block] = []

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    @property
    def kinds(self) -> int:
        """Number of kinds of n-grams: words, characters or both."""
        return (self._options.words is not None) + (self._options.characters is not None)

    @property
    def ngrams(self) -> int:
        """Number of features; all are n-grams."""
        return len(self)

    def fit_values(self, texts: Sequence[str], told: Callable[[int], None]) -> csr_matrix:
        """Choose features and return their values in `texts`, `(n, features)`.

        `told` is called with numbers of texts, twice in all a block.
        """
        from scipy.sparse import hstack

        options = self._options
        self._blocks, parts = [], []
        if options.words is not None:
            words = WordSequences(options.tokens, options.words[1] - 1)
            self._blocks.append(_Block(NgramIndex(words, options.words), options, 1.0))
            parts.append(self._blocks[-1].fit_values(texts, options.min_df, told))
        if options.characters is not None:
            weight = 1.0 if options.words is None else options.characters_weight
            self._blocks.append(_Block(NgramIndex(CharSequences(), options.characters), options, weight))
            parts.append(self._blocks[-1].fit_values(texts, options.characters_min_df, told))
        self._forget_unused_words()
        if len(parts) > 1 and sum(part.nnz for part in parts) > _MANY_VALUES:
            parts = [part.astype(np.float32, copy=False) for part in parts]
        return parts[0] if len(parts) == 1 else hstack(parts, format="csr")

    def _forget_unused_words(self) -> None:
        block = self._blocks[0]
        if isinstance(block.index.sequences, WordSequences) and self._options.words is not None:
            sequences, ngrams = block.index.sequences.used_by(block.index.ngrams)
            block.index = NgramIndex(sequences, self._options.words, ngrams)

    def rows(self, texts: Sequence[str]) -> Iterator[Row]:
        """Yield the features of each text."""
        counts = [block.index.count(texts) for block in self._blocks]
        values = [block.weigh(count) for block, count in zip(self._blocks, counts, strict=True)]
        if len(counts) == 1:
            for start, end in pairwise(counts[0].indptr.tolist()):
                yield Row(counts[0].indices[start:end], values[0][start:end])
            return
        first = np.cumsum([0, *map(len, self._blocks)])
        for row in range(len(texts)):
            cuts = [slice(*count.indptr[row : row + 2]) for count in counts]
            yield Row(
                np.concatenate([c.indices[cut] + f for c, cut, f in zip(counts, cuts, first, strict=False)]),
                np.concatenate([value[cut] for value, cut in zip(values, cuts, strict=True)]),
            )

    def spread(self, text: str, parts: dict[int, float]) -> FloatArray:
        """Share what each feature gives out among the characters of its occurrences in a text.

        Args:
            text: the text.
            parts: what each feature gives, by number.

        Returns:
            One value a character of `text`; they sum to the sum of `parts`, for features that occur.
        """
        per_character = np.zeros(len(text) + 1)
        first = 0
        for block in self._blocks:
            spread_parts(per_character, text, block.index, parts, first)
            first += len(block)
        return per_character[:-1]

    def scale(self) -> FloatArray:
        """Return the value of each feature of the first kind (words, if there are any) in a text that holds it once.

        The length of the text is not taken into account.
        """
        block = self._blocks[0]
        return block.weight * (block.idf if self._options.idf else np.ones(len(block)))

    def spell(self, numbers: IntArray) -> list[str]:
        """Return the n-grams behind features of the first kind."""
        index = self._blocks[0].index
        rows = index.ngrams[numbers].tolist()
        if isinstance(index.sequences, WordSequences):
            words = index.sequences.words
            return [" ".join(words[number] for number in row if number >= 0) for row in rows]
        return ["".join(chr(number) for number in row if number >= 0) for row in rows]

    def save(self, folder: Path) -> dict[str, NDArray[Any]]:
        """Write the words into `folder` and return the arrays that `load` needs."""
        arrays: dict[str, NDArray[Any]] = {}
        for block in self._blocks:
            arrays[f"{block.kind}_ngrams"] = block.index.ngrams.astype(np.int32)
            arrays[f"{block.kind}_idf"] = block.idf
            if isinstance(block.index.sequences, WordSequences):
                block.index.sequences.save(folder)
        return arrays

    @classmethod
    def load(cls, options: FeatureParams, folder: Path, arrays: dict[str, NDArray[Any]]) -> NgramFeatures:
        """Read what `save` gave.

        Raises:
            KeyError: an array is missing.
            OSError: the file of words is missing.
        """
        made = cls(options)
        for kind, lengths in (("words", options.words), ("characters", options.characters)):
            if lengths is None:
                continue
            sequences: WordSequences | CharSequences = CharSequences()
            if kind == "words":
                sequences = WordSequences.load(options.tokens, lengths[1] - 1, folder)
            index = NgramIndex(sequences, lengths, arrays[f"{kind}_ngrams"].astype(np.int64))
            weight = options.characters_weight if kind == "characters" and options.words is not None else 1.0
            made._blocks.append(_Block(index, options, weight, arrays[f"{kind}_idf"]))
        return made


def spread_parts(
    per_character: FloatArray, text: str, index: NgramIndex, parts: Mapping[int, float], first: int = 0
) -> None:
    """Add to each character what the n-grams of one index that it belongs to give out.

    Args:
        per_character: changed in place, one value a character and one more.
        text: the text.
        index: knows the n-grams.
        parts: what each feature gives, by number; it is shared equally among its occurrences and their characters.
        first: the number in `parts` of the index's first feature.
    """
    found = index.occurrences(text)
    if not len(found.features):
        return
    features, place, count = np.unique(found.features, return_inverse=True, return_counts=True)
    share = np.array([parts.get(int(feature) + first, 0.0) for feature in features])[place] / count[place]
    spans = np.array(index.spans(text), np.int64).reshape(-1, 2)
    sizes = np.concatenate([[0], np.cumsum(spans[:, 1] - spans[:, 0])])
    # Each occurrence adds its share per character from its first element to its last: a sum of differences.
    density = share / np.maximum(sizes[found.last + 1] - sizes[found.first], 1)
    steps = np.zeros(len(spans) + 1)
    np.add.at(steps, found.first, density)
    np.subtract.at(steps, found.last + 1, density)
    owner = np.repeat(np.arange(len(spans)), np.diff(sizes))
    np.add.at(per_character, spans[owner, 0] + np.arange(len(owner)) - sizes[owner], np.cumsum(steps)[owner])


def word_contributions(text: str, per_character: FloatArray) -> tuple[Contribution, ...]:
    """Return what each word and each run of marks of a text gives, where it gives anything.

    Args:
        text: the text.
        per_character: what each character gives, as `NgramFeatures.spread` returns it.
    """
    return tuple(
        Contribution(start, end, value)
        for start, end in (match.span() for match in _WORD_OR_MARKS.finditer(text))
        if abs(value := float(per_character[start:end].sum())) > _DUST
    )

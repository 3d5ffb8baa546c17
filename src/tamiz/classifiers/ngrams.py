"""Count word and character n-grams with numpy alone, the same code for training and serving.

A text is a sequence of integers: numbers of its words, or code points of its characters. The key of an n-gram is a
rolling hash of its integers, computed for all windows of a whole batch at once; a cuckoo table turns keys into feature
numbers with two array look-ups each (Pagh & Rodler 2004, https://doi.org/10.1016/j.jalgor.2003.12.002). The texts of a
batch stand in one long sequence with separators between them, which no known n-gram contains.

Keys have 47 random bits: some two of a million n-grams share one with a probability of .4 %, and then share a feature.
The 16 bits left of a word are free for the number of the text in its chunk, so one sort finds document frequencies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, pairwise, repeat
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOKEN_PATTERNS", "CharSequences", "Counts", "KeyTable", "NgramIndex", "Occurrences", "WordSequences"]

TOKEN_PATTERNS = {
    "words": r"\w+",
    "long_words": r"\w\w+",
    "words_and_marks": r"\w+(?:['’]\w+)*|[^\w\s]",
}

_KEY_BITS = 48
_CHUNK_TEXTS = 1 << (64 - _KEY_BITS)
_CHUNK_CHARACTERS = 250_000  # arrays that stay in the cache; larger ones cost twice the time
_MERGE_AT = 8_000_000  # distinct n-grams held in unmerged chunks, 16 bytes each
_ROLL, _MIX, _MIX_2 = (np.uint64(c) for c in (0x9E3779B97F4A7C55, 0xD6E8FEB86659FD93, 0xBF58476D1CE4E5B9))
_SEPARATOR = 0xFFFFFFFE  # never the number of a word
_SPACE, _NUL = 32, 0
_WORDS_FILE = "words.txt"
# Of ASCII, everything but letters, digits and the underscore becomes a space; `str.translate` has a fast path for this.
_ASCII_WORDS = "".join(chr(c) if re.match(r"\w", chr(c)) else " " for c in range(128))

Keys = NDArray[np.uint64]
Ints = NDArray[np.int64]


class Counts(NamedTuple):
    """Counts of features in `n` texts, as compressed sparse rows.

    Attributes:
        indptr: int64 `(n + 1,)`, where each text's part starts.
        indices: feature numbers, ascending within a text; int64 as counted.
        values: how often each occurs; float64 as counted.
    """

    indptr: Ints
    indices: NDArray[np.signedinteger]
    values: NDArray[np.floating]


class Occurrences(NamedTuple):
    """Where known n-grams stand in one text.

    Attributes:
        features: feature number of each occurrence.
        first: first element (word or character) of each.
        last: its last element.
    """

    features: Ints
    first: Ints
    last: Ints


class Batch(NamedTuple):
    """Texts as one sequence: integers, and the places where each text's part starts (`n + 1` of them)."""

    sequence: Keys
    starts: Ints


class Sequences(Protocol):
    """How texts become integers; `costly` says that doing it again takes longer than keeping the integers."""

    costly: bool

    def read(self, texts: Sequence[str], *, learn: bool = False) -> Batch:
        """Turn texts into integers; `learn` numbers elements not seen before, else they become separators."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the characters of `text` behind each element of its sequence."""

    def valid(self, sequence: Keys, n: int) -> NDArray[np.bool_]:
        """Say which windows of `n` elements are n-grams."""


class KeyTable:
    """Map keys to `0..n-1` by cuckoo hashing; an unknown key gives -1."""

    def __init__(self, keys: Keys) -> None:
        distinct, numbers = np.unique(keys, return_index=True)
        bits = max(4, int(np.ceil(np.log2(max(len(distinct), 1) * 2.5))))
        attempt = 0
        while not self._build(distinct, numbers.astype(np.int32), bits + attempt // 8, attempt):
            attempt += 1

    def _slots(self, keys: Keys) -> tuple[Ints, Ints]:
        # As they are, unsigned places would be copied by whatever they are looked up in.
        first, second = (keys * self._first) >> self._shift, (keys * self._second) >> self._shift
        return first.view(np.int64), second.view(np.int64)

    def _build(self, keys: Keys, numbers: NDArray[np.int32], bits: int, seed: int) -> bool:
        """Put every key into one of its two slots, in rounds; give up where keys keep pushing each other out."""
        multipliers = np.random.default_rng(seed).integers(1 << 62, 1 << 63, 2, dtype=np.uint64) | np.uint64(1)
        self._first, self._second = multipliers
        self._shift = np.uint64(64 - bits)
        slots = np.stack(self._slots(keys))
        owner = np.full(1 << bits, -1, np.int32)
        waiting, side = np.arange(len(keys), dtype=np.int32), np.zeros(len(keys), np.int8)
        for _ in range(400):
            if not len(waiting):
                break
            wanted = slots[side[waiting], waiting]
            evicted = np.unique(owner[wanted])
            owner[wanted] = waiting
            lost = waiting[owner[wanted] != waiting]
            waiting = np.concatenate([lost, evicted[evicted >= 0]])
            side[waiting] ^= 1
        else:
            return False
        used = owner >= 0
        self._keys, self._numbers = np.zeros(1 << bits, np.uint64), np.full(1 << bits, -1, np.int32)
        self._keys[used], self._numbers[used] = keys[owner[used]], numbers[owner[used]]
        return True

    def look_up(self, keys: Keys) -> NDArray[np.int32]:
        """Return the number of each key, -1 where it is unknown."""
        first, second = self._slots(keys)
        place = np.where(self._keys.take(first) == keys, first, second)
        numbers = self._numbers.take(place)
        numbers[self._keys.take(place) != keys] = -1
        return numbers


def window_keys(sequence: Keys, sizes: range) -> Keys:
    """Return `(len(sequence), len(sizes))`: keys (48 bits, never zero) of the windows from each place on.

    A window that reaches beyond the end gets a key that no n-gram has, up to chance.
    """
    length = len(sequence)
    keys = np.zeros((length, len(sizes)), np.uint64)
    sequence = sequence + np.uint64(1)
    rolled = sequence
    for n in range(1, min(sizes[-1], length) + 1):
        if n > 1:
            rolled = rolled[:-1] * _ROLL
            rolled += sequence[n - 1 :]
        if n >= sizes[0]:
            keys[: length - n + 1, n - sizes[0]] = rolled
    keys ^= keys >> np.uint64(32)
    keys *= _MIX
    keys ^= keys >> np.uint64(29)
    keys *= _MIX_2
    keys >>= np.uint64(64 - _KEY_BITS)
    keys |= np.uint64(1)
    return keys


def _windows_without(marks: NDArray[np.bool_], n: int, *, inner: bool = False) -> NDArray[np.bool_]:
    """Say which windows of `n` hold no mark; `inner` leaves both ends of the window out."""
    sums = np.concatenate([[0], np.cumsum(marks)])
    size = max(len(marks) - n + 1, 0)
    if inner:
        return np.asarray(sums[n - 1 : n - 1 + size] == sums[1 : 1 + size]) if n > 1 else np.ones(size, np.bool_)
    return np.asarray(sums[n : n + size] == sums[:size])


def tokenizer(kind: str) -> Callable[[str], list[str]]:
    """Return the function that cuts a text into the tokens of `TOKEN_PATTERNS[kind]`, quicker than by the pattern."""
    find = re.compile(TOKEN_PATTERNS[kind]).findall
    if kind == "words":
        return lambda text: text.translate(_ASCII_WORDS).split() if text.isascii() else find(text)
    if kind == "long_words":
        return lambda text: (
            [word for word in text.translate(_ASCII_WORDS).split() if len(word) > 1] if text.isascii() else find(text)
        )

    def words_and_marks(text: str) -> list[str]:
        found: list[str] = []
        for word in text.split():
            if word.isalnum():  # most are; only the others need the pattern
                found.append(word)
            else:
                found += find(word)
        return found

    return words_and_marks


class _Numbers(dict[str, int]):
    """Number words in the order in which they are first asked for."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


class WordSequences:
    """Texts as the numbers of their words.

    Args:
        kind: key of `TOKEN_PATTERNS`.
        gap: separators between texts, at least the longest n-gram less one.
        words: known words; their places are their numbers.
    """

    costly = True

    def __init__(self, kind: str, gap: int, words: Sequence[str] = ()) -> None:
        self._kind = kind
        self._pattern = re.compile(TOKEN_PATTERNS[kind])
        self._tokens = tokenizer(kind)
        self._gap = gap
        self._numbers = _Numbers(zip(words, count()))

    @property
    def words(self) -> list[str]:
        """Known words in the order of their numbers."""
        return list(self._numbers)

    def save(self, folder: Path) -> None:
        """Write the words into `folder`."""
        # No word holds a line break; lone surrogates may come in with odd input.
        (folder / _WORDS_FILE).write_bytes("\n".join(self.words).encode("utf-8", "surrogatepass"))

    @classmethod
    def load(cls, kind: str, gap: int, folder: Path) -> WordSequences:
        """Read the words that `save` wrote.

        Raises:
            OSError: the file is missing.
        """
        text = (folder / _WORDS_FILE).read_bytes().decode("utf-8", "surrogatepass")
        return cls(kind, gap, text.split("\n") if text else ())

    def used_by(self, ngrams: Ints) -> tuple[WordSequences, Ints]:
        """Return sequences of the words in `ngrams` alone, and `ngrams` in their numbers."""
        words = self.words
        used = np.unique(ngrams[ngrams >= 0])
        number = np.full(len(words) + 1, -1, np.int64)
        number[used] = np.arange(len(used))
        return WordSequences(self._kind, self._gap, [words[place] for place in used]), number[ngrams]

    def read(self, texts: Sequence[str], *, learn: bool = False) -> Batch:
        """Turn texts into word numbers."""
        tokens = list(map(self._tokens, texts))
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        words = chain.from_iterable(tokens)
        found = map(self._numbers.__getitem__, words) if learn else map(self._numbers.get, words, repeat(_SEPARATOR))
        numbers = np.fromiter(found, np.uint64, int(lengths.sum()))
        if len(texts) == 1:
            return Batch(numbers, np.array([0, len(numbers)]))
        starts = np.concatenate([[0], np.cumsum(lengths + self._gap)])
        sequence = np.full(int(starts[-1]), _SEPARATOR, np.uint64)
        sequence[np.arange(len(numbers)) + np.repeat(np.arange(len(texts)) * self._gap, lengths)] = numbers
        return Batch(sequence, starts)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the characters of each word."""
        return [match.span() for match in self._pattern.finditer(text)]

    def valid(self, sequence: Keys, n: int) -> NDArray[np.bool_]:
        """Say which windows hold words of one text only."""
        return _windows_without(sequence == _SEPARATOR, n)


class CharSequences:
    """Texts as code points, with one space around every word; n-grams stay inside a word and its two spaces."""

    costly = False

    def read(self, texts: Sequence[str], *, learn: bool = False) -> Batch:
        """Turn texts into code points."""
        padded = [f" {' '.join(words)} \0" if (words := text.split()) else "\0" for text in texts]
        starts = np.concatenate([[0], np.cumsum(np.fromiter(map(len, padded), np.int64, len(padded)))])
        code_points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), "<u4")
        return Batch(code_points.astype(np.uint64), starts)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the characters of `text` behind each code point; an added space has none."""
        spans = [(0, 0)]  # the first space, or the end of an empty text
        for match in re.finditer(r"\S+", text):
            spans += [(place, place + 1) for place in range(*match.span())]
            spans.append((match.end(), match.end()))
        return spans

    def valid(self, sequence: Keys, n: int) -> NDArray[np.bool_]:
        """Say which windows stay inside one word and its spaces."""
        return _windows_without(sequence == _NUL, n) & _windows_without(sequence == _SPACE, n, inner=True)


def chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut texts into runs of some hundred thousand characters, to bound memory."""
    start, size = 0, 0
    for place, text in enumerate(texts):
        size += len(text)
        if size > _CHUNK_CHARACTERS or place - start >= _CHUNK_TEXTS - 1:
            yield texts[start : place + 1]
            start, size = place + 1, 0
    if start < len(texts):
        yield texts[start:]


class NgramIndex:
    """The n-grams of one kind (words or characters) that became features.

    Args:
        sequences: how texts become integers.
        lengths: shortest and longest n-gram.
        ngrams: int64 `(features, longest)`: the integers of each feature's n-gram, -1 beyond its end.
    """

    def __init__(self, sequences: Sequences, lengths: tuple[int, int], ngrams: Ints | None = None) -> None:
        self.sequences = sequences
        self._sizes = range(lengths[0], lengths[1] + 1)
        self.ngrams = np.empty((0, lengths[1]), np.int64) if ngrams is None else ngrams
        self._table = KeyTable(self._keys_of(self.ngrams))
        self.frequencies: Ints = np.zeros(len(self.ngrams), np.int64)

    def __len__(self) -> int:
        return len(self.ngrams)

    @staticmethod
    def _keys_of(ngrams: Ints) -> Keys:
        keys = np.zeros(len(ngrams), np.uint64)
        lengths = (ngrams >= 0).sum(axis=1)
        for n in np.unique(lengths):
            rows = np.flatnonzero(lengths == n)
            # Rows side by side form one sequence; every n-th window of it is a row.
            keys[rows] = window_keys(ngrams[rows, :n].astype(np.uint64).ravel(), range(n, n + 1))[::n, 0]
        return keys

    def fit_count(
        self, texts: Sequence[str], *, min_df: int, max_features: int | None, told: Callable[[int], None] | None = None
    ) -> Iterator[Counts]:
        """Choose the features, then yield the counts of `texts`, chunk by chunk.

        Features are the n-grams that stand in at least `min_df` texts, or the `max_features` most widespread of them.
        `frequencies`, how many texts hold each feature, is set before the first counts come; the index is complete once
        the iterator is exhausted. `told` is called with numbers of texts, twice in all.
        """
        kept: list[Batch] = []
        keys, frequencies = self._document_frequencies(texts, kept, told)
        keep = frequencies >= min_df
        keys, frequencies = keys[keep], frequencies[keep]
        if max_features is not None and len(keys) > max_features:
            # A stable sort of ascending keys makes ties the same on every machine.
            widespread = np.sort(np.argsort(-frequencies, kind="stable")[:max_features])
            keys, frequencies = keys[widespread], frequencies[widespread]
        self._table, self.frequencies = KeyTable(keys), frequencies
        self.ngrams = np.full((len(keys), self._sizes[-1]), -1, np.int64)
        unseen = np.ones(len(keys) + 1, np.bool_)
        unseen[-1] = False  # where look_up says -1
        for place, chunk in enumerate(chunks(texts)):
            batch = kept[place] if self.sequences.costly else self.sequences.read(chunk)
            found = self._look_up(batch.sequence)
            self._spell(batch.sequence, found, unseen)
            yield self._count(found, batch.starts)
            if told:
                told(len(chunk))

    def _document_frequencies(
        self, texts: Sequence[str], kept: list[Batch], told: Callable[[int], None] | None
    ) -> tuple[Keys, Ints]:
        merged: tuple[Keys, Ints] = (np.empty(0, np.uint64), np.empty(0, np.int64))
        parts: list[tuple[Keys, Ints]] = []
        for chunk in chunks(texts):
            batch = self.sequences.read(chunk, learn=True)
            if self.sequences.costly:
                kept.append(Batch(batch.sequence.astype(np.uint32), batch.starts))
            owner = np.repeat(np.arange(len(chunk), dtype=np.uint64), np.diff(batch.starts))
            keys = window_keys(batch.sequence, self._sizes)
            for column, n in enumerate(self._sizes):
                valid = np.flatnonzero(self.sequences.valid(batch.sequence, n))
                parts.append(_distinct_texts_per_key(keys[valid, column], owner[valid]))
            if sum(len(part[0]) for part in parts) > max(_MERGE_AT, len(merged[0])):
                merged, parts = _merge([merged, *parts]), []
            if told:
                told(len(chunk))
        return _merge([merged, *parts])

    def _spell(self, sequence: NDArray[Any], found: NDArray[np.int32], unseen: NDArray[np.bool_]) -> None:
        """Note the integers behind features met for the first time."""
        for column, n in enumerate(self._sizes):
            places = np.flatnonzero(unseen[found[:, column]])
            features = found[places, column]
            self.ngrams[features, :n] = sequence[places[:, None] + np.arange(n)]
            unseen[features] = False

    def _look_up(self, sequence: Keys) -> NDArray[np.int32]:
        """Return `(len(sequence), lengths)`: the feature of each n-gram by first element and length, -1 where none."""
        return self._table.look_up(window_keys(sequence, self._sizes))

    def occurrences(self, text: str) -> Occurrences:
        """Find all features in one text."""
        found = self._look_up(self.sequences.read([text]).sequence)
        first, column = np.nonzero(found >= 0)
        return Occurrences(found[first, column].astype(np.int64), first, first + column + self._sizes[0] - 1)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the characters of `text` behind each element that `occurrences` numbers."""
        return self.sequences.spans(text)

    def count(self, texts: Sequence[str]) -> Counts:
        """Count the features in each text."""
        batch = self.sequences.read(texts)
        found = self._look_up(batch.sequence)
        return self._count_one(found) if len(texts) == 1 else self._count(found, batch.starts)

    @staticmethod
    def _count_one(found: NDArray[np.int32]) -> Counts:
        """Return what `_count` does for one text: a server answers them one by one, and each call takes its time."""
        features = found[found >= 0]
        features.sort()
        first = np.ones(len(features) + 1, np.bool_)
        np.not_equal(features[1:], features[:-1], out=first[1:-1])
        firsts = first.nonzero()[0]  # the end is among them
        counts = (firsts[1:] - firsts[:-1]).astype(np.float64)
        return Counts(np.array([0, len(counts)]), features.take(firsts[:-1]).astype(np.int64), counts)

    @staticmethod
    def _count(found: NDArray[np.int32], starts: Ints) -> Counts:
        lengths = found.shape[1]
        found = found.ravel()
        places = np.flatnonzero(found >= 0)
        features = found[places]
        rows = np.searchsorted(places, starts * lengths)
        # Many short sorts are cheaper than one long one.
        for start, end in pairwise(rows.tolist()):
            features[start:end].sort()
        first = np.ones(len(features) + 1, np.bool_)
        np.not_equal(features[1:], features[:-1], out=first[1:-1])
        first[rows] = True
        firsts = np.flatnonzero(first)  # the end is among them
        return Counts(
            np.searchsorted(firsts, rows), features[firsts[:-1]].astype(np.int64), np.diff(firsts).astype(np.float64)
        )


def _distinct_texts_per_key(keys: Keys, owner: Keys) -> tuple[Keys, Ints]:
    """Return distinct keys, ascending, and in how many texts each stands."""
    codes = keys << np.uint64(64 - _KEY_BITS)
    codes |= owner
    codes.sort()
    first = np.ones(len(codes), np.bool_)
    np.not_equal(codes[1:], codes[:-1], out=first[1:])
    return _merge([(codes[first] >> np.uint64(64 - _KEY_BITS), np.empty(0, np.int64))])


def _merge(parts: list[tuple[Keys, Ints]]) -> tuple[Keys, Ints]:
    """Add the frequencies of equal keys; one part without frequencies counts its keys, which are sorted."""
    if len(parts) == 1 and not len(parts[0][1]):
        keys, frequencies = parts[0][0], None
    else:
        keys, frequencies = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        order = np.argsort(keys, kind="stable")  # merges the sorted parts
        keys, frequencies = keys[order], frequencies[order]
    places = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    if frequencies is None:
        return keys[places], np.diff(places, append=len(keys)).astype(np.int64)
    return keys[places], np.add.reduceat(frequencies, places) if len(places) else frequencies

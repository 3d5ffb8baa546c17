"""Clusters of near-duplicate texts, in time linear in the number of texts.

Texts become sets of word 3-shingles. MinHash signatures estimate the Jaccard similarity of two sets, locality-sensitive
hashing finds the pairs worth comparing, and pairs over the threshold are joined into clusters. A few shingles fill a
signature with copies of themselves, which says little: small sets are kept whole and compared exactly, those that share
one of their rarest shingles (prefix filtering). Every hash is a fixed function of the words, so the partition depends
on the texts alone: not on their order, the process or the platform.

Source: Broder (1997), "On the resemblance and containment of documents"; Li, Owen & Zhang (2012), "One permutation
hashing"; Shrivastava & Li (2014), "Densifying one permutation hashing via rotation for fast near neighbor search";
Chaudhuri, Ganti & Kaushik (2006), "A primitive operator for similarity joins in data cleaning" (prefix filtering).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tamiz.types import BoolArray, IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["clusters"]

_SHINGLE_WORDS = 3
_BINS = 128
_BIN_BITS = 7
_FEW = 64  # shingles of a set that is kept whole
_BATCH_CHARACTERS = 1_000_000
_LAST_LETTER = 0x323AF
_UNSPACED = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x9FFF),
    (0x20000, 0x323AF),
)
_BASE = 0x5851F42D4C957F2D
_BASE_INVERSE = pow(_BASE, -1, 1 << 64)
_PAIRS = 50_000
_SHINGLES = 1_000_000
_ROUNDING = 1e-9
# Members of one bucket are compared with its first and with these many followers: all pairs would be quadratic.
_FOLLOWERS = 4
_LEAST_RECALL = 0.9

_Hashes = NDArray[np.uint64]
_Signatures = NDArray[np.uint16]


def clusters(texts: Iterable[str], *, threshold: float = 0.8) -> IntArray:
    """Return a cluster id for every text, int64 `(n,)`.

    Two texts share an id if a chain of pairs with a similarity of at least `threshold` joins them. Words are runs of
    letters, digits and `_`, case ignored; in Chinese, Japanese, Thai and other scripts without spaces, single letters.
    Texts with fewer than three words must have the same words, and texts without any must be equal but for case and
    space.

    The similarity of two texts with at most 64 different shingles is exact, and no such pair is missed but among very
    many that share a shingle, as of one template. It is estimated where one text has more, with a standard error of
    about .05 or less: a pair just over the threshold is found with a chance of at least 9 in 10, a pair well over it
    (by .1) practically always. A text takes 256 bytes, and about 20 more for each of at most 64 shingles.

    Args:
        texts: read once, never held together.
        threshold: least Jaccard similarity of the 3-shingles of near-duplicates, in (0, 1].

    Example:
        >>> clusters(["one two three four", "One, two, three, four!", "five six"]).tolist()
        [0, 0, 1]
    """
    import scipy.sparse as sparse
    from scipy.sparse.csgraph import connected_components

    signatures, identities, sets = _sketch(texts)
    if not len(identities):
        return np.zeros(0, np.int64)
    # Equal texts, and all those too short for shingles, meet here; one of each goes on.
    unique, first, inverse = np.unique(identities, return_index=True, return_inverse=True)
    sets = sets[first]
    pairs = [
        *_similar_sets(sets, unique, threshold),
        *_similar_pairs(signatures, first, unique, np.diff(sets.indptr), threshold),
    ]
    rows = np.concatenate([pair[0] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    columns = np.concatenate([pair[1] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    graph = sparse.coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(len(unique), len(unique)))
    _, joined = connected_components(graph, directed=False)
    return _by_appearance(joined[inverse])


def _by_appearance(ids: NDArray[np.integer]) -> IntArray:
    """Number clusters in the order in which they first appear."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _sketch(texts: Iterable[str]) -> tuple[_Signatures, _Hashes, csr_matrix]:
    """Return signatures `(n, bins)`, a hash of each text's shingles `(n,)`, and the sets of those that have few.

    Signatures are all zero without shingles; a row of the matrix of sets has its shingles as columns, or none.
    """
    from scipy.sparse import csr_matrix

    signatures, identities = np.zeros((0, _BINS), np.uint16), []
    sizes, kept = [np.zeros(1, np.int64)], [np.zeros(0, np.int64)]
    filled = 0
    for batch in _batches(texts):
        lengths, words = _words(batch)
        signed, identity, size, shingles = _sign(lengths, words)
        _identify_short(identity, lengths, words, batch)
        identities.append(identity)
        sizes.append(size)
        kept.append((shingles >> np.uint64(1)).astype(np.int64))  # a column is a signed number
        end = filled + len(signed)
        if end > len(signatures):
            # In place where the system can: two copies of the signatures would be the most memory ever held.
            signatures.resize((max(end, len(signatures) * 5 // 4), _BINS), refcheck=False)
        signatures[filled:end] = signed
        filled = end
    columns = np.concatenate(kept)
    rows = np.cumsum(np.concatenate(sizes))
    sets = csr_matrix((np.ones(len(columns), np.int8), columns, rows), shape=(filled, np.iinfo(np.int64).max))
    return signatures[:filled], np.concatenate(identities or [np.zeros(0, np.uint64)]), sets


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Gather texts up to some number of characters."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text) + 1
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@cache
def _kinds() -> NDArray[np.int8]:
    """Return for every character up to the last letter: 0 between words, 1 part of a word, 2 a word of its own.

    Scripts written without spaces have no words to see, so each of their letters counts as one.
    """
    kinds = np.fromiter((chr(c).isalnum() for c in range(_LAST_LETTER + 1)), np.int8, _LAST_LETTER + 1)
    kinds[ord("_")] = 1
    for low, high in _UNSPACED:
        kinds[low : high + 1] *= 2
    return kinds


def _words(batch: list[str]) -> tuple[IntArray, _Hashes]:
    """Return the number of words of each text `(n,)` and the hashes of all words, in order.

    All texts are taken as one array of characters; a word's hash is a polynomial in its characters, the difference of
    two prefix sums modulo 2 to the 64th.
    """
    joined = "\0".join(text.replace("\0", " ") for text in batch).casefold()
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds()[np.minimum(codes, _LAST_LETTER)]
    before = np.r_[np.int8(0), kinds[:-1]]
    after = np.r_[kinds[1:], np.int8(0)]
    starts = np.flatnonzero((kinds > 0) & ((before != 1) | (kinds == 2)))
    ends = np.flatnonzero((kinds > 0) & ((after != 1) | (kinds == 2))) + 1
    powers = _powers(len(codes), _BASE)
    prefix = np.r_[np.uint64(0), np.cumsum(_mix(codes.astype(np.uint64) + np.uint64(1)) * powers)]
    hashes = _mix((prefix[ends] - prefix[starts]) * _powers(len(codes), _BASE_INVERSE)[starts])
    bounds = np.r_[np.flatnonzero(codes == 0), len(codes)]
    return np.diff(np.searchsorted(starts, bounds), prepend=0).astype(np.int64), hashes


def _powers(n: int, base: int) -> _Hashes:
    """Return `base` to the powers 0 to n - 1, modulo 2 to the 64th."""
    factors = np.full(n, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)


def _identify_short(identity: _Hashes, lengths: IntArray, words: _Hashes, batch: list[str]) -> None:
    """Give texts too short for shingles a hash of their words, and of all but case and space where they have none."""
    ends = np.cumsum(lengths)
    for size in range(1, _SHINGLE_WORDS):
        at = np.flatnonzero(lengths == size)
        hashed = np.full(len(at), size, np.uint64)
        for offset in range(size):
            hashed = _mix(hashed * np.uint64(0x9E3779B97F4A7C15) + words[ends[at] - size + offset])
        identity[at] = hashed
    for wordless in np.flatnonzero(lengths == 0):
        text = " ".join(batch[wordless].casefold().split())
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        identity[wordless] = int.from_bytes(digest, "little")


def _mix(values: _Hashes) -> _Hashes:
    """Scramble 64-bit values one to one (the finaliser of SplitMix64; Steele, Lea & Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _sign(lengths: IntArray, words: _Hashes) -> tuple[_Signatures, _Hashes, IntArray, _Hashes]:
    """Return the signature and the identity of every text in a batch, and the small sets, see `_small_sets`."""
    n = len(lengths)
    owner = np.repeat(np.arange(n), lengths)
    whole = owner[: -_SHINGLE_WORDS + 1] == owner[_SHINGLE_WORDS - 1 :]
    shingles = _shingles(words)[whole]
    owner = owner[: -_SHINGLE_WORDS + 1][whole]
    bins = (shingles >> np.uint64(64 - _BIN_BITS)).astype(np.int64)
    minima = np.full((_BINS, n), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(minima.reshape(-1), bins * n + owner, shingles & np.uint64((1 << (64 - _BIN_BITS)) - 1))
    # A small set fills few bins, so that the shingles of most other texts need no sorting.
    sizes, small = _small_sets(shingles, owner, (minima != np.iinfo(np.uint64).max).sum(axis=0) <= _FEW)
    _densify(minima)
    # The low 16 bits tell values apart but once in 65,536, and a signature takes 256 bytes (b-bit minwise hashing).
    signatures = np.ascontiguousarray(minima.T.astype(np.uint16))
    signatures[lengths < _SHINGLE_WORDS] = 0
    identity = _digest(minima)
    total, ends = np.r_[np.uint64(0), np.cumsum(small)], np.cumsum(sizes)
    # Two shingles in one bin show as one: a small set is known by all that it has.
    identity[sizes > 0] = _mix(total[ends] - total[ends - sizes])[sizes > 0]
    return signatures, identity, sizes, small


def _small_sets(shingles: _Hashes, owner: IntArray, look_at: BoolArray) -> tuple[IntArray, _Hashes]:
    """Return the number of different shingles of each text `(n,)` and these, text by text, sorted.

    Texts with none, with more than `_FEW`, and those not to look at, have zero.
    """
    seen = look_at[owner]
    shingles, owner = shingles[seen], owner[seen]
    order = np.lexsort((shingles, owner))
    shingles, owner = shingles[order], owner[order]
    first = np.ones(len(owner), np.bool_)
    first[1:] = (shingles[1:] != shingles[:-1]) | (owner[1:] != owner[:-1])
    sizes = np.bincount(owner[first], minlength=len(look_at))
    sizes[sizes > _FEW] = 0
    return sizes, shingles[first & (sizes[owner] > 0)]


def _shingles(words: _Hashes) -> _Hashes:
    """Hash every run of three neighbouring words, in order."""
    if len(words) < _SHINGLE_WORDS:
        return np.zeros(0, np.uint64)
    a, b, c = words[:-2], words[1:-1], words[2:]
    return _mix(
        a * np.uint64(0x9E3779B97F4A7C15) + b * np.uint64(0xC2B2AE3D27D4EB4F) + c * np.uint64(0xD6E8FEB86659FD93)
    )


def _densify(minima: _Hashes) -> None:
    """Fill empty bins `(bins, n)` from the next filled one around the circle, plus a term for the distance."""
    empty = np.uint64(np.iinfo(np.uint64).max)
    step = np.uint64(0x9FB21C651E98DF25)
    filled = minima.copy()
    for _ in range(2):  # the second round carries values past the end of the circle
        for at in range(_BINS - 1, -1, -1):
            borrowed = filled[(at + 1) % _BINS]
            lacking = (minima[at] == empty) & (filled[at] == empty) & (borrowed != empty)
            np.copyto(filled[at], borrowed + step, where=lacking)
    minima[:] = filled


def _digest(minima: _Hashes) -> _Hashes:
    """Return one hash of all bins `(bins, n)` a text."""
    digest = np.zeros(minima.shape[1], np.uint64)
    for row in minima:
        digest = _mix(digest * np.uint64(0x9E3779B97F4A7C15) + row)
    return digest


def _rows_per_band(threshold: float) -> int:
    """Return the longest band that still finds pairs at the threshold; longer bands propose fewer wrong pairs."""
    for rows in (16, 8, 4, 2):
        if 1 - (1 - threshold**rows) ** (_BINS // rows) >= _LEAST_RECALL:
            return rows
    return 1


def _similar_sets(sets: csr_matrix, identities: _Hashes, threshold: float) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield arrays of pairs `(left, right)` of small sets whose similarity reaches the threshold.

    Args:
        sets: of all texts, without a column for those that have many shingles.
        identities: of the texts.
        threshold: least similarity.
    """
    sizes = np.diff(sets.indptr)
    shingles, members, common = _rarest(sets, threshold)
    least = np.r_[sets.indices, 0][sets.indptr[members]]
    # Where too many sets share a shingle to compare all, like ones must stand side by side: sets often have their least
    # shingle in common, and texts made from one template all the shingles that are not theirs alone.
    for alike in (least, common):
        order = np.lexsort((identities[members], alike, shingles))
        for left, right in _neighbours(shingles[order], members[order]):
            for start in range(0, len(left), _PAIRS):
                a, b = left[start : start + _PAIRS], right[start : start + _PAIRS]
                shared = np.diff(sets[a].multiply(sets[b]).indptr)
                similar = shared / (sizes[a] + sizes[b] - shared) >= threshold
                yield a[similar], b[similar]


def _rarest(sets: csr_matrix, threshold: float) -> tuple[IntArray, IntArray, IntArray]:
    """Return the rarest shingles of each set, of which two similar sets share at least one.

    A set that is similar to one of `m` shingles lacks at most `m - threshold * m` of these. How rare a shingle is may
    be roughly known, as long as it is the same for all sets: a table of hashes tells it, without sorting all shingles.

    Returns:
        Shingles, the sets they are of, and a hash of what each such set may share with any other; all of one length.
    """
    shift = 63 - max(sets.nnz, 1).bit_length()
    counts = np.zeros(1 << (63 - shift), np.int32)
    for start in range(0, sets.nnz, _SHINGLES):
        np.add.at(counts, sets.indices[start : start + _SHINGLES] >> shift, 1)
    found, members, common = ([np.zeros(0, np.int64)] for _ in range(3))
    for start in range(0, sets.shape[0], _SHINGLES // _FEW):
        part = sets[start : start + _SHINGLES // _FEW]
        sizes = np.diff(part.indptr)
        member = np.repeat(np.arange(len(sizes)), sizes)
        count = counts[part.indices >> shift]
        order = np.lexsort((part.indices, count, member))
        rank = np.arange(len(member)) - part.indptr[member]
        most = sizes - np.ceil(threshold * sizes - _ROUNDING).astype(np.int64) + 1
        kept = (rank < most[member]) & (count[order] > 1)  # what is there once is shared by none
        total = np.r_[0, np.cumsum(np.where(count > 1, part.indices, 0))][part.indptr]
        found.append(part.indices[order[kept]])
        members.append(start + member[kept])
        common.append(np.diff(total)[member[kept]])
    return np.concatenate(found), np.concatenate(members), np.concatenate(common)


def _similar_pairs(
    signatures: _Signatures, at: IntArray, identities: _Hashes, sizes: IntArray, threshold: float
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield arrays of pairs `(left, right)`, not both of small sets, whose estimated similarity reaches the threshold.

    Args:
        signatures: of all texts.
        at: which of these to compare; pairs are places in this array.
        identities: of the texts to compare.
        sizes: of their sets where these are small, else 0.
        threshold: least estimated similarity.
    """
    rows = _rows_per_band(threshold)
    # Of the small sets, only these can be similar to a large one.
    comparable = (sizes == 0) | (sizes > threshold * _FEW)
    long = np.flatnonzero(comparable & np.asarray(signatures.any(axis=1))[at])
    for start in range(0, _BINS, rows):
        band = _band_hash(signatures[at[long], start : start + rows])
        # Ties in the order of identities, not of positions: neighbours must not depend on the order of the texts.
        order = np.lexsort((identities[long], band))
        for left, right in _neighbours(band[order], long[order]):
            open_ = (sizes[left] == 0) | (sizes[right] == 0)
            yield from _verified(signatures, at, left[open_], right[open_], threshold)


def _neighbours(keys: NDArray[np.integer], members: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield pairs of members that share a key, not all of them where many do; `keys` are sorted."""
    opens = np.ones(len(keys), np.bool_)
    opens[1:] = keys[1:] != keys[:-1]
    heads = np.flatnonzero(opens)[np.cumsum(opens) - 1]
    followers = np.flatnonzero(~opens)
    yield members[heads[followers]], members[followers]
    for distance in range(1, _FOLLOWERS + 1):
        near = np.flatnonzero(keys[distance:] == keys[:-distance])
        near = near[heads[near] != near]  # the head has been compared with all
        yield members[near], members[near + distance]


def _band_hash(values: _Signatures) -> _Hashes:
    hashed = np.zeros(len(values), np.uint64)
    for column in values.T:
        hashed = _mix(hashed * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64) + np.uint64(1))
    return hashed


def _verified(
    signatures: _Signatures, at: IntArray, left: IntArray, right: IntArray, threshold: float
) -> Iterator[tuple[IntArray, IntArray]]:
    for start in range(0, len(left), _PAIRS):
        a, b = left[start : start + _PAIRS], right[start : start + _PAIRS]
        similar = (signatures[at[a]] == signatures[at[b]]).mean(axis=1) >= threshold
        yield a[similar], b[similar]

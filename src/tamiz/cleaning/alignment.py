"""Follow every character of a cleaned text back to the original.

A change of a text is a list of edits `(start, end, replacement)`: in order, not overlapping, against the text before.
`Trace` applies such lists one after the other and keeps, for every character, where in the original it came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

__all__ = ["Aligned", "Edit", "Replacement", "Trace", "differences"]

Edit = tuple[int, int, str]
Replacement = str | Callable[[re.Match[str]], str]

_WINDOW = 64  # how far apart two texts may drift before the rest counts as one change


@dataclass(frozen=True, slots=True)
class Aligned:
    """A cleaned text and where each of its characters came from.

    Attributes:
        text: the cleaned text.
        starts: per character of `text`, the first character of its source in the original; never decreases.
        ends: per character of `text`, one past the last character of its source; never decreases.
    """

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the stretch of the original that `text[start:end]` came from.

        An empty stretch gives an empty one, at the place where `start` came from.

        Example:
            >>> Aligned("a b", (0, 1, 5), (1, 5, 6)).span(2, 3)
            (5, 6)
        """
        if start < end:
            return self.starts[start], self.ends[end - 1]
        if start < len(self.starts):
            return self.starts[start], self.starts[start]
        place = self.ends[-1] if self.ends else 0
        return place, place


class Trace:
    """A text under change, with the origin of its characters.

    Attributes:
        text: the text as it stands now.
    """

    def __init__(self, original: str) -> None:
        self.text = original
        self._length = len(original)
        self._starts: list[int] = list(range(len(original)))
        self._ends: list[int] = list(range(1, len(original) + 1))

    def edit(self, edits: Iterable[Edit]) -> None:
        """Apply edits against the present text; each replacement comes from the whole stretch that it replaces."""
        pieces: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        done = 0
        for start, end, replacement in edits:
            pieces += (self.text[done:start], replacement)
            first, last = self._origin(start, end)
            starts += self._starts[done:start]
            starts += [first] * len(replacement)
            ends += self._ends[done:start]
            ends += [last] * len(replacement)
            done = end
        if pieces:
            self.text = "".join([*pieces, self.text[done:]])
            self._starts = starts + self._starts[done:]
            self._ends = ends + self._ends[done:]

    def sub(self, pattern: re.Pattern[str], replacement: Replacement) -> None:
        """Replace every match, as `pattern.sub` does."""
        self.edit(
            (match.start(), match.end(), replacement if isinstance(replacement, str) else replacement(match))
            for match in pattern.finditer(self.text)
        )

    def become(self, text: str) -> None:
        """Change into `text`, finding the edits by comparison."""
        self.edit(differences(self.text, text))

    def aligned(self) -> Aligned:
        """Return the present state."""
        return Aligned(self.text, tuple(self._starts), tuple(self._ends))

    def _origin(self, start: int, end: int) -> tuple[int, int]:
        if start < end:
            return self._starts[start], self._ends[end - 1]
        place = self._starts[start] if start < len(self._starts) else self._length
        return place, place


def differences(before: str, after: str) -> Iterator[Edit]:
    """Find edits from `before` to `after`, two texts that mostly share their ASCII characters.

    Made for repaired encodings, where several characters stand for one and ASCII is left alone. Linear in the length
    of the texts: it goes through both at once and, where they differ, on to the next ASCII character of each.

    Example:
        >>> list(differences("sÃ³lo", "sólo"))
        [(1, 3, 'ó')]
    """
    i = j = 0
    while i < len(before) and j < len(after):
        if before[i] == after[j]:
            i, j = i + 1, j + 1
            continue
        next_i, next_j = _meet(before, i, after, j)
        yield from _within(before, i, next_i, after, j, next_j)
        i, j = next_i, next_j
    if i < len(before) or j < len(after):
        yield i, len(before), after[j:]


def _meet(before: str, i: int, after: str, j: int) -> tuple[int, int]:
    """Return the next places where both texts show the same ASCII character, or the ends of both."""
    while i < len(before) and not before[i].isascii():
        i += 1
    while j < len(after) and not after[j].isascii():
        j += 1
    for drift in range(_WINDOW):
        # A repair may swallow a few ASCII characters of the text before, never add any.
        if i + drift < len(before) and j < len(after) and before[i + drift] == after[j]:
            return i + drift, j
    return len(before), len(after)


def _within(before: str, i: int, end_i: int, after: str, j: int, end_j: int) -> Iterator[Edit]:
    """Split a change further where the lengths in UTF-8 tell which characters stood for which."""
    widths = [len(character.encode("utf-8", "surrogatepass")) for character in after[j:end_j]]
    if sum(widths) != end_i - i:
        yield i, end_i, after[j:end_j]
        return
    for character, width in zip(after[j:end_j], widths, strict=True):
        if before[i : i + width] != character:
            yield i, i + width, character
        i += width

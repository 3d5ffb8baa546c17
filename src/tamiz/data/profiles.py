"""Describe one column from a sample of its values: what kind they are, how many differ, how long they are."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

__all__ = ["SEPARATORS", "Profile", "find_separator", "parse_list", "plain_name", "profile"]

SEPARATORS = ("|", ";", ",")
"""What may part several labels in one cell, in the order in which they are tried."""

_MOSTLY = 0.95
_DATE_SAMPLE = 200
_LIST_SAMPLE = 200
_LONGEST_LIST = 10_000
_SHARED_PARTS = 0.8
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
_DATE_LIKE = re.compile(r"\d.*[-/.: ].*\d|\d{1,2} \w+ \d{4}|\w+ \d{1,2},? \d{4}")
_DATE_FORMATS = (
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%Y/%m/%d",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d.%m.%Y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%Y/%m/%d %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%a, %d %b %Y %H:%M:%S %z",
)
# Scripts that write words without blanks between them, so that blanks say nothing about free text.
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")


@dataclass(frozen=True)
class Profile:
    """A column of the sample.

    Attributes:
        name: the column's name.
        kind: `text`, `list`, `boolean`, `integer`, `number` or `date`.
        values: one per row: text, or a tuple of texts where `kind` is `list`; `None` where missing or blank.
        written: whether the lists are written as text, such as `["a", "b"]`.
    """

    name: str
    kind: str
    values: tuple[Any, ...]
    written: bool = False

    @cached_property
    def counts(self) -> Counter[Any]:
        """How often each value that is present occurs."""
        return Counter(value for value in self.values if value is not None)

    @property
    def present(self) -> int:
        """Number of rows with a value."""
        return self.counts.total()

    @property
    def distinct(self) -> int:
        """Number of different values."""
        return len(self.counts)

    @property
    def missing(self) -> float:
        """Share of rows without a value."""
        return 1 - self.present / len(self.values) if self.values else 0.0

    @cached_property
    def mean_length(self) -> float:
        """Characters of a value, on average."""
        return self._mean({value: len(str(value)) for value in self.counts})

    @cached_property
    def mean_words(self) -> float:
        """Words of a value, on average; two characters count as one in scripts without blanks."""
        return self._mean(
            {v: len(v.split()) + len(_UNSPACED.findall(v)) // 2 for v in self.counts if isinstance(v, str)}
        )

    def _mean(self, sizes: dict[Any, int]) -> float:
        total = sum(size * self.counts[value] for value, size in sizes.items())
        return total / self.present if self.present else 0.0

    def label_counts(self, separator: str | None) -> Counter[str]:
        """How often each label occurs, if this column holds the labels."""
        counts: Counter[str] = Counter()
        for value, count in self.counts.items():
            for label in split(value, separator):
                counts[label] += count
        return counts


def split(value: str | tuple[str, ...], separator: str | None) -> tuple[str, ...]:
    """Return the labels in one cell, without blanks around them."""
    if isinstance(value, tuple):
        return value
    parts = value.split(separator) if separator else [value]
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def plain_name(name: str) -> str:
    """Return a column's name in lower case, without accents, words joined by `_`.

    Example:
        >>> plain_name("Étiquette Finale"), plain_name("sentimentLabel")
        ('etiquette_finale', 'sentiment_label')
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    letters = unicodedata.normalize("NFKD", spaced.casefold())
    return re.sub(r"[^a-z0-9]+", "_", "".join(c for c in letters if not unicodedata.combining(c))).strip("_")


def profile(name: str, raw: Sequence[Any]) -> Profile:
    """Describe a column given its raw values, as Arrow turns them into Python's."""
    present = [value for value in raw if value is not None and value == value]  # NaN differs from itself
    types = {type(value) for value in present}
    if list in types:
        return Profile(name, "list", tuple(_labels(value) for value in raw))
    if types and all(issubclass(one, date) for one in types):
        return Profile(name, "date", tuple(_text(value) for value in raw))
    for kind, allowed in (("boolean", {bool}), ("integer", {int}), ("number", {int, float})):
        if types and types <= allowed:
            return Profile(name, kind, tuple(_text(value) for value in raw))
    values = tuple(_text(value) for value in raw)
    lists = _written_lists(values)
    if lists is not None:
        return Profile(name, "list", lists, written=True)
    return Profile(name, _kind_of_texts([value for value in values if value is not None]), values)


def _text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    text = value.isoformat() if isinstance(value, date) else str(value)
    return text if text.strip() else None


def _labels(value: Any) -> tuple[str, ...] | None:
    """Return a list cell as labels; an empty list is an answer (no label applies), unlike a missing one."""
    if value is None:
        return None
    return tuple(dict.fromkeys(text.strip() for item in value if (text := _text(item)) is not None))


def _written_lists(values: Sequence[str | None]) -> tuple[tuple[str, ...] | None, ...] | None:
    """Parse cells such as `["a", "b"]` or `['a', 'b']` if all of them are lists."""
    present = [value.strip() for value in values if value is not None]
    if not present or not all(value.startswith("[") and value.endswith("]") for value in present):
        return None
    if any(parse_list(value) is None for value in present[:_LIST_SAMPLE]):
        return None
    return tuple(None if value is None else _labels(parse_list(value.strip()) or []) for value in values)


def parse_list(text: str) -> list[Any] | None:
    """Read a list as JSON writes it, or as Python does when it prints one into a cell; `None` for any other text."""
    for parse in (json.loads, ast.literal_eval):
        if len(text) <= _LONGEST_LIST:
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                found = parse(text)
                return found if isinstance(found, list) else None
    return None


def _kind_of_texts(values: Sequence[str]) -> str:
    if not values:
        return "text"
    if all(value.strip().casefold() in ("true", "false") for value in values):
        return "boolean"
    if all(_INTEGER.fullmatch(value.strip()) for value in values):
        return "integer"
    if all(_NUMBER.fullmatch(value.strip()) for value in values):
        return "number"
    sample = values[:: max(1, len(values) // _DATE_SAMPLE)]
    return "date" if sum(map(_is_date, sample)) >= _MOSTLY * len(sample) else "text"


def _is_date(text: str) -> bool:
    text = text.strip()
    if len(text) > 40 or not _DATE_LIKE.search(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return any(_parses(text, form) for form in _DATE_FORMATS)
    return True


def _parses(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True


def find_separator(column: Profile) -> str | None:
    """Return what parts several labels in the cells of a text column, if its parts recur in different cells.

    A comma inside a single label ("repair, or other") is told from a separator by its parts, which occur in that
    one label only.
    """
    for separator in SEPARATORS if column.kind == "text" else ():
        combined = [split(value, separator) for value in column.counts if separator in value]
        several = [parts for parts in combined if len(parts) > 1]
        if not several:
            continue
        # In how many different cells does each part occur?
        spread = Counter(part for value in column.counts for part in split(value, separator))
        parts = {part for cell in several for part in cell}
        shared = sum(spread[part] > 1 for part in parts)
        fewer = len(spread) < column.distinct or len(spread) <= column.present / 2
        if shared >= _SHARED_PARTS * len(parts) and fewer:
            return separator
    return None

"""Warn of labels and columns that a person should look at before training."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise

from tamiz.data.profiles import Profile

__all__ = ["label_warnings", "leak_warnings"]

_PURE = 0.99
_ROWS_PER_VALUE = 5
_LEAST_ROWS = 20
_SHOWN = 5


def label_warnings(column: Profile, counts: Mapping[str, int], *, complete: bool) -> list[str]:
    """Name labels that differ only in writing, labels with a single example, and missing labels."""
    warnings = []
    if column.missing:
        warnings.append(f"{column.missing:.1%} of the rows have no value in {column.name!r} and count as unlabelled")
    if column.written:
        warnings.append(f'column {column.name!r} holds lists written as text, such as ["a", "b"], not real lists')
    for variants in _variants(counts):
        shown = ", ".join(repr(label) for label in variants)
        warnings.append(f"labels differ only in capitals or blanks and count as different: {shown}")
    single = sorted(label for label, count in counts.items() if count == 1)
    if single:
        more = f" and {len(single) - _SHOWN} more" if len(single) > _SHOWN else ""
        where = "" if complete else " in the sample"
        warnings.append(f"labels with one example only{where}: {', '.join(map(repr, single[:_SHOWN]))}{more}")
    if len(counts) < 2:
        warnings.append(f"column {column.name!r} has fewer than two labels; a classifier needs two")
    return warnings


def _variants(labels: Mapping[str, int]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[re.sub(r"[\s_-]+", " ", label).strip().casefold()].append(label)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def leak_warnings(columns: Sequence[Profile], label: Profile) -> list[str]:
    """Name columns from which the label can be read off."""
    return [
        f"column {column.name!r} gives the label away: {how}. Never learn from it"
        for column in columns
        if (how := _gives_away(column, label))
    ]


def _gives_away(column: Profile, label: Profile) -> str | None:
    pairs = [(v, y) for v, y in zip(column.values, label.values, strict=True) if v is not None and y is not None]
    if len(pairs) < _LEAST_ROWS or len({y for _, y in pairs}) < 2:
        return None
    values = len({value for value, _ in pairs})
    if values * _ROWS_PER_VALUE <= len(pairs) and _purity(pairs) >= _PURE:
        return f"rows with the same value have the same label ({values} values)"
    if column.kind in ("integer", "number") and _is_cut(pairs):
        return "the labels lie in separate ranges of its values"
    return None


def _purity(pairs: Sequence[tuple[Hashable, Hashable]]) -> float:
    """Return the accuracy of guessing each value's most frequent label, or 0 where guessing without it does as well."""
    by_value: dict[Hashable, Counter[Hashable]] = defaultdict(Counter)
    for value, label in pairs:
        by_value[value][label] += 1
    right = sum(max(counts.values()) for counts in by_value.values())
    most_frequent = max(Counter(label for _, label in pairs).values())
    missed, missed_without = len(pairs) - right, len(pairs) - most_frequent
    return right / len(pairs) if missed <= 0.1 * missed_without else 0.0


def _is_cut(pairs: Sequence[tuple[str, Hashable]]) -> bool:
    """Tell whether the rows, sorted by the number, change their label only once per label."""
    try:
        ordered = sorted((float(value.replace(",", ".")), str(label)) for value, label in pairs)
    except ValueError:
        return False
    changes = [(low, high) for (low, one), (high, other) in pairwise(ordered) if one != other]
    return len(changes) < len({label for _, label in ordered}) and all(low < high for low, high in changes)

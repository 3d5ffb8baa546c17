"""Dates and times as people write them, read as UTC.

Whether `03/04/2020` begins with the day is a fact about the whole column, so a reader first sees all its values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, time
from email.utils import parsedate_to_datetime
from functools import lru_cache

__all__ = ["TimeReader"]

_NUMBERS = re.compile(r"(\d{1,4})([/.-])(\d{1,2})\2(\d{1,4})(?:[ T]+(\S.*))?")
_NAMED = ("%d %B %Y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%B %d, %Y", "%b %d, %Y", "%B %Y", "%b %Y")
_ZONE = re.compile(r"\s+(?:UTC|GMT|Z)$")
_HOUR = re.compile(r"^\d(?=:)")
_CLOCKS = ("%I:%M:%S %p", "%I:%M %p")
_MONTHS = 12
_CENTURY_TURN = 70


class TimeReader:
    """Read the values of one column, once `observe` has seen them all.

    Attributes:
        unread: values that `read` could not understand.

    Example:
        >>> reader = TimeReader()
        >>> reader.observe(["03/04/2020", "25/04/2020"])
        >>> reader.read("03/04/2020")
        datetime.datetime(2020, 4, 3, 0, 0, tzinfo=datetime.timezone.utc)
    """

    def __init__(self) -> None:
        self.unread = 0
        self._slashed = 0
        self._day_first = 0
        self._month_first = 0

    def observe(self, values: Iterable[str | None]) -> None:
        """Take note of how dates are written."""
        for value in values:
            match = None if value is None else _NUMBERS.fullmatch(value.strip())
            if match and len(match[1]) <= 2 and match[2] != ".":
                self._slashed += 1
                self._day_first += int(match[1]) > _MONTHS
                self._month_first += int(match[3]) > _MONTHS

    @property
    def ambiguous(self) -> bool:
        """Whether dates such as `03/04/2020` or `03-04-2020` stand there and nothing tells the day from the month."""
        return self._slashed > 0 and self._day_first == self._month_first

    def read(self, value: str | None) -> datetime | None:
        """Return the time in UTC, `None` where there is none or it cannot be understood."""
        if value is None or not value.strip():
            return None
        found = _parse(value.strip(), self._day_first > self._month_first)
        self.unread += found is None
        return found


@lru_cache(maxsize=100_000)
def _parse(text: str, day_first: bool) -> datetime | None:
    with suppress(ValueError, OverflowError, OSError):
        found = _digits(text) if text.isdecimal() else _numbers(text, day_first) or _words(text)
        if found is not None:
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return None


def _digits(text: str) -> datetime | None:
    """Read a year, a date without separators, or seconds, or parts of them from thousandths on, since 1970."""
    match len(text):
        case 4:
            return datetime(int(text), 1, 1, tzinfo=UTC)
        case 8:
            return datetime.fromisoformat(text)
        case 9 | 10:
            return datetime.fromtimestamp(int(text), UTC)
        case 12 | 13:
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        case 16:
            return datetime.fromtimestamp(int(text) / 1e6, UTC)
        case 19:
            return datetime.fromtimestamp(int(text) / 1e9, UTC)
        case _:
            return None


def _numbers(text: str, day_first: bool) -> datetime | None:
    zoneless, zones = _ZONE.subn("", text)
    if zones:
        found = _numbers(zoneless, day_first)
        return None if found is None else found.replace(tzinfo=UTC)
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    match = _NUMBERS.fullmatch(text)
    if match is None:
        return None
    first, separator, second, third, clock = match.groups()
    if len(first) > 2:
        year, month, day = int(first), int(second), int(third)
    else:
        day, month, year = int(first), int(second), _year(third)
        if not (day_first or separator == "."):
            day, month = month, day
    return datetime.combine(datetime(year, month, day), _clock(clock))


def _year(text: str) -> int:
    if len(text) > 2:
        return int(text)
    return int(text) + (1900 if int(text) >= _CENTURY_TURN else 2000)


def _clock(text: str | None) -> time:
    if text is None:
        return time()
    for form in _CLOCKS:
        with suppress(ValueError):
            return datetime.strptime(text.upper(), form).time()
    return time.fromisoformat(_HOUR.sub(r"0\g<0>", text))


def _words(text: str) -> datetime | None:
    for form in _NAMED:
        with suppress(ValueError):
            return datetime.strptime(text, form)
    with suppress(ValueError, TypeError):
        return parsedate_to_datetime(text)
    return None

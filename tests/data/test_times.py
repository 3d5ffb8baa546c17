"""Dates and times as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tamiz.data.times import TimeReader


def read(*values: str) -> list[datetime | None]:
    reader = TimeReader()
    reader.observe(values)
    return [reader.read(value) for value in values]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2020-04-25 9:05", (2020, 4, 25, 9, 5)),
        ("25/04/2020 9:05", (2020, 4, 25, 9, 5)),
        ("25/04/2020 10:05:07", (2020, 4, 25, 10, 5, 7)),
        ("4/25/2020 9:05 PM", (2020, 4, 25, 21, 5)),
        ("2020-04-25 10:00:00 UTC", (2020, 4, 25, 10)),
        ("2020-04-25 10:00:00.250000 UTC", (2020, 4, 25, 10, 0, 0, 250_000)),
        ("2020-04-25T10:00:00Z", (2020, 4, 25, 10)),
        ("2020-04-25T10:00:00+02:00", (2020, 4, 25, 8)),
        ("25-Apr-2020", (2020, 4, 25)),
        ("25-Apr-20", (2020, 4, 25)),
        ("25 April 2020", (2020, 4, 25)),
        ("Sat, 25 Apr 2020 10:00:00 GMT", (2020, 4, 25, 10)),
        ("1587808800", (2020, 4, 25, 10)),
        ("1587808800000", (2020, 4, 25, 10)),
        ("1587808800000000", (2020, 4, 25, 10)),
        ("1587808800000000000", (2020, 4, 25, 10)),
        ("25.04.2020", (2020, 4, 25)),
        ("2020", (2020, 1, 1)),
    ],
)
def test_usual_spellings(written, meant):
    assert read(written) == [datetime(*meant, tzinfo=UTC)]


@pytest.mark.parametrize("separator", ["/", "-"])
def test_the_column_tells_whether_the_day_comes_first(separator):
    def days(*values):
        return [
            (found.month, found.day) for found in read(*(value.replace("/", separator) for value in values)) if found
        ]

    assert days("03/04/2020", "25/04/2020", "05/04/2020") == [(4, 3), (4, 25), (4, 5)]
    assert days("03/04/2020", "04/25/2020") == [(3, 4), (4, 25)]
    reader = TimeReader()
    reader.observe([f"03{separator}04{separator}2020"])
    assert reader.ambiguous


def test_what_is_no_time_is_counted():
    reader = TimeReader()
    assert [reader.read(value) for value in ("", None, "soon", "31/31/2020", "12345")] == [None] * 5
    assert reader.unread == 3

"""What training, validation and test share that they should not."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from tamiz.audit.findings import Finding, Plot, Severity, Table, worst
from tamiz.config import Project
from tamiz.data.lake import Lake
from tamiz.data.near_duplicates import clusters

__all__ = ["leakage_finding", "leaks", "read_sides"]

_SIDES = ("train", "validation", "test")
_LEAST_SHARE = 0.001


def leakage_finding(lake: Lake, project: Project) -> Finding:
    """Look at the present split (`gold/examples`)."""
    frame = read_sides(lake)
    put_aside = lake.count("gold/quarantine")
    return leaks(frame, by_time=project.split.by == "time", put_aside=put_aside)


def read_sides(lake: Lake) -> pl.DataFrame:
    """Return side, text key, group, time and cluster of near-duplicates of every example."""
    columns = ["side", "text_key", "group", "time"]
    frame = pl.DataFrame(pl.from_arrow(lake.read("gold/examples", columns=columns)))
    return frame.with_columns(near=clusters(_texts(lake)))


def _texts(lake: Lake) -> Iterable[str]:
    return (text for batch in lake.scan("gold/examples", columns=["text"]) for text in batch.column("text").to_pylist())


def leaks(frame: pl.DataFrame, *, by_time: bool, put_aside: int = 0) -> Finding:
    """Count examples outside training whose text, near-duplicate or group stands in training too.

    Args:
        frame: `side`, `text_key`, `group`, `time` and `near` of every example.
        by_time: whether the split is meant to be by time.
        put_aside: training rows that were put aside for coming too near to the test set.
    """
    sizes = {side: int((frame["side"] == side).sum()) for side in _SIDES}
    shared = {
        "equal texts": _shared(frame, "text_key"),
        "near-duplicates": _shared(frame, "near"),
        "groups": _shared(frame, "group"),
    }
    worries = [_severity(count, sizes) for count in shared.values()]
    details = [
        f"{what}: {count['validation']:,} validation and {count['test']:,} test examples have theirs in training"
        for what, count in shared.items()
        if any(count.values())
    ]
    late = _later_than_test(frame)
    if late and by_time:
        worries.append(Severity.NOTE)
        details.append(
            f"{late:,} training examples are later than the first test example (assigned, or undated, before)"
        )
    elif late:
        details.append("training and test cover the same time, so figures do not say how a model ages")
    if put_aside:
        details.append(f"{put_aside:,} training rows were put aside because they come too near to the test set")
    severity = worst(worries)
    cells = tuple((what, count["validation"], count["test"]) for what, count in shared.items())
    parts = ", ".join(f"{size:,} {side}" for side, size in sizes.items())
    return Finding(
        "leakage",
        severity,
        f"{parts}; " + ("sides share examples" if severity is Severity.WARNING else _calm(severity)),
        details=tuple(details),
        figures={"sizes": sizes, "shared": shared, "later_than_test": late, "put_aside": put_aside},
        tables=(Table("Examples with a like in training", ("like", "validation", "test"), cells),),
        plots=(Plot("Examples by side", "bar", _SIDES, {"examples": tuple(sizes.values())}, y_title="examples"),),
    )


def _calm(severity: Severity) -> str:
    return "nothing is shared between sides" if severity is Severity.OK else "sides share a little"


def _shared(frame: pl.DataFrame, column: str) -> dict[str, int]:
    present = frame.filter(pl.col(column).is_not_null())
    train = present.filter(pl.col("side") == "train").select(column).unique()
    hit = present.filter(pl.col("side") != "train").join(train, on=column, how="semi")
    return {side: int((hit["side"] == side).sum()) for side in ("validation", "test")}


def _severity(count: dict[str, int], sizes: dict[str, int]) -> Severity:
    shares = [n / max(sizes[side], 1) for side, n in count.items()]
    return Severity.OK if not any(shares) else Severity.WARNING if max(shares) > _LEAST_SHARE else Severity.NOTE


def _later_than_test(frame: pl.DataFrame) -> int:
    first = frame.filter(pl.col("side") == "test")["time"].min()
    if first is None:
        return 0
    train = frame.filter(pl.col("side") == "train")["time"]
    return int(np.count_nonzero((train >= first).fill_null(False).to_numpy()))

"""Gold: which silver row is for training, validation or test.

The unit is the group: a cluster of near-duplicate texts, or the rows with one value of the group column. A group whose
text was assigned before keeps its side; new groups fill the shares (`quotas.py`), or fall by their earliest time
(`assignments.py`). By time, cut points stay where they were first put: with new data, change `split.seed` to cut anew.
A test set of the user's own is the test side whole, and training rows that come too near to it are put aside.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow.dataset as ds
from numpy.typing import NDArray

from tamiz.config import Project
from tamiz.data.assignments import Stored, rule_of, sides_by_time
from tamiz.data.gold import digest, write_gold
from tamiz.data.lake import Lake
from tamiz.data.near_duplicates import clusters
from tamiz.data.quotas import SIDES, TEST, TRAIN, VALIDATION, Groups, Held, fill
from tamiz.data.refusals import text_key
from tamiz.data.rows import partition_columns
from tamiz.errors import DataError, LabelError, one_of
from tamiz.types import IntArray, Task

__all__ = ["Divided", "split"]

_NEAR_TEST = "near-duplicate of a test text"
_GROUP_IN_TEST = "group also stands in the test set"
_LEAST_LABELS = 2
# A test share this many times the one asked for is worth a word (cut points by time stay while data grows).
_OVERGROWN = 2


@dataclass(frozen=True, slots=True)
class Divided:
    """What a split did.

    Attributes:
        version: version of `gold/examples` afterwards.
        counts: examples by side and label (a multi-label example counts once for each of its labels).
        notices: what the user should know, one sentence each.
        labels: the labels in order.
        digest: hash of the examples, see `tamiz.data.gold.digest`.
    """

    version: int
    counts: dict[str, dict[str, int]]
    notices: tuple[str, ...]
    labels: tuple[str, ...]
    digest: str


def split(lake: Lake, *, silver_version: int, project: Project) -> Divided:
    """Write `gold/examples` from `silver/texts` at this version.

    Assignments are stored first, so a run that was cut off comes to the same end when repeated. Also written are
    `gold/quarantine` (training rows too near to the user's own test set) and `gold/label_counts`.

    Raises:
        LabelError: fewer than two labels have training examples.
        SplitError: the split is by time and there are fewer different times than sides.
    """
    rows = _Rows(lake, silver_version, project)
    aside = rows.too_near_to_test()
    rows.drop(aside)
    stored = Stored(lake, rule_of(project, own_test=rows.own_test))
    sides, notices = _assign(rows, stored, project)
    counts = rows.counts(sides)
    notices += _count_notices(counts, rows, project)
    version = write_gold(
        lake,
        silver_version=silver_version,
        filters=rows.filters,
        label_column=rows.label_column,
        partitions=partition_columns(project.data),
        sides=sides,
        refused=aside,
        reasons=("", _NEAR_TEST, _GROUP_IN_TEST),
        counts=counts,
    )
    if aside.any():
        notices.insert(
            0, f"{int((aside > 0).sum())} training rows were put aside because they come too near to the test set"
        )
    return Divided(version, counts, tuple(notices), rows.labels, digest(lake, version))


class _Rows:
    """The labelled rows of silver as arrays, in the order of the scan.

    Attributes:
        frame: text_key, raw_key, group, time and the row's place `order` by ingest.
        own_test: whether there is a test set of the user's own.
        test: whether each row belongs to it.
        train: whether each row is to be divided.
        unit: number of the group of each row.
        labels: the labels in order.
    """

    def __init__(self, lake: Lake, version: int, project: Project) -> None:
        multi = project.task is Task.MULTI_LABEL
        self.label_column = "labels" if multi else "label"
        if self.label_column not in lake.schema("silver/texts", version=version).names:
            raise DataError(f"silver/texts was cleaned for another task than {str(project.task)!r}; clean again")
        self.filters = (ds.field("part") != "unlabeled") & ds.field(self.label_column).is_valid()
        columns = ["text_key", "group", "time", "part", self.label_column, "_ingested_at", "_source", "_row"]
        table = lake.read("silver/texts", version=version, columns=columns, filters=self.filters)
        frame = pl.DataFrame(pl.from_arrow(table)).with_row_index("at")
        placed = frame.sort("_ingested_at", "_source", "_row").with_row_index("order").sort("at")
        pairs = frame.select("at", pl.col(self.label_column).alias("label"))
        if multi:
            pairs = pairs.explode("label").drop_nulls("label")
        raw_keys = pl.Series("raw_key", self._raw_keys(lake, version), dtype=pl.String)
        self.frame = placed.select("text_key", raw_keys, "group", "order", pl.col("time").dt.epoch("us"))
        self.test = (frame["part"] == "test").to_numpy()
        self.train = ~self.test
        self.own_test = bool(self.test.any())
        self._pair_row = pairs["at"].to_numpy().astype(np.int64)
        in_train = pairs.filter(pl.Series(self.train[self._pair_row], dtype=pl.Boolean))
        self.labels = tuple(project.labels.names or sorted(in_train["label"].unique().to_list()))
        codes = {label: code for code, label in enumerate(self.labels)}
        self._pair_label = _coded(pairs["label"], codes)
        self._near = self._clusters(lake, version, near=project.split.near_duplicates)
        self.unit = self._units()

    def _raw_keys(self, lake: Lake, version: int) -> list[str]:
        batches = lake.scan("silver/texts", version=version, columns=["text_raw"], filters=self.filters)
        return [text_key(text) for batch in batches for text in batch.column("text_raw").to_pylist()]

    def _clusters(self, lake: Lake, version: int, *, near: bool) -> IntArray:
        if near:
            batches = lake.scan("silver/texts", version=version, columns=["text"], filters=self.filters)
            return clusters(text for batch in batches for text in batch.column("text").to_pylist())
        return self.frame["text_key"].rank("dense").to_numpy().astype(np.int64) - 1

    def _units(self) -> IntArray:
        """Number the values of the group column, and the clusters of the rows that have none."""
        group = self.frame["group"]
        ranks = group.rank("dense").fill_null(0).to_numpy().astype(np.int64)
        units = np.where(ranks > 0, ranks - 1, self._near + int(ranks.max(initial=0)))
        return np.unique(units, return_inverse=True)[1].astype(np.int64)

    def too_near_to_test(self) -> NDArray[np.int8]:
        """Return 1 for training rows in a cluster with a test text, 2 for those in a group with a test row, else 0."""
        near = self.train & np.isin(self._near, self._near[self.test])
        grouped = self.train & np.isin(self.unit, self.unit[self.test])
        return np.where(near, 1, np.where(grouped, 2, 0)).astype(np.int8)

    def drop(self, aside: NDArray[np.int8]) -> None:
        """Take rows out of the division."""
        self.train = self.train & (aside == 0)

    def counts(self, sides: NDArray[np.int8]) -> dict[str, dict[str, int]]:
        """Return examples by side and label; rows without a side (-1) do not count."""
        table = self.side_counts(sides)
        return {name: dict(zip(self.labels, table[side].tolist(), strict=True)) for side, name in enumerate(SIDES)}

    def side_counts(self, sides: NDArray[np.int8]) -> IntArray:
        """Return examples by side and label, int64 `(3, k)`."""
        side = sides[self._pair_row]
        table = np.zeros((len(SIDES), len(self.labels)), np.int64)
        np.add.at(table, (side[side >= 0], self._pair_label[side >= 0]), 1)
        return table

    def groups(self, rows: NDArray[np.bool_]) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Return the units of some rows and their (place among the units, label, number of rows) pairs."""
        units = np.unique(self.unit[rows])
        of_pair = rows[self._pair_row]
        k = len(self.labels)
        codes = np.searchsorted(units, self.unit[self._pair_row[of_pair]]) * k + self._pair_label[of_pair]
        codes, counts = np.unique(codes, return_counts=True)
        return units, codes // k, codes % k, counts.astype(np.int64)


def _coded(column: pl.Series, codes: dict[str, int]) -> IntArray:
    try:
        return np.fromiter((codes[label] for label in column), np.int64, len(column))
    except KeyError as error:
        raise LabelError(
            f"silver/texts has the label {error.args[0]!r}; {one_of(str(error.args[0]), codes)}. "
            "If the project's labels have changed, clean again"
        ) from error


def _assign(rows: _Rows, stored: Stored, project: Project) -> tuple[NDArray[np.int8], list[str]]:
    """Return the side of every row (-1: none) and what to say about it; store what is new."""
    frame = _with_stored(rows, stored)
    notices = []
    if stored.renewed:
        notices.append(
            "the split settings are new, so examples were divided anew; figures do not compare with older ones"
        )
    torn = (
        frame.filter(pl.col("side").is_not_null())
        .group_by("unit")
        .agg(pl.col("side").n_unique())
        .filter(pl.col("side") > 1)
    )
    if len(torn):
        notices.append(
            f"{len(torn)} groups were joined by new rows and stand on two sides; assigned rows stay where they are"
        )
    sides = np.full(len(rows.train), -1, np.int8)
    sides[rows.test] = TEST
    sides[frame["at"].to_numpy()] = frame["side"].fill_null(frame["unit_side"]).fill_null(-1).to_numpy()
    fresh = rows.train & (sides < 0)
    _divide(rows, stored, project, frame, sides, fresh)
    if project.split.by == "time" and not rows.own_test:
        notices += _order_notices(frame, sides)
    new = frame.filter(~pl.col("known"))
    stored.add(new.select("text_key", "raw_key", "group_key"), sides[new["at"].to_numpy()])
    return sides, notices


def _order_notices(frame: pl.DataFrame, sides: NDArray[np.int8]) -> list[str]:
    """Say so where times have changed since the cut points were put: `03/04/2020` may be read the other way by now."""
    timed = frame.with_columns(found=pl.Series(sides[frame["at"].to_numpy()])).drop_nulls("time")
    # Near-duplicates of older texts may be newer than the cut; so a few rows do not count.
    newest_trained = timed.filter(pl.col("found") == TRAIN)["time"].quantile(0.95)
    oldest_tested = timed.filter(pl.col("found") == TEST)["time"].quantile(0.05)
    if newest_trained is None or oldest_tested is None or oldest_tested >= newest_trained:
        return []
    return [
        "the test side is not newer than the training side: dates were given or read in another way when the cut "
        "points were put; change split.seed to cut anew"
    ]


def _with_stored(rows: _Rows, stored: Stored) -> pl.DataFrame:
    """Return training rows with the key of their group, their stored side and that of their group.

    A group has the side of its earliest stored member; a group none of whose stored texts is left, that of its key. A
    text that was cleaned in another way when it was stored is `known` only by what it was as it came.
    """
    frame = rows.frame.with_columns(unit=pl.Series(rows.unit)).with_row_index("at").filter(pl.Series(rows.train))
    code = pl.col("side").replace_strict(list(SIDES), [TRAIN, VALIDATION, TEST], return_dtype=pl.Int8)
    known = stored.frame.with_columns(code)
    frame = frame.join(known.select("text_key", "side", old_key="group_key"), on="text_key", how="left")
    raw = known.drop_nulls("raw_key").unique("raw_key", keep="first", maintain_order=True)
    raw = raw.select("raw_key", raw_side="side", raw_group="group_key")
    frame = frame.join(raw, on="raw_key", how="left").sort("order")
    frame = frame.with_columns(
        known=pl.col("side").is_not_null(),
        side=pl.coalesce("side", "raw_side"),
        old_key=pl.coalesce("old_key", "raw_group"),
    )
    own_key = pl.concat_str(pl.lit("group:"), "group")
    frame = frame.with_columns(
        group_key=pl.coalesce(
            own_key, pl.col("old_key").drop_nulls().first().over("unit"), pl.col("text_key").first().over("unit")
        )
    )
    by_key = known.group_by("group_key", maintain_order=True).agg(key_side=pl.col("side").first())
    frame = frame.join(by_key, on="group_key", how="left", maintain_order="left")
    earliest = pl.col("side").drop_nulls().first().over("unit")
    return frame.with_columns(unit_side=pl.coalesce(earliest, pl.col("key_side").drop_nulls().first().over("unit")))


def _divide(
    rows: _Rows,
    stored: Stored,
    project: Project,
    frame: pl.DataFrame,
    sides: NDArray[np.int8],
    fresh: NDArray[np.bool_],
) -> None:
    """Give the fresh rows their sides, in place."""
    shares = {"validation": project.split.validation, "test": 0.0 if rows.own_test else project.split.test}
    units, group, label, counts = rows.groups(fresh)
    if project.split.by == "time":
        known = frame.drop_nulls("time")
        cuts = stored.cuts(known["time"].to_numpy(), len(frame) - len(known), **shares)
        first = frame.group_by("unit").agg(pl.col("time").min()).sort("unit")
        times = first["time"].gather(np.searchsorted(first["unit"].to_numpy(), units))
        unit_sides = sides_by_time(times.fill_null(0).to_numpy(), times.is_not_null().to_numpy(), cuts)
    else:
        keys = frame.select("unit", "group_key").filter(pl.col("unit").is_in(units)).unique("unit").sort("unit")
        held = Held(rows.side_counts(np.where(rows.train, sides, -1)), _held_groups(rows, sides))
        unit_sides = fill(
            Groups(keys["group_key"].to_list(), group, label, counts),
            held,
            seed=project.split.seed,
            **shares,
        )
    sides[fresh] = unit_sides[np.searchsorted(units, rows.unit[fresh])]


def _held_groups(rows: _Rows, sides: NDArray[np.int8]) -> IntArray:
    _, _, label, _ = rows.groups(rows.train & (sides >= 0))
    return np.bincount(label, minlength=len(rows.labels)).astype(np.int64)


def _count_notices(counts: dict[str, dict[str, int]], rows: _Rows, project: Project) -> list[str]:
    """Check the labels of each side.

    Raises:
        LabelError: fewer than two labels have training examples.
    """
    trained = [label for label, n in counts["train"].items() if n]
    if len(trained) < _LEAST_LABELS:
        raise LabelError(
            "a classifier needs training examples of at least two labels; labels that have some after the split: "
            f"{trained or 'none'}. Add examples of another label, or lower split.validation and split.test"
        )
    notices = []
    asked = {"train": 1.0, "validation": project.split.validation, "test": 1.0 if rows.own_test else project.split.test}
    for side in SIDES:
        without = [label for label in rows.labels if not counts[side][label]]
        if without and asked[side]:
            notices.append(
                f"no {side} example of: {', '.join(map(repr, without[:10]))}" + (" ..." if without[10:] else "")
            )
    totals = Counter({side: sum(by_label.values()) for side, by_label in counts.items()})
    if not rows.own_test and totals["test"] > _OVERGROWN * asked["test"] * max(totals.total(), 10):
        share = f"{totals['test'] / totals.total():.0%}"
        if totals["test"] <= _OVERGROWN * sum(n > 0 for n in counts["test"].values()):
            notices.append(
                f"the test side has {share} of the examples, since each label has one there at least; give more of each"
            )
        else:
            notices.append(f"the test side has grown to {share}; change split.seed to cut anew")
    return notices

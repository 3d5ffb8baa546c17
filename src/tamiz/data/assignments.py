"""Which side every training text was given, kept for good: what was a test text yesterday is one tomorrow.

`gold/assignments` has a row for each text and rule, under its keys as it was cleaned and as it came, so that a text
cleaned in another way is known again; `gold/cuts` has the cut points of each rule by time. A rule is the part
of the project that a division depends on; with other settings texts are divided anew, and going back to old settings
finds the old sides again.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from tamiz.config import Project
from tamiz.data.lake import Lake
from tamiz.data.quotas import SIDES, TEST, TRAIN, VALIDATION
from tamiz.errors import SplitError
from tamiz.types import IntArray

__all__ = ["Cuts", "Stored", "rule_of", "sides_by_time"]

_ASSIGNMENTS = "gold/assignments"
_CUTS = "gold/cuts"
_ASSIGNMENT = pa.schema([(name, pa.string()) for name in ("text_key", "raw_key", "group_key", "side", "rule")])
_CUT = pa.schema([("rule", pa.string()), ("side", pa.string()), ("from_time", pa.timestamp("us", "UTC"))])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Cuts = dict[int, int]
"""First time of a side, in microseconds since 1970; what is older than all of them is for training."""


def rule_of(project: Project, *, own_test: bool) -> str:
    """Return the settings that a division depends on, as one line of JSON."""
    settings = project.split
    rule = {
        "by": settings.by,
        "validation": settings.validation,
        "test": "own" if own_test else settings.test,
        "seed": settings.seed,
        "near_duplicates": settings.near_duplicates,
        "group": project.data.group,
        "time": project.data.time if settings.by == "time" else None,
    }
    return json.dumps(rule, sort_keys=True)


class Stored:
    """The assignments of one rule.

    Args:
        lake: where the tables stand.
        rule: see `rule_of`.
    """

    def __init__(self, lake: Lake, rule: str) -> None:
        self._lake, self._rule = lake, rule
        self.renewed = False
        """Whether there are assignments, but of other rules only."""
        columns = ["text_key", "raw_key", "group_key", "side"]
        self.frame = pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        if lake.version(_ASSIGNMENTS) is not None:
            held = [name for name in columns if name in lake.schema(_ASSIGNMENTS).names]  # once without raw keys
            table = lake.read(_ASSIGNMENTS, columns=held, filters=ds.field("rule") == rule)
            # Two runs at once may both have stored a text; one row each keeps joins one to one.
            rows = pl.DataFrame(pl.from_arrow(table)).unique("text_key", keep="first", maintain_order=True)
            self.frame = pl.concat([self.frame, rows], how="diagonal")
            self.renewed = self.frame.is_empty() and lake.count(_ASSIGNMENTS) > 0

    def add(self, keys: pl.DataFrame, sides: NDArray[np.int8]) -> None:
        """Store new assignments in one commit: columns text_key, raw_key and group_key, and a side for each row."""
        if keys.is_empty():
            return
        rows = keys.with_columns(pl.Series("side", sides).replace_strict(range(3), SIDES), rule=pl.lit(self._rule))
        table = rows.select(_ASSIGNMENT.names).to_arrow().cast(_ASSIGNMENT)
        self._lake.append(_ASSIGNMENTS, _ASSIGNMENT, table.to_batches(max_chunksize=50_000))

    def cuts(self, times: IntArray, missing: int, *, validation: float, test: float) -> Cuts:
        """Return the stored cut points; the first time, find them and store them.

        Args:
            times: microseconds since 1970 of all rows that have a time.
            missing: number of rows without one.
            validation: share of all rows for validation.
            test: share of all rows for test, 0 for none.

        Raises:
            SplitError: there are fewer different times than sides.
        """
        found: Cuts = {}
        if self._lake.version(_CUTS) is not None:
            table = self._lake.read(_CUTS, filters=ds.field("rule") == self._rule)
            found = {
                SIDES.index(side): (when - _EPOCH) // timedelta(microseconds=1)
                for side, when in zip(table["side"].to_pylist(), table["from_time"].to_pylist(), strict=True)
            }
        if found:
            return found
        found = _find_cuts(times, missing, validation, test)
        rows = [(self._rule, SIDES[side], _EPOCH + timedelta(microseconds=cut)) for side, cut in found.items()]
        columns = [pa.array(cells, field.type) for cells, field in zip(zip(*rows, strict=True), _CUT, strict=True)]
        batch = pa.RecordBatch.from_arrays(columns, schema=_CUT)
        self._lake.append(_CUTS, _CUT, [batch], transaction_ids=[f"cuts:{self._rule}"])
        return found


def sides_by_time(times: IntArray, present: NDArray[np.bool_], cuts: Cuts) -> NDArray[np.int8]:
    """Return the side of each time; what has none is for training."""
    sides = np.full(len(times), TRAIN, np.int8)
    for side in (VALIDATION, TEST):
        if side in cuts:
            sides[present & (times >= cuts[side])] = side
    return sides


def _find_cuts(times: IntArray, missing: int, validation: float, test: float) -> Cuts:
    """Cut between different times, so that rows of one time stay together, nearest to the shares asked for."""
    distinct, counts = np.unique(times, return_counts=True)
    n = len(times) + missing
    newer = counts[::-1].cumsum()[::-1]  # rows at each time or after
    wanted = {TEST: test, VALIDATION: test + validation} if test else {VALIDATION: validation}
    if len(distinct) <= len(wanted):
        raise SplitError(
            f"split.by: time needs at least {len(wanted) + 1} different times, and data.time gives {len(distinct)}. "
            "Use split.by: hash"
        )
    cuts: Cuts = {}
    end = len(distinct)
    for place, (side, share) in enumerate(wanted.items()):
        first = len(wanted) - place  # leaves a time for each older side
        at = first + int(np.argmin(np.abs(newer[first:end] - share * n)))
        cuts[side] = int(distinct[at])
        end = at
    return cuts

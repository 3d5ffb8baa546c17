"""Silver: cleaned, validated and de-duplicated texts, and a quarantine with the rest.

Bronze is read once to clean every text, into a temporary file, while a few numbers of each row stay in memory. From
these follows which rows are refused; then the quarantine and the silver table are written, each in one commit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamiz.cleaning import Cleaner
from tamiz.config import Project
from tamiz.data.corrections import DROPPED, Corrections, load_corrections
from tamiz.data.lake import Lake
from tamiz.data.refusals import Judged, KeyTable, Reason, check_labels, judge, text_key
from tamiz.data.rows import Labels, Row, RowReader, partition_columns
from tamiz.data.spool import Spool
from tamiz.data.times import TimeReader
from tamiz.errors import RefusedShareError, counted
from tamiz.types import Task

__all__ = ["QUARANTINE", "Cleaned", "clean", "quarantined", "silver_schema"]

QUARANTINE = pa.schema(
    [("row", pa.string()), ("reason", pa.string()), ("source", pa.string()), ("row_number", pa.int64())]
)
"""Columns of a quarantine table: the row as JSON, why it was refused, its file and its 0-based place there."""

_TIME = pa.timestamp("us", "UTC")
_NO_TEXT = "0" * 32


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a cleaning did.

    Attributes:
        version: version of `silver/texts` afterwards.
        rows: rows in it.
        unlabeled: how many of them have no label.
        quarantined: rows in `silver/quarantine`.
        reasons: quarantined rows by reason.
        notices: what the user should know, one sentence each.
    """

    version: int
    rows: int
    unlabeled: int
    quarantined: int
    reasons: dict[str, int]
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """One bronze table on its way to silver."""

    name: str
    table: str
    version: int
    reader: RowReader


def silver_schema(project: Project) -> pa.Schema:
    """Return the columns of `silver/texts`; a row without a label has null there.

    Raises:
        ColumnError: a partition column has the name of a column of Tamiz's own.
    """
    multi = project.task is Task.MULTI_LABEL
    label = ("labels", pa.list_(pa.string())) if multi else ("label", pa.string())
    head = [(name, pa.string()) for name in ("row_id", "text_raw", "text")]
    middle = [label, ("group", pa.string()), ("time", _TIME), ("part", pa.string()), ("text_key", pa.string())]
    origin = [("_source", pa.string()), ("_row", pa.int64()), ("_ingested_at", _TIME)]
    partitions = [(name, pa.string()) for name in partition_columns(project.data)]
    return pa.schema([*head, *middle, *partitions, *origin])


def clean(
    lake: Lake,
    *,
    bronze_version: int,
    test_version: int | None = None,
    unlabeled_version: int | None = None,
    project: Project,
) -> Cleaned:
    """Write `silver/texts` and `silver/quarantine` from the bronze tables at these versions.

    Texts are cleaned with the project's steps and told apart without case and space. Rows without a label are kept as
    unlabelled. The quarantine is replaced even where an error keeps silver as it was, so that one can look there.

    Args:
        lake: where the tables stand.
        bronze_version: version of `bronze/texts`.
        test_version: version of `bronze/test`, the user's own test set.
        unlabeled_version: version of `bronze/unlabeled`; labels in it are not read.
        project: columns, labels, cleaning steps and the largest share of refused rows.

    Raises:
        ColumnError: a column named in the project is not in the data.
        LabelError: fewer than two labels have examples, or a binary task has more.
        DataError: a correction names a row or a label that is not there.
        RefusedShareError: more rows were refused than `data.max_refused` allows; repeated texts do not count.
    """
    versions = {"train": bronze_version, "test": test_version, "unlabeled": unlabeled_version}
    parts = [_part(lake, name, version, project) for name, version in versions.items() if version is not None]
    with Spool(_spool_schema(project)) as spool:
        corrections = load_corrections(project)
        keys, times = _first_pass(lake, parts, project, spool, corrections)
        corrections.check(project.labels.names)
        judged = judge(keys, project, ids_given=project.data.id is not None)
        reasons = Counter(Reason.ALL[code] for code in judged.reasons.tolist() if code)
        lake.replace("silver/quarantine", QUARANTINE, _refused_rows(lake, parts, judged))
        judging = [lake.count(part.table, version=part.version) for part in parts if part.name != "unlabeled"]
        n = sum(judging)
        _check_share(judged.reasons[:n][judged.current[:n]], project, lake)
        check_labels(judged.counts, project, lake.uri("silver/quarantine"))
        kept = _KeptRows(spool, silver_schema(project), judged.reasons == 0, times)
        version = lake.replace("silver/texts", kept.schema, kept.batches())
    notices = (
        *judged.notices,
        *_rename_notices(parts, project),
        *_time_notices(times, project),
        *_clash_notices(reasons),
    )
    return Cleaned(version, kept.rows, kept.unlabeled, sum(reasons.values()), dict(reasons), notices)


def _part(lake: Lake, name: str, version: int, project: Project) -> _Part:
    table, key = {
        "train": ("bronze/texts", "data.source"),
        "test": ("bronze/test", "data.test"),
        "unlabeled": ("bronze/unlabeled", "data.unlabeled"),
    }[name]
    schema = lake.schema(table, version=version)
    return _Part(name, table, version, RowReader(project, schema, key, labelled=name != "unlabeled"))


def _spool_schema(project: Project) -> pa.Schema:
    """Silver's columns with the time as text: how dates are written is known only after the first pass."""
    schema = silver_schema(project)
    return schema.set(schema.get_field_index("time"), pa.field("time", pa.string()))


def _first_pass(
    lake: Lake, parts: list[_Part], project: Project, spool: Spool, corrections: Corrections
) -> tuple[KeyTable, TimeReader]:
    cleaner, keys, times = Cleaner(project.clean), KeyTable(), TimeReader()
    allowed = None if project.labels.names is None else frozenset(project.labels.names)
    for part in parts:
        for batch in lake.scan(part.table, version=part.version, columns=part.reader.columns, batch_rows=2_048):
            row = part.reader.read(batch)
            times.observe(row.times)
            marks = [0] * len(row.texts)
            if part.name != "unlabeled":
                labels, marks = corrections.apply(row.ids, row.labels, part.name)
                row = replace(row, labels=labels)
            cleaned = cleaner.many([text or "" for text in row.texts])
            rows = zip(row.texts, cleaned, row.labels, marks, strict=True)
            reasons = [_row_reason(*cells, allowed) for cells in rows]
            text_keys = [text_key(text) if text else _NO_TEXT for text in cleaned]
            origin = {name: batch.column(name).to_pylist() for name in ("_ingested_at", "_source", "_row")}
            keys.add(
                part=part.name,
                texts=text_keys,
                labels=row.labels,
                reasons=reasons,
                origin=(origin["_ingested_at"], origin["_source"], origin["_row"]),
                ids=row.ids if project.data.id is not None else None,
                corrected=marks,
            )
            spool.write(_spool_batch(spool.schema, part.name, row, cleaned, text_keys, origin))
    return keys, times


def _row_reason(raw: str | None, cleaned: str, labels: Labels, mark: int, allowed: frozenset[str] | None) -> str:
    if mark == DROPPED:
        return Reason.DROPPED
    if raw is None:
        return Reason.MISSING
    if not cleaned.strip():
        return Reason.EMPTY
    if allowed is not None and labels is not None and not allowed.issuperset(labels):
        return Reason.UNLISTED
    return Reason.KEPT


def _spool_batch(
    schema: pa.Schema, part: str, row: Row, cleaned: list[str], text_keys: list[str], origin: dict[str, list[Any]]
) -> pa.RecordBatch:
    values: dict[str, list[Any]] = {
        "row_id": row.ids,
        "text_raw": row.texts,
        "text": cleaned,
        "label": [None if labels is None else labels[0] for labels in row.labels] if "label" in schema.names else [],
        "labels": row.labels,
        "group": row.groups,
        "time": row.times,
        "part": [part] * len(cleaned),
        "text_key": text_keys,
        **row.partitions,
        **origin,
    }
    return pa.RecordBatch.from_arrays([pa.array(values[f.name], f.type) for f in schema], schema=schema)


class _KeptRows:
    """The rows of the spool that enter silver, counted as they pass."""

    def __init__(self, spool: Spool, schema: pa.Schema, kept: NDArray[np.bool_], times: TimeReader) -> None:
        self.schema = schema
        self.rows = 0
        self.unlabeled = 0
        self._spool, self._kept, self._times = spool, kept, times

    def batches(self) -> Iterator[pa.RecordBatch]:
        at = 0
        label = "label" if "label" in self.schema.names else "labels"
        for batch in self._spool.read():
            mask = pa.array(self._kept[at : at + batch.num_rows])
            at += batch.num_rows
            batch = batch.filter(mask)
            column = batch.schema.get_field_index("time")
            times = pa.array([self._times.read(value) for value in batch.column(column).to_pylist()], _TIME)
            arrays = [times if i == column else array for i, array in enumerate(batch.columns)]
            self.rows += batch.num_rows
            self.unlabeled += batch.column(label).null_count
            if batch.num_rows:
                yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _refused_rows(lake: Lake, parts: list[_Part], judged: Judged) -> Iterator[pa.RecordBatch]:
    """Read bronze again for the refused rows: the second scan of a version meets the rows in the order of the first."""
    at = 0
    for part in parts:
        n = lake.count(part.table, version=part.version)
        if judged.reasons[at : at + n].any():
            yield from _refused_of(lake, part, judged.reasons[at : at + n])
        at += n


def _refused_of(lake: Lake, part: _Part, reasons: NDArray[np.int8]) -> Iterator[pa.RecordBatch]:
    at = 0
    for batch in lake.scan(part.table, version=part.version, batch_rows=2_048):
        codes = reasons[at : at + batch.num_rows]
        at += batch.num_rows
        if not codes.any():
            continue
        refused = batch.filter(pa.array(codes != 0)).to_pylist()
        yield quarantined(refused, [Reason.ALL[code] for code in codes[codes != 0].tolist()])


def quarantined(rows: Sequence[Mapping[str, Any]], reasons: Sequence[str]) -> pa.RecordBatch:
    """Return rows, each with its reason, as a quarantine table has them; columns of Tamiz's own are not shown."""
    columns = [
        [_as_json(row) for row in rows],
        list(reasons),
        [row["_source"] for row in rows],
        [row["_row"] for row in rows],
    ]
    arrays = [pa.array(cells, field.type) for cells, field in zip(columns, QUARANTINE, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=QUARANTINE)


def _as_json(row: Mapping[str, Any]) -> str:
    own = {name: None if value != value else value for name, value in row.items() if not name.startswith("_")}
    return json.dumps(own, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, date | datetime | time) else str(value)


def _check_share(codes: NDArray[np.int8], project: Project, lake: Lake) -> None:
    """Refuse to go on where too many rows of the source and the test set were refused for a fault of their own.

    Rows of a content that its file has no longer are not among them: the file may have been mended.
    """
    refused = Counter(Reason.ALL[code] for code in codes.tolist() if code)
    for reason in (*Reason.REPEATS, Reason.DROPPED):
        del refused[reason]
    total, n = refused.total(), len(codes)
    if n and total / n > project.data.max_refused:
        shown = ", ".join(f"{reason}: {count}" for reason, count in refused.most_common())
        raise RefusedShareError(
            f"{total} of {n} rows ({total / n:.1%}) were refused, more than data.max_refused allows "
            f"({project.data.max_refused:.1%}): {shown}. The rows stand in the table {lake.uri('silver/quarantine')}; "
            "mend the files and run again, raise data.max_refused, or, where a file is gone, name another `lake`. "
            "The silver table was left as it was"
        )


def _rename_notices(parts: Sequence[_Part], project: Project) -> list[str]:
    unknown = set(project.labels.rename).difference(*(part.reader.renamed for part in parts))
    return [f"labels.rename: no row has the label {label!r}" for label in sorted(unknown)]


def _time_notices(times: TimeReader, project: Project) -> list[str]:
    notices = []
    if times.unread:
        notices.append(
            f"column {project.data.time!r}: {times.unread} values are not a date or time and were left empty"
        )
    if times.ambiguous:
        notices.append(
            f"column {project.data.time!r}: nothing tells the day from the month in dates such as 03/04/2020; "
            "the month was taken to come first"
        )
    return notices


def _clash_notices(reasons: Counter[str]) -> list[str]:
    clashes = reasons[Reason.CLASH]
    rows = counted(clashes, "row", ("was", "were"))
    return [f"{rows} put aside for a text that stands in the test set"] if clashes else []

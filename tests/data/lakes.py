"""Small sources, projects and whole runs for tests of the lake."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from tamiz.config import Project, parse_project
from tamiz.data.bronze import Ingested, ingest
from tamiz.data.gold import load_examples
from tamiz.data.lake import Lake
from tamiz.data.silver import Cleaned, clean
from tamiz.data.split import Divided, split
from tamiz.types import SourceFile

NOW = datetime(2026, 1, 2, tzinfo=UTC)
WORDS = [f"{a}{b}{c}" for a in "bcdfghjk" for b in "aeiou" for c in "lmnrst"]


class TableSource:
    """A source whose files are tables in memory; the hash of a file is that of its content."""

    def __init__(self, files: dict[str, pa.Table | list[dict[str, Any]]], batch_rows: int = 1000) -> None:
        self.tables = {path: t if isinstance(t, pa.Table) else pa.Table.from_pylist(t) for path, t in files.items()}
        self.batch_rows = batch_rows

    def files(self) -> Sequence[SourceFile]:
        return [SourceFile(path, self._sha256(table), table.nbytes) for path, table in self.tables.items()]

    def batches(self, file: SourceFile) -> Iterator[pa.RecordBatch]:
        yield from self.tables[file.path].to_batches(self.batch_rows)

    @staticmethod
    def _sha256(table: pa.Table) -> str:
        return hashlib.sha256(f"{table.schema}{table.to_pylist()}".encode()).hexdigest()


def project(task: str = "multi-class", **sections: Any) -> Project:
    data = {"source": "unused", **sections.pop("data", {})}
    return parse_project({"version": 1, "name": "p", "task": task, "data": data, **sections})


def rows_of(lake: Lake, table: str, **options: Any) -> list[dict[str, Any]]:
    return lake.read(table, **options).to_pylist()


def put(
    lake: Lake,
    rows: list[dict[str, Any]] | pa.Table,
    *,
    table: str = "bronze/texts",
    name: str = "a.csv",
    partition_by: Sequence[str] = (),
    now: datetime = NOW,
) -> Ingested:
    return ingest(lake, TableSource({name: rows}), table=table, partition_by=partition_by, now=now)


def cleaned(
    lake: Lake,
    rows: list[dict[str, Any]] | pa.Table,
    of: Project,
    *,
    test: list[dict[str, Any]] | None = None,
    unlabeled: list[dict[str, Any]] | None = None,
) -> Cleaned:
    """Ingest rows and clean them."""
    version = put(lake, rows).version
    versions = {}
    for key, table, more in (
        ("test_version", "bronze/test", test),
        ("unlabeled_version", "bronze/unlabeled", unlabeled),
    ):
        versions[key] = None if more is None else put(lake, more, table=table, name=f"{key}.csv").version
    return clean(lake, bronze_version=version, project=of, **versions)


def divided(lake: Lake, rows: list[dict[str, Any]], of: Project, **parts: Any) -> Divided:
    """Ingest rows, clean them and divide them."""
    return split(lake, silver_version=cleaned(lake, rows, of, **parts).version, project=of)


def sides_of(lake: Lake, of: Project, labels: Sequence[str]) -> dict[str, str]:
    """Return the side of each text of `gold/examples`."""
    found = {}
    for side in ("train", "validation", "test"):
        for text in load_examples(lake, side=side, labels=labels, task=of.task).texts:
            assert text not in found
            found[text] = side
    return found

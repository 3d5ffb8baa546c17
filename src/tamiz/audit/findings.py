"""What a check of the data gives: findings with a severity, figures, tables and plots, whatever shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Finding", "Plot", "Severity", "Suspect", "Table", "worst"]


class Severity(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"


@dataclass(frozen=True)
class Table:
    """A table of a finding.

    Attributes:
        title: its heading.
        columns: names of the columns.
        rows: the cells.
        texts: whether cells hold texts of the data, which are left out of JSON.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]
    texts: bool = False


@dataclass(frozen=True)
class Plot:
    """A plot of a finding.

    Attributes:
        title: its heading.
        kind: `bar` or `line`.
        x: places on the horizontal axis.
        series: values at these places, by name.
        y_title: what the vertical axis shows.
        x_title: what the horizontal axis shows, where its names do not say it.
        log: whether the vertical axis is logarithmic.
    """

    title: str
    kind: str
    x: tuple[str | float, ...]
    series: Mapping[str, tuple[float, ...]]
    y_title: str
    x_title: str = ""
    log: bool = False


@dataclass(frozen=True)
class Suspect:
    """A row whose label looks wrong.

    Attributes:
        row_id: identifier of the row.
        side: side of the split that it is on.
        labels: its labels.
        suggested: the labels that the model would give it.
        probability: what the model gives the suggestion; multi-label: to the change it is surest of.
        score: place in the ranking, lower is more suspicious (see `suspects.py`).
        text: the text as it came.
    """

    row_id: str
    side: str
    labels: tuple[str, ...]
    suggested: tuple[str, ...]
    probability: float
    score: float
    text: str


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        name: short name, such as `labels`.
        severity: how much it matters.
        summary: one sentence.
        details: further sentences, for what a person should know or do.
        figures: JSON-able numbers, for machines.
        tables: tables, most important first.
        plots: plots.
    """

    name: str
    severity: Severity
    summary: str
    details: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record without plots and without texts of the data."""
        tables = [asdict(table) for table in self.tables if not table.texts]
        return {
            "name": self.name,
            "severity": str(self.severity),
            "summary": self.summary,
            "details": list(self.details),
            "figures": self.figures,
            "tables": [{key: table[key] for key in ("title", "columns", "rows")} for table in tables],
        }


_ORDER = tuple(Severity)


def worst(severities: Sequence[Severity]) -> Severity:
    """Return the gravest of some severities.

    Example:
        >>> worst([Severity.OK, Severity.WARNING, Severity.NOTE]).value
        'warning'
    """
    return max(severities, key=_ORDER.index, default=Severity.OK)

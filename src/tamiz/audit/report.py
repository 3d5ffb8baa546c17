"""All checks of a project's data, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tamiz.audit.columns import giveaway_finding, labels_finding, missing_finding, trend_finding
from tamiz.audit.findings import Finding, Severity, Suspect, worst
from tamiz.audit.leakage import leakage_finding
from tamiz.audit.rows import read_rows
from tamiz.audit.suspects import find_suspects, suspects_finding
from tamiz.audit.texts import conflicts_finding, duplicates_finding, languages_finding, lengths_finding
from tamiz.config import Project
from tamiz.data.lake import Lake
from tamiz.data.near_duplicates import clusters
from tamiz.errors import LabelError
from tamiz.types import CHECKED_ROWS, Progress

__all__ = ["Report", "check_data"]


@dataclass(frozen=True)
class Report:
    """What a check of a project's data found.

    Attributes:
        project: name of the project.
        findings: one for each check.
        suspects: rows whose label looks wrong, worst first.
    """

    project: str
    findings: tuple[Finding, ...]
    suspects: tuple[Suspect, ...]

    @property
    def severity(self) -> Severity:
        """The gravest severity of all findings."""
        return worst([finding.severity for finding in self.findings])

    @property
    def warnings(self) -> int:
        """Number of warnings."""
        return sum(finding.severity is Severity.WARNING for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record; it holds row ids and labels, but no texts."""
        keys = ("row_id", "side", "labels", "suggested", "probability", "score")
        return {
            "project": self.project,
            "severity": str(self.severity),
            "warnings": self.warnings,
            "findings": [finding.to_dict() for finding in self.findings],
            "suspects": [{key: getattr(one, key) for key in keys} for one in self.suspects],
        }


def check_data(
    lake: Lake,
    project: Project,
    *,
    refusal: str | None = None,
    sample: int = CHECKED_ROWS,
    progress: Progress | None = None,
) -> Report:
    """Check the ingested rows and, where they could be cleaned and split, the split.

    Args:
        lake: where the tables stand; ingest, clean and split must be up to date.
        project: the project.
        refusal: why cleaning or splitting was refused; then neither leakage nor label errors are looked for.
        sample: most rows to look at for label errors.
        progress: told how far the checks have come.

    Raises:
        ColumnError: a column named in the project is not in the data.
    """
    rows = read_rows(lake, project)
    _tell(progress, "looking for repeats")
    near = clusters(rows.texts)
    checks: Sequence[Callable[[], Finding | None]] = (
        lambda: missing_finding(lake, project),
        lambda: labels_finding(rows, project),
        lambda: trend_finding(rows, project),
        lambda: lengths_finding(rows),
        lambda: languages_finding(rows, seed=project.split.seed),
        lambda: duplicates_finding(rows, near),
        lambda: conflicts_finding(rows, near),
        lambda: giveaway_finding(lake, project),
    )
    findings = [finding for check in checks if (finding := check()) is not None]
    if refusal is not None:
        findings.append(Finding("cleaning and split", Severity.WARNING, refusal))
        return Report(project.name, tuple(findings), ())
    _tell(progress, "looking at the split")
    findings.append(leakage_finding(lake, project))
    suspects: list[Suspect] = []
    try:
        suspects, looked_at, n = find_suspects(lake, project, sample=sample, progress=progress)
        findings.append(suspects_finding(suspects, looked_at, n))
    except LabelError as error:  # too few texts, or texts without a word in common
        findings.append(Finding("label errors", Severity.NOTE, f"could not be looked for: {error}"))
    return Report(project.name, tuple(findings), tuple(suspects))


def _tell(progress: Progress | None, message: str) -> None:
    if progress:
        progress(message)

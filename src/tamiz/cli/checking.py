"""`tamiz check`: what is in the data, and what a person should look at before training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tamiz.cli.console import Terminal, note, output, print_json, table
from tamiz.cli.options import AsJson, ProjectPath, Quiet, Wait
from tamiz.cli.projects import guessed_project
from tamiz.config import Project
from tamiz.errors import ConfigError, LabelError, RefusedShareError, SplitError, counted
from tamiz.settings import read_project
from tamiz.types import CHECKED_ROWS

if TYPE_CHECKING:
    from tamiz.audit import Finding, Report

__all__ = ["check"]

_STYLES = {"ok": "green", "note": "cyan", "warning": "bold yellow"}
_SHOWN_ROWS = 10
_SHOWN_CHARACTERS = 60


def check(
    source: Annotated[
        str | None, typer.Argument(help="A file of texts, to check without a project file; by default ./tamiz.yaml.")
    ] = None,
    project: ProjectPath = Path("tamiz.yaml"),
    html: Annotated[Path | None, typer.Option("--html", help="Write the findings with plots as one HTML file.")] = None,
    suspects: Annotated[
        Path | None, typer.Option("--suspects", help="Write rows with doubtful labels as CSV, to be filled in.")
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=100, help="Most rows to look at for label errors.")
    ] = CHECKED_ROWS,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where there is a warning.")] = False,
    wait: Wait = 0.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Report on the data: missing values, labels, lengths, languages, repeats, conflicts, leakage, label errors.

    Brings ingest, clean and split up to date first. Nothing is trained for use and no data is changed.

    Example: tamiz check -p examples/reviews --html report.html

    Example: tamiz check reviews.csv --suspects suspects.csv
    """
    from tamiz.audit import write_page, write_suspects
    from tamiz.data.corrections import filled_lines

    silent = quiet or as_json
    found = guessed_project(source, save=None, quiet=silent) if source else read_project(project, notice=note)
    for path in filter(None, (html, suspects)):
        if not path.parent.is_dir():
            raise ConfigError(f"{path} cannot be written: there is no folder {path.parent}; make it first")
        if path.is_dir():
            raise ConfigError(f"{path} cannot be written: it is a folder; name a file in it")
    filled = [] if suspects is None else filled_lines(suspects)  # refuses a foreign file before the work
    report = _report(found, sample=sample, quiet=silent, wait_s=wait)
    if html is not None:
        write_page(report, html)
    if suspects is not None:
        write_suspects(report.suspects, suspects, found, filled=filled)
    if as_json:
        print_json(report.to_dict())
    else:
        written = [] if html is None else [str(html)]
        if suspects is not None:
            kept = f"; {counted(len(filled), 'line')} filled in before kept" if filled else ""
            written.append(f"{suspects}: {counted(len(report.suspects), 'row')} with doubtful labels{kept}")
        _show(report, written)
    if strict and report.warnings:
        raise typer.Exit(1)


def _report(project: Project, *, sample: int, quiet: bool, wait_s: float) -> Report:
    """Bring the tables up to date and check them; data that cannot be cleaned or split is checked as it came."""
    from tamiz.audit import check_data
    from tamiz.data.lake import Lake
    from tamiz.pipeline import run as run_pipeline
    from tamiz.registry.memory import MemoryRegistry

    refusal = None
    with Terminal(quiet=quiet) as terminal:
        try:
            run_pipeline(project, MemoryRegistry(), listener=terminal, until="split", wait_s=wait_s)
        except (LabelError, RefusedShareError, SplitError) as error:
            refusal = str(error)
        terminal.started("check")
        lake = Lake(project.resolve(project.lake))
        return check_data(lake, project, refusal=refusal, sample=sample, progress=terminal.progress)


def _show(report: Report, written: Sequence[str]) -> None:
    rows: list[list[str | Text]] = [
        [Text(one.severity, _STYLES[one.severity]), one.name, _cell(one.summary, None)] for one in report.findings
    ]
    output.print(table(f"Data of {report.project}", ["", "check", "found"], rows, first_left=3))
    for finding in report.findings:
        if finding.severity != "ok":
            _show_details(finding)
    for path in written:
        output.print(f"wrote {path}")


def _show_details(finding: Finding) -> None:
    output.print(Text.assemble((finding.severity, _STYLES[finding.severity]), f"  {finding.name}"))
    for detail in finding.details:
        output.print(f"  {detail}")
    for one in finding.tables[:1]:
        rows = [[_cell(cell, _SHOWN_CHARACTERS) for cell in row] for row in one.rows[:_SHOWN_ROWS]]
        output.print(table(one.title, one.columns, rows, first_left=len(one.columns)))


def _cell(value: object, most: int | None) -> str:
    """Return a cell without line breaks and control characters."""
    shown = f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
    text = "".join(letter if letter.isprintable() else " " for letter in shown)
    return text if most is None or len(text) <= most else text[: most - 1] + "…"

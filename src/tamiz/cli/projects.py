"""`tamiz init`, `tamiz schema`, and the project guessed for `tamiz run FILE`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from tamiz.cli.console import errors, note, output, print_json, table
from tamiz.cli.options import AsJson, DryRun, as_option
from tamiz.config import Project, json_schema, parse_project
from tamiz.errors import ConfigError
from tamiz.types import Task

if TYPE_CHECKING:
    from tamiz.data.sniff import Sniffed

__all__ = ["guessed_project", "init", "project_name", "schema"]

_SCHEMA_NOTE = "# yaml-language-server: $schema="


def init(
    source: Annotated[str, typer.Argument(help="CSV, TSV, JSONL, Parquet or Excel file, or a folder per class.")],
    to: Annotated[Path, typer.Option("--to", help="Project file to write.")] = Path("tamiz.yaml"),
    name: Annotated[str | None, typer.Option("--name", help="Name of the project; by default the file's.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Column with the text.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Column with the label.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Look at a file of texts and write a project file for it.

    Example: tamiz init reviews.csv
    """
    from tamiz.data.sniff import sniff

    found = sniff(source, text=text, label=label)
    # Other project files of the folder have a lake of their own: one that several share is full of each other's rows.
    lake = None if to.name == "tamiz.yaml" else f"lake-{project_name(to.stem, 'texts')}"
    content = _project_text(found, name=name or _name_of(source), source=_relative(source, to.parent), lake=lake)
    _write_new(to, content, "--to", dry_run=dry_run)
    if as_json:
        print_json({"saw": found.to_dict(), "project": yaml.safe_load(content), "changed": not dry_run})
        return
    show_sniffed(found)
    if dry_run:
        output.print(content)
    else:
        output.print(f"\nwrote {to}. Look it over, then: tamiz run{as_option(to)}")


def schema(
    to: Annotated[Path | None, typer.Option("--to", help="File to write; by default standard output.")] = None,
) -> None:
    """Write the JSON Schema of the project file, for editors.

    Example: tamiz schema --to tamiz.schema.json
    """
    text = json.dumps(json_schema(), ensure_ascii=False, indent=2) + "\n"
    if to is None:
        output.print(text, end="")
        return
    to.write_text(text, encoding="utf-8")
    errors.print(f"wrote {to}; as the first line of a project file: {_SCHEMA_NOTE}{to}")


def guessed_project(source: str, *, save: Path | None, dry_run: bool = False, quiet: bool = False) -> Project:
    """Return a project for a file of texts, unless `quiet` shown on standard error, and saved on request.

    A dry run saves nothing.
    """
    from tamiz.data.sniff import sniff

    found = sniff(source)
    name = _name_of(source)
    if not quiet:
        show_sniffed(found, to_errors=True)
    folder = Path.cwd() if save is None else save.absolute().parent
    content = _project_text(found, name=name, source=_relative(source, folder), home=f"{name}-tamiz")
    if save is not None:
        _write_new(save, content, "--save", dry_run=dry_run)
        if not quiet:
            errors.print(f"{'would save' if dry_run else 'saved'} {save}")
    elif not quiet:
        errors.print("guessed; keep it as a project file with --save tamiz.yaml\n", style="dim")
    return parse_project(yaml.safe_load(content), where=source).at(folder)


def _write_new(path: Path, content: str, option: str, *, dry_run: bool) -> None:
    if path.exists():
        raise ConfigError(f"{path} exists and is never overwritten; write another with {option} FILE")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{option}: the folder {path.parent} does not exist; make it or name another")
    if not dry_run:
        with path.open("x", encoding="utf-8") as file:  # nor what came in the moment between
            file.write(content)


def show_sniffed(found: Sniffed, *, to_errors: bool = False) -> None:
    """Print what was seen in a file and what was made of it."""
    console = errors if to_errors else output
    rows = [
        [c.name, c.role or "", c.type, f"{c.missing:.1%}", f"{c.distinct:,}", f"{c.mean_length:.0f}"]
        for c in found.columns
    ]
    seen = f"{found.rows:,} rows" + ("" if found.complete else " (the first ones)")
    columns = ["column", "taken as", "type", "missing", "distinct", "mean length"]
    console.print(table(f"{found.place}: {seen}", columns, rows, first_left=3))
    common = sorted(found.labels.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{label} {count:,}" for label, count in common[:12])
    more = f" and {len(common) - 12} more" if len(common) > 12 else ""
    console.print(f"task: {found.task}; {len(common)} labels: {shown}{more}")
    for role, reason in found.reasons.items():
        console.print(f"  {role}: {reason}")
    for warning in found.warnings:
        note(warning)


def _name_of(source: str) -> str:
    stem = re.sub(r"\.(csv|tsv|jsonl|ndjson|json|parquet|xlsx?|txt|gz)$", "", source.rstrip("/").rsplit("/", 1)[-1])
    stem = re.sub(r"\.(csv|tsv|jsonl|ndjson|json)$", "", stem)
    return project_name(stem, "texts")


def project_name(text: str, otherwise: str) -> str:
    """Return a text as a name that a project may have."""
    return (re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_") or otherwise)[:64]


def _relative(source: str, folder: Path) -> str:
    if "://" in source:
        return source
    path, base = Path(source).absolute(), folder.absolute()
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


def _project_text(found: Sniffed, *, name: str, source: str, lake: str | None = None, home: str | None = None) -> str:
    """Return the text of a project file; `home` puts lake, registry and store into a folder of their own."""
    data: dict[str, Any] = {"source": source, "text": found.text, "label": found.label}
    data |= {key: value for key in ("id", "time", "separator") if (value := getattr(found, key)) is not None}
    project: dict[str, Any] = {"version": 1, "name": name, "task": str(found.task), "data": data}
    project["split"] = {"by": "hash", "validation": 0.1, "test": 0.1, "seed": 0}
    # Rare labels hardly ever reach .5, so with several labels a text most texts would get none.
    tuned = {"thresholds": "f1"} if found.task is Task.MULTI_LABEL else {}
    project["candidates"] = [{"family": "prior"}, {"family": "linear", **tuned}]
    project["select"] = {"metric": "val_f1_macro", "refit": True}
    if lake is not None:
        project["lake"] = lake
    if home is not None:
        project["lake"] = f"{home}/lake"
        project["registry"] = {
            "mlflow": f"sqlite:///{home}/mlflow.db",
            "artifacts": f"{home}/mlartifacts",
            "store": f"{home}/models",
        }
    notes = "# A Tamiz project. All keys: docs/project-file.md, or your editor after: tamiz schema --to schema.json\n"
    return notes + yaml.safe_dump(project, sort_keys=False, allow_unicode=True, width=110)

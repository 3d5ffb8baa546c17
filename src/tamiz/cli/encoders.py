"""`tamiz models`: pretrained models that families build on, and bringing them to this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tamiz.cli.console import Terminal, errors, output, print_json, table
from tamiz.cli.labelling import Asked, Describe, Labels, Language, MultiLabel, Template, labelled
from tamiz.cli.options import AsJson, DryRun, check_new
from tamiz.errors import ConfigError

if TYPE_CHECKING:
    from tamiz.encoders.catalogue import Entry

__all__ = ["models_app"]

models_app = typer.Typer(
    help="List pretrained models, bring one to this machine, or make a package of one.", invoke_without_command=True
)


@models_app.callback()
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the pretrained models that families can build on, with size, languages, licence, scores and where they lie.

    Example: tamiz models

    Example: tamiz models install minilm

    Example: tamiz models package minilm --labels "health,money,family" --output zero-shot
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise ConfigError(f"--json goes behind the command: tamiz models {context.invoked_subcommand} ... --json")
        return
    from tamiz.encoders.catalogue import CATALOGUE
    from tamiz.encoders.scores import SOURCE

    found = [_about(entry) for entry in CATALOGUE.values()]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["name"],
            one["kind"],
            f"{one['size_bytes'] / 1e6:.1f} MB",
            ", ".join(one["languages"]),
            one["licence"],
            ", ".join(f"{name} {score:.2f}" for name, score in one["zero_shot"].items()) or "-",
            "yes" if one["on_disk"] else "no",
        )
        for one in found
    ]
    columns = ("name", "kind", "download", "languages", "licence", "zero-shot accuracy", "on disk")
    output.print(table("Pretrained models", columns, rows, first_left=len(columns)))
    for one in found:
        place = f"in {one['where']}" if one["where"] else f"tamiz models install {one['name']}"
        output.print(f"{one['name']}: {one['purpose']}\n    {place}")
    output.print(f"Scores: {SOURCE}")


@models_app.command("install")
def install(
    name: Annotated[str, typer.Argument(help="Name of the model, as `tamiz models` lists it.")],
    index_url: Annotated[str | None, typer.Option("--index-url", help="Package index; by default pip's own.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Download a pretrained model into the user's cache and check it; nothing is installed into Python.

    Example: tamiz models install minilm
    """
    from tamiz.encoders import known

    entry = known.entry_of(name)
    before = _about(entry)["where"]
    if not dry_run:
        with Terminal(quiet=as_json) as terminal:
            terminal.started("models")
            known.install(name, index_url=index_url, progress=terminal.progress)
    about = _about(entry)
    if as_json:
        print_json({**about, "changed": about["where"] != before})
        return
    if not about["on_disk"]:
        output.print(f"{name} would be downloaded, {about['size_bytes'] / 1e6:.1f} MB; licence: {about['licence']}")
        return
    for key in ("name", "where", "licence"):
        output.print(f"{key:<9} {about[key]}")


@models_app.command("package")
def package(
    name: Annotated[str, typer.Argument(help="A name of `tamiz models`, a folder of weights, or a hub id.")],
    output_: Annotated[Path, typer.Option("--output", "-o", help="Folder of the package; must not exist.")],
    labels: Labels = None,
    multi_label: MultiLabel = False,
    template: Template = None,
    language: Language = None,
    describe: Describe = None,
    as_json: AsJson = False,
) -> None:
    """Make a model package of a pretrained model and labels, without any data; requests may bring others.

    Example: tamiz models package minilm --labels "health,money,family" --output zero-shot
    """
    check_new(output_)
    if labels is None:
        raise ConfigError("--labels is needed, for requests that bring none, such as --labels health,money")
    model = labelled(name, Asked(labels, multi_label, template, language, describe), None)
    model.save(output_)
    if as_json:
        print_json({"output": str(output_), "name": model.name, "labels": list(model.labels)})
        return
    output.print(f"model {model.name!r} in {output_}")
    errors.print(f"serve it with: tamiz serve --package {output_}")


def _about(entry: Entry) -> dict[str, Any]:
    from tamiz.encoders.known import whereabouts
    from tamiz.encoders.scores import SEEN, scores_of

    place = whereabouts(entry)
    return {
        "name": entry.name,
        "kind": entry.kind,
        "purpose": entry.purpose,
        "size_bytes": entry.wheel.size_bytes,
        "languages": list(entry.languages),
        "licence": entry.licence,
        "zero_shot": scores_of(entry.name),
        "trained_on": list(SEEN.get(entry.name, ())),
        "requirement": entry.requirement,
        "on_disk": place is not None,
        "where": None if place is None else f"{place.holder}: {place.path}",
    }

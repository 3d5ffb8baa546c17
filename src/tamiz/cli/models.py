"""`tamiz versions`, `tamiz promote`, `tamiz rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tamiz.cli.console import figure, output, print_json, table
from tamiz.cli.options import AsJson, DryRun, ProjectPath
from tamiz.config import Project
from tamiz.errors import ConfigError, ModelNotFoundError
from tamiz.metrics import higher_is_better
from tamiz.pipeline.publish import promote as promote_version
from tamiz.pipeline.publish import rollback as roll_back
from tamiz.settings import Settings, new_registry, read_project
from tamiz.store import ModelStore

__all__ = ["register"]

Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("versions")(versions)
    app.command("promote")(promote)
    app.command("rollback")(rollback)


def _store(project: Project) -> ModelStore:
    return ModelStore(project.resolve(project.registry.store))


def versions(project: ProjectPath = Path("tamiz.yaml"), as_json: AsJson = False) -> None:
    """List the versions of the project's model, newest first.

    Example: tamiz versions -p examples/reviews
    """
    found = read_project(project)
    index = _store(found).index(found.name)
    if as_json:
        print_json(index.model_dump(mode="json"))
        return
    aliases: dict[str, list[str]] = {}
    for alias, version in index.aliases.items():
        aliases.setdefault(version, []).append(alias)
    metric = "test_" + found.select.metric.removeprefix("val_")
    rows = [
        [
            version,
            ", ".join(sorted(aliases.get(version, []))),
            info.candidate,
            info.created_at[:16].replace("T", " "),
            figure(info.metrics.get(found.select.metric)),
            figure(info.metrics.get(metric)),
            f"{info.size_bytes / 1e6:.1f}",
        ]
        for version, info in sorted(index.versions.items(), key=lambda item: -int(item[0]))
    ]
    columns = ["version", "aliases", "candidate", "made (UTC)", found.select.metric, metric, "MB"]
    output.print(table(f"Versions of {found.name}", columns, rows, first_left=4))


def promote(
    version: Annotated[str | None, typer.Argument(help="Version to promote; or give --by.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Take the best version by this metric.")] = None,
    alias: Annotated[str, typer.Option("--alias", help="Alias to point at it.")] = "champion",
    reason: Reason = "promoted by hand",
    project: ProjectPath = Path("tamiz.yaml"),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion.

    Example: tamiz promote 3

    Example: tamiz promote --by test_f1_macro
    """
    if (version is None) == (by is None):
        raise ConfigError("give a version to promote, or --by METRIC")
    found = read_project(project)
    store = _store(found)
    if by is not None:
        version, reason = _best(store, found.name, by), f"best by {by}"
    _, number = store.resolve(f"{found.name}@{version}")
    if not dry_run:
        user = Settings.from_environment().user
        promote_version(store, new_registry(found), found.name, number, alias=alias, by=user, reason=reason)
    _answer({"model": found.name, "alias": alias, "version": number, "changed": not dry_run}, as_json=as_json)


def _best(store: ModelStore, name: str, metric: str) -> str:
    sign = 1 if higher_is_better(metric) else -1
    versions = {v: info.metrics[metric] for v, info in store.index(name).versions.items() if metric in info.metrics}
    if not versions:
        raise ModelNotFoundError(f"no version of {name!r} has the metric {metric!r}")
    return max(versions, key=lambda v: (sign * versions[v], int(v)))


def rollback(
    reason: Reason = "rolled back by hand",
    project: ProjectPath = Path("tamiz.yaml"),
    as_json: AsJson = False,
) -> None:
    """Make the previous champion the champion again.

    Example: tamiz rollback --reason "complaints about version 4"
    """
    found = read_project(project)
    user = Settings.from_environment().user
    version = roll_back(_store(found), new_registry(found), found.name, by=user, reason=reason)
    _answer({"model": found.name, "alias": "champion", "version": version, "changed": True}, as_json=as_json)


def _answer(change: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(change)
        return
    verb = "is now" if change["changed"] else "would become"
    output.print(f"version {change['version']} of {change['model']} {verb} the {change['alias']}", markup=False)

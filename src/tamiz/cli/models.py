"""`tamiz promote`, `tamiz rollback` and `tamiz reproduce`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tamiz.cli.console import note, output, print_json, table
from tamiz.cli.options import AsJson, DryRun, ProjectPath
from tamiz.cli.versions import show_replays, store_of
from tamiz.config import Project
from tamiz.errors import ConfigError, StoreError
from tamiz.metrics.choice import Best, best_version
from tamiz.settings import Settings, new_registry, read_project
from tamiz.store import CHAMPION, ModelStore

if TYPE_CHECKING:
    from tamiz.pipeline.reproduce import Reproduction

__all__ = ["promote", "reproduce", "rollback"]

Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]


def promote(
    version: Annotated[str | None, typer.Argument(help="Version to promote; or give --by.")] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="Take the best version by this metric, of the store or of MLflow.")
    ] = None,
    lowest: Annotated[
        bool | None,
        typer.Option("--lowest/--highest", help="With --by: which is best; by default known from the metric's name."),
    ] = None,
    alias: Annotated[str, typer.Option("--alias", help="Alias to point at it.")] = CHAMPION,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the record.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote against the evidence; needs --reason.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Compute its recorded decisions again.")] = False,
    project: ProjectPath = Path("tamiz.yaml"),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion, if it passes the gates of `select` or is forced.

    Example: tamiz promote 3

    Example: tamiz promote --by test_f1_macro

    Example: tamiz promote --by eval_perplexity --lowest

    Example: tamiz promote 3 --force --reason "the champion leaks names"

    Example: tamiz promote 3 --replay
    """
    from tamiz.pipeline.evidence import check_slices
    from tamiz.pipeline.publish import promote as promote_version

    _check_options(version, by, lowest, reason, force=force)
    found = read_project(project)
    store = store_of(found)
    best = None if by is None else _best(found, store, by, lowest)
    if best is not None:
        version, reason = best.version, f"{reason}; {best.reason}" if reason else best.reason
    if replay:
        show_replays(found, store, str(version), as_json=as_json)
        return
    _, number = store.resolve(f"{found.name}@{version}")
    change: dict[str, object] = {"model": found.name, "alias": alias, "version": number, "changed": not dry_run}
    if best is not None:
        change["best"] = asdict(best)
    if alias == CHAMPION:
        check_slices(found)
        change |= _champion(found, store, number, reason or "asked for by hand", force=force, dry_run=dry_run)
    else:
        about = {"by": Settings.from_environment().user, "reason": reason or "asked for by hand"}
        promote_version(
            store, new_registry(found), found.name, number, alias=alias, **about, notice=note, dry_run=dry_run
        )
    refused = change.pop("refused", None)
    if refused is not None and not as_json:
        raise StoreError(str(refused))
    _answer(change, as_json=as_json)
    if refused is not None:
        raise typer.Exit(1)


def _check_options(
    version: str | None, by: str | None, lowest: bool | None, reason: str | None, *, force: bool
) -> None:
    if version is not None and by is not None:
        raise ConfigError(f"{version} and --by {by} do not go together: give a version to promote, or --by METRIC")
    if version is None and by is None:
        raise ConfigError("give a version to promote, or --by METRIC")
    if lowest is not None and by is None:
        raise ConfigError("--lowest and --highest go with --by METRIC")
    if force and reason is None:
        raise ConfigError("--force: promoting against the evidence needs a reason, such as --reason 'the new law'")


def _champion(
    project: Project, store: ModelStore, number: str, reason: str, *, force: bool, dry_run: bool
) -> dict[str, object]:
    """Decide about a version and return what to say; `refused` where it does not become champion."""
    from tamiz.data.lake import Lake
    from tamiz.pipeline.promotion import decide

    decision = decide(
        project,
        store,
        Lake(project.resolve(project.lake)),
        new_registry(project),
        number,
        by=Settings.from_environment().user,
        asked="hand",
        why=reason,
        force=force,
        dry_run=dry_run,
        notice=note,
    )
    said: dict[str, object] = {"outcome": decision.outcome, "evidence": decision.reason, "decision": decision.number}
    if decision.promoted:
        if decision.outcome in ("refuse", "no evidence", "gives way"):
            note(f"{decision.outcome}: {decision.reason}")
        return said
    text = f"version {number} of {project.name} is not promoted: {decision.reason}. "
    text += f"Promote it all the same with: tamiz promote {number} --force --reason TEXT"
    return {**said, "changed": False, "refused": text}


def _best(project: Project, store: ModelStore, metric: str, lowest: bool | None) -> Best:
    from tamiz.pipeline.choose import figures_of

    figures = figures_of(store, new_registry(project), project.name, metric, notice=note)
    best = best_version(figures, metric, None if lowest is None else "min" if lowest else "max")
    note(f"version {best.version} is {best.reason}")
    if not best.known:
        other = "--highest" if best.mode == "min" else "--lowest"
        note(f"which way {metric} is better was guessed from its name; if it is the other way: {other}")
    return best


def rollback(
    reason: Reason = "rolled back by hand",
    project: ProjectPath = Path("tamiz.yaml"),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make the previous champion the champion again.

    Example: tamiz rollback --reason "complaints about version 4"
    """
    from tamiz.pipeline.publish import rollback as roll_back

    found = read_project(project)
    user = Settings.from_environment().user
    about = {"by": user, "reason": reason}
    version = roll_back(store_of(found), new_registry(found), found.name, **about, notice=note, dry_run=dry_run)
    _answer({"model": found.name, "alias": CHAMPION, "version": version, "changed": not dry_run}, as_json=as_json)


def reproduce(
    version: Annotated[str, typer.Argument(help="Version to train again; a number or an alias.")],
    project: ProjectPath = Path("tamiz.yaml"),
    as_json: AsJson = False,
) -> None:
    """Train a version again from its recorded inputs and show what differs; exit code 1 if anything does.

    Example: tamiz reproduce 3
    """
    from tamiz.data.lake import Lake
    from tamiz.pipeline.reproduce import reproduce as train_again

    found = read_project(project)
    result = train_again(found, store_of(found), Lake(found.resolve(found.lake)), version)
    if as_json:
        print_json(result.to_dict())
    else:
        _show_reproduction(found.name, result)
    if not result.same:
        raise typer.Exit(1)


def _show_reproduction(name: str, result: Reproduction) -> None:
    rows = [[metric, *(_exact(value) for value in pair)] for metric, pair in result.metrics.items()]
    output.print(table(f"Version {result.version} of {name}", ["metric", "recorded", "again"], rows))
    output.print(f"largest difference of a probability: {result.probability_difference:.3g}")
    for file, same in result.files.items():
        output.print(f"{file}: {'the same bytes' if same else 'other bytes'}")
    for what, (before, now) in result.changed.items():
        output.print(f"{what}: was {before or '-'}, is {now or '-'}")
    output.print("reproduced" if result.same else "NOT reproduced")


def _exact(value: float | None) -> str:
    return "-" if value is None else f"{value:.10g}"


def _answer(change: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(change)
        return
    verb = "is now" if change["changed"] else "would become"
    output.print(f"version {change['version']} of {change['model']} {verb} the {change['alias']}")

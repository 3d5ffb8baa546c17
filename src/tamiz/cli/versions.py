"""`tamiz versions`: list, look at, compare and delete the versions of a project's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tamiz.cli.console import figure, output, print_json, short, table
from tamiz.cli.options import AsJson, DryRun, ProjectPath
from tamiz.config import Project
from tamiz.errors import ConfigError, StoreError
from tamiz.package import Manifest, read_manifest
from tamiz.settings import read_project
from tamiz.store import Index, ModelStore

__all__ = ["show_replays", "store_of", "versions"]

_SIMPLE = ("family", "candidate", "task", "labels", "positive", "text_column", "clean", "prepare", "code_version")
_MAPPINGS = ("params", "calibration", "rule", "data", "libraries", "metrics")


def store_of(project: Project) -> ModelStore:
    """Return the model store of a project."""
    return ModelStore(project.resolve(project.registry.store))


def versions(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="VERSION shows one, `diff A B` compares two, `delete VERSION` deletes one."),
    ] = None,
    project: ProjectPath = Path("tamiz.yaml"),
    replay: Annotated[bool, typer.Option("--replay", help="With VERSION: compute its decisions again.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """List the versions of the project's model, newest first; show, compare or delete some.

    Example: tamiz versions -p examples/reviews

    Example: tamiz versions 3

    Example: tamiz versions diff 2 3

    Example: tamiz versions delete 2 --dry-run
    """
    if replay and (not what or what[0] in ("diff", "delete")):
        raise ConfigError("--replay goes with a version, such as: tamiz versions 3 --replay")
    found = read_project(project)
    store = store_of(found)
    match what or []:
        case []:
            _list(found, store, as_json=as_json)
        case ["diff", one, other]:
            _diff(store, found.name, one, other, as_json=as_json)
        case ["delete", version]:
            _delete(store, found.name, version, dry_run=dry_run, as_json=as_json)
        case [version] if version not in ("diff", "delete"):
            if replay:
                show_replays(found, store, version, as_json=as_json)
            else:
                _show(store, found.name, version, as_json=as_json)
        case _:
            given, allowed = " ".join(what or []), "nothing, VERSION, diff A B, delete VERSION"
            raise ConfigError(f"versions: got {given!r}; allowed: {allowed}. See: tamiz versions --help")


def _list(project: Project, store: ModelStore, *, as_json: bool) -> None:
    index = store.index(project.name)
    if as_json:
        print_json(index.model_dump(mode="json"))
        return
    metric = "test_" + project.select.metric.removeprefix("val_")
    rows = [
        [
            version,
            ", ".join(_aliases(index, version)),
            info.candidate,
            info.created_at[:16].replace("T", " "),
            figure(info.metrics.get(project.select.metric)),
            figure(info.metrics.get(metric)),
            f"{info.size_bytes / 1e6:.1f}",
        ]
        for version, info in sorted(index.versions.items(), key=lambda item: -int(item[0]))
    ]
    total = sum(info.size_bytes for info in index.versions.values()) / 1e6
    columns = ["version", "aliases", "candidate", "made (UTC)", project.select.metric, metric, "MB"]
    title = f"Versions of {project.name} ({len(rows)}, {total:.1f} MB)"
    output.print(table(title, columns, rows, first_left=4))


def _aliases(index: Index, version: str) -> list[str]:
    return sorted(alias for alias, named in index.aliases.items() if named == version)


def _show(store: ModelStore, name: str, version: str, *, as_json: bool) -> None:
    index = store.index(name)
    number = version
    if version not in index.versions and not store.decisions(name, version):
        _, number = store.resolve(f"{name}@{version}")
    info, decisions = index.versions.get(number), store.decisions(name, number)
    if as_json:
        about = None if info is None else info.model_dump(mode="json")
        print_json({"version": number, "aliases": _aliases(index, number), "info": about, "decisions": decisions})
        return
    output.print(f"version {number} of {name}" + ("" if info else ", deleted"))
    if info is not None:
        output.print(f"  aliases    {', '.join(_aliases(index, number)) or '-'}")
        output.print(f"  candidate  {info.candidate} ({info.family}), made {info.created_at[:16]}")
        output.print(f"  size       {info.size_bytes / 1e6:.1f} MB")
        for metric, value in info.metrics.items():
            output.print(f"  {metric:<30} {figure(value)}")
    for place, decision in decisions.items():
        _show_decision(place, decision)


def _show_decision(number: int, decision: dict[str, Any]) -> None:
    verb = "forced" if decision["forced"] else "promoted" if decision["promoted"] else "not promoted"
    inputs = decision["inputs"]
    against = f" instead of version {inputs['champion']}" if inputs["champion"] else ""
    output.print(f"decision {number}, {decision['at'][:16]} by {decision['by']}: {verb}{against}")
    if decision["why"]:
        output.print(f"  reason given: {decision['why']}")
    failed = [gate["reason"] for gate in decision["gates"] if not gate["passed"]]
    said = "see below" if failed and decision["reason"] == "; ".join(failed) else decision["reason"]
    output.print(f"  {decision['outcome']}: {said}")
    for gate in decision["gates"]:
        output.print(f"  {'pass' if gate['passed'] else 'FAIL'}  {gate['name']:<8} {gate['reason']}")
    test = inputs.get("test")
    if test:
        seen = {who: found["unknown"] or found["rows"] for who, found in test["seen"].items()}
        left_out = ", ".join(f"{what} by the {who}" for who, what in seen.items())
        output.print(
            f"  asked on {test['rows']} test examples of gold version {inputs['gold']}; left out, since learnt from: "
            f"{left_out}"
        )


def show_replays(project: Project, store: ModelStore, version: str, *, as_json: bool) -> None:
    """Compute the decisions about a version again and show what differs.

    Raises:
        StoreError: there is none.
        Exit: with code 1, when any differs.
    """
    from tamiz.data.lake import Lake
    from tamiz.pipeline.promotion import replay as replay_decision

    _, number = store.resolve(f"{project.name}@{version}")
    decisions = store.decisions(project.name, number)
    if not decisions:
        raise StoreError(f"nothing was decided about version {number} of {project.name!r}, so nothing can be replayed")
    lake = Lake(project.resolve(project.lake))
    found = {place: replay_decision(store, lake, decision) for place, decision in decisions.items()}
    if as_json:
        print_json({"version": number, "replays": found})
    else:
        for place, differences in found.items():
            said = "the same again" if not differences else f"{len(differences)} differences"
            output.print(f"decision {place} about version {number}: {said}")
            for line in differences:
                output.print(f"  {line}")
    if any(found.values()):
        raise typer.Exit(1)


def _diff(store: ModelStore, name: str, one: str, other: str, *, as_json: bool) -> None:
    numbers = [store.resolve(f"{name}@{which}")[1] for which in (one, other)]
    first, second = (_flat(read_manifest(store.fetch(f"{name}@{number}"))) for number in numbers)
    keys = [*first, *(key for key in second if key not in first)]
    differences = {key: [first.get(key), second.get(key)] for key in keys if first.get(key) != second.get(key)}
    if as_json:
        print_json({"versions": numbers, "differences": differences})
        return
    rows = [[key, *(_shown(value) for value in pair)] for key, pair in differences.items()]
    output.print(table(f"Versions of {name}", ["what differs", *numbers], rows))


def _flat(manifest: Manifest) -> dict[str, Any]:
    """Return what is compared, mappings one level down as `section.key`."""
    content = manifest.model_dump(mode="json", include={*_SIMPLE, *_MAPPINGS})
    content["size_bytes"] = manifest.size_bytes
    flat: dict[str, Any] = {}
    for section in (*_SIMPLE, "size_bytes", *_MAPPINGS):
        value = content[section]
        if isinstance(value, dict):
            flat |= {f"{section}.{key}": inner for key, inner in value.items() if key not in ("key", "candidate")}
        else:
            flat[section] = value
    return flat


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else short(str(value), 60)


def _delete(store: ModelStore, name: str, version: str, *, dry_run: bool, as_json: bool) -> None:
    _, number = store.resolve(f"{name}@{version}")
    freed = store.index(name).versions[number].size_bytes
    store.delete(name, number, dry_run=dry_run)
    if as_json:
        print_json({"model": name, "version": number, "freed_bytes": freed, "changed": not dry_run})
        return
    verb = "would be" if dry_run else "was"
    output.print(f"version {number} of {name} {verb} deleted ({freed / 1e6:.1f} MB)")

"""`tamiz tune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from tamiz.cli.console import Terminal, note, output, print_json, table
from tamiz.cli.options import AsJson, DryRun, ProjectPath, Quiet, Wait
from tamiz.cli.running import changed
from tamiz.config import Project
from tamiz.errors import ConfigError
from tamiz.settings import new_registry, read_project

if TYPE_CHECKING:
    from tamiz.pipeline.tune import Plan, TuneResult

__all__ = ["tune"]


def tune(
    project: ProjectPath = Path("tamiz.yaml"),
    candidate: Annotated[
        str | None, typer.Option("--candidate", "-c", help="Candidate or family; by default the first with a space.")
    ] = None,
    trials: Annotated[int | None, typer.Option("--trials", help="Trials of the study, earlier ones included.")] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="Begin no trial after so many minutes.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Metric to search by.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key, such as tune.folds=5 or tune.space.words=[1,2].")
    ] = None,
    output_: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the tuned candidate to this YAML file.")
    ] = None,
    wait: Wait = 3600.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search for better parameters of a candidate, scored on validation data.

    Stop it and start it again: it goes on. Start it in two terminals: they share the trials.

    Example: tamiz tune -p examples/reviews --candidate linear --trials 30

    Example: tamiz tune --minutes 20 --set "tune.space.C={low: 1, high: 50, log: true}"
    """
    from tamiz.pipeline.tune import plan
    from tamiz.pipeline.tune import tune as search

    given = {"candidate": candidate, "trials": trials, "minutes": minutes, "metric": metric}
    settings = [f"tune.{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    found = changed(read_project(project, notice=note), set_ or [])
    found = changed(found, settings, where="options")
    if output_ is not None and not output_.absolute().parent.is_dir():
        raise ConfigError(f"--output: the folder {output_.parent} does not exist; make it or name another")
    if dry_run:
        _show_plan(found, plan(found), as_json=as_json)
        return
    with Terminal(quiet=quiet or as_json) as terminal:
        result = search(found, new_registry(found), listener=terminal, wait_s=wait)
    if output_ is not None and result.tuned is not None:
        output_.write_text(_snippet(result.tuned), encoding="utf-8")
    if as_json:
        print_json(result.to_dict())
        return
    _show(result)
    _show_next(result, output_)


def _show_plan(project: Project, planned: Plan, *, as_json: bool) -> None:
    space, settings = planned.space, project.tune
    start = space.start()
    if as_json:
        about = {"candidate": planned.candidate, "family": space.candidate.family, "metric": planned.metric}
        budget = {"trials": settings.trials, "minutes": settings.minutes}
        storage = project.resolve(settings.storage)
        print_json({**about, **budget, "storage": storage, "space": space.to_dict(), "changed": False})
        return
    rows = [
        [
            d.name,
            str(d),
            json.dumps(space.present(d.name)),
            json.dumps(d.value(start[d.name])) if d.name in start else "-",
        ]
        for d in space.dimensions
    ]
    rows += [
        [name, f"always {json.dumps(value)}", json.dumps(space.present(name)), "-"]
        for name, value in space.fixed.items()
    ]
    title = f"Space of {planned.candidate} ({space.candidate.family}), by {planned.metric}"
    output.print(table(title, ["parameter", "searched", "now", "start"], rows, first_left=4))
    limit = f", at most {settings.minutes:g} minutes" if settings.minutes is not None else ""
    output.print(f"{settings.trials} trials{limit}; kept in {project.resolve(settings.storage)}")


def _show(result: TuneResult) -> None:
    """Print the parameters of default and best, and how surely the best is better."""
    rows = [
        [name, json.dumps(own["default"]), _short(own["best"]), _share(result.importances.get(name))]
        for name, own in result.parameters.items()
    ]
    if result.best is None:
        output.print("No trial has finished yet; run the same command again.")
        return
    rows.append([result.metric, "-" if result.default is None else f"{result.default:.4f}", f"{result.best:.4f}", ""])
    title = f"Best of {result.candidate} against what stands in the project"
    output.print(table(title, ["parameter", "default", "best", "importance"], rows, first_left=3))
    if result.difference is not None:
        found = result.difference
        output.print(
            f"  difference {found['difference']:+.4f} (95 % interval {found['low']:+.4f} to {found['high']:+.4f}, "
            f"P(better) {found['p_better']:.2f}) on the {found['n']:,} examples that served to choose, so somewhat too "
            "good"
        )
    if result.page:
        output.print(f"  plots: {result.page}")
    output.print(f"  study: {result.study} in {result.database}")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _show_next(result: TuneResult, file: Path | None) -> None:
    if result.tuned is None:
        if result.best is not None:
            output.print("\nNothing better was found than what stands in the project.")
        return
    if file is not None:
        output.print(f"\nThe tuned candidate stands in {file}; put it under `candidates`, then: tamiz run")
        return
    output.print("\nAdd it to the project file, then `tamiz run` compares it with the others:\n")
    output.print(_snippet(result.tuned))


def _snippet(tuned: dict[str, Any]) -> str:
    """Return the candidate as YAML to paste."""
    return yaml.safe_dump({"candidates": [tuned]}, sort_keys=False, allow_unicode=True, default_flow_style=None)

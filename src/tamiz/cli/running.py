"""`tamiz run` and its single steps, `tamiz compare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.text import Text

from tamiz.blobs import open_blobs
from tamiz.cli.console import Terminal, errors, figure, note, output, print_json, table
from tamiz.cli.options import AsJson, DryRun, ProjectPath, Quiet, Wait, as_option, from_here
from tamiz.cli.projects import guessed_project
from tamiz.config import Project, parse_project
from tamiz.errors import ConfigError, SourceError
from tamiz.settings import new_registry, read_project
from tamiz.types import RunRecord

if TYPE_CHECKING:
    from tamiz.pipeline import RunResult
    from tamiz.pipeline.jobs import Job
    from tamiz.pipeline.train import Trained

__all__ = ["changed", "compare", "run", "show_leaderboard", "single_steps"]

_ABOUT = {
    "ingest": "Append new source files to the bronze tables.",
    "clean": "Clean, check and de-duplicate the texts (silver), after ingest.",
    "split": "Divide the texts into training, validation and test (gold), after clean.",
    "train": "Train and measure the candidates that have changed, after split.",
    "evaluate": "Choose a candidate, score it on test, publish and promote it, after train.",
}
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a key, such as split.seed=1; may be given several times.")
]
_LEAST_SHOWN = 0.0005  # with three digits
# What tables show besides the metric of choice, and how they call it.
_HEADINGS = {
    "val_accuracy": "accuracy",
    "val_subset_accuracy": "all right",
    "val_f1_macro": "F1 macro",
    "val_roc_auc_macro": "AUC",
    "val_ece": "ECE",
    "fit_seconds": "fit s",
    "latency_p50_ms": "p50 ms",
    "texts_per_s": "texts/s",
    "size_mb": "MB",
}


def run(
    source: Annotated[
        str | None, typer.Argument(help="A file of texts, to run without a project file; by default ./tamiz.yaml.")
    ] = None,
    project: ProjectPath = Path("tamiz.yaml"),
    set_: Changes = None,
    save: Annotated[Path | None, typer.Option("--save", help="With a file: save the guessed project here.")] = None,
    wait: Wait = 0.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole pipeline: ingest, clean, split, train, evaluate.

    Steps whose inputs have not changed are skipped. Each job is a command of its own as well: `tamiz fetch`,
    `tamiz split`, `tamiz train`, `tamiz evaluate` or `tamiz promote --by METRIC`, `tamiz predict`; `--dry-run` shows
    which are done.

    Example: tamiz run -p examples/reviews

    Example: tamiz run reviews.csv
    """
    from tamiz.pipeline.jobs import jobs

    if source:
        found = guessed_project(source, save=save, dry_run=dry_run, quiet=quiet or as_json)
    else:
        found = read_project(project, notice=note)
    if source is None and save is not None:
        raise ConfigError("--save goes with a file of texts")
    found = changed(found, set_ or [])
    if dry_run:
        _show_plan(found, "evaluate", as_json=as_json, file=save if source else project)
        return
    if not (quiet or as_json):
        errors.print(Text.assemble(("jobs", "blue"), f"  {', '.join(_said(job) for job in jobs(found))}"))
    result = _run(found, "evaluate", quiet=quiet or as_json, wait_s=wait)
    _show_result(found, result, as_json=as_json, file=save if source else project)


def single_steps() -> dict[str, Callable[..., None]]:
    """Return the commands of single steps, by name."""
    return {step: _step(step, about) for step, about in _ABOUT.items()}


def _step(step: str, about: str) -> Callable[..., None]:
    def command(
        project: ProjectPath = Path("tamiz.yaml"),
        set_: Changes = None,
        wait: Wait = 0.0,
        dry_run: DryRun = False,
        as_json: AsJson = False,
        quiet: Quiet = False,
    ) -> None:
        found = changed(read_project(project, notice=note), set_ or [])
        if dry_run:
            _show_plan(found, step, as_json=as_json, file=project)
            return
        result = _run(found, step, quiet=quiet or as_json, wait_s=wait)
        if as_json:
            print_json(result.to_dict())
        elif step in ("train", "evaluate"):
            _show_result(found, result, as_json=False, file=project)

    command.__doc__ = f"{about}\n\nExample: tamiz {step} -p examples/reviews"
    return command


def _run(project: Project, until: str, *, quiet: bool, wait_s: float) -> RunResult:
    from tamiz.pipeline import run as run_pipeline
    from tamiz.pipeline.jobs import jobs

    try:
        with Terminal(quiet=quiet) as terminal:
            return run_pipeline(project, new_registry(project), listener=terminal, until=until, wait_s=wait_s)
    except SourceError as error:
        if error.__cause__ is not None:  # a server or a disk refused: that is no job to do first
            raise
        fetch = jobs(project)[0]
        if fetch.done:
            raise
        raise SourceError(
            f"{error}. The job before this one is missing: bring public data with {fetch.command}, or "
            "name your own files under data.source"
        ) from error


def _said(job: Job) -> str:
    """Say in a few words how far a job is."""
    if job.name == "query":
        return "query ready" if job.done else "query after deploy"
    return f"{job.name} {'done' if job.done else 'to do'}" + (f" ({job.about})" if job.about else "")


def changed(project: Project, settings: list[str], *, where: str = "--set") -> Project:
    """Return the project with each `--set key.path=value` applied, the value read as YAML.

    Args:
        project: as it was read.
        settings: the changes.
        where: what error messages call their source.

    Raises:
        ConfigError: there is no such key, or the value is wrong.
    """
    if not settings:
        return project
    raw: dict[str, Any] = project.model_dump(mode="json", exclude_unset=True)
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r}: write it as key.path=value")
        place: Any = raw
        *parents, last = path.split(".")
        try:
            for part in parents:
                place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
            place[int(last) if isinstance(place, list) else last] = yaml.safe_load(value)
        except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise ConfigError(f"--set {setting!r}: there is no such key") from error
    return parse_project(raw, where=where).at(project.folder)


def _show_plan(project: Project, until: str, *, as_json: bool, file: Path | None) -> None:
    from tamiz.pipeline.jobs import jobs
    from tamiz.pipeline.run import check_project

    check_project(project)
    steps = list(_ABOUT)
    plan = {
        "project": project.name,
        "task": str(project.task),
        "sources": [project.resolve(place) for place in project.data.source],
        "lake": project.resolve(project.lake),
        "store": project.resolve(project.registry.store),
        "mlflow": project.registry.mlflow,
        "steps": steps[: steps.index(until) + 1],
        "candidates": [candidate.title for candidate in project.candidates],
        "select": project.select.metric,
    }
    found = jobs(project, contents=True)
    if as_json:
        print_json({**plan, "jobs": [asdict(job) for job in found], "changed": False})
        return
    for name, value in plan.items():
        output.print(f"{name:<11} {', '.join(value) if isinstance(value, list) else value}")
    output.print("\nJobs:")
    here = "" if file is None else as_option(file)
    for job in found:
        where = "" if job.name == "fetch" else here
        output.print(f"  {_said(job):<34}  {job.command}{where}")


def _show_result(project: Project, result: RunResult, *, as_json: bool, file: Path | None) -> None:
    """Show what a run came to and what to type next; `file` is the project file, if there is one."""
    if as_json:
        print_json(result.to_dict())
        return
    show_leaderboard(project, result)
    if result.version is None:
        return
    store = project.registry.store
    line = f"\nversion {result.version} ({result.chosen})"
    output.print(line + (" is the champion" if result.champion == result.version else " is not the champion"))
    output.print(f"  because: {result.verdict}")
    for name in ("test_accuracy", "test_subset_accuracy", "test_f1_macro", "test_roc_auc_macro", "test_ece"):
        if name in result.metrics:
            output.print(f"  {name:<22} {figure(result.metrics[name], result.intervals.get(name))}")
    if result.report:
        output.print(f"  report: {_shown_place(result.report)}")
    if file is None:  # guessed from a file of texts
        model, served = f" --model {store}/{project.name}", f" --package {store}/{project.name}/{result.version}"
    else:
        model = served = as_option(file)
    output.print("\nNext:")
    output.print(f'  tamiz predict "..."{model}')
    output.print(f"  tamiz predict --input new.csv --output answers.csv{model}")
    if file is not None:
        output.print(f"  tamiz promote --by {project.select.metric}{model}")
    output.print(f"  tamiz serve{served}")


def _shown_place(place: str) -> str:
    return place if "://" in place else from_here(Path(place))


def show_leaderboard(project: Project, result: RunResult) -> None:
    """Print the candidates, best first, the chosen one marked."""
    metric = project.select.metric
    shown = _shown_metrics(metric, [c.metrics for c in result.leaderboard])
    rows = [
        [
            c.candidate + (" *" if c.candidate == result.chosen else ""),
            *(figure(c.metrics.get(name), c.intervals.get(name) if name == metric else None) for name in shown),
        ]
        for c in result.leaderboard
    ]
    headings = ["candidate", *(_HEADINGS.get(name, name) for name in shown)]
    output.print(table("Candidates on validation, best first", headings, rows))
    if result.lead is not None:
        output.print(f"  {_lead(result.lead, result.leaderboard)}")
    for name, why in result.refused.items():
        output.print(f"  {name} is outside the limits: {why}")


def _lead(ahead: Mapping[str, Any], leaderboard: Sequence[Trained]) -> str:
    """Say how far the chosen candidate is ahead of the next, or how it was chosen of two equals."""
    winner, other, metric = ahead["winner"], ahead["runner_up"], ahead["metric"]
    interval = f"{ahead['low']:+.3f} to {ahead['high']:+.3f}"
    values = {c.metrics.get(metric) for c in leaderboard if c.candidate in (winner, other)}
    if len(values) == 1:
        why = f"{winner} is chosen because it stands first in the project file"
        return f"{winner} and {other} are equal in {metric} (95 % interval of the difference {interval}): {why}"
    by = abs(ahead["difference"])
    shown = f"{by:.3f}" if by >= _LEAST_SHOWN else f"{by:.1g}"
    return (
        f"{winner} leads {other} by {shown} in {metric} (95 % interval {interval}, P(better) {ahead['p_better']:.2f})"
    )


def _shown_metrics(metric: str, found: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the metric of choice and the usual ones that anybody has."""
    return [metric, *(name for name in _HEADINGS if name != metric and any(name in metrics for metrics in found))]


def compare(
    project: ProjectPath = Path("tamiz.yaml"),
    by: Annotated[str | None, typer.Option("--by", help="Metric to sort by; by default select.metric.")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write an HTML page of all runs here.")] = None,
    as_json: AsJson = False,
) -> None:
    """List all recorded runs of the project, best first.

    Example: tamiz compare -p examples/reviews --by val_log_loss

    Example: tamiz compare --report comparison.html
    """
    from tamiz.metrics import higher_is_better

    found = read_project(project, notice=note)
    metric = by or found.select.metric
    sign = -1 if higher_is_better(metric) else 1
    worst = float("inf")
    runs = sorted(new_registry(found).runs(), key=lambda r: sign * r.metrics[metric] if metric in r.metrics else worst)
    if report is not None:
        _write_comparison(report, found, runs, metric)
    if as_json:
        print_json([asdict(record) for record in runs])
        return
    shown = _shown_metrics(metric, [record.metrics for record in runs])
    headings = ["candidate", "version", "run", *(_HEADINGS.get(name, name) for name in shown)]
    rows = [
        [r.candidate, r.version or "-", r.run_id[:8], *(figure(r.metrics.get(name)) for name in shown)] for r in runs
    ]
    output.print(table(f"Runs of {found.name}, best first", headings, rows, first_left=3))
    if report is not None:
        output.print(f"report: {report}")


def _write_comparison(path: Path, project: Project, runs: Sequence[RunRecord], metric: str) -> None:
    from tamiz.pipeline.report import compare_report

    page = compare_report(project, runs, open_blobs(project.resolve(project.lake)), metric)
    try:
        path.write_bytes(page.encode("utf-8", "replace"))
    except OSError as error:
        raise ConfigError(f"--report: {path} cannot be written: {error.strerror}; name a file in a folder") from error

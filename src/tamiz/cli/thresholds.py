"""`tamiz thresholds`: how a version decides, and another decision with the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from tamiz._files import explain
from tamiz.cli.console import figure, output, print_json, table
from tamiz.cli.options import AsJson, DryRun, ProjectPath, as_option
from tamiz.errors import ConfigError
from tamiz.metrics import METRICS
from tamiz.settings import Settings, new_registry, read_project

if TYPE_CHECKING:
    from tamiz.pipeline.decide import Decision, Redecided

__all__ = ["thresholds"]

_PANEL = "Change (makes a new version)"


def thresholds(
    version: Annotated[str, typer.Argument(help="Version or alias.")] = "champion",
    metric: Annotated[
        str | None, typer.Option("--metric", help="Tune thresholds for this, such as f2.", rich_help_panel=_PANEL)
    ] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option("--at-least", help="What must be kept, such as precision=0.9.", rich_help_panel=_PANEL),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="LABEL=0.4: set a threshold by hand.", rich_help_panel=_PANEL)
    ] = None,
    costs: Annotated[
        Path | None, typer.Option("--costs", help="YAML file of costs of mistakes.", rich_help_panel=_PANEL)
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option("--calibrate", help="auto, none, temperature, sigmoid or isotonic.", rich_help_panel=_PANEL),
    ] = None,
    abstain_below: Annotated[
        float | None, typer.Option("--abstain-below", help="Confidence to answer from.", rich_help_panel=_PANEL)
    ] = None,
    abstain_coverage: Annotated[
        float | None, typer.Option("--abstain-coverage", help="Share of texts to answer.", rich_help_panel=_PANEL)
    ] = None,
    abstain_error: Annotated[
        float | None, typer.Option("--abstain-error", help="Most wrong answers, as a share.", rich_help_panel=_PANEL)
    ] = None,
    conformal: Annotated[
        float | None,
        typer.Option("--conformal", help="How often sets must hold the true label.", rich_help_panel=_PANEL),
    ] = None,
    sets_only: Annotated[
        bool,
        typer.Option("--sets-only", help="With --conformal: answer all the same.", rich_help_panel=_PANEL),
    ] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Start from .5, no costs and no abstention.", rich_help_panel=_PANEL)
    ] = False,
    promote: Annotated[
        bool,
        typer.Option("--promote", help="Make it the champion, whatever the gates say.", rich_help_panel=_PANEL),
    ] = False,
    project: ProjectPath = Path("tamiz.yaml"),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Show how a version decides; or make a version with the same weights that decides in another way.

    Calibration, thresholds and abstention are fitted on the validation data that the version was trained with.

    Example: tamiz thresholds

    Example: tamiz thresholds 3 --metric f2 --dry-run

    Example: tamiz thresholds --costs costs.yaml --abstain-coverage 0.9 --promote
    """
    from tamiz.pipeline.decide import describe, redecide

    found = read_project(project)
    asked = {
        "thresholds": _thresholds(metric, at_least or [], set_ or []),
        "costs": None if costs is None else _read_costs(costs),
        "calibrate": calibrate,
        "abstain_below": abstain_below,
        "abstain": _without_none({"coverage": abstain_coverage, "error": abstain_error}),
        "conformal": None if conformal is None else {"coverage": conformal, "abstain": not sets_only},
    }
    if sets_only and conformal is None:
        raise ConfigError("--sets-only goes with --conformal")
    changes = {key: value for key, value in asked.items() if value not in (None, {})}
    if not changes and not reset:
        if promote or dry_run:
            raise ConfigError("there is nothing to change; add --metric, --set, --costs, --calibrate or another option")
        _show(describe(found, version), as_json=as_json)
        return
    user = Settings.from_environment().user
    made = redecide(
        found, new_registry(found), version, changes, by=user, reset=reset, promote=promote, dry_run=dry_run
    )
    _show_made(made, as_json=as_json, file=project)


def _thresholds(metric: str | None, at_least: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {} if metric is None else {"metric": metric}
    for key, option, pairs in (("at_least", "--at-least", at_least), ("values", "--set", values)):
        if pairs:
            found[key] = dict(_pair(option, pair) for pair in pairs)
    return found


def _pair(option: str, text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")  # a label may hold = itself
    try:
        if equals:
            return name, float(value)
    except ValueError:
        pass
    raise ConfigError(f"{option} {text!r}: write it as NAME=0.4")


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _read_costs(path: Path) -> dict[str, Any]:
    try:
        costs = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--costs {path}: it cannot be read: {explain(error)}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--costs {path}: it cannot be read: {error}") from error
    costs = costs.get("costs", costs) if isinstance(costs, dict) else costs
    if not isinstance(costs, dict) or not costs:
        raise ConfigError(f"--costs {path}: a mapping is expected, such as false_negative: 5")
    return costs


def _show(decision: Decision, *, as_json: bool) -> None:
    if as_json:
        print_json(decision.to_dict())
        return
    output.print(f"{decision.model}, version {decision.version}, {decision.task}\n")
    _show_decision(decision)


def _show_decision(decision: Decision) -> None:
    rule, calibration = decision.rule, decision.calibration
    because = calibration.get("reason")
    lines = {
        "calibration": calibration["method"] + (f" ({because})" if because else ""),
        "tuned for": _goal(rule.get("settings", {}).get("thresholds", {})),
        "costs": _costs(rule.get("settings", {}).get("costs")),
        "abstains below": _number(rule.get("abstain_below")),
        "abstains above cost": _number(rule.get("abstain_cost")),
        "sets": _sets(rule.get("conformal")),
        "note": rule.get("reason"),
    }
    for name, value in lines.items():
        if value:
            output.print(f"{name:<20} {value}")
    rows = [[label, f"{value:.4f}"] for label, value in decision.thresholds.items()]
    if rows:
        output.print(table("\nThresholds", ["label", "threshold"], rows))


def _goal(thresholds: Mapping[str, Any]) -> str:
    kept = ", ".join(f"{name} at least {bound:g}" for name, bound in thresholds.get("at_least", {}).items())
    metric = str(thresholds.get("metric", ""))
    return f"{metric}, {kept}" if kept else metric


def _costs(costs: Mapping[str, Any] | None) -> str | None:
    return None if costs is None else str(yaml.safe_dump(dict(costs), default_flow_style=True, width=10_000)).strip()


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _sets(conformal: Mapping[str, Any] | None) -> str | None:
    if conformal is None:
        return None
    held = f"hold the true label with probability {conformal['coverage']:g} ({conformal.get('score', 'lac')})"
    return held if not conformal.get("abstain", True) else f"{held}; no answer unless just one label"


def _show_made(made: Redecided, *, as_json: bool, file: Path) -> None:
    if as_json:
        print_json({**made.to_dict(), "changed": made.version is not None})
        return
    _show_decision(made.decision)
    rows = [
        [name, figure(made.before.get(name)), figure(made.after.get(name)), *_test(made, name)]
        for name in (f"val_{base}" for base in METRICS)
        if name in made.before or name in made.after
    ]
    columns = ["metric", f"version {made.base}", "new", *(["new, test"] if made.version else [])]
    output.print(table("\nValidation figures", columns, [[row[0].removeprefix("val_"), *row[1:]] for row in rows]))
    if made.version is None:
        output.print("nothing was changed (--dry-run)")
        return
    output.print(f"version {made.version} has the weights of version {made.base}")
    if made.promoted:
        output.print("it is now the champion")
    else:
        output.print(f"Next:\n  tamiz promote {made.version}{as_option(file)}")


def _test(made: Redecided, name: str) -> list[str]:
    name = name.replace("val_", "test_", 1)
    return [figure(made.metrics.get(name), made.intervals.get(name))] if made.version else []

"""What people see of a study: runs in the registry, a page of plots beside the lake's reports."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tamiz.extras import require
from tamiz.pipeline.report import report_place
from tamiz.pipeline.run import Context
from tamiz.pipeline.tune_spaces import Space
from tamiz.pipeline.tune_study import Study
from tamiz.types import Registry, RunState

if TYPE_CHECKING:
    from tamiz.pipeline.tune import TuneResult

__all__ = ["Page", "TrialRecorder", "importances", "write_page"]

_FEWEST = 4  # finished trials; fewer say nothing about what matters
_MOST_ROWS = 200
_RECORDED = "recorded"
_STATES: dict[str, RunState] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


class Page(NamedTuple):
    """A page of plots: its HTML, and where it is kept."""

    content: bytes
    place: str


class TrialRecorder:
    """Record a study as a run and its trials as runs inside it; whoever comes next records what a killed one left.

    Args:
        study: the open study.
        registry: where.
        space: what is searched.
        metric: of the search.
    """

    def __init__(self, study: Study, registry: Registry, space: Space, metric: str) -> None:
        self._study, self._registry, self._space, self._metric = study, registry, space, metric

    def catch_up(self) -> None:
        """Record the trials that have ended and are not recorded."""
        with self._study.locked():
            recorded = set(self._study.noted(_RECORDED) or [])
            ended = [trial for trial in self._study.trials(*_STATES) if trial.number not in recorded]
            parent = self._own({}, "RUNNING") if ended else None
            for trial in ended:
                self._record(trial, parent)
            if ended:
                self._study.note(_RECORDED, sorted(recorded | {trial.number for trial in ended}))

    def finish(self, best: float | None, default: float | None, trials: Mapping[str, int], artifacts: Path) -> str:
        """Record what the study has come to, and return the id of its run; the study is locked already."""
        values = {f"best_{self._metric}": best, f"default_{self._metric}": default}
        metrics = {name: value for name, value in values.items() if value is not None}
        metrics |= {f"trials_{name}": float(count) for name, count in trials.items()}
        return self._own(metrics, "RUNNING" if trials.get("running") else "FINISHED", artifacts)

    def _own(self, metrics: Mapping[str, float], state: RunState, artifacts: Path | None = None) -> str:
        candidate = self._space.candidate
        return self._registry.nested(
            key=self._study.name,
            name=self._study.name,
            params={
                "candidate": candidate.title,
                "family": candidate.family,
                "metric": self._metric,
                "searched": ", ".join(dimension.name for dimension in self._space.dimensions),
            },
            metrics=metrics,
            tags={"tamiz.study": self._study.name},
            state=state,
            artifacts=artifacts,
        )

    def _record(self, trial: Any, parent: str | None) -> None:
        attributes = trial.user_attrs
        values = self._space.values(trial.params)
        if attributes.get("default"):
            values = {name: self._space.present(name) for name in self._space.names}
        metrics = dict(attributes.get("metrics", {}))
        if trial.value is not None:
            metrics[self._metric] = float(trial.value)
        if "seconds" in attributes:
            metrics["seconds"] = float(attributes["seconds"])
        tags = {"tamiz.study": self._study.name, "tamiz.trial": str(trial.number), "tamiz.state": trial.state.name}
        tags |= {f"tamiz.{name}": str(attributes[name]) for name in ("default", "why", "again") if name in attributes}
        self._registry.nested(
            key=f"{self._study.name}/{trial.number}",
            name=f"trial {trial.number}" + (" (default)" if attributes.get("default") else ""),
            params={name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()},
            metrics=metrics,
            tags=tags,
            parent=parent,
            state=_STATES[trial.state.name],
            times=(trial.datetime_start.timestamp(), trial.datetime_complete.timestamp()),
        )


def importances(study: Study) -> dict[str, float]:
    """Return the share of each parameter in what makes trials differ, largest first; empty where it cannot be known."""
    done = study.trials("COMPLETE")
    if len(done) < _FEWEST or len({trial.value for trial in done}) < 2:
        return {}
    require("optuna", extra="tune")
    evaluate = import_module("optuna.importance").get_param_importances
    found = _tried(lambda: evaluate(study.optuna_study))
    return {name: float(share) for name, share in (found or {}).items()}


def write_page(context: Context, study: Study, result: TuneResult) -> Page:
    """Draw the study and keep the page beside the lake's reports.

    Args:
        context: project and lake.
        study: the study, locked.
        result: what it has come to.
    """
    require("plotly", extra="train")
    pages = import_module("tamiz.reports.page")
    parameters = [
        (name, json.dumps(own["default"]), json.dumps(own["best"]), result.importances.get(name, ""))
        for name, own in result.parameters.items()
    ]
    tables = [
        pages.Listing("Best against default", ("parameter", "default", "best", "importance"), parameters),
        pages.Listing(
            f"Trials, best first (at most {_MOST_ROWS})", ("trial", "state", result.metric, "seconds"), _rows(study)
        ),
    ]
    note = (
        f"Study {result.study}. {result.metric} of the candidate as it stands: {_shown(result.default)}; at best "
        f"{_shown(result.best)} (trial {result.best_trial}). The examples served to choose, so the best value is "
        "somewhat too good: train the candidate and look at its test figures."
    )
    title = f"{context.project.name}: search for {result.candidate}"
    content = pages.figures_page(title, note, tables, _figures(study, result.metric)).encode("utf-8", "replace")
    key = f"reports/{context.project.name}/tuning/{study.name}.html"
    context.blobs.write(key, content)
    return Page(content, report_place(context.blobs, key))


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _rows(study: Study) -> list[tuple[object, ...]]:
    best = study.best()
    higher = study.optuna_study.direction.name == "MAXIMIZE"
    done = sorted(study.trials("COMPLETE"), key=lambda trial: -trial.value if higher else trial.value)
    return [
        (
            f"{trial.number}{' *' if trial.number == best.number else ''}",
            trial.state.name.lower() + (", default" if trial.user_attrs.get("default") else ""),
            "" if trial.value is None else float(trial.value),
            float(trial.user_attrs.get("seconds", 0.0)),
        )
        for trial in [*done, *study.trials("PRUNED"), *study.trials("FAIL")][:_MOST_ROWS]
    ]


def _figures(study: Study, metric: str) -> list[dict[str, Any]]:
    """Return history, importance and parallel coordinates, as far as there are trials enough for them."""
    plots = import_module("optuna.visualization")
    own, about = study.optuna_study, {"target_name": metric}
    wanted: list[Callable[[], Any]] = [
        lambda: plots.plot_optimization_history(own, **about),
        lambda: plots.plot_parallel_coordinate(own, **about),
    ]
    if importances(study):
        wanted.insert(1, lambda: plots.plot_param_importances(own, **about))
    return [json.loads(figure.to_json()) for make in wanted if (figure := _tried(make)) is not None]


def _tried(make: Callable[[], Any]) -> Any:
    """Return what `make` gives, `None` where the trials do not suffice for it; a missing plot ends no search."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return make()
        except (ValueError, RuntimeError, ArithmeticError):
            return None

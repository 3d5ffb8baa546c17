"""Search for better parameters of a candidate: trials of a study, recorded, drawn and compared with what there was."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tamiz.classifiers import CLASSIFIERS
from tamiz.config import CandidateConfig, Project
from tamiz.data.gold import load_examples
from tamiz.errors import ConfigError, DataError, TamizError, one_of
from tamiz.extras import require
from tamiz.metrics import METRICS, compare, higher_is_better
from tamiz.metrics.names import base_name
from tamiz.pipeline.checks import check_positive, check_sides
from tamiz.pipeline.inputs import encoders_of
from tamiz.pipeline.members import named
from tamiz.pipeline.run import Context, Listener, check_project, run
from tamiz.pipeline.state import code_version, fingerprint
from tamiz.pipeline.tune_record import TrialRecorder, importances, write_page
from tamiz.pipeline.tune_score import Bench, PrunedError, bench_of
from tamiz.pipeline.tune_spaces import Space, default_space, space_of
from tamiz.pipeline.tune_study import Claim, Study
from tamiz.types import Registry

__all__ = ["Plan", "TuneResult", "plan", "tune"]

# What a fit may raise for parameters that do not go with the data; anything else is a fault, and ends the search.
_REFUSALS = (TamizError, ValueError, ArithmeticError, MemoryError)


@dataclass(frozen=True)
class Plan:
    """What a search would do.

    Attributes:
        candidate: name of the candidate.
        space: what is searched.
        metric: the metric to search by.
        higher: whether a higher value is better.
    """

    candidate: str
    space: Space
    metric: str
    higher: bool


@dataclass(frozen=True)
class TuneResult:
    """What a search has come to.

    Attributes:
        study: name of the study.
        database: its SQLite file.
        candidate: name of the candidate.
        family: its classifier family.
        metric: metric of the search.
        trials: how many there are, by state: `complete`, `pruned`, `failed`, `running`, `interrupted` (and done again).
        default: value of the candidate as it stands.
        best: value of the best trial.
        best_trial: its number; 0 or that of the default where nothing better was found.
        parameters: value of each searched or fixed parameter: `default` and `best`.
        metrics: figures of the best trial.
        difference: best against default on the examples that the trials were scored on, which served to choose: `low`
            and `high` of the 95 % interval, `p_better`; `None` where they are the same.
        importances: share of each parameter in what makes trials differ.
        tuned: the best candidate as the project file takes it; `None` where nothing better was found.
        page: where the page with the plots is.
        run_id: the study's run in the registry.
    """

    study: str
    database: str
    candidate: str
    family: str
    metric: str
    trials: dict[str, int]
    default: float | None = None
    best: float | None = None
    best_trial: int | None = None
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    difference: dict[str, Any] | None = None
    importances: dict[str, float] = field(default_factory=dict)
    tuned: dict[str, Any] | None = None
    page: str | None = None
    run_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record."""
        return asdict(self)


def plan(project: Project) -> Plan:
    """Return what a search would do.

    Raises:
        ConfigError: the section `tune` is wrong, there is nothing to tune, or the project could not be run.
        MissingExtraError: Optuna is not installed, or as `check_project`.
    """
    require("optuna", extra="tune")  # said now rather than after the data is made ready
    project = project.model_copy(update={"candidates": named(project.candidates)})
    settings = project.tune
    metric = settings.metric or project.select.metric
    if not metric.startswith("val_") or base_name(metric) not in METRICS:
        allowed = one_of(metric, [f"val_{name}" for name in METRICS], limit=40)
        raise ConfigError(f"tune.metric: got {metric!r}, a validation metric of answers is needed; {allowed}")
    candidate = _candidate(project)
    mode = settings.mode or (project.select.mode if settings.metric is None else None)
    higher = higher_is_better(metric) if mode is None else mode == "max"
    planned = Plan(candidate.title, space_of(candidate, settings, project.task), metric, higher)
    check_project(project)
    return planned


def _candidate(project: Project) -> CandidateConfig:
    wanted = project.tune.candidate
    if wanted is None:
        tunable = [candidate for candidate in project.candidates if default_space(candidate.family)]
        return tunable[0] if tunable else project.candidates[-1]
    by_title = {candidate.title: candidate for candidate in project.candidates}
    if wanted in by_title:
        return by_title[wanted]
    if wanted in CLASSIFIERS:
        return CandidateConfig(family=wanted)
    raise ConfigError(f"tune.candidate: unknown {wanted!r}; {one_of(wanted, {*by_title, *CLASSIFIERS})}")


def tune(
    project: Project, registry: Registry, *, listener: Listener | None = None, wait_s: float = 3600.0
) -> TuneResult:
    """Search until the study has `tune.trials` trials, or `tune.minutes` are over.

    The same search again goes on where it was, also after a kill; several processes share it.

    Args:
        project: the project, variables expanded.
        registry: where study and trials are recorded.
        listener: told what happens.
        wait_s: how long to wait for another process that brings the data up to date.

    Raises:
        BusyError: another run still holds the project after `wait_s` seconds.
        ConfigError: the section `tune` is wrong, or there is nothing to tune.
        MissingExtraError: Optuna is not installed.
        TamizError: whatever goes wrong with project, data or registry; finished trials stay.
    """
    planned = plan(project)
    run(project, registry, listener=listener, until="split", wait_s=wait_s)
    context = Context(project, registry, listener)
    gold = (context.state.last("split") or {})["result"]
    check_positive(project, gold["labels"])
    check_sides(project, gold["counts"], context.side("validation", gold))
    context.listener.started("tune")
    bench = _bench(context, gold, planned)
    study = Study(
        Path(project.resolve(project.tune.storage)),
        _study_name(project, planned, gold),
        higher=planned.higher,
        settings=project.tune,
        space=planned.space,
        steps=bench.steps,
        owner=context.owner,
    )
    with study:
        recorder = TrialRecorder(study, registry, planned.space, planned.metric)
        _search(context, study, bench, planned, recorder)
        result = _conclude(context, study, bench, planned, recorder)
    context.finish("tune", _summary(result))
    return result


def _bench(context: Context, gold: dict[str, Any], planned: Plan) -> Bench:
    project = context.project
    about: dict[str, Any] = {"labels": gold["labels"], "task": project.task, "version": gold["version"]}
    columns = () if project.tune.folds is None else ("group",)
    train = load_examples(context.lake, side="train", **about, columns=columns, raw=False)
    validation = context.side("validation", gold)
    return bench_of(project, gold["labels"], planned.metric, train=train, validation=validation)


def _study_name(project: Project, planned: Plan, gold: dict[str, Any]) -> str:
    """Return a name that is the same only where values of trials can be compared."""
    settings = project.tune
    key = fingerprint(
        lake=project.resolve(project.lake),
        gold=[gold["digest"], gold["version"]],
        labels=gold["labels"],
        positive=project.labels.positive,
        task=project.task,
        clean=project.clean,
        candidate=planned.space.candidate.model_dump(),
        encoders=encoders_of(planned.space.candidate.params),
        space=planned.space.to_dict(),
        metric=planned.metric,
        higher=planned.higher,
        folds=settings.folds,
        rungs=settings.rungs,
        pruning=settings.pruning,
        seeds=[settings.seed, project.split.seed],
        code=code_version(),
    )
    return f"{project.name}-{planned.candidate}-{key[:12]}"


def _search(context: Context, study: Study, bench: Bench, planned: Plan, recorder: TrialRecorder) -> None:
    """Run trials until the budget is spent."""
    settings, progress = context.project.tune, context.listener.progress
    ends = time.monotonic() + 60 * settings.minutes if settings.minutes is not None else float("inf")
    recorder.catch_up()
    if made := study.spent():
        context.listener.notice(_taken_up(made, settings.trials))
    while time.monotonic() < ends and (claim := study.claim(settings.trials)) is not None:
        if progress:
            progress("trials", study.spent() - 1, settings.trials)
        _trial(context, study, bench, planned, claim)
        recorder.catch_up()


def _taken_up(made: int, trials: int) -> str:
    """Say how many trials an earlier search or another process has made or begun."""
    more = "" if made < trials else "; nothing is left to search, --trials or `tune.trials` gives it more"
    return f"the study has {made:,} of {trials:,} trials already{more}"


def _trial(context: Context, study: Study, bench: Bench, planned: Plan, claim: Claim) -> None:
    began = time.perf_counter()

    def report(step: int, value: float) -> None:
        if study.report(claim, step, value):
            raise PrunedError

    try:
        config = planned.space.candidate if claim.is_default else planned.space.applied(claim.values)
        told: Callable[[int, float], None] | None = None if context.project.tune.pruning == "none" else report
        scored = bench.score(config, report=told, progress=context.listener.progress)
    except PrunedError:
        study.prune(claim, time.perf_counter() - began)
    except _REFUSALS as error:
        # What other libraries say may hold a text.
        study.fail(claim, str(error) if isinstance(error, TamizError) else type(error).__name__)
        if claim.is_default:
            raise
    else:
        study.complete(claim, scored)


def _conclude(context: Context, study: Study, bench: Bench, planned: Plan, recorder: TrialRecorder) -> TuneResult:
    """Compare, draw and record what the study has come to so far."""
    with study.locked():
        states = {"complete": "COMPLETE", "pruned": "PRUNED", "running": "RUNNING"}
        trials = {name: len(study.trials(state)) for name, state in states.items()}
        trials["failed"] = len(study.trials("FAIL")) - study.interrupted()
        trials["interrupted"] = study.interrupted()
        found: dict[str, Any] = {
            "study": study.name,
            "database": str(study.database),
            "candidate": planned.candidate,
            "family": planned.space.candidate.family,
            "metric": planned.metric,
            "trials": trials,
        }
        default, best = study.default(), study.best()
        if best is not None:
            found |= {"best": best.value, "best_trial": best.number, "metrics": best.user_attrs.get("metrics", {})}
            found |= {"default": None if default is None else default.value}
            found |= _parameters(planned.space, best)
            found["difference"] = _difference(study, bench, planned)
            found["importances"] = importances(study)
        result = TuneResult(**found)
        page = None if best is None else write_page(context, study, result)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if page is not None:
                (folder / "tuning.html").write_bytes(page.content)
            (folder / "result.json").write_text(json.dumps(result.to_dict(), ensure_ascii=False, indent=1), "utf-8")
            run_id = recorder.finish(result.best, result.default, trials, folder)
    return TuneResult(**{**found, "page": None if page is None else page.place, "run_id": run_id})


def _parameters(space: Space, best: Any) -> dict[str, Any]:
    """Return the parameters of default and best, and the best candidate as a project file takes it."""
    is_default = bool(best.user_attrs.get("default"))
    values = space.values(best.params)
    present = {name: space.present(name) for name in space.names}
    best_values = present if is_default else values
    parameters = {name: {"default": present[name], "best": best_values[name]} for name in space.names}
    if is_default:
        return {"parameters": parameters, "tuned": None}
    tuned = space.applied(values, name=f"{space.candidate.title}-tuned"[:64])
    return {"parameters": parameters, "tuned": tuned.model_dump(mode="json", exclude_unset=True)}


def _difference(study: Study, bench: Bench, planned: Plan) -> dict[str, Any] | None:
    """Compare the best trial with the default one by pairs."""
    default, best = study.default(), study.best()
    if default is None or default.number == best.number:
        return None
    pair = [study.answers(trial.number) for trial in (best, default)]
    if pair[0] is None or pair[1] is None:
        return None
    (first, targets), (second, _) = pair[0], pair[1]
    try:
        found = compare(planned.metric, targets, first, second, **bench.kind)
    except (ConfigError, DataError):  # a metric that pairs of answers do not decide, such as the size of sets
        return None
    return {**found._asdict(), "p_better": found.p_higher if planned.higher else found.p_lower}


def _summary(result: TuneResult) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in result.trials.items() if count)
    if result.best is None or result.default is None:
        return f"{counts or 'no trial'}; none has finished yet"
    return f"{counts}; {result.metric} {result.default:.4f} as it stands, {result.best:.4f} at best"

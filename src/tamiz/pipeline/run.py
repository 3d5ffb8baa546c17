"""The whole pipeline: ingest, clean, split, train, evaluate; each step skipped when its inputs have not changed."""

from __future__ import annotations

import getpass
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from tamiz.blobs import Lease, open_blobs
from tamiz.classifiers import check_libraries, check_params
from tamiz.config import CandidateConfig, Project
from tamiz.data.bronze import ingest as ingest_source
from tamiz.data.gold import Examples, load_examples
from tamiz.data.lake import Lake
from tamiz.data.origin import check_columns
from tamiz.data.quotas import SIDES
from tamiz.data.rows import named_columns
from tamiz.data.silver import clean as clean_tables
from tamiz.data.split import split as split_tables
from tamiz.errors import counted
from tamiz.pipeline.checks import check_positive, check_sides
from tamiz.pipeline.evidence import check_slices, lead
from tamiz.pipeline.inputs import (
    clean_inputs,
    evaluate_inputs,
    open_sources,
    published_key,
    split_inputs,
    train_inputs,
)
from tamiz.pipeline.members import ENSEMBLE, named, shared
from tamiz.pipeline.promotion import decide
from tamiz.pipeline.publish import Published, publish
from tamiz.pipeline.report import report_place
from tamiz.pipeline.select import Choice, check_select, no_gain, select
from tamiz.pipeline.state import StepState, code_version
from tamiz.pipeline.train import Trained, candidate_package, is_kept, train_candidate
from tamiz.store import CHAMPION, ModelStore
from tamiz.types import Classifier, Progress, Registry

__all__ = [
    "STEPS",
    "Context",
    "Listener",
    "RunResult",
    "SilentListener",
    "check_project",
    "run",
]

STEPS = ("ingest", "clean", "split", "train", "evaluate")
_LOCK = "run"


class Listener(Protocol):
    """Told what a run does, as it does it."""

    @property
    def progress(self) -> Progress | None:
        """Where long steps report how far they are."""

    def started(self, step: str) -> None:
        """A step begins."""

    def finished(self, step: str, summary: str) -> None:
        """A step has done its work."""

    def skipped(self, step: str, why: str) -> None:
        """A step has nothing to do."""

    def notice(self, text: str) -> None:
        """The user should know something."""


class SilentListener:
    """Hear nothing."""

    progress: Progress | None = None

    def started(self, step: str) -> None:
        """Ignore it."""

    def finished(self, step: str, summary: str) -> None:
        """Ignore it."""

    def skipped(self, step: str, why: str) -> None:
        """Ignore it."""

    def notice(self, text: str) -> None:
        """Ignore it."""


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        steps: `done` or `skipped` for each step that was asked for.
        leaderboard: candidates, best first.
        refused: which limit each candidate outside the limits breaks.
        chosen: name of the winner.
        version: its version in the store.
        metrics: its figures, test ones included.
        intervals: 95 % intervals of its test figures.
        champion: version that is champion after the run.
        verdict: why it became champion, or why not.
        report: where the report of the version stands.
        lead: how far and how surely the winner is ahead of the next candidate on validation, if there is one.
    """

    steps: dict[str, str]
    leaderboard: tuple[Trained, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    chosen: str | None = None
    version: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    champion: str | None = None
    verdict: str | None = None
    report: str | None = None
    lead: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record."""
        return asdict(self)


class Context:
    """What the steps of one project share.

    Args:
        project: the project, variables expanded.
        registry: where experiments are recorded.
        listener: told what happens.
    """

    def __init__(self, project: Project, registry: Registry, listener: Listener | None = None) -> None:
        self.project = project
        self.registry = registry
        self.listener = listener or SilentListener()
        root = project.resolve(project.lake)
        self.lake = Lake(root)
        self.blobs = open_blobs(root)
        self.state = StepState(self.blobs)
        self.store = ModelStore(project.resolve(project.registry.store))
        self.lease: Lease | None = None
        self.done: dict[str, str] = {}
        self._sides: dict[str, Examples] = {}

    @cached_property
    def owner(self) -> str:
        """Who runs this, for locks and records."""
        try:
            user = getpass.getuser()
        except (OSError, KeyError):  # no such user in a container
            user = f"uid {os.getuid()}" if hasattr(os, "getuid") else "somebody"
        return f"{user} on {socket.gethostname()}, process {os.getpid()}"

    def begin(self, step: str) -> None:
        """Tell that a step begins.

        Raises:
            ConflictError: another run took the project over while this one was cut off from it.
        """
        if self.lease is not None:
            self.lease.check()
        self.listener.started(step)

    def finish(self, step: str, summary: str) -> None:
        """Note and tell that a step has done its work."""
        self.done[step] = "done"
        self.listener.finished(step, summary)

    def skip(self, step: str, why: str) -> None:
        """Note and tell that a step has nothing to do."""
        self.done[step] = "skipped"
        self.listener.skipped(step, why)

    def side(self, name: str, gold: dict[str, Any]) -> Examples:
        """Return the examples of one side.

        Validation and test are read once. The training side, the large one, is read anew each time, without raw texts:
        a fit lets it go as soon as it has its own form of the texts.
        """
        if name in self._sides:
            return self._sides[name]
        about: dict[str, Any] = {"labels": gold["labels"], "task": self.project.task, "version": gold["version"]}
        found = load_examples(self.lake, side=name, **about, raw=name != "train")
        if name != "train":
            self._sides[name] = found
        return found


def run(
    project: Project,
    registry: Registry,
    *,
    listener: Listener | None = None,
    until: str = STEPS[-1],
    wait_s: float = 0.0,
) -> RunResult:
    """Run the pipeline up to a step.

    Args:
        project: the project, variables expanded.
        registry: where experiments are recorded.
        listener: told what happens.
        until: last step to run.
        wait_s: how long to wait for another run of the project to end.

    Raises:
        TamizError: whatever goes wrong with project, data, store or registry; what was finished before stays.
        BusyError: another run still holds the project after `wait_s` seconds.
        ConflictError: another run took it over while this one was cut off from it.
    """
    project = project.model_copy(update={"candidates": named(project.candidates)})
    check_project(project)
    context = Context(project, registry, listener)
    with context.blobs.lock(_LOCK, wait_s=wait_s, owner=context.owner) as context.lease:
        wanted = STEPS[: STEPS.index(until) + 1]
        bronze = _ingest(context)
        silver = _clean(context, bronze) if "clean" in wanted else {}
        gold = _split(context, silver) if "split" in wanted else {}
        trained = _train(context, silver, gold) if "train" in wanted else []
        if "evaluate" not in wanted:
            if not trained:
                return RunResult(context.done)
            choice = select(trained, project.select, strict=False)  # what `evaluate` says of it comes later
            return RunResult(context.done, leaderboard=choice.ranking, refused=choice.refused)
        return _evaluate(context, gold, trained)


def check_project(project: Project) -> None:
    """Refuse candidates that could not be trained, or chosen from, before anything is done for them.

    Raises:
        ConfigError: a family, a parameter or a metric is unknown, or a value is not allowed.
        MissingExtraError: a library that a family is fitted with is not installed.
    """
    for candidate in named(project.candidates):
        check_libraries(candidate.family, check_params(candidate.family, candidate.params))
    check_select(project.select)
    check_slices(project)


def _ingest(context: Context) -> dict[str, Any]:
    """Append new files to the bronze tables; return the tables' versions."""
    data = context.project.data
    context.begin("ingest")
    versions: dict[str, Any] = {"sources": [], "ids": {}}
    added, rows, skipped = 0, 0, 0
    for table, source in open_sources(context.project).items():
        if source is None:
            versions[table] = None
            continue
        found = ingest_source(
            context.lake,
            source,
            table=f"bronze/{table}",
            partition_by=data.partition_by if table == "texts" else (),
            expected=[data.text] if table == "unlabeled" else list(named_columns(data).values()),
            now=datetime.now(UTC),
        )
        key = "source" if table == "texts" else table
        for notice in (*source.notices, *found.notices(key, ids_given=data.id is not None)):
            context.listener.notice(notice)
        versions[table] = found.version
        versions["ids"][table] = context.lake.identity(f"bronze/{table}")
        versions["sources"] += [Path(path).name for path in source.paths()]
        added += len(found.added_files)
        rows += found.added_rows
        skipped += len(found.skipped_files)
    if added:
        context.finish(
            "ingest",
            f"{counted(rows, 'row')} of {counted(added, 'file')}" + (f", {skipped:,} known" if skipped else ""),
        )
    else:
        context.skip("ingest", f"all {skipped:,} files are in the lake already")
    return versions


def _known(context: Context, step: str, inputs: str, table: str) -> dict[str, Any] | None:
    """Return what a step came to from these inputs, unless its table is gone or another one."""
    known = context.state.recall(step, inputs)
    return known if known is not None and known.get("table") == context.lake.identity(table) else None


def _clean(context: Context, bronze: dict[str, Any]) -> dict[str, Any]:
    """Bring the silver tables up to date; return what they hold."""
    project = context.project
    inputs = clean_inputs(project, bronze)
    known = _known(context, "clean", inputs, "silver/texts")
    if known is not None:
        context.skip("clean", "bronze tables, cleaning and code have not changed")
        if known["bronze"] != bronze:  # files under other names
            known = {**known, "bronze": bronze}
            context.state.remember("clean", inputs, known)
        return known
    context.begin("clean")
    cleaned = clean_tables(
        context.lake,
        bronze_version=bronze["texts"],
        test_version=bronze["test"],
        unlabeled_version=bronze["unlabeled"],
        project=project,
    )
    for notice in cleaned.notices:
        context.listener.notice(notice)
    result = {**asdict(cleaned), "bronze": bronze, "table": context.lake.identity("silver/texts")}
    context.state.remember("clean", inputs, result)
    refused = "".join(f"; {reason}: {count:,}" for reason, count in sorted(cleaned.reasons.items()))
    without = f" ({cleaned.unlabeled:,} without a label)" if cleaned.unlabeled else ""
    context.finish("clean", f"{counted(cleaned.rows, 'row')}{without}, {cleaned.quarantined:,} in quarantine{refused}")
    return result


def _split(context: Context, silver: dict[str, Any]) -> dict[str, Any]:
    """Bring the gold tables up to date; return version, labels and counts."""
    project = context.project
    inputs = split_inputs(project, silver)
    known = _known(context, "split", inputs, "gold/examples")
    if known is not None:
        context.skip("split", "the silver table, the split and the code have not changed")
        return known
    context.begin("split")
    divided = split_tables(context.lake, silver_version=silver["version"], project=project)
    for notice in divided.notices:
        context.listener.notice(notice)
    result = {"version": divided.version, "labels": list(divided.labels), "counts": divided.counts}
    result |= {"table": context.lake.identity("gold/examples"), "digest": divided.digest}
    context.state.remember("split", inputs, result)
    context.finish("split", _sizes(context.lake, divided.version))
    return result


def _sizes(lake: Lake, version: int) -> str:
    sides = lake.read("gold/examples", version=version, columns=["side"]).column("side").value_counts().to_pylist()
    counts = {found["values"]: found["counts"] for found in sides}
    order = sorted(counts, key=lambda side: (*SIDES, side).index(side))
    return ", ".join(f"{counts[side]:,} {side}" for side in order)


def _train(context: Context, silver: dict[str, Any], gold: dict[str, Any]) -> list[Trained]:
    """Train the candidates that have changed; return all."""
    project = context.project
    data = {
        "bronze": silver["bronze"]["texts"],
        "bronze_test": silver["bronze"]["test"],
        "silver": silver["version"],
        "gold": gold["version"],
        "gold_table": gold["table"],
        "sources": silver["bronze"]["sources"],
        "lake": project.lake,
    }
    trained: dict[str, Trained] = {}
    fresh = 0
    check_positive(project, gold["labels"])
    check_columns(context.lake, project.report.slices or (), versions=data)
    context.begin("train")
    for config in sorted(project.candidates, key=lambda one: one.family == ENSEMBLE):  # they may take others' fits
        key = train_inputs(project, gold, config)
        known = context.state.recall(f"train-{config.title}", key)
        if known is None or not is_kept(context.blobs, key):
            fresh += 1
            check_sides(project, gold["counts"], context.side("validation", gold))
            training = {"seed": project.split.seed, "halved": config.conformal is not None}
            with _fitted_members(context, config, trained) as members:
                made = train_candidate(
                    project,
                    config,
                    labels=gold["labels"],
                    train=lambda: context.side("train", gold),
                    validation=context.side("validation", gold),
                    key=key,
                    data={**data, "training": training, "code": code_version()},
                    registry=context.registry,
                    blobs=context.blobs,
                    progress=context.listener.progress,
                    members=members,
                    notice=context.listener.notice,
                )
            known = asdict(made)
            context.state.remember(f"train-{config.title}", key, known)
        trained[config.title] = Trained.from_dict(known)
    if fresh:
        if (warning := no_gain(list(trained.values()), gold["counts"])) is not None:
            context.listener.notice(warning)
        context.finish("train", f"{fresh} of {len(trained)} candidates")
    else:
        context.skip("train", "gold table, candidates and code have not changed")
    return [trained[config.title] for config in project.candidates]


@contextmanager
def _fitted_members(
    context: Context, config: CandidateConfig, trained: Mapping[str, Trained]
) -> Iterator[dict[int, Classifier]]:
    """Load the members of an ensemble that are trained candidates; they may read their files until the end."""
    with tempfile.TemporaryDirectory() as name:
        members: dict[int, Classifier] = {}
        for place, other in shared(config, context.project.candidates).items():
            key = trained[other.title].key
            members[place] = candidate_package(context.blobs, key, Path(name) / str(place)).classifier
        yield members


def _evaluate(context: Context, gold: dict[str, Any], trained: Sequence[Trained]) -> RunResult:
    """Choose, publish, promote."""
    project = context.project
    index = context.store.index(project.name, missing_ok=True)
    choice: Choice = select(trained, project.select, strict=CHAMPION not in index.aliases)
    winner = choice.chosen
    key, inputs = published_key(project, winner.key), evaluate_inputs(project, gold, winner.key)
    known = context.state.recall("evaluate", inputs)
    if known is not None and known["published"]["version"] in index.versions:
        context.skip("evaluate", f"version {known['published']['version']} is the present choice already")
        published, verdict = Published.from_dict(known["published"]), known["verdict"]
    else:
        context.begin("evaluate")
        sides = {side: context.side(side, gold) for side in SIDES}
        published = publish(
            project,
            winner,
            key=key,
            sides=sides,
            lake=context.lake,
            blobs=context.blobs,
            store=context.store,
            registry=context.registry,
            leaderboard=choice.ranking,
            progress=context.listener.progress,
        )
        verdict = _decided(context, published.version, gold)
        context.finish("evaluate", f"version {published.version} from {winner.candidate}: {verdict}")
    ahead = _lead(context, choice, gold, (known or {}).get("lead") or {})
    record = {"published": published.to_dict(), "verdict": verdict, "lead": ahead}
    if record != known:
        context.state.remember("evaluate", inputs, record)
    return RunResult(
        steps=context.done,
        leaderboard=choice.ranking,
        refused=choice.refused,
        chosen=winner.candidate,
        version=published.version,
        metrics=published.metrics,
        intervals=published.intervals,
        champion=context.store.index(project.name).aliases.get(CHAMPION),
        verdict=_later_change(context, published.version) or verdict,
        report=report_place(context.blobs, published.report) if published.report else None,
        lead=ahead["found"],
    )


def _lead(context: Context, choice: Choice, gold: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Compare the chosen candidate with the next one that keeps the limits, unless that is `known`."""
    pair = [c for c in choice.ranking if c.candidate not in choice.refused or c is choice.chosen][:2]
    keys, found = [c.key for c in pair], None
    if known.get("keys") == keys:
        return known
    if len(pair) > 1:
        with tempfile.TemporaryDirectory() as name:
            models = [candidate_package(context.blobs, c.key, Path(name) / c.candidate) for c in pair]
        found = lead(context.project.select, models[0], models[1], context.side("validation", gold))
    names = {"winner": pair[0].candidate, "runner_up": pair[-1].candidate}
    return {"keys": keys, "found": found and {**names, **found}}


def _decided(context: Context, version: str, gold: dict[str, Any]) -> str:
    """Make a version the champion if the evidence is for it; say why, or why not."""
    project = context.project
    if not project.select.promote:
        return "select.promote is false"
    if (later := _later_change(context, version)) is not None:  # somebody may have taken this version off
        return later
    decision = decide(
        project,
        context.store,
        context.lake,
        context.registry,
        version,
        by=context.owner,
        asked="run",
        gold=gold["version"],
        notice=context.listener.notice,
    )
    return decision.reason


def _later_change(context: Context, version: str) -> str | None:
    """Say why the champion is another version than the one that this project last made."""
    index = context.store.index(context.project.name)
    champion = index.aliases.get(CHAMPION)
    changes = [change for change in index.history if change.alias == CHAMPION]
    if champion == version or not changes or version not in {change.version for change in changes}:
        return None
    return (
        f"version {champion or 'none'} was made champion later, on {changes[-1].at[:10]}: {changes[-1].reason}. "
        f"To go back: tamiz promote {version}"
    )

"""Whole runs of small projects: what each step does, and when it is skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tamiz.classifiers import check_params
from tamiz.cleaning import DEFAULT_STEPS
from tamiz.metrics import confusion, score
from tamiz.model import Model, library_versions
from tamiz.pipeline import STEPS, RunResult
from tamiz.pipeline.state import code_version
from tamiz.registry import MemoryRegistry
from tamiz.types import Task
from tests.projects import (
    LABELS,
    Told,
    figures,
    lake_of,
    make_project,
    rows,
    run,
    side,
    sides,
    store_of,
    write_csv,
)

TASKS = list(Task)


# --- three tasks, from files to a champion


class Finished:
    """A project that has been run once."""

    def __init__(self, folder: Path, task: Task) -> None:
        tuned = {} if task is Task.MULTI_CLASS else {"thresholds": "f1"}
        candidates = [{"family": "prior"}, {"family": "linear", **tuned}]
        self.project = make_project(folder, task, candidates=candidates, select={"metric": "val_roc_auc_macro"})
        self.registry = MemoryRegistry()
        self.told = Told()
        self.result: RunResult = run(self.project, self.registry, listener=self.told)


@pytest.fixture(scope="module", params=TASKS, ids=str)
def finished(request, tmp_path_factory) -> Finished:
    return Finished(tmp_path_factory.mktemp("run"), request.param)


def test_every_step_is_done_and_told(finished):
    assert finished.result.steps == dict.fromkeys(STEPS, "done")
    assert tuple(finished.told.done) == STEPS
    assert finished.told.done["ingest"] == "120 rows of 1 file"
    assert finished.told.done["train"] == "2 of 2 candidates"


def test_the_better_candidate_becomes_the_champion(finished):
    result = finished.result
    assert [c.candidate for c in result.leaderboard] == ["linear", "prior"]
    assert (result.chosen, result.version, result.champion) == ("linear", "1", "1")
    assert result.verdict == "there was no champion"
    assert result.metrics["test_roc_auc_macro"] > 0.75
    low, high = result.intervals["test_roc_auc_macro"]
    assert low < result.metrics["test_roc_auc_macro"] <= high


def test_what_was_measured_is_what_is_served(finished):
    """The model of the store, asked with raw texts, has exactly the test figures that were reported."""
    model = Model.load(store_of(finished.project).fetch("topics"))
    test = side(finished.project, "test")
    probabilities = model.predict_proba(test.texts_raw)
    decided = model.rule.decide(probabilities)
    expected = score(
        test.targets, probabilities, decided, task=model.task, labels=model.labels, positive=model.rule.positive
    )
    reported = {k.removeprefix("test_"): v for k, v in finished.result.metrics.items() if k.startswith("test_")}
    assert reported == pytest.approx(expected, abs=1e-12)
    assert model.labels == LABELS[: len(model.labels)]


def test_report_tables_hold_the_test_figures(finished):
    lake, result = lake_of(finished.project), finished.result
    table = lake.read("gold/metrics").to_pylist()
    assert {(row["model"], row["version"], row["candidate"]) for row in table} == {("topics", "1", "linear")}
    assert {row["metric"]: row["value"] for row in table} == {
        k: v for k, v in result.metrics.items() if k.startswith("test_")
    }
    bounds = {row["metric"]: (row["low"], row["high"]) for row in table if row["low"] is not None}
    assert bounds == result.intervals

    cells = lake.read("gold/confusion").to_pylist()
    model = Model.load(store_of(finished.project).fetch("topics"))
    test = side(finished.project, "test")
    counts = confusion(test.targets, model.rule.decide(model.predict_proba(test.texts_raw)), len(model.labels))
    if model.task is Task.MULTI_LABEL:
        found = {(c["label"], c["truth"], c["answer"]): c["count"] for c in cells}
        expected = {
            (label, bool(t), bool(a)): counts[j, t, a]
            for j, label in enumerate(model.labels)
            for t in (0, 1)
            for a in (0, 1)
        }
    else:
        found = {(c["label"], c["decided"]): c["count"] for c in cells}
        expected = {(a, b): counts[i, j] for i, a in enumerate(model.labels) for j, b in enumerate(model.labels)}
    assert found == expected


def test_the_package_says_what_it_was_made_from(finished):
    manifest = Model.load(store_of(finished.project).fetch("topics")).manifest
    lake = lake_of(finished.project)
    assert manifest.data["bronze"] == lake.version("bronze/texts")
    assert manifest.data["silver"] == lake.version("silver/texts")
    assert manifest.data["gold"] == lake.version("gold/examples")
    assert manifest.data["sources"] == ["texts.csv"]
    assert manifest.data["code"] == code_version()
    assert manifest.libraries == library_versions()
    assert manifest.params == json.loads(json.dumps(check_params("linear", {})))
    assert (manifest.name, manifest.version, manifest.candidate) == ("topics", "1", "linear")
    assert manifest.clean == list(DEFAULT_STEPS)
    assert figures(manifest.metrics) == figures(finished.result.metrics)


def test_the_registry_knows_runs_and_version(finished):
    newest_first = [(r.candidate, r.version) for r in finished.registry.runs()]
    assert newest_first == [("linear", "1"), ("prior", None)]
    assert finished.registry.aliases == {"champion": "1"}
    registered = finished.registry.runs()[0]
    assert registered.metrics["test_roc_auc_macro"] == finished.result.metrics["test_roc_auc_macro"]
    assert not any(name.startswith("test_") for name in finished.registry.runs()[1].metrics)


def test_the_store_knows_the_figures_too(finished):
    index = store_of(finished.project).index("topics")
    assert index.aliases == {"champion": "1"}
    assert figures(index.versions["1"].metrics) == figures(finished.result.metrics)
    assert index.history[-1].reason == "there was no champion"


def test_no_text_stands_on_two_sides(finished):
    texts = [set(side(finished.project, name).texts) for name in ("train", "validation", "test")]
    assert all(texts)
    assert sum(map(len, texts)) == len(set.union(*texts))


def test_a_result_is_json_without_nan(finished):
    def refuse(name: str) -> None:
        raise AssertionError(name)

    again = json.loads(json.dumps(finished.result.to_dict()), parse_constant=refuse)
    assert again["version"] == "1"
    assert again["leaderboard"][0]["candidate"] == "linear"


def test_a_second_run_skips_every_step_with_a_reason(finished):
    told, registry = Told(), finished.registry
    again = run(finished.project, registry, listener=told)
    assert again.steps == dict.fromkeys(STEPS, "skipped")
    assert told.why == {
        "ingest": "all 1 files are in the lake already",
        "clean": "bronze tables, cleaning and code have not changed",
        "split": "the silver table, the split and the code have not changed",
        "train": "gold table, candidates and code have not changed",
        "evaluate": "version 1 is the present choice already",
    }
    assert again.metrics == finished.result.metrics
    assert again.intervals == finished.result.intervals
    assert again.leaderboard == finished.result.leaderboard
    assert len(registry.runs()) == 2
    assert list(store_of(finished.project).index("topics").versions) == ["1"]


# --- single steps


def test_a_run_may_end_after_any_step(tmp_path):
    project = make_project(tmp_path, n=80)
    for count, until in enumerate(STEPS, start=1):
        told = Told()
        result = run(project, until=until, listener=told)
        assert list(result.steps) == list(STEPS[:count])
        assert list(told.done) == [until]
        assert (result.version is not None) == (until == "evaluate")
        assert bool(result.leaderboard) == (count >= 4)


def test_candidates_that_are_trained_alone_are_ranked_too(tmp_path):
    candidates = [{"family": "prior"}, {"family": "linear", "params": {"words": [1, 1]}}]
    result = run(make_project(tmp_path, n=80, candidates=candidates, select={"limits": {"size_mb": 0}}), until="train")
    assert [c.candidate for c in result.leaderboard] == ["linear", "prior"]
    assert set(result.refused) == {"linear", "prior"}
    assert result.chosen is None


# --- what a change costs


def test_only_a_changed_candidate_is_trained_again(tmp_path):
    registry = MemoryRegistry()
    two = [{"family": "prior"}, {"family": "linear"}]
    first = run(make_project(tmp_path, candidates=two), registry)
    told = Told()
    two[1] = {"family": "linear", "params": {"words": [1, 1]}}
    second = run(make_project(tmp_path, candidates=two), registry, listener=told)
    assert second.steps == {
        "ingest": "skipped", "clean": "skipped", "split": "skipped", "train": "done", "evaluate": "done"
    }  # fmt: skip
    assert told.done["train"] == "1 of 2 candidates"
    assert [r.candidate for r in registry.runs()] == ["linear", "linear", "prior"]
    keys = [{c.candidate: c.key for c in result.leaderboard} for result in (first, second)]
    assert keys[0]["prior"] == keys[1]["prior"]
    assert keys[0]["linear"] != keys[1]["linear"]


@pytest.mark.parametrize(
    ("sections", "begins"),
    [
        ({"clean": ["html", "case"]}, "clean"),
        ({"labels": {"names": ["sport", "food", "money"]}}, "clean"),
        ({"split": {"validation": 0.25, "test": 0.25}}, "split"),
        ({"candidates": [{"family": "linear", "calibrate": "none"}]}, "train"),
        ({"select": {"metric": "val_accuracy"}}, "evaluate"),
    ],
)
def test_a_change_is_felt_from_the_step_it_concerns(tmp_path, sections, begins):
    run(make_project(tmp_path, n=80))
    found = run(make_project(tmp_path, n=80, **sections))
    at = STEPS.index(begins)
    assert found.steps == {step: "skipped" if i < at else "done" for i, step in enumerate(STEPS)}


def test_places_do_not_matter_to_what_was_learnt(tmp_path):
    """The same project in another folder comes to the same figures and keys."""
    results = []
    for name in ("one", "two ñ"):
        (tmp_path / name).mkdir()
        results.append(run(make_project(tmp_path / name, n=80)))
    assert figures(results[0].metrics) == figures(results[1].metrics)
    assert results[0].leaderboard[0].key == results[1].leaderboard[0].key


def test_new_rows_leave_old_ones_on_their_side(tmp_path):
    project = make_project(tmp_path, data={"source": ["texts*.csv"]})
    first = run(project)
    before = sides(project)
    write_csv(tmp_path / "texts-2.csv", rows(60, start=120))
    told = Told()
    second = run(project, listener=told)
    after = sides(project)
    assert told.done["ingest"] == "60 rows of 1 file, 1 known"
    assert len(before) == 120
    assert len(after) == 180
    assert {row: after[row] for row in before} == before
    assert set(after.values()) == {"train", "validation", "test"}
    assert second.version == "2"
    assert figures(second.metrics) != figures(first.metrics)


def test_the_same_file_again_adds_nothing(tmp_path):
    project = make_project(tmp_path, n=80, data={"source": ["*.csv"]})
    run(project)
    (tmp_path / "texts.csv").rename(tmp_path / "renamed.csv")
    (tmp_path / "copy.csv").write_bytes((tmp_path / "renamed.csv").read_bytes())
    told = Told()
    again = run(project, listener=told)
    assert set(again.steps.values()) == {"skipped"}
    assert told.why["ingest"] == "all 2 files are in the lake already"
    assert lake_of(project).count("bronze/texts") == 80


def test_a_version_that_was_deleted_is_published_again(tmp_path):
    project = make_project(tmp_path, n=80)
    first = run(project)
    store = store_of(project)
    store.set_alias("topics", "champion", None, by="test", reason="test")
    store.delete("topics", "1")
    second = run(project)
    assert second.steps["evaluate"] == "done"
    assert (second.version, second.champion) == ("2", "2")
    assert figures(second.metrics) == figures(first.metrics)


def test_a_registry_that_was_lost_gets_the_chosen_run_again(tmp_path):
    first = run(make_project(tmp_path, n=80), MemoryRegistry())
    fresh = MemoryRegistry()
    second = run(make_project(tmp_path, n=80, select={"metric": "val_accuracy"}), fresh)
    assert second.steps["train"] == "skipped"
    (record,) = fresh.runs()
    assert (record.candidate, record.version, record.key) == ("linear", first.version, first.leaderboard[0].key)
    assert record.metrics["val_f1_macro"] == first.metrics["val_f1_macro"]

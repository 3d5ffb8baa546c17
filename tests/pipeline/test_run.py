"""Whole runs of small projects: what each step does, when it is skipped, and what becomes champion."""

from __future__ import annotations

import csv
import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tamiz.classifiers import check_params
from tamiz.cleaning import DEFAULT_STEPS
from tamiz.config import Project, parse_project
from tamiz.data.gold import Examples, load_examples
from tamiz.data.lake import Lake
from tamiz.errors import ConfigError, LabelError, StoreError
from tamiz.metrics import confusion, score
from tamiz.model import Model, library_versions
from tamiz.pipeline import STEPS, RunResult
from tamiz.pipeline.publish import promote, rollback
from tamiz.pipeline.state import code_version
from tamiz.registry import MemoryRegistry
from tamiz.store import ModelStore
from tamiz.types import Task
from tests.projects import LABELS, Told, figures, make_project, raw_project, rows, run, write_csv, write_jsonl

TASKS = list(Task)
# Barely learns: some figure is sure to be worse than with the usual strength.
WEAK = [{"family": "linear", "params": {"C": 1e-6, "nb_weighting": False, "class_weight": None}}]
PRIOR = [{"family": "prior"}]


def lake_of(project: Project) -> Lake:
    return Lake(project.resolve(project.lake))


def store_of(project: Project) -> ModelStore:
    return ModelStore(project.resolve(project.registry.store))


def side(project: Project, name: str) -> Examples:
    labels = LABELS[: 2 if project.task is Task.BINARY else 3]
    return load_examples(lake_of(project), side=name, labels=labels, task=project.task)


def sides(project: Project) -> dict[str, str]:
    """Return the side of each row of the present division."""
    found = lake_of(project).read("gold/examples", columns=["row_id", "side"]).to_pylist()
    return {row["row_id"]: row["side"] for row in found}


# --- three tasks, from files to a champion


class Finished:
    """A project that has been run once."""

    def __init__(self, folder: Path, task: Task) -> None:
        candidates = [{"family": "prior"}, {"family": "linear", "thresholds": "f1"}]
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
    assert finished.told.done["ingest"] == "120 rows of 1 files"
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
        ({"candidates": [{"family": "linear", "thresholds": "f1"}]}, "train"),
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
    assert told.done["ingest"] == "60 rows of 1 files, 1 known"
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


# --- who becomes champion


def test_a_worse_challenger_is_published_and_not_promoted(tmp_path):
    registry = MemoryRegistry()
    good = run(make_project(tmp_path), registry)
    worse = run(make_project(tmp_path, candidates=PRIOR), registry)
    assert (worse.version, worse.champion) == ("2", "1")
    new, old = worse.metrics["test_f1_macro"], good.metrics["test_f1_macro"]
    assert new < old
    assert worse.verdict.startswith(f"test_f1_macro {new:.4f} is worse than {old:.4f} of version 1 on the same test (")
    assert registry.aliases == {"champion": "1"}
    store = store_of(make_project(tmp_path))
    assert list(store.index("topics").versions) == ["1", "2"]
    assert Model.load(store.fetch("topics@2")).manifest.family == "prior"


def test_a_better_challenger_takes_over(tmp_path):
    registry = MemoryRegistry()
    run(make_project(tmp_path, candidates=PRIOR), registry)
    better = run(make_project(tmp_path), registry)
    assert (better.version, better.champion) == ("2", "2")
    assert "is better than" in better.verdict
    assert registry.aliases == {"champion": "2"}


def test_the_direction_of_the_metric_decides(tmp_path):
    select = {"metric": "val_log_loss"}
    run(make_project(tmp_path, select=select))
    worse = run(make_project(tmp_path, select=select, candidates=PRIOR))
    assert worse.champion == "1"
    assert worse.verdict.startswith("test_log_loss ")


def test_nobody_is_promoted_where_the_project_says_so(tmp_path):
    result = run(make_project(tmp_path, n=80, select={"promote": False}))
    assert (result.version, result.champion, result.verdict) == ("1", None, "select.promote is false")


def test_a_champion_with_other_labels_gives_way(tmp_path):
    """Its answers cannot be compared, even where there are as many of them."""
    run(make_project(tmp_path))
    renamed = [{**row, "label": {"food": "cooking", "money": "bank"}.get(row["label"], "zoo")} for row in rows(120)]
    write_csv(tmp_path / "renamed.csv", renamed)
    data = {"source": "renamed.csv"}
    result = run(make_project(tmp_path, data=data, lake="lake-2", candidates=PRIOR))
    assert (result.version, result.champion) == ("2", "2")
    assert result.verdict == "the champion, version 1, has other labels"


def test_a_champion_that_is_damaged_gives_way(tmp_path):
    project = make_project(tmp_path)
    run(project)
    for path in (tmp_path / "models" / "topics" / "1").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    result = run(make_project(tmp_path, candidates=PRIOR))
    assert (result.version, result.champion) == ("2", "2")
    assert result.verdict.startswith("the champion, version 1, cannot be scored on this test")


def test_a_run_that_changes_nothing_leaves_a_rollback_alone(tmp_path):
    registry = MemoryRegistry()
    run(make_project(tmp_path, candidates=PRIOR), registry)
    project = make_project(tmp_path)
    run(project, registry)
    store = store_of(project)
    assert rollback(store, registry, "topics", by="ana", reason="complaints") == "1"
    assert registry.aliases == {"champion": "1"}
    again = run(project, registry)
    assert (again.version, again.champion) == ("2", "1")
    with pytest.raises(StoreError, match="no earlier champion"):
        rollback(store, registry, "topics", by="ana", reason="again")
    promote(store, registry, "topics", "2", by="ana", reason="it was not the model")
    assert store.index("topics").aliases == registry.aliases == {"champion": "2"}
    last = store.index("topics").history[-1]
    assert (last.version, last.previous, last.by, last.reason) == ("2", "1", "ana", "it was not the model")


# --- choosing


def test_the_choice_keeps_limits(tmp_path):
    two = [{"family": "linear"}, {"family": "prior"}]
    select = {"limits": {"val_accuracy": 0.0, "size_mb": 0.002}}
    result = run(make_project(tmp_path, candidates=two, select=select))
    assert result.chosen == "prior"
    assert list(result.refused) == ["linear"]
    assert result.refused["linear"].startswith("size_mb is ")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"select": {"metric": "test_f1_macro"}}, "choosing by test figures would spoil them"),
        ({"select": {"metric": "val_f1_marco"}}, "did you mean 'val_f1_macro'"),
        ({"candidates": [{"family": "lineer"}]}, "did you mean 'linear'"),
        ({"candidates": [{"family": "linear", "params": {"wrods": [1, 2]}}]}, "did you mean 'words'"),
        ({"labels": {"positive": "sprot"}}, "'sprot'"),
    ],
)
def test_what_is_wrong_in_the_project_is_said_before_anything_is_done(tmp_path, sections, said):
    project = make_project(tmp_path, Task.BINARY, **sections)
    if "labels" in sections:  # known only once the labels are
        run(project, until="clean")
    with pytest.raises(ConfigError) as caught:
        run(project)
    assert said in str(caught.value)
    if "labels" not in sections:
        assert not (tmp_path / "lake").exists()


def test_the_positive_label_is_the_one_that_was_named(tmp_path):
    project = make_project(tmp_path, Task.BINARY, labels={"positive": "food"}, candidates=[{"family": "linear"}])
    result = run(project)
    model = Model.load(store_of(project).fetch("topics"))
    test = side(project, "test")
    decided = model.rule.decide(model.predict_proba(test.texts_raw))
    assert model.positive == "food"
    right = np.sum((decided == 0) & (test.targets == 0))
    assert result.metrics["test_recall_positive"] == pytest.approx(right / np.sum(test.targets == 0))


# --- refit


def test_a_refit_learns_from_validation_too_and_keeps_the_rule(tmp_path):
    candidates = [{"family": "linear", "thresholds": "f1", "calibrate": "sigmoid"}]
    plain = make_project(tmp_path, Task.BINARY, candidates=candidates)
    first = run(plain)
    refitted = make_project(tmp_path, Task.BINARY, candidates=candidates, select={"refit": True})
    second = run(refitted)
    assert second.steps["train"] == "skipped"
    assert second.version == "2"
    store = store_of(plain)
    one, two = (Model.load(store.fetch(f"topics@{version}")) for version in "12")
    assert one.rule.to_dict() == two.rule.to_dict()
    assert one.calibrator.to_dict() == two.calibrator.to_dict()
    texts = side(plain, "test").texts_raw
    assert not np.array_equal(one.predict_proba(texts), two.predict_proba(texts))
    assert (one.manifest.data["refit"], two.manifest.data["refit"]) == (False, True)
    validation = {name: value for name, value in first.metrics.items() if name.startswith("val_")}
    assert validation == {name: value for name, value in second.metrics.items() if name.startswith("val_")}


# --- other ways to divide


def test_an_own_test_set_is_left_whole(tmp_path):
    train, test = rows(90), rows(40, start=200)
    write_csv(tmp_path / "texts.csv", [*train, {**test[0], "id": "copied"}])
    write_csv(tmp_path / "held-out.csv", test)
    project = make_project(tmp_path, data={"test": "held-out.csv"}, split={"validation": 0.2})
    result = run(project)
    assert set(side(project, "test").row_ids) == {row["id"] for row in test}
    assert "copied" not in sides(project)
    assert "test_f1_macro" in result.metrics
    assert lake_of(project).count("bronze/test") == 40


def test_no_test_side_at_all(tmp_path):
    project = make_project(tmp_path, split={"validation": 0.2, "test": 0})
    result = run(project)
    assert not any(name.startswith("test_") for name in result.metrics)
    assert (result.version, result.champion) == ("1", "1")
    again = run(make_project(tmp_path, split={"validation": 0.2, "test": 0}, candidates=PRIOR))
    assert again.verdict == (
        "there is no test_f1_macro to compare it by: the test is empty; a person may promote it: tamiz promote 2"
    )
    assert again.champion == "1"


def test_a_split_by_time_tests_on_the_newest(tmp_path):
    dated = [{**row, "day": str(date(2025, 1, 1) + timedelta(days=i))} for i, row in enumerate(rows(120))]
    np.random.default_rng(0).shuffle(dated)
    write_csv(tmp_path / "texts.csv", dated)
    project = make_project(tmp_path, data={"time": "day"}, split={"by": "time", "validation": 0.2, "test": 0.2})
    run(project)
    day = {row["id"]: row["day"] for row in dated}
    spans = {}
    for row, name in sides(project).items():
        spans.setdefault(name, []).append(day[row])
    assert max(spans["train"]) < min(spans["validation"])
    assert max(spans["validation"]) < min(spans["test"])
    assert len(spans["test"]) == pytest.approx(24, abs=2)


def test_a_group_stays_on_one_side(tmp_path):
    grouped = [{**row, "author": f"a{i % 30}"} for i, row in enumerate(rows(120))]
    write_csv(tmp_path / "texts.csv", grouped)
    project = make_project(tmp_path, data={"group": "author"})
    run(project, until="split")
    author = {row["id"]: row["author"] for row in grouped}
    found: dict[str, set[str]] = {}
    for row, name in sides(project).items():
        found.setdefault(author[row], set()).add(name)
    assert len(found) == 30
    assert all(len(names) == 1 for names in found.values())


def test_unlabelled_texts_are_kept_and_not_learnt_from(tmp_path):
    write_csv(tmp_path / "more.csv", [{"id": f"u{i}", "text": row["text"]} for i, row in enumerate(rows(30, seed=9))])
    project = make_project(tmp_path, n=90, data={"unlabeled": "more.csv"})
    run(project)
    silver = lake_of(project).read("silver/texts", columns=["part"]).column("part").to_pylist()
    assert silver.count("unlabeled") == 30
    assert len(sides(project)) == 90


# --- sources


def as_tsv(folder: Path, table: list[dict]) -> str:
    return write_csv(folder / "texts.tsv", table, delimiter="\t").name


def as_semicolons(folder: Path, table: list[dict]) -> str:
    return write_csv(folder / "texts.csv", table, delimiter=";").name


def as_jsonl(folder: Path, table: list[dict]) -> str:
    return write_jsonl(folder / "texts.jsonl", table).name


def as_parquet(folder: Path, table: list[dict]) -> str:
    pl.DataFrame(table).write_parquet(folder / "texts.parquet")
    return "texts.parquet"


def as_excel(folder: Path, table: list[dict]) -> str:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (list(table[0]), *(list(row.values()) for row in table)):
        sheet.append(row)
    book.save(folder / "texts.xlsx")
    return "texts.xlsx"


def as_folder(folder: Path, table: list[dict]) -> str:
    for row in table:
        path = folder / "texts" / row["label"] / f"{row['id']}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row["text"], encoding="utf-8")
    return "texts"


@pytest.fixture(scope="module")
def from_csv(tmp_path_factory) -> RunResult:
    return run(make_project(tmp_path_factory.mktemp("csv")))


@pytest.mark.parametrize("write", [as_tsv, as_semicolons, as_jsonl, as_parquet, as_excel, as_folder])
def test_every_format_comes_to_the_same_figures(tmp_path, from_csv, write):
    raw = raw_project(data={"source": write(tmp_path, rows(120))})
    if write is as_folder:  # the file's path is its id
        raw["data"]["id"] = None
    project = parse_project(raw).at(tmp_path)
    result = run(project)
    if write is not as_folder:
        assert figures(result.metrics) == figures(from_csv.metrics)
    assert len(sides(project)) == 120
    assert result.metrics["test_f1_macro"] > 0.6


def test_labels_in_real_lists_and_in_text_are_the_same(tmp_path):
    table = rows(120, task=Task.MULTI_LABEL)
    results = []
    for name, write in (("lists", as_jsonl), ("text", lambda folder, t: write_csv(folder / "t.csv", t).name)):
        (tmp_path / name).mkdir()
        raw = raw_project(Task.MULTI_LABEL, data={"source": write(tmp_path / name, table)})
        results.append(run(parse_project(raw).at(tmp_path / name)))
    assert figures(results[0].metrics) == figures(results[1].metrics)


def test_columns_may_have_any_name(tmp_path):
    table = [{"clé": r["id"], "Reseña (texto)": r["text"], "y": r["label"]} for r in rows(90)]
    write_csv(tmp_path / "texts.csv", table)
    project = make_project(tmp_path, data={"id": "clé", "text": "Reseña (texto)", "label": "y"})
    result = run(project)
    model = Model.load(store_of(project).fetch("topics"))
    assert model.text_column == "Reseña (texto)"
    assert result.version == "1"


# --- S3


def test_lake_and_store_may_lie_on_s3(s3_place, tmp_path, from_csv, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    places = {"lake": f"{s3_place}/lake", "registry": {"store": f"{s3_place}/models"}}
    project = make_project(tmp_path, select={"refit": True}, **places)
    registry = MemoryRegistry()
    first = run(project, registry)
    assert first.steps == dict.fromkeys(STEPS, "done")
    validation = {name: value for name, value in first.metrics.items() if name.startswith("val_")}
    assert validation == {name: value for name, value in from_csv.metrics.items() if name.startswith("val_")}
    assert set(run(project, registry).steps.values()) == {"skipped"}
    worse = run(make_project(tmp_path, candidates=PRIOR, **places), registry)
    assert (worse.version, worse.champion) == ("2", "1")
    store = ModelStore(f"{s3_place}/models", cache=tmp_path / "cache")
    assert Model.load(store.fetch("topics")).predict(["bread soup cheese"])[0].label == "food"
    assert {path.name for path in tmp_path.iterdir()} <= {"texts.csv", "home", "cache"}


# --- labels that allow nothing


def test_one_label_alone_is_refused(tmp_path):
    write_csv(tmp_path / "texts.csv", [{**row, "label": "only"} for row in rows(30)])
    with pytest.raises(LabelError, match=r"at least two labels.*'only' \(30\)"):
        run(make_project(tmp_path))


def test_three_labels_are_too_many_for_a_binary_task(tmp_path):
    write_csv(tmp_path / "texts.csv", rows(60))
    with pytest.raises(LabelError, match="task is binary and column 'label' has 3 labels"):
        run(make_project(tmp_path, Task.BINARY))


def test_a_csv_written_by_hand_needs_no_ids(tmp_path):
    with (tmp_path / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label"], *([r["text"], r["label"]] for r in rows(60))])
    project = make_project(tmp_path, data={"id": None})
    run(project, until="split")
    assert len(sides(project)) == 60

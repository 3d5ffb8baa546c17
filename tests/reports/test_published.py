"""Reports and cards of whole runs: where they stand and what they hold."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tamiz.blobs import open_blobs
from tamiz.config import Project
from tamiz.errors import ColumnError, ConfigError
from tamiz.model import Model
from tamiz.package import read_manifest
from tamiz.pipeline import RunResult
from tamiz.pipeline.evaluate import evaluate
from tamiz.pipeline.train import assemble, fit_classifier
from tamiz.store import ModelStore
from tamiz.types import Task, TopFeatures
from tests.projects import Told, make_project, rows, run, side, write_csv
from tests.reports.pages import Page

EVIL = "<script>alert(1)</script>"


def report(result: RunResult) -> Page:
    assert result.report is not None
    page = Page(Path(result.report).read_text(encoding="utf-8"))
    page.check()
    return page


def package(project: Project, version: str = "1") -> Path:
    return ModelStore(project.resolve(project.registry.store)).fetch(f"topics@{version}")


@pytest.fixture(scope="module", params=list(Task), ids=str)
def finished(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    table = rows(240, task=request.param)
    for i, row in enumerate(table):
        row["region"] = ("north", "south")[i % 2]
        row["text"] += f" {EVIL}"
        if request.param is not Task.MULTI_LABEL and row["label"] == "food":
            row["label"] = EVIL
    write_csv(folder / "texts.csv", table)
    candidates = [{"family": "prior"}, {"family": "linear"}]
    project = make_project(folder, request.param, candidates=candidates, report={"slices": ["region"]})
    return project, run(project)


def test_the_report_stands_beside_the_lake(finished):
    project, result = finished
    assert result.report == str(project.folder / "lake" / "reports" / "topics" / "1" / "report.html")
    page = report(result)
    assert page.by_id["figures-test"]
    assert page.by_id["figures-validation"]
    assert {"ROC", "Precision and recall", "Reliability", "Learning curve", "Speed against quality"} <= set(page.charts)
    assert len(page.charts["Speed against quality"]["data"][0]["x"]) == 2
    calibrated = read_manifest(project.folder / "models" / "topics" / "1").calibration["method"] != "none"
    first, *more = [trace["name"].partition(",")[0] for trace in page.charts["Reliability"]["data"][1:]]
    assert [first, *more] == (["before calibration", "after calibration"] if calibrated else ["not calibrated"])


def test_the_learning_curve_ends_at_the_whole_training_side(finished):
    _, result = finished
    trace = report(result).charts["Learning curve"]["data"][0]
    assert trace["x"] == sorted(trace["x"])
    assert len(trace["x"]) >= 3
    assert trace["y"][-1] == result.metrics["val_f1_macro"]


def test_each_point_of_the_learning_curve_has_a_rule_of_its_own(tmp_path):
    table = rows(240, task=Task.MULTI_LABEL)
    table = [{**row, "text": row["text"] if i % 4 else f"notes number {i}"} for i, row in enumerate(table)]
    write_csv(tmp_path / "texts.csv", table)
    decided = {"family": "linear", "thresholds": "f1", "calibrate": "isotonic"}
    project = make_project(tmp_path, Task.MULTI_LABEL, candidates=[decided])
    trace = report(run(project)).charts["Learning curve"]["data"][0]
    train, validation, (config,) = side(project, "train"), side(project, "validation"), project.candidates
    order = np.random.default_rng(project.split.seed).permutation(len(train.texts))
    labels = Model.load(package(project)).labels
    for size, value in zip(trace["x"], trace["y"], strict=True):
        part = train.take(order[:size]) if size < len(order) else train
        classifier, _ = fit_classifier(config, labels, project.task, part, validation, seed=project.split.seed)
        point = assemble(project, config, classifier, validation, {})
        own = evaluate(point, validation.texts_raw, validation.targets, prefix="val_", learnt=True)
        assert value == pytest.approx(own.metrics["val_f1_macro"])


def test_any_column_of_the_source_makes_slices(finished):
    project, result = finished
    (table,) = [t for t in report(result).tables if t and t[0][:3] == ["column", "value", "examples"]]
    found = {row[1]: int(row[2]) for row in table[1:] if row[0] == "region"}
    assert found.keys() == {"north", "south"}
    card = (package(project) / "model.md").read_text(encoding="utf-8")
    assert f"| region | north | {found['north']} |" in card


def test_mistakes_are_listed_in_a_file_beside_it(finished):
    project, result = finished
    with Path(result.report).with_name("mistakes.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    if project.task is not Task.MULTI_LABEL:
        wrong = round((1 - result.metrics["test_accuracy"]) * sum(map(int, counts(result)[0])))
        assert len(found) == wrong > 0
    given = [float(row["confidence"]) for row in found]
    assert given == sorted(given, reverse=True)


def counts(result: RunResult) -> list[list[str]]:
    """Return test counts of the labels."""
    table = report(result).by_id["counts"]
    return [[row[table[0].index("test")] for row in table[1:]]]


def test_the_card_of_the_version_has_its_test_figures(finished):
    project, result = finished
    folder = package(project)
    card = (folder / "model.md").read_text(encoding="utf-8")
    low, high = result.intervals["test_f1_macro"]
    assert f"| test_f1_macro | {result.metrics['test_f1_macro']:.4f} | {low:.4f} to {high:.4f} |" in card
    assert "| label | train | validation | test |" in card
    assert EVIL not in card
    assert not [path for path in folder.iterdir() if path.suffix == ".html"]
    assert Model.load(folder).version == "1"


def test_a_report_of_other_slices_joins_the_same_version(finished):
    project, result = finished
    other = project.model_copy(update={"report": project.report.model_copy(update={"slices": []})}).at(project.folder)
    again = run(other)
    assert (again.version, again.report) == (result.version, result.report)
    assert not [row for table in report(again).tables for row in table if row[:1] == ["region"]]
    run(project)


def test_the_strongest_words_stand_in_the_report(finished):
    project, result = finished
    classifier = Model.load(package(project)).classifier
    assert isinstance(classifier, TopFeatures)
    for place, label in enumerate(classifier.labels):
        words = [word for word, _ in classifier.top_features(place, 12)]
        (row,) = [row for table in report(result).tables for row in table if row[0] == label and words[0] in row[-1]]
        assert [word.rsplit(" ", 1)[0] for word in row[1].split(", ")] == words


def test_an_unknown_column_for_slices_is_refused_before_anything_is_trained(tmp_path):
    project, told = make_project(tmp_path, report={"slices": ["labell"]}), Told()
    with pytest.raises(ColumnError, match=r"report.slices: no column 'labell'.*did you mean 'label'"):
        run(project, listener=told)
    assert told.begun == ["ingest", "clean", "split"]
    assert ModelStore(project.resolve(project.registry.store)).names() == []


def test_without_a_test_side_validation_is_shown(tmp_path):
    project = make_project(tmp_path, split={"test": 0, "validation": 0.3})
    page = report(run(project))
    assert "of the validation side" in page.text
    assert "figures-test" not in page.by_id
    assert "No figures on a test side" in (package(project) / "model.md").read_text(encoding="utf-8")


def test_a_refit_without_a_test_side_has_no_unseen_examples(tmp_path):
    project = make_project(tmp_path, split={"test": 0, "validation": 0.3}, select={"refit": True})
    result = run(project)
    assert "no side of the split that the model has not seen" in report(result).text
    assert not Path(result.report).with_name("mistakes.csv").exists()


def test_a_learning_curve_may_be_left_out(tmp_path):
    project = make_project(tmp_path, report={"learning_curve": False})
    assert "Learning curve" not in report(run(project)).charts


def test_partitions_groups_and_times_are_slices_by_themselves(tmp_path):
    table = [{**row, "year": str(2020 + i % 2), "day": f"{2019 + i % 3}-05-01"} for i, row in enumerate(rows(120))]
    write_csv(tmp_path / "texts.csv", table)
    project = make_project(tmp_path, data={"partition_by": "year", "time": "day"})
    (found,) = [t for t in report(run(project)).tables if t and t[0][:3] == ["column", "value", "examples"]]
    named = {(row[0], row[1]) for row in found[1:]}
    assert {("year", "2020"), ("year", "2021"), ("time", "2019"), ("time", "2020"), ("time", "2021")} <= named


def test_slices_join_an_own_test_set(tmp_path):
    for name, start in (("texts", 0), ("test", 500)):
        made = [{**row, "kind": ("mail", "call")[i % 2]} for i, row in enumerate(rows(90, start=start))]
        write_csv(tmp_path / f"{name}.csv", made)
    project = make_project(tmp_path, data={"test": "test.csv"}, report={"slices": "kind"})
    (found,) = [t for t in report(run(project)).tables if t and t[0][:3] == ["column", "value", "examples"]]
    assert sum(int(row[2]) for row in found[1:] if row[0] == "kind") == 90


def test_another_word_for_the_learning_curve_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"report.learning_curve"):
        make_project(tmp_path, report={"learning_curve": "never"})


def test_a_report_lies_beside_a_lake_on_s3(s3_place, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = make_project(tmp_path, lake=f"{s3_place}/lake", registry={"store": f"{s3_place}/models"})
    result = run(project)
    assert result.report == f"{s3_place}/lake/reports/topics/1/report.html"
    page = Page(open_blobs(f"{s3_place}/lake").read("reports/topics/1/report.html").data.decode())
    page.check()

"""Another decision for a published version, without training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tamiz.config import Project
from tamiz.data.gold import load_examples
from tamiz.data.lake import Lake
from tamiz.errors import ConfigError, ModelNotFoundError, PackageError
from tamiz.model import Model
from tamiz.pipeline.decide import describe, redecide
from tamiz.pipeline.reproduce import reproduce
from tamiz.registry import MemoryRegistry
from tamiz.store import ModelStore
from tamiz.types import Task
from tests.projects import lake_of, make_project, run

FINISHED: dict[Task, Path] = {}


@pytest.fixture
def finished(tmp_path_factory, tmp_path):
    """A function that gives a copy of a project that was run once, and its registry."""

    def copy(task: Task) -> tuple[Project, MemoryRegistry]:
        if task not in FINISHED:
            FINISHED[task] = tmp_path_factory.mktemp("decide")
            run(make_project(FINISHED[task], task, n=240))
        shutil.copytree(FINISHED[task], tmp_path, dirs_exist_ok=True)
        return make_project(tmp_path, task), MemoryRegistry()

    return copy


def loaded(project: Project, version: str) -> Model:
    store = ModelStore(project.resolve(project.registry.store))
    return Model.load(store.fetch(f"topics@{version}"))


def weights(model: Model) -> dict[str, str]:
    return {path: entry.sha256 for path, entry in model.manifest.files.items() if path != "model.md"}


def side(project: Project, name: str):
    model = loaded(project, "1")
    return load_examples(Lake(project.resolve(project.lake)), side=name, labels=model.labels, task=model.task)


def aliases(project: Project) -> dict[str, str]:
    return ModelStore(project.resolve(project.registry.store)).index("topics").aliases


def test_rows_of_another_lake_are_not_taken_for_those_of_the_version(finished):
    project, registry = finished(Task.BINARY)
    other = make_project(project.folder, Task.BINARY, lake="lake2", split={"validation": 0.2, "test": 0.25, "seed": 5})
    run(other, until="split")
    with pytest.raises(
        PackageError, match="version 1 of 'topics' was made from the lake 'lake', the project's is 'lake2'"
    ):
        redecide(other, registry, "1", {"thresholds": {"metric": "f1"}}, by="ana")


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTI_LABEL])
def test_a_new_version_has_the_same_weights_and_other_thresholds(finished, task):
    project, registry = finished(task)
    made = redecide(project, registry, "1", {"thresholds": {"metric": "f2"}}, by="ana")
    assert (made.base, made.version, made.promoted) == ("1", "2", False)
    assert aliases(project) == {"champion": "1"}
    old, new = loaded(project, "1"), loaded(project, "2")
    test = side(project, "test")
    np.testing.assert_array_equal(old.predict_proba(test.texts_raw), new.predict_proba(test.texts_raw))
    assert new.rule.thresholds != old.rule.thresholds
    assert new.manifest.data["weights_of"] == "1"
    assert new.manifest.data["gold"] == old.manifest.data["gold"]
    assert weights(new) == weights(old)
    card = ModelStore(project.resolve(project.registry.store)).fetch("topics@2") / "model.md"
    assert "test_f1_macro" in card.read_text(encoding="utf-8")


def test_figures_are_those_of_the_decision(finished):
    project, registry = finished(Task.BINARY)
    made = redecide(project, registry, "champion", {"thresholds": {"values": {"money": 0.1}}}, by="ana")
    test = side(project, "test")
    decided = loaded(project, "2").rule.decide(loaded(project, "1").predict_proba(test.texts_raw))
    assert made.metrics["test_accuracy"] == pytest.approx(np.mean(decided == test.targets))
    validation = side(project, "validation")
    before = loaded(project, "1").rule.decide(loaded(project, "1").predict_proba(validation.texts_raw))
    assert made.before["val_accuracy"] == pytest.approx(np.mean(before == validation.targets))
    stored = loaded(project, "1").manifest.metrics
    assert made.before == pytest.approx({name: value for name, value in stored.items() if name in made.before})
    assert made.after["val_recall_positive"] >= made.before["val_recall_positive"]
    (recorded,) = registry.runs()
    assert recorded.version == "2"
    assert recorded.metrics["test_accuracy"] == made.metrics["test_accuracy"]
    assert json.loads(recorded.params["thresholds"]) == {"values": {"money": 0.1}}
    assert loaded(project, "2").manifest.metrics["val_accuracy"] == made.after["val_accuracy"]


def test_a_dry_run_keeps_nothing(finished):
    project, registry = finished(Task.MULTI_CLASS)
    made = redecide(project, registry, "1", {"conformal": {"coverage": 0.8}}, by="ana", dry_run=True)
    assert (made.version, made.metrics) == (None, {})
    assert made.after["val_set_coverage"] > 0.6
    assert "val_set_coverage" not in made.before
    assert describe(project).version == "1"
    assert list(ModelStore(project.resolve("models")).index("topics").versions) == ["1"]
    assert registry.runs() == []


def test_a_promoted_version_is_the_champion_in_store_and_registry(finished):
    project, registry = finished(Task.MULTI_CLASS)
    made = redecide(project, registry, "1", {"abstain": {"coverage": 0.7}}, by="ana", promote=True)
    assert made.promoted
    assert aliases(project) == registry.aliases == {"champion": "2"}
    change = ModelStore(project.resolve("models")).index("topics").history[-1]
    assert (change.by, change.previous) == ("ana", "1")
    validation, new = side(project, "validation"), loaded(project, "2")
    given = new.rule.decide(new.predict_proba(validation.texts_raw)) >= 0
    assert 0.7 <= given.mean() < 1
    assert 0.5 < made.after["val_coverage"] < 1  # of rules that have not seen the example


def test_the_same_change_again_gives_the_same_version(finished):
    project, registry = finished(Task.BINARY)
    changes = {"calibrate": "isotonic", "costs": {"false_negative": 3}}
    first = redecide(project, registry, "1", changes, by="ana")
    second = redecide(project, registry, "1", changes, by="ana")
    assert (first.version, second.version) == ("2", "2")
    assert len(registry.runs()) == 1
    assert first.decision.calibration["method"] == "isotonic"
    assert first.decision.thresholds == {"money": 0.25}


def test_what_is_not_changed_stays(finished):
    project, registry = finished(Task.BINARY)
    redecide(project, registry, "1", {"thresholds": {"metric": "f2"}}, by="ana")
    made = redecide(project, registry, "2", {"abstain": {"coverage": 0.8}}, by="ana")
    assert made.decision.thresholds == describe(project, "2").thresholds
    assert made.decision.calibration == describe(project, "1").calibration
    # Costs take the place of tuned thresholds, abstention stays.
    made = redecide(project, registry, "3", {"costs": {"false_positive": 3}}, by="ana")
    assert made.decision.thresholds == {"money": 0.75}
    assert made.decision.rule["settings"]["abstain"] == {"coverage": 0.8}
    made = redecide(project, registry, "4", {}, by="ana", reset=True)
    assert made.decision.thresholds == {"money": 0.5}
    assert "abstain_below" not in made.decision.rule


def test_a_version_of_a_release_that_recorded_no_settings(finished):
    project, registry = finished(Task.MULTI_LABEL)
    version = redecide(project, registry, "1", {"thresholds": {"metric": "f1"}}, by="ana").version
    tuned = loaded(project, version)
    old = tuned.with_records(data={**tuned.manifest.data, "key": "old"})
    object.__setattr__(old.rule, "settings", {})
    folder = Path(project.resolve("old"))
    old.save(folder)
    store = ModelStore(project.resolve("models"))
    assert store.publish("topics", folder) == "3"
    made = redecide(project, registry, "3", {"thresholds": {"values": {"sport": 0.2}}}, by="ana", dry_run=True)
    expected = dict(zip(tuned.labels, tuned.rule.thresholds, strict=True)) | {"sport": 0.2}
    assert made.decision.thresholds == expected


def test_a_refitted_version_learns_from_the_scores_of_its_candidate(tmp_path, finished):
    """Validation scores of the refit itself would be those of texts it has learned."""
    plain, registry = finished(Task.BINARY)
    (tmp_path / "refit").mkdir()
    project = make_project(tmp_path / "refit", Task.BINARY, n=240, select={"refit": True})
    run(project)
    for changes in ({"thresholds": {"metric": "f2"}}, {"calibrate": "sigmoid"}, {"conformal": {"coverage": 0.8}}):
        expected = redecide(plain, registry, "1", changes, by="ana", dry_run=True)
        made = redecide(project, registry, "1", changes, by="ana", dry_run=True)
        assert (made.decision.rule, made.decision.calibration) == (
            expected.decision.rule,
            expected.decision.calibration,
        )
        assert (made.before, made.after) == (expected.before, expected.after)
    made = redecide(project, registry, "1", {"thresholds": {"metric": "f2"}}, by="ana")
    assert {k: v for k, v in made.metrics.items() if k in made.after} == pytest.approx(made.after)
    assert weights(loaded(project, "2")) == weights(loaded(project, "1"))
    again = redecide(project, registry, "2", {"thresholds": {"metric": "f1"}}, by="ana", dry_run=True)
    assert again.after["val_f1_macro"] <= 1


def test_nothing_is_learned_from_validation_data_where_the_candidate_is_gone(tmp_path):
    project = make_project(tmp_path, Task.BINARY, select={"refit": True})
    run(project)
    shutil.rmtree(Path(project.resolve(project.lake)) / "_candidates")
    registry = MemoryRegistry()
    for changes in ({"thresholds": {"metric": "f1"}}, {"calibrate": "sigmoid"}, {"conformal": {"coverage": 0.8}}):
        with pytest.raises(ConfigError, match=r"select\.refit"):
            redecide(project, registry, "1", changes, by="ana", dry_run=True)
    made = redecide(project, registry, "1", {"costs": {"false_negative": 4}}, by="ana", dry_run=True)
    assert made.decision.thresholds == {"money": 0.2}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"thresholds": {"metric": "f1", "values": {"x": 0.1}}}, "'x' is no label"),
        ({"thresholds": {"values": {"money": 3}}}, "less than or equal to 1"),
        ({"conformal": {"coverage": 0.999}}, "needs at least 999 validation examples"),
        ({"calibrate": "sigmod"}, "calibrate"),
    ],
)
def test_a_wrong_change_is_refused_and_changes_nothing(finished, changes, said):
    project, registry = finished(Task.BINARY)
    with pytest.raises(ConfigError, match=said):
        redecide(project, registry, "1", changes, by="ana")
    assert aliases(project) == {"champion": "1"}
    assert registry.runs() == []


def test_an_unknown_version_is_refused(finished):
    project, registry = finished(Task.BINARY)
    with pytest.raises(ModelNotFoundError):
        redecide(project, registry, "7", {"calibrate": "none"}, by="ana")


@pytest.mark.parametrize(
    ("task", "keys"),
    [
        (Task.BINARY, {"thresholds": {"metric": "recall", "at_least": {"precision": 0.7}}}),
        (Task.BINARY, {"costs": {"false_negative": 4, "abstain": 0.4}, "conformal": {"coverage": 0.8}}),
        (Task.MULTI_CLASS, {"costs": {"matrix": {"food": {"sport": 5}}}, "abstain": {"coverage": 0.8}}),
        (Task.MULTI_LABEL, {"costs": {"labels": {"food": {"false_positive": 3}}}, "conformal": {"coverage": 0.8}}),
    ],
)
def test_a_run_and_a_later_change_come_to_the_same_decision(tmp_path, task, keys):
    """What the project file asks for when training, `redecide` gives without."""
    (tmp_path / "asked").mkdir()
    (tmp_path / "later").mkdir()
    plain = {"family": "linear", "calibrate": "temperature"}
    asked = make_project(tmp_path / "asked", task, candidates=[{**plain, **keys}])
    later = make_project(tmp_path / "later", task, candidates=[plain])
    metrics = run(asked).metrics
    run(later)
    made = redecide(later, MemoryRegistry(), "1", keys, by="ana")
    assert made.decision.rule == loaded(asked, "1").rule.to_dict()
    assert made.decision.calibration == loaded(asked, "1").calibrator.to_dict()
    assert {k: v for k, v in made.metrics.items() if k.startswith("test_")} == {
        k: v for k, v in metrics.items() if k.startswith("test_")
    }


def again(project: Project, version: str):
    return reproduce(project, ModelStore(project.resolve(project.registry.store)), lake_of(project), version)


@pytest.mark.parametrize(
    ("sets", "changes", "reset"),
    [({}, {"conformal": {"coverage": 0.8}}, False), ({"conformal": {"coverage": 0.8}}, {}, True)],
    ids=["added", "taken away"],
)
def test_sets_that_came_or_went_later_change_nothing_of_how_weights_are_made(tmp_path, sets, changes, reset):
    """A fit with sets sees half of validation: the weights of an ensemble depend on which."""
    candidate = {"family": "ensemble", "calibrate": "none", **sets}
    project = make_project(tmp_path, Task.MULTI_CLASS, n=240, candidates=[candidate])
    run(project)
    other = make_project(tmp_path, Task.MULTI_CLASS, candidates=[{**candidate, "conformal": changes.get("conformal")}])
    run(other)
    assert weights(loaded(project, "1")) != weights(loaded(project, "2"))
    made = redecide(project, MemoryRegistry(), "1", changes, by="ana", reset=reset)
    found = again(project, made.version)
    assert (found.same, set(found.files.values())) == (True, {True})


def test_an_error_to_keep_by_abstaining_is_kept_at_thresholds_set_by_hand_too(tmp_path):
    candidate = {"family": "linear", "calibrate": "temperature", "abstain": {"error": 0.15}}
    project = make_project(tmp_path, Task.BINARY, n=240, candidates=[candidate])
    run(project)
    made = redecide(project, MemoryRegistry(), "1", {"thresholds": {"values": {"money": 0.1}}}, by="ana")
    model, validation = loaded(project, made.version), side(project, "validation")
    decided = model.rule.decide(model.predict_proba(validation.texts_raw))
    answers = decided >= 0
    assert answers.any()
    assert (decided != validation.targets)[answers].mean() <= 0.15
    assert again(project, made.version).same

"""Whole runs of small projects: which candidate is chosen, refitted and becomes champion."""

from __future__ import annotations

import numpy as np
import pytest

from tamiz.errors import ConfigError, StoreError
from tamiz.model import Model
from tamiz.pipeline.publish import promote, rollback
from tamiz.registry import MemoryRegistry
from tamiz.types import Task
from tests.projects import (
    PRIOR,
    make_project,
    rows,
    run,
    side,
    store_of,
    write_csv,
)

# --- who becomes champion


def test_a_worse_challenger_is_published_and_not_promoted(tmp_path):
    registry = MemoryRegistry()
    good = run(make_project(tmp_path), registry)
    worse = run(make_project(tmp_path, candidates=PRIOR), registry)
    assert (worse.version, worse.champion) == ("2", "1")
    new, old = worse.metrics["test_f1_macro"], good.metrics["test_f1_macro"]
    assert new < old
    said = f"test_f1_macro {new:.4f} is worse than {old:.4f} of version 1 on the same 31 test texts ("
    assert worse.verdict.startswith(said)
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

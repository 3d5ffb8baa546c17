"""Where `tamiz tune` looks: default spaces of all families, and what a project makes of them."""

from __future__ import annotations

import json

import pytest

from tamiz.classifiers import CLASSIFIERS, classifier_class
from tamiz.config import CandidateConfig, parse_project
from tamiz.errors import ConfigError
from tamiz.pipeline.tune import plan
from tamiz.pipeline.tune_spaces import CANDIDATE_KEYS, DEFAULT_SPACES, Dimension, Space, default_space, space_of
from tamiz.types import Task
from tests.projects import raw_project

TUNED = sorted(set(DEFAULT_SPACES) & set(CLASSIFIERS))


def space(family: str = "linear", task: Task = Task.MULTI_CLASS, *, params=None, **tune) -> Space:
    project = parse_project(raw_project(task, candidates=[{"family": family, "params": params or {}}], tune=tune))
    return plan(project).space


@pytest.mark.parametrize("family", sorted(DEFAULT_SPACES))
def test_every_default_space_is_well_formed(family):
    assert all(spec.value is None for spec in default_space(family).values())


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("family", TUNED)
def test_every_default_space_has_real_parameters_and_the_default_lies_inside(family, task):
    found = space(family, task)
    assert set(found.start()) == set(DEFAULT_SPACES[family])
    assert not set(CANDIDATE_KEYS) & set(classifier_class(family).Params.model_fields)


@pytest.mark.parametrize("family", [family for family in CLASSIFIERS if family not in DEFAULT_SPACES])
def test_a_family_without_a_space_says_why(family):
    with pytest.raises(ConfigError, match=f"nothing to tune in '{family}'.*tune"):
        space(family)


def test_the_space_of_a_project_replaces_and_joins_the_default_one():
    found = space(
        space={"C": {"low": 1, "high": 5}, "words": [1, 1], "prepare": {"choices": [[], ["case"]]}, "tol": 0.01}
    )
    names = [dimension.name for dimension in found.dimensions]
    assert names == ["C", "nb_weighting", "characters", "min_df", "tf", "class_weight", "prepare"]
    assert found.fixed == {"words": [1, 1], "tol": 0.01}
    assert {d.name: d.whole for d in found.dimensions if d.spec.choices is None} == {"C": False, "min_df": True}
    # The candidate's C, 10 in effect, is outside now: the first trial has none.
    assert "C" not in found.start()
    assert found.start()["prepare"] == '["case"]'
    made = found.applied({"C": 2.0, "words": [1, 1], "prepare": []}, name="tuned")
    assert (made.params, made.prepare, made.title) == ({"C": 2.0, "words": [1, 1]}, [], "tuned")


def test_the_search_begins_at_the_candidates_own_values():
    assert space(params={"C": 3, "tf": "binary"}).start()["C"] == 3.0
    assert space(params={"tf": "binary"}).start()["tf"] == "binary"
    assert space(space={"C": {"low": 1, "high": 50}}).start()["C"] == 10.0
    assert "C" not in space(params={"C": 1e-6}).start()
    assert space(task=Task.BINARY).start()["C"] == 30.0
    thresholds = CandidateConfig(family="linear", thresholds="f1")  # type: ignore[arg-type]
    project = parse_project(raw_project(Task.BINARY, tune={"space": {"thresholds": {"choices": ["default", "f1"]}}}))
    assert space_of(thresholds, project.tune, Task.BINARY).start()["thresholds"] == "f1"
    assert plan(project).space.start()["thresholds"] == "default"


def test_without_the_defaults_only_the_named_parameters_are_searched():
    assert [d.name for d in space(defaults=False, space={"C": {"low": 1, "high": 2}}).dimensions] == ["C"]
    with pytest.raises(ConfigError, match="nothing to tune"):
        space(defaults=False)


@pytest.mark.parametrize(
    ("value", "stored"), [(None, "null"), ([1, 2], "[1, 2]"), ((1, 2), "[1, 2]"), ([2, 2], None), (1, None)]
)
def test_lists_are_kept_as_json(value, stored):
    found = space(defaults=False, space={"words": {"choices": [None, [1, 2]]}, "characters": [2, 4]}).dimensions[0]
    assert found.choices == ["null", "[1, 2]"]
    place = found.place(value)
    assert (place and place[0]) == stored
    if place:
        assert json.dumps(found.value(place[0])) == json.dumps(value)


def test_values_of_a_grid():
    found = space("boosting", defaults=False, space={"rounds": {"low": 100, "high": 300, "step": 50}}).dimensions[0]
    assert (found.place(150), found.place(160), found.place(350), found.place(True)) == ((150,), None, None, None)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"c": {"low": 1, "high": 2}}, "tune.space.c: linear has no such parameter; allowed: C, "),
        ({"C": {"low": -1, "high": 2}}, "tune.space.C: got -1; Input should be greater than 0"),
        ({"C": {"low": 1}}, "tune.space.C: a range has both `low` and `high`"),
        ({"C": {"low": 2, "high": 1}}, "tune.space.C: low (2) must be below high (1)"),
        ({"C": {"low": 0, "high": 1, "log": True}}, "with `log`, low must be above 0, not 0"),
        ({"C": {"low": 1, "high": 2, "log": True, "step": 1}}, "`log` and `step` exclude each other"),
        ({"C": {"low": 1, "high": 2, "choices": [1]}}, "one of these only"),
        ({"C": {"lowest": 1, "high": 2}}, "tune.space.C.lowest: unknown key; allowed: choices, high, log, low, "),
        ({"C": {"low": 1, "high": float("inf")}}, "tune.space.C.high"),
        ({"tf": {"choices": ["log", "sqrt"]}}, "tune.space.tf: got 'sqrt'; Input should be 'log', 'binary' or"),
        ({"tf": {"choices": ["log", "log"]}}, "a value stands there twice"),
        ({"min_df": 0}, "tune.space.min_df: got 0; Input should be greater than or equal to 1"),
        ({"prepare": {"choices": [["cases"]]}}, "tune.space.prepare"),
        ({"thresholds": {"choices": ["f1", "f-1"]}}, "tune.space.thresholds"),
    ],
)
def test_a_wrong_space_says_what_is_wrong(spec, message):
    with pytest.raises(ConfigError) as caught:
        space(space=spec)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"metric": "val_f1_makro"}, "did you mean 'val_f1_macro'?"),
        ({"metric": "test_f1_macro"}, "a validation metric of answers is needed"),
        ({"metric": "fit_seconds"}, "a validation metric of answers is needed"),
        ({"candidate": "linaer"}, "tune.candidate: unknown 'linaer'; allowed: boosting, ensemble, few_shot, linear"),
        ({"trials": 0}, "tune.trials"),
        ({"folds": 1}, "tune.folds"),
        ({"rungs": [0.3, 0.1]}, "rungs: shares go from small to large"),
        ({"storage": "s3://bucket/tuning"}, "storage: a folder on this machine"),
        ({"pruning": "some"}, "allowed: halving, median, none"),
    ],
)
def test_a_wrong_section_says_what_is_wrong(tune, message):
    with pytest.raises(ConfigError) as caught:
        space(**tune)
    assert message in str(caught.value)


def test_the_first_candidate_with_a_space_is_tuned_or_the_named_one():
    candidates = [{"family": "prior"}, {"family": "linear", "name": "mine", "params": {"C": 2}}]
    raw = raw_project(candidates=candidates)
    assert plan(parse_project(raw)).candidate == "mine"
    assert plan(parse_project({**raw, "tune": {"candidate": "boosting"}})).space.candidate.params == {}
    assert plan(parse_project({**raw, "tune": {"metric": "val_log_loss"}})).higher is False
    assert plan(parse_project({**raw, "select": {"metric": "val_ece"}})).metric == "val_ece"


def test_a_dimension_reads_well():
    shown = {d.name: str(d) for d in space("boosting").dimensions}
    assert shown["l2"] == "0.01 to 30, log"
    assert shown["rounds"] == "100 to 500, step 50"
    assert shown["class_weight"] == 'one of null, "balanced"'
    assert isinstance(space().dimensions[0], Dimension)

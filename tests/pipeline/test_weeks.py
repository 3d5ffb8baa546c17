"""What becomes of a project over weeks: places change, versions are taken off, folders are lost."""

from __future__ import annotations

import shutil

import pytest

from tamiz.config import Project
from tamiz.errors import PackageError
from tamiz.pipeline.publish import rollback
from tamiz.pipeline.reproduce import reproduce
from tamiz.registry import MemoryRegistry
from tests.projects import PRIOR, Told, lake_of, make_project, run, store_of

TWO = [{"family": "linear"}, *PRIOR]


def changed(project: Project, **sections: object) -> Project:
    raw = {**project.model_dump(exclude_unset=True), **sections}
    return Project.model_validate(raw).at(project.folder)


def test_a_store_that_begins_anew_takes_its_numbers_from_the_old_one(tmp_path):
    registry = MemoryRegistry()
    project = make_project(tmp_path)
    assert run(project, registry).version == "1"
    moved = changed(project, candidates=PRIOR, registry={"store": "others"})
    assert run(moved, registry).version == "1"
    assert {r.family: r.version for r in registry.runs()} == {"linear": None, "prior": "1"}
    assert registry.aliases == {"champion": "1"}
    assert {row["candidate"] for row in lake_of(moved).read("gold/metrics").to_pylist()} == {"linear", "prior"}


def test_a_version_that_was_taken_off_stays_off_when_only_the_report_changes(tmp_path):
    registry = MemoryRegistry()
    project = make_project(tmp_path, candidates=PRIOR, report={"learning_curve": False})
    run(project, registry)
    better = changed(project, candidates=TWO)
    assert run(better, registry).champion == "2"
    rollback(store_of(project), registry, project.name, by="somebody", reason="complaints about version 2")
    result = run(changed(better, report={"learning_curve": True}), registry)
    assert (result.version, result.champion) == ("2", "1")
    assert "complaints about version 2. To go back: tamiz promote 2" in result.verdict
    assert result.steps["evaluate"] == "done"


def test_a_candidate_whose_package_is_gone_is_trained_again(tmp_path):
    registry = MemoryRegistry()
    project = make_project(tmp_path, candidates=TWO)
    first = run(project, registry)
    shutil.rmtree(tmp_path / "lake" / "_candidates")
    told = Told()
    again = run(changed(project, select={"metric": "val_log_loss"}), registry, listener=told)
    assert told.done["train"] == "2 of 2 candidates"
    assert (again.chosen, again.version) == (first.chosen, first.version)


def test_the_lead_is_over_the_candidates_of_now(tmp_path):
    registry = MemoryRegistry()
    project = make_project(tmp_path, candidates=TWO)
    assert run(project, registry).lead["runner_up"] == "prior"
    nearer = changed(project, candidates=[{"family": "linear"}, {"family": "nb_stack"}, *PRIOR])
    result = run(nearer, registry)
    assert (result.lead["winner"], result.lead["runner_up"]) == tuple(c.candidate for c in result.leaderboard[:2])
    alone = run(changed(project, candidates=[{"family": result.chosen}]), registry)
    assert (alone.lead, alone.steps["evaluate"]) == (None, "skipped")
    assert run(project, registry).lead["runner_up"] == "prior"


def test_another_registry_is_told_of_the_version(tmp_path):
    project = make_project(tmp_path)
    run(project, MemoryRegistry())
    other = MemoryRegistry()
    result = run(changed(project, registry={"mlflow": "sqlite:///team.db"}), other)
    assert result.steps["train"] == "skipped"
    assert [r.version for r in other.runs()] == ["1"]


def test_a_lake_is_known_however_its_place_is_spelled(tmp_path):
    registry = MemoryRegistry()
    project = make_project(tmp_path, candidates=PRIOR)
    run(project, registry)
    spelled, store = changed(project, lake=str(tmp_path / "lake"), candidates=TWO), store_of(project)
    assert reproduce(spelled, store, lake_of(spelled), "1").same
    assert run(spelled, registry).champion == "2"
    seen = [*store.decisions(project.name, "2").values()][-1]["inputs"]["test"]["seen"]
    assert [one["unknown"] for one in seen.values()] == [None, None]
    elsewhere = changed(project, lake="elsewhere")
    with pytest.raises(PackageError, match="was made from the lake 'lake', the project's is 'elsewhere'"):
        reproduce(elsewhere, store, lake_of(elsewhere), "1")

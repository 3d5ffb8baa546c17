"""`tamiz versions`, `tamiz promote`, `tamiz rollback`."""

from __future__ import annotations

import getpass

import pytest

from tamiz.config import load_project
from tamiz.settings import new_registry
from tamiz.store import ModelStore
from tests.projects import write_project


def champion(project) -> str:
    """Return the champion of the store, which must be that of MLflow too."""
    index = ModelStore(str(project / "models")).index("topics")
    client = new_registry(load_project(project, variables={}))._client
    version = client.get_model_version_by_alias("topics", "champion")
    assert version.tags["tamiz.version"] == index.aliases["champion"]
    return index.aliases["champion"]


def last_change(project):
    return ModelStore(str(project / "models")).index("topics").history[-1]


def test_versions_are_listed_newest_first(project, tamiz):
    answer = tamiz("versions")
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines() if line.strip()]
    assert lines[0][:4] == ["Versions", "of", "topics", "(2,"]
    assert "test_f1_macro" in lines[1]
    assert lines[-2][:3] == ["2", "champion", "linear"]
    assert lines[-1][:2] == ["1", "prior"]


def test_versions_as_json_are_the_index(project, tamiz):
    found = tamiz("versions", "--json").json
    assert found == ModelStore(str(project / "models")).index("topics").model_dump(mode="json")
    assert list(found["versions"]) == ["1", "2"]
    assert found["aliases"] == {"champion": "2"}


def test_a_version_is_promoted_in_store_and_registry(project, tamiz, monkeypatch):
    monkeypatch.setenv("TAMIZ_USER", "ana")
    answer = tamiz("promote", "1", "--force", "--reason", "the new one is slow")
    assert (answer.code, answer.out) == (0, "version 1 of topics is now the champion\n")
    assert champion(project) == "1"
    change = last_change(project)
    assert (change.by, change.reason, change.previous) == ("ana", "the new one is slow", "2")


def test_the_system_user_promotes_by_default(project, tamiz):
    assert tamiz("promote", "1", "--alias", "champion", "--force", "--reason", "for the test").code == 0
    assert tamiz("promote", "2").code == 0
    assert last_change(project).by == getpass.getuser()
    assert last_change(project).reason == "asked for by hand"


@pytest.mark.parametrize(("metric", "version"), [("test_f1_macro", "2"), ("size_mb", "1"), ("val_log_loss", "2")])
def test_the_best_by_a_metric_is_promoted(project, tamiz, metric, version):
    other = "12".replace(version, "")
    assert tamiz("promote", other, "--force", "--reason", "to begin with").code == 0
    found = tamiz("promote", "--by", metric, "--json")
    better = version == "2"
    assert found.code == (0 if better else 1)
    assert (found.json["version"], found.json["changed"]) == (version, better)
    assert found.json["outcome"] == ("promote" if better else "refuse")
    assert champion(project) == (version if better else other)


def test_the_direction_is_said_and_can_be_turned(project, tamiz):
    said = tamiz("promote", "--by", "val_log_loss", "--dry-run")
    assert "version 2 is best by val_log_loss (lowest): " in said.err
    assert "guessed" not in said.err
    turned = tamiz("promote", "--by", "val_log_loss", "--highest", "--dry-run", "--json").json
    assert (turned["version"], turned["best"]["mode"], turned["best"]["ahead_of"][0]) == ("1", "max", "2")


def test_a_figure_that_only_mlflow_has_chooses_too(project, tamiz):
    registry = new_registry(load_project(project, variables={}))
    runs = {run.version: run.run_id for run in registry.runs()}
    (project / "nothing").mkdir()
    for version, figure in (("1", 0.9), ("2", 0.8)):
        registry.register(runs[version], version=version, metrics={"eval_gain": figure}, artifacts=project / "nothing")
    said = tamiz("promote", "--by", "eval_gain", "--force", "--reason", "a trial")
    assert champion(project) == "1", said
    assert "which way eval_gain is better was guessed" in said.err
    decision = list(ModelStore(str(project / "models")).decisions("topics", "1").values())[-1]
    assert decision["why"] == "a trial; best by eval_gain (highest): 0.9, version 2 has 0.8"
    assert tamiz("promote", "--by", "eval_gain", "--lowest", "--json").json["version"] == "2"


def test_promoting_the_champion_again_tells_the_registry_what_it_missed(project, tamiz):
    new_registry(load_project(project, variables={})).alias("champion", "1")
    assert tamiz("promote", "2").out == "version 2 of topics is now the champion\n"
    assert champion(project) == "2"


def test_another_alias(project, tamiz):
    assert tamiz("promote", "1", "--alias", "challenger").out == "version 1 of topics is now the challenger\n"
    store = ModelStore(str(project / "models"))
    assert store.index("topics").aliases == {"champion": "2", "challenger": "1"}
    assert champion(project) == "2"
    assert tamiz("promote", "challenger", "--json").json["version"] == "1"
    assert tamiz("predict", "bread", "--model", "models/topics@challenger").code == 0


def test_a_dry_run_changes_nothing(project, tamiz):
    before = (project / "models" / "topics" / "index.json").read_bytes()
    forced = ("--dry-run", "--force", "--reason", "for the test")
    assert tamiz("promote", "1", *forced).out == "version 1 of topics would become the champion\n"
    assert tamiz("promote", "1", *forced, "--json").json["changed"] is False
    assert tamiz("promote", "1", "--dry-run").code == 1
    assert list((project / "models" / "topics" / "decisions").glob("1-2.json")) == []
    assert (project / "models" / "topics" / "index.json").read_bytes() == before


def test_a_rollback_goes_back_once(project, tamiz, refused):
    answer = tamiz("rollback", "--reason", "complaints")
    assert (answer.code, answer.out) == (0, "version 1 of topics is now the champion\n")
    assert champion(project) == "1"
    assert last_change(project).reason == "complaints"
    assert last_change(project).rollback
    assert "has no earlier champion to go back to" in refused(1, "rollback")
    assert champion(project) == "1"


def test_a_rollback_as_json(project, tamiz):
    assert tamiz("rollback", "--json").json == {
        "model": "topics", "alias": "champion", "version": "1", "changed": True
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "give a version to promote, or --by METRIC"),
        (("1", "--by", "test_accuracy"), 2, "do not go together: give a version to promote, or --by METRIC"),
        (("1", "--lowest"), 2, "--lowest and --highest go with --by METRIC"),
        (("7",), 1, "no version '7'; allowed: 1, 2"),
        (("champoin",), 1, "did you mean 'champion'?"),
        (("--by", "test_f1_marco"), 2, "did you mean 'test_f1_macro'?"),
        (("--by", "test_subset_accuracy"), 1, "no version has the metric 'test_subset_accuracy'; allowed: "),
        (("1", "--alias", "a b"), 1, "'a b' cannot be the name of an alias"),
    ],
)
def test_what_cannot_be_promoted_is_refused(project, refused, arguments, code, said):
    assert said in refused(code, "promote", *arguments)
    assert champion(project) == "2"


@pytest.mark.parametrize("command", ["versions", "rollback"])
def test_a_project_that_was_not_run_has_no_versions(place, refused, command):
    write_project(place)
    assert "no model 'topics'" in refused(1, command)

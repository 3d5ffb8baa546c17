"""`tamiz promote` through the gates, `tamiz versions` of one and two, `tamiz reproduce`."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from tamiz.store import ModelStore
from tests.projects import LABELS, PRIOR, rows, write_csv, write_project


def store(project) -> ModelStore:
    return ModelStore(str(project / "models"))


def test_a_worse_version_is_refused_with_reason_and_record(project, tamiz, refused):
    said = refused(1, "promote", "1")
    assert "version 1 of topics is not promoted: test_f1_macro " in said
    assert "is worse than" in said
    assert "--force --reason TEXT" in said
    assert store(project).index("topics").aliases == {"champion": "2"}
    last = store(project).decisions("topics", "1")[2]  # the first was that of its run
    assert (last["promoted"], last["forced"], last["outcome"], last["asked"]) == (False, False, "refuse", "hand")
    assert last["inputs"]["champion"] == "2"
    shown = tamiz("versions", "1").out
    assert "not promoted instead of version 2" in shown
    assert "FAIL  better" in shown


def test_force_needs_a_reason_and_is_recorded(project, tamiz, refused):
    assert "--force: promoting against the evidence needs a reason" in refused(2, "promote", "1", "--force")
    answer = tamiz("promote", "1", "--force", "--reason", "the other leaks names", "--json")
    assert (answer.code, answer.json["changed"], answer.json["outcome"]) == (0, True, "refuse")
    record = store(project).decisions("topics", "1")[answer.json["decision"]]
    assert (record["forced"], record["promoted"], record["why"]) == (True, True, "the other leaks names")
    assert store(project).index("topics").aliases == {"champion": "1"}
    assert "forced instead of version 2" in tamiz("versions", "1").out


def test_without_a_lake_a_person_may_promote_and_the_record_says_so(project, tamiz):
    shutil.rmtree(project / "lake")
    answer = tamiz("promote", "1")
    assert (answer.code, answer.out) == (0, "version 1 of topics is now the champion\n")
    assert "no evidence: there is no test_f1_macro to compare it by: the lake has no gold table" in answer.err
    assert store(project).decisions("topics", "1")[2]["outcome"] == "no evidence"


def test_a_decision_is_replayed(project, tamiz):
    answer = tamiz("promote", "2", "--replay")
    assert (answer.code, answer.out) == (0, "decision 1 about version 2: the same again\n")
    assert tamiz("versions", "2", "--replay", "--json").json == {"version": "2", "replays": {"1": []}}
    path = project / "models" / "topics" / "decisions" / "2-1.json"
    record = json.loads(path.read_text())
    better = next(gate for gate in record["gates"] if gate["name"] == "better")
    better["figures"]["first"] = 0.999
    path.write_text(json.dumps(record))
    answer = tamiz("promote", "2", "--replay")
    assert answer.code == 1
    assert "1 differences" in answer.out
    assert "figures.first: recorded 0.999, now 0.8" in answer.out


def test_the_registry_has_a_copy_of_each_record(finished):
    copies = [json.loads(path.read_text()) for path in finished.glob("mlartifacts/**/decision-1.json")]
    records = [ModelStore(str(finished / "models")).decisions("topics", version)[1] for version in "12"]
    # Copies of this project that other tests have changed write their artifacts here too.
    first_two = [record for record in copies if record["inputs"]["version"] in ("1", "2")]
    assert sorted(first_two, key=lambda r: r["inputs"]["version"]) == records


def test_a_registry_that_fails_after_the_store_is_a_note(project, tamiz):
    (project / "mlflow.db").write_bytes(b"no database")
    answer = tamiz("promote", "1", "--force", "--reason", "x")
    assert answer.code == 0
    assert "version 1 is the champion in the store, but the registry was not told" in answer.err
    assert "tamiz promote 1" in answer.err
    assert store(project).index("topics").aliases == {"champion": "1"}
    answer = tamiz("rollback")
    assert (answer.code, answer.out) == (0, "version 2 of topics is now the champion\n")
    assert "the registry was not told" in answer.err


def test_a_new_registry_is_given_the_version(project, tamiz, mlflow_template):
    shutil.copy(mlflow_template, project / "mlflow.db")
    answer = tamiz("promote", "1", "--force", "--reason", "x")
    assert (answer.code, answer.out) == (0, "version 1 of topics is now the champion\n")
    assert "the registry was not told" not in answer.err
    (run,) = tamiz("compare", "--json").json
    info = store(project).index("topics").versions["1"]
    assert (run["version"], run["candidate"], run["metrics"]) == ("1", info.candidate, info.metrics)


def test_two_versions_are_compared(project, tamiz):
    found = tamiz("versions", "diff", "1", "champion", "--json").json
    assert found["versions"] == ["1", "2"]
    assert found["differences"]["family"] == ["prior", "linear"]
    assert "size_bytes" in found["differences"]
    assert "metrics.test_f1_macro" in found["differences"]
    assert not {"labels", "task", "data.gold", "libraries.numpy"} & set(found["differences"])
    shown = tamiz("versions", "diff", "1", "2").out
    assert "family" in shown
    assert "prior" in shown


def test_markup_in_labels_is_shown_when_versions_are_compared(place, tamiz):
    table = [{**row, "label": f"[/{row['label']}]"} for row in rows(120)]
    write_csv(place / "texts.csv", table)
    for names in ([f"[/{label}]" for label in LABELS], [f"[/{label}]" for label in reversed(LABELS)]):
        write_project(place, labels={"names": names}, candidates=PRIOR)
        assert tamiz("run", "--quiet").code == 0
    answer = tamiz("versions", "diff", "1", "2")
    assert (answer.code, answer.err) == (0, "")
    assert "['[/food]'" in answer.out


def test_a_version_is_deleted_unless_it_is_used(project, tamiz, refused):
    assert "is its champion and stays" in refused(1, "versions", "delete", "2", "--dry-run")
    assert "version 1 of topics would be deleted" in tamiz("versions", "delete", "1", "--dry-run").out
    assert list(store(project).index("topics").versions) == ["1", "2"]
    answer = tamiz("versions", "delete", "1", "--json")
    assert answer.json["changed"] is True
    assert answer.json["freed_bytes"] > 100
    assert list(store(project).index("topics").versions) == ["2"]
    assert "version 1 of topics, deleted" in tamiz("versions", "1").out  # what was decided about it stays
    assert "no version '1'" in refused(1, "promote", "2", "--replay")


@pytest.mark.parametrize("words", [("diff", "1"), ("delete",), ("1", "2"), ("diff",)])
def test_what_versions_does_not_understand(project, refused, words):
    assert "allowed: nothing, VERSION, diff A B, delete VERSION" in refused(2, "versions", *words)


def test_a_version_is_reproduced_bit_by_bit(project, tamiz):
    answer = tamiz("reproduce", "2", "--json")
    assert answer.code == 0, answer
    found = answer.json
    assert found["same"] is True
    assert found["probability_difference"] == 0
    assert found["files"]
    assert all(found["files"].values())
    assert found["changed"] == {}
    assert found["metrics"]["test_f1_macro"][0] == found["metrics"]["test_f1_macro"][1]
    assert tamiz("reproduce", "champion").out.endswith("reproduced\n")


def test_abstention_is_part_of_what_is_reproduced(project, tamiz):
    path = project / "tamiz.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["candidates"] = [{"family": "linear", "abstain": {"coverage": 0.8}}]
    path.write_text(yaml.safe_dump(raw))
    version = tamiz("run", "--json").json["version"]
    answer = tamiz("reproduce", version, "--json")
    assert answer.code == 0, answer
    assert answer.json["metrics"]["test_coverage"][1] < 1


def test_what_was_not_made_from_the_record_is_not_reproduced(project, tamiz):
    """A package whose record names other parameters than its weights were made with."""
    folder = project / "models" / "topics" / "2"
    manifest = json.loads((folder / "model.json").read_text())
    manifest["params"]["C"] = 0.01
    copy = project / "changed"
    shutil.copytree(folder, copy)
    (copy / "model.json").write_text(json.dumps(manifest))
    number = store(project).publish("topics", copy)
    answer = tamiz("reproduce", number)
    assert answer.code == 1
    assert "NOT reproduced" in answer.out
    assert "other bytes" in answer.out


def test_what_cannot_be_reproduced_is_said(project, refused):
    folder = project / "models" / "topics" / "2"
    manifest = json.loads((folder / "model.json").read_text())
    del manifest["data"]["training"]
    copy = project / "old"
    shutil.copytree(folder, copy)
    (copy / "model.json").write_text(json.dumps(manifest))
    number = store(project).publish("topics", copy)
    assert f"version {number} does not record how it was trained" in refused(1, "reproduce", number)
    path = project / "tamiz.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "lake": "elsewhere"}))
    assert "was made from the lake 'lake'" in refused(1, "reproduce", "2")


@pytest.mark.parametrize("words", [(), ("diff", "1", "2"), ("delete", "1")])
def test_a_replay_needs_a_version(project, refused, words):
    assert "--replay goes with a version" in refused(2, "versions", *words, "--replay")
    assert list(store(project).index("topics").versions) == ["1", "2"]

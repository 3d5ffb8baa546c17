"""`tamiz thresholds`."""

from __future__ import annotations

import json
import shutil

import pytest

from tamiz.store import ModelStore


def versions(project):
    return list(ModelStore(str(project / "models")).index("topics").versions)


@pytest.fixture
def labels_each(several, tmp_path, monkeypatch):
    """A copy of the finished project of several labels a text, as the present folder."""
    shutil.copytree(several, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_champion_is_shown(labels_each, tamiz):
    answer = tamiz("thresholds")
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines() if line.strip()]
    assert lines[0] == ["topics,", "version", "1,", "multi-label"]
    assert lines[1][0] == "calibration"
    assert lines[-3:] == [["food", "0.5000"], ["money", "0.5000"], ["sport", "0.5000"]]
    found = tamiz("thresholds", "1", "--json").json
    assert found["thresholds"] == {"food": 0.5, "money": 0.5, "sport": 0.5}
    assert (found["version"], found["task"]) == ("1", "multi-label")


def test_a_threshold_by_hand_makes_a_version(labels_each, tamiz):
    answer = tamiz("thresholds", "--set", "food=0.2", "--set", "sport=0.9")
    assert answer.code == 0, answer
    assert "version 2 has the weights of version 1" in answer.out
    assert "tamiz promote 2" in answer.out
    assert tamiz("thresholds", "2", "--json").json["thresholds"] == {"food": 0.2, "money": 0.5, "sport": 0.9}
    assert tamiz("thresholds", "--json").json["version"] == "1"
    assert tamiz("promote", "2").code == 1  # such thresholds cost F1
    assert tamiz("promote", "2", "--force", "--reason", "food matters").code == 0
    assert tamiz("thresholds", "--json").json["version"] == "2"


def test_a_metric_with_a_constraint(labels_each, tamiz):
    asked = ("--metric", "precision", "--at-least", "recall=0.9", "--dry-run")
    found = tamiz("thresholds", *asked, "--json").json
    assert found["version"] is None
    assert found["decision"]["rule"]["settings"]["thresholds"] == {"metric": "precision", "at_least": {"recall": 0.9}}
    assert "tuned for            precision, recall at least 0.9" in tamiz("thresholds", *asked).out
    assert versions(labels_each) == ["1"]


def test_costs_of_a_file_and_abstention_promoted(project, tamiz):
    (project / "costs.yaml").write_text("costs:\n  matrix: {food: {sport: 5}}\n  abstain: 0.45\n", encoding="utf-8")
    answer = tamiz("thresholds", "2", "--costs", "costs.yaml", "--abstain-coverage", "0.9", "--promote")
    assert answer.code == 0, answer
    assert "it is now the champion" in answer.out
    assert versions(project) == ["1", "2", "3"]
    shown = tamiz("thresholds").out
    assert "abstains above cost  0.4500" in shown
    assert "costs                {abstain: 0.45, matrix: {food: {sport: 5.0}}}" in shown
    predicted = tamiz("predict", "bread soup cheese", "--json")
    assert predicted.code == 0


def test_sets_before_and_after(project, tamiz):
    answer = tamiz("thresholds", "--conformal", "0.8", "--sets-only", "--dry-run")
    assert "hold the true label with probability 0.8 (lac)\n" in answer.out
    assert "set_coverage" in answer.out
    assert "nothing was changed (--dry-run)" in answer.out
    found = tamiz("thresholds", "--conformal", "0.8", "--dry-run", "--json").json
    assert found["decision"]["rule"]["conformal"]["coverage"] == 0.8
    assert 0 < found["after"]["val_coverage"] <= 1
    assert versions(project) == ["1", "2"]


def test_calibration_and_reset(project, tamiz):
    assert tamiz("thresholds", "--calibrate", "isotonic", "--abstain-below", "0.6").code == 0
    found = tamiz("thresholds", "3", "--json").json
    assert found["calibration"]["method"] == "isotonic"
    assert found["rule"]["abstain_below"] == 0.6
    found = tamiz("thresholds", "3", "--reset", "--json").json
    assert found["version"] == "4"
    assert found["decision"]["calibration"]["method"] == "isotonic"
    assert "abstain_below" not in found["decision"]["rule"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--dry-run",), "there is nothing to change"),
        (("--promote",), "there is nothing to change"),
        (("--sets-only",), "--sets-only goes with --conformal"),
        (("--set", "food"), "write it as NAME=0.4"),
        (("--set", "food=x"), "write it as NAME=0.4"),
        (("--set", "food=0.4"), "a multi-class task takes the label with the highest probability"),
        (("--metric", "f11"), "did you mean 'f1'?"),
        (("--costs", "none.yaml"), "cannot be read"),
        (("--costs", "list.yaml"), "a mapping is expected"),
        (("--costs", "wrong.yaml"), "false_negative"),
        (("--abstain-coverage", "2"), "abstain.coverage"),
        (("--abstain-coverage", "0.5", "--abstain-error", "0.1"), "give coverage or error"),
        (("--conformal", "0.9999"), "needs at least 9999"),
    ],
)
def test_wrong_use_is_refused_and_changes_nothing(project, refused, arguments, said):
    (project / "list.yaml").write_text(json.dumps([1]), encoding="utf-8")
    (project / "wrong.yaml").write_text("false_negative: -1", encoding="utf-8")
    assert said in refused(2, "thresholds", *arguments)
    assert versions(project) == ["1", "2"]


def test_an_unknown_version_is_refused(project, refused):
    assert "no version '9'" in refused(1, "thresholds", "9")


def test_the_next_command_names_a_project_elsewhere(labels_each, tamiz, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    answer = tamiz("thresholds", "-p", "..", "--set", "food=0.2")
    assert answer.out.splitlines()[-1] == "  tamiz promote 2 -p .."

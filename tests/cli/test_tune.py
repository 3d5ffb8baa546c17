"""`tamiz tune`: plan, search, what is shown and written."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
from pathlib import Path

import pytest
import yaml

from tamiz.blobs import open_blobs
from tamiz.cli.tuning import tune
from tests.projects import raw_project, write_project

SPACE = {"defaults": False, "space": {"C": {"low": 1, "high": 5}, "words": {"choices": [[1, 1], [1, 2]]}}}
WEAK = [{"family": "prior"}, {"family": "linear", "params": {"max_features": 1}}]


@pytest.fixture
def searched(place) -> Path:
    space = {**SPACE["space"], "max_features": 2000}
    write_project(place, candidates=WEAK, tune={**SPACE, "space": space, "trials": 3})
    return place


def test_a_plan_shows_the_space_and_touches_nothing(tamiz, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    before = sorted(tmp_path.iterdir())
    shown = tamiz("tune", "--dry-run", "--trials", 7)
    assert shown.code == 0
    assert "Space of linear (linear), by val_f1_macro" in shown.out
    assert "0.1 to 100, log" in shown.out
    assert "7 trials; kept in" in shown.out
    found = tamiz("tune", "--dry-run", "--json", "-c", "boosting", "--minutes", 2.5, "--metric", "val_log_loss").json
    assert (found["candidate"], found["metric"], found["minutes"]) == ("boosting", "val_log_loss", 2.5)
    assert found["space"]["search"]["rounds"] == {"low": 100, "high": 500, "step": 50}
    assert sorted(tmp_path.iterdir()) == before


def test_the_examples_of_the_help_work(tamiz, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    examples = [shlex.split(line)[2:] for line in str(tune.__doc__).splitlines() if line.strip().startswith("Example:")]
    for command, *words in examples:
        own = [word for word in words if word not in ("-p", "examples/reviews")]
        assert tamiz(command, *own, "--dry-run").code == 0, own
    assert tamiz("tune", "--dry-run", "--set", "tune.folds=5", "--set", "tune.space.words=[1,2]").code == 0


@pytest.mark.slow
def test_a_search_ends_with_what_is_better_and_how_to_take_it(tamiz, searched):
    shown = tamiz("tune")
    assert shown.code == 0, shown
    assert "Best of linear against what stands in the project" in shown.out
    assert "difference +0." in shown.out
    snippet = shown.out[shown.out.index("candidates:\n") :]
    (candidate,) = yaml.safe_load(snippet)["candidates"]
    assert candidate["name"] == "linear-tuned"
    assert candidate["params"]["max_features"] == 2000
    assert "3 complete" in shown.err
    # The same again does nothing more; the candidate goes to a file that the project file takes as it is.
    found = tamiz("tune", "--json", "--output", "tuned.yaml").json
    assert found["trials"]["complete"] == 3
    written = yaml.safe_load(Path("tuned.yaml").read_text(encoding="utf-8"))["candidates"]
    assert written == [found["tuned"]] == [candidate]
    whole = raw_project(candidates=[*WEAK, *written])
    Path("tamiz.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    assert tamiz("run", "--json").json["chosen"] == "linear-tuned"


def test_trials_stand_in_mlflow_inside_their_study_and_not_among_the_candidates(tamiz, searched):
    found = tamiz("tune", "--json").json
    with sqlite3.connect("mlflow.db") as database:
        names = dict(database.execute("select name, run_uuid from runs").fetchall())
        assert set(names) == {found["study"], "trial 0 (default)", "trial 1", "trial 2"}
        parents = database.execute("select run_uuid, value from tags where key = 'mlflow.parentRunId'").fetchall()
        assert dict(parents) == {names[n]: found["run_id"] for n in names if n != found["study"]}
        assert names[found["study"]] == found["run_id"]
        params = database.execute("select key, value from params where run_uuid = ?", [names["trial 0 (default)"]])
        assert dict(params.fetchall())["max_features"] == "1"
        figures = database.execute("select key from latest_metrics where run_uuid = ?", [names["trial 1"]]).fetchall()
        assert {("val_f1_macro",), ("val_log_loss",), ("seconds",)} <= set(figures)
    pages = list(Path("mlartifacts").rglob("tuning.html"))
    assert [page.read_bytes() for page in pages] == [Path(found["page"]).read_bytes()]
    assert tamiz("compare", "--json").json == []


def test_nothing_better_is_said_as_it_is(tamiz, place):
    write_project(place, tune={**SPACE, "trials": 1})
    shown = tamiz("tune", "--output", "tuned.yaml")
    assert "Nothing better was found than what stands in the project." in shown.out
    assert not Path("tuned.yaml").exists()


def test_an_unfinished_search_says_so(tamiz, place):
    write_project(place, tune=SPACE)
    assert "No trial has finished yet" in tamiz("tune", "--minutes", "1e-9").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--candidate", "prior"], "nothing to tune in 'prior'"),
        (["--candidate", "linaer"], "did you mean 'linear'?"),
        (["--set", "tune.space.c=1"], "tune.space.c: linear has no such parameter"),
        (["--trials", "0"], "tune.trials"),
        (["--output", "nowhere/tuned.yaml"], "the folder nowhere does not exist"),
    ],
)
def test_wrong_use(refused, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, candidates=WEAK)
    assert said in refused(2, "tune", *arguments)
    assert not (tmp_path / "lake").exists()


def test_a_busy_project_is_waited_for_as_long_as_asked(project, refused):
    with open_blobs("lake").lock("run", wait_s=0, owner="ana on host-7"):
        assert "ana on host-7" in refused(1, "tune", "--wait", "0", "--quiet")


def test_a_finished_project_can_be_searched(tamiz, project):
    shutil.rmtree("tuning", ignore_errors=True)
    found = tamiz(
        "tune", "--json", "--trials", 2, "--set", "tune.defaults=false", "--set", "tune.space.C.choices=[1, 9]"
    )
    assert found.code == 0, found
    assert found.json["trials"]["complete"] == 2

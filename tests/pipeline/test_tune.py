"""`tamiz tune` with real Optuna: budget, pruning, kills, several processes, what is recorded and drawn."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from tamiz.config import Project, load_project, parse_project
from tamiz.errors import ConfigError, DataError, StoreError
from tamiz.metrics import score
from tamiz.model import Model
from tamiz.pipeline.evaluate import evaluate
from tamiz.pipeline.tune import TuneResult, tune
from tamiz.registry import MemoryRegistry
from tamiz.types import Task
from tests.projects import Told, make_project, raw_project, rows, run, side, store_of, write_csv, write_project

C = {"C": {"low": 0.001, "high": 100, "log": True}}
SMALL = {"defaults": False, "space": C, "trials": 5}
ROOT = Path(__file__).parents[2]
# Runs a search that ends itself, or waits for another process, when its trial number N begins.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from tamiz.config import load_project
from tamiz.pipeline.tune import tune
from tamiz.settings import new_registry

folder, at, act, name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
begun = 0

class Listener:
    def started(self, step): pass
    def finished(self, step, summary): pass
    def skipped(self, step, why): pass
    def notice(self, text): pass
    def progress(self, message, done=0, total=0):
        global begun
        if message != "trials":
            return
        begun += 1
        if begun == at and act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if begun == at and act == "meet":
            (folder / f"{name}.begun").touch()
            while len(list(folder.glob("*.begun"))) < 2:
                time.sleep(0.01)

project = load_project(folder, variables={})
tune(project, new_registry(project), listener=Listener())
"""


def search(project: Project, registry: MemoryRegistry | None = None, **about: Any) -> TuneResult:
    return tune(project, registry or MemoryRegistry(), **about)


def start(folder: Path, at: int = 0, act: str = "none", name: str = "one") -> subprocess.Popen[bytes]:
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(at), act, name],
        env={**os.environ, **paths},
        stderr=subprocess.PIPE,
    )


def trials(folder: Path, storage: str = "tuning") -> list[Any]:
    """Read the one study of a folder as anybody can who has Optuna."""
    place = f"sqlite:///{folder / storage / 'studies.db'}"
    (name,) = optuna.get_all_study_names(storage=place)
    return optuna.load_study(study_name=name, storage=place).trials


@pytest.fixture
def project(tmp_path) -> Project:
    return make_project(tmp_path, tune=SMALL)


def test_a_search_finds_the_best_and_compares_it_with_what_there_was(project):
    registry = MemoryRegistry()
    found = search(project, registry)
    assert found.trials == {"complete": 5, "pruned": 0, "running": 0, "failed": 0, "interrupted": 0}
    done = trials(project.folder)
    assert done[0].user_attrs["default"] is True
    assert done[0].params == {"C": 10.0}
    assert found.default == done[0].value
    assert found.best == max(trial.value for trial in done) >= found.default
    assert found.parameters["C"]["default"] == "auto"
    assert found.parameters["C"]["best"] in ("auto", done[found.best_trial].params["C"])
    assert found.page is not None
    page = Path(found.page).read_text(encoding="utf-8")
    assert "http-equiv" in page
    assert page.count('<div class="chart"') == 2 + bool(found.importances)


def test_the_default_has_the_figures_of_a_run(project):
    found = search(project)
    (candidate,) = run(project).leaderboard
    assert found.default == pytest.approx(candidate.metrics["val_f1_macro"], abs=1e-12)


def test_a_trial_is_scored_by_calibrations_that_have_not_seen_the_example(tmp_path):
    candidate = {"family": "linear", "calibrate": "isotonic"}
    project = make_project(tmp_path, tune={**SMALL, "metric": "val_log_loss", "trials": 1}, candidates=[candidate])
    found = search(project)
    (candidate,) = run(project).leaderboard
    assert found.default == pytest.approx(candidate.metrics["val_log_loss"], abs=1e-12)
    model, validation = Model.load(store_of(project).fetch("topics@1")), side(project, "validation")
    served = evaluate(model, validation.texts_raw, validation.targets, prefix="val_")
    assert found.default > served.metrics["val_log_loss"]


def test_the_tuned_candidate_is_what_the_trial_was(tmp_path):
    # The candidate as it stands knows one word, so that any other is better.
    weak = {"family": "linear", "params": {"max_features": 1}}
    space = {"C": {"low": 5, "high": 20}, "max_features": 2000}
    project = make_project(tmp_path, candidates=[weak], tune={**SMALL, "space": space})
    found = search(project)
    assert found.tuned is not None
    assert found.difference is not None
    assert found.difference["p_better"] > 0.95
    assert found.difference["low"] > 0
    assert found.difference["first"] == pytest.approx(found.best)
    again = parse_project(raw_project(candidates=[found.tuned])).at(tmp_path)
    (candidate,) = run(again).leaderboard
    assert candidate.candidate == "linear-tuned"
    assert candidate.metrics["val_f1_macro"] == pytest.approx(found.best, abs=1e-12)


def test_a_search_at_its_budget_does_nothing_and_a_larger_one_goes_on(project):
    first = search(project)
    told = Told()
    again = search(project, listener=told)
    assert (again.best, again.trials) == (first.best, first.trials)
    assert [text for text in told.notices if text.startswith("the study has 5 of 5 trials already; nothing is left")]
    told = Told()
    more = search(parse_project(raw_project(tune={**SMALL, "trials": 7})).at(project.folder), listener=told)
    assert "the study has 5 of 7 trials already" in told.notices
    assert more.study == first.study
    assert more.trials["complete"] == 7


@pytest.mark.slow
def test_a_search_without_a_pause_draws_the_same(tmp_path):
    for name, budgets in (("whole", [6]), ("parts", [1, 3, 6])):
        (tmp_path / name).mkdir()
        for budget in budgets:
            search(make_project(tmp_path / name, tune={**SMALL, "trials": budget}))
    drawn = [[trial.params for trial in trials(tmp_path / name)] for name in ("whole", "parts")]
    assert drawn[0] == drawn[1]
    assert len({json.dumps(params) for params in drawn[0]}) == 6


def test_other_data_are_another_study(project):
    first = search(project)
    assert first.trials["complete"] == 5
    write_csv(project.folder / "more.csv", rows(60, start=500))
    more = raw_project(tune=SMALL, data={"source": ["texts.csv", "more.csv"]})
    assert search(parse_project(more).at(project.folder)).study != first.study


@pytest.mark.parametrize(
    "change", [{"metric": "val_accuracy"}, {"folds": 2}, {"seed": 1}, {"space": {"C": {"low": 1, "high": 2}}}]
)
def test_another_question_is_another_study(project, change):
    first = search(project)
    other = parse_project(raw_project(tune={**SMALL, **change, "trials": 1})).at(project.folder)
    assert search(other).study != first.study


def test_minutes_end_a_search(tmp_path):
    found = search(make_project(tmp_path, tune={**SMALL, "minutes": 1e-9}))
    assert (found.best, sum(found.trials.values()), found.page) == (None, 0, None)


@pytest.mark.slow
def test_trials_that_do_badly_are_given_up(tmp_path):
    space = {"max_features": {"choices": [1, 2000]}, "words": [1, 1]}
    project = make_project(tmp_path, n=1300, tune={"defaults": False, "space": space, "trials": 14, "seed": 1})
    registry = MemoryRegistry()
    found = search(project, registry)
    done = trials(tmp_path)
    pruned = [trial for trial in done if trial.state.name == "PRUNED"]
    assert found.trials["pruned"] == len(pruned) > 0
    assert {trial.params["max_features"] for trial in pruned} == {1}
    assert all(list(trial.intermediate_values) == [30] for trial in pruned)  # a tenth of the texts is too few
    assert list(done[0].intermediate_values) == [30, 100]
    states = Counter(run["state"] for key, run in registry.searches.items() if "/" in key)
    assert states == {"KILLED": len(pruned), "FINISHED": found.trials["complete"]}


def test_folds_score_each_training_text_once_and_keep_groups_together(tmp_path):
    table = [{**row, "who": f"p{i // 3}"} for i, row in enumerate(rows(150))]
    write_csv(tmp_path / "texts.csv", table)
    project = make_project(tmp_path, data={"group": "who"}, tune={**SMALL, "folds": 3, "trials": 2})
    found = search(project)
    done = trials(tmp_path)
    assert all(len(trial.intermediate_values) == 3 for trial in done)
    train = side(project, "train")
    (kept,) = (tmp_path / "tuning" / "answers").glob("*/0.npz")
    import numpy as np

    from tamiz.data.gold import load_examples
    from tests.projects import LABELS, lake_of

    with np.load(kept) as file:
        targets, decided, probabilities = file["targets"], file["decided"], file["probabilities"]
    assert len(targets) == len(train.texts)
    assert sorted(targets) == sorted(train.targets)
    pooled = score(targets, probabilities, decided, task=Task.MULTI_CLASS, labels=LABELS)["f1_macro"]
    assert found.default == pytest.approx(pooled)
    if found.difference is not None:
        assert found.difference["first"] - found.difference["second"] == pytest.approx(found.best - found.default)
    from tamiz.pipeline.tune_score import bench_of

    examples = load_examples(
        lake_of(project), side="train", labels=LABELS, task=project.task, columns=("group",), raw=False
    )
    bench = bench_of(project, LABELS, "val_f1_macro", train=examples, validation=train)
    assert bench.folds is not None
    of_group: dict[str, set[int]] = {}
    for group, fold in zip(examples.columns["group"], bench.folds.tolist(), strict=True):
        of_group.setdefault(group, set()).add(fold)
    assert all(len(folds) == 1 for folds in of_group.values())
    assert len(set(bench.folds.tolist())) == 3


def test_too_few_texts_for_the_folds(tmp_path):
    project = make_project(tmp_path, n=30, tune={**SMALL, "folds": 20})
    with pytest.raises(DataError, match="cannot be divided into 20 folds"):
        search(project)


def test_values_that_do_not_go_together_fail_their_trial_alone(tmp_path):
    space = {"words": {"choices": [None, [1, 1]]}, "characters": {"choices": [None, [2, 3]]}}
    project = make_project(tmp_path, tune={"defaults": False, "space": space, "trials": 12})
    registry = MemoryRegistry()
    found = search(project, registry)
    failed = [trial for trial in trials(tmp_path) if trial.state.name == "FAIL"]
    assert found.trials["failed"] == len(failed) > 0
    assert found.trials["failed"] + found.trials["complete"] == 12
    assert {(trial.params["words"], trial.params["characters"]) for trial in failed} == {("null", "null")}
    assert all("words and characters are both null" in trial.user_attrs["why"] for trial in failed)


def test_a_metric_that_the_task_lacks(tmp_path):
    project = make_project(tmp_path, tune={**SMALL, "metric": "val_f1_positive"})
    with pytest.raises(DataError, match="val_f1_positive is undefined here; allowed: val_accuracy"):
        search(project)


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTI_LABEL])
def test_other_tasks(tmp_path, task):
    space = {"thresholds": {"choices": ["default", "f1"]}, **C}
    found = search(make_project(tmp_path, task, tune={**SMALL, "space": space, "trials": 4}))
    assert found.trials["complete"] == 4
    assert found.parameters["thresholds"]["default"] == "default"


def test_a_file_that_is_no_study(project):
    (project.folder / "tuning").mkdir()
    (project.folder / "tuning" / "studies.db").write_text("no database" * 100)
    with pytest.raises(StoreError, match=r"studies\.db cannot be opened"):
        search(project)


# --- kills and several processes


@pytest.fixture
def place(tmp_path, mlflow_template) -> Path:
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    write_project(tmp_path, tune={**SMALL, "trials": 6})
    return tmp_path


@pytest.mark.slow
def test_a_killed_search_goes_on(place):
    killed = start(place, at=3, act="kill")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert [trial.state.name for trial in trials(place)] == ["COMPLETE", "COMPLETE", "RUNNING"]
    interrupted = trials(place)[2].params
    found = search(load_project(place, variables={}))
    done = trials(place)
    assert found.trials == {"complete": 6, "pruned": 0, "running": 0, "failed": 0, "interrupted": 1}
    assert [trial.state.name for trial in done].count("COMPLETE") == 6
    assert done[2].state.name == "FAIL"
    again = next(trial for trial in done if trial.user_attrs.get("again") == 2)
    assert again.params == interrupted


def test_the_default_is_tried_again_after_a_kill(place):
    start(place, at=1, act="kill").communicate()
    found = search(load_project(place, variables={}))
    assert found.default is not None
    assert found.trials["complete"] == 6
    assert sum(bool(trial.user_attrs.get("default")) for trial in trials(place)) == 2


@pytest.mark.slow
def test_a_trial_that_ends_its_process_each_time_is_left(place):
    for _ in range(3):
        start(place, at=1, act="kill").communicate()
    states = [trial.state.name for trial in trials(place)]
    assert states == ["FAIL", "FAIL", "RUNNING"]
    found = search(load_project(place, variables={}))
    assert found.trials["failed"] == 1  # it counts, and the candidate as it stands is given another chance
    assert found.trials["complete"] == 5
    assert found.default is not None


@pytest.mark.slow
def test_two_processes_share_the_trials(place):
    both = [start(place, at=1, act="meet", name=name) for name in ("one", "two")]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()[-2000:]
    done = trials(place)
    assert [trial.state.name for trial in done] == ["COMPLETE"] * 6
    assert len({json.dumps(trial.params) for trial in done}) == 6
    assert len({trial.user_attrs["worker"] for trial in done}) == 2
    assert sum(bool(trial.user_attrs.get("default")) for trial in done) == 1
    # MLflow has one run of the study, with six inside.
    with sqlite3.connect(place / "mlflow.db") as database:
        parents = database.execute("select value from tags where key = 'mlflow.parentRunId'").fetchall()
        assert len(parents) == 6
        assert len(set(parents)) == 1
        status = database.execute("select name, status from runs order by name").fetchall()
        assert len(status) == 7
        assert {state for _, state in status} == {"FINISHED"}
        values = database.execute("select value from latest_metrics where key = 'best_val_f1_macro'").fetchall()
        assert values == [(max(trial.value for trial in done),)]
    # A third one has nothing left to do, and sees both.
    assert search(load_project(place, variables={})).trials["complete"] == 6


@pytest.mark.slow
def test_runs_of_a_killed_search_are_recorded_later(place):
    start(place, at=3, act="kill").communicate()
    registry = MemoryRegistry()  # another registry than the killed one had: what it recorded is not recorded again
    found = search(load_project(place, variables={}), registry)
    own = [run for key, run in registry.searches.items() if key == found.study]
    assert [run["state"] for run in own] == ["FINISHED"]
    inside = [run for run in registry.searches.values() if run["parent"]]
    assert Counter(run["state"] for run in inside) == {"FINISHED": 4, "FAILED": 1}


def test_listeners_hear_of_the_search(project):
    told = Told()
    search(project, listener=told)
    assert told.begun[-1] == "tune"
    assert "5 complete; val_f1_macro" in told.done["tune"]


def test_an_ensemble_that_shares_its_members_can_be_searched(tmp_path):
    members = [{"candidate": "linear"}, {"family": "prior"}]
    candidates = [{"family": "linear"}, {"family": "ensemble", "params": {"members": members}}]
    space = {"temperatures": {"choices": [True, False]}}
    about = {**SMALL, "candidate": "ensemble", "trials": 2, "space": space}
    from tamiz.pipeline.tune import plan

    found = plan(make_project(tmp_path, candidates=candidates, tune=about))
    assert [one["family"] for one in found.space.candidate.params["members"]] == ["linear", "prior"]


def test_nothing_to_tune(tmp_path):
    with pytest.raises(ConfigError, match="nothing to tune in 'prior'"):
        search(make_project(tmp_path, candidates=[{"family": "prior"}]))

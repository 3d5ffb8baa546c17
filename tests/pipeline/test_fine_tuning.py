"""A whole run with a fine-tuned encoder: what is recorded, what is left, and that it can be repeated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamiz.config import CandidateConfig
from tamiz.data.gold import Examples
from tamiz.errors import RegistryError
from tamiz.pipeline.reproduce import reproduce
from tamiz.pipeline.run import SilentListener
from tamiz.pipeline.train import fit_classifier
from tamiz.registry import MemoryRegistry, MlflowRegistry
from tamiz.types import Task
from tests.projects import lake_of, make_project, run, store_of
from tests.tiny_bert import tiny_bert

pytest.importorskip("torch")


def params_of(folder: Path) -> dict[str, Any]:
    encoder = tiny_bert(folder / "encoder")
    params = {"encoder": str(encoder), "epochs": 2, "learning_rate": 1e-3, "max_length": 32, "num_threads": 1}
    return {**params, "precision": "fp32"}


class Watching(SilentListener):
    """See what the registry has whenever the run says how far it is."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self.registry, self.seen, self.notices = registry, [], []

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        self.seen.append([len(points) for points in self.registry.histories.values()])

    def notice(self, text: str) -> None:
        self.notices.append(text)


def test_figures_reach_the_registry_while_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("tamiz.pipeline.follow.EVERY_S", 0.0)
    candidates = [{"family": "prior"}, {"family": "transformer", "params": params_of(tmp_path)}]
    project = make_project(tmp_path, Task.MULTI_CLASS, candidates=candidates)
    listener = Watching(MemoryRegistry())
    run(project, listener.registry, listener=listener, until="train")
    newest, _ = listener.registry.runs()
    assert newest.family == "transformer"
    growing = [sizes[1] for sizes in listener.seen if len(sizes) == 2]
    assert growing == sorted(growing)
    assert len(set(growing)) > 4
    history = listener.registry.histories[newest.run_id]
    assert growing[-1] == len(history) == len({(point.step, point.name) for point in history})


def test_a_registry_that_takes_no_figures_ends_no_training(tmp_path, monkeypatch):
    class Deaf(MemoryRegistry):
        def follow(self, **about):
            raise RegistryError("MLflow: follow failed: no answer")

    monkeypatch.setattr("tamiz.pipeline.follow.EVERY_S", 0.0)
    candidates = [{"family": "transformer", "params": params_of(tmp_path)}]
    listener = Watching(Deaf())
    run(make_project(tmp_path, candidates=candidates), listener.registry, listener=listener, until="train")
    assert len(listener.registry.runs()) == 1
    assert [text for text in listener.notices if "no answer" in text] == [
        "transformer: its figures cannot be recorded now (MLflow: follow failed: no answer); the training goes on, and "
        "they are recorded when the registry answers again"
    ]


def test_a_run_records_history_and_facts_and_leaves_no_checkpoint(tmp_path):
    candidates = [{"family": "transformer", "params": params_of(tmp_path)}]
    project = make_project(tmp_path, Task.MULTI_CLASS, candidates=candidates, select={"refit": True})
    registry = MemoryRegistry()
    result = run(project, registry)
    (recorded,) = registry.runs()
    names = {point.name for point in registry.histories[recorded.run_id]}
    assert {"train_loss", "val_f1_macro"} <= names
    assert {"best_epoch", "best_val_f1", "val_f1_macro", "test_f1_macro"} <= recorded.metrics.keys()
    store = store_of(project)
    facts = json.loads((store.fetch(f"{project.name}@{result.version}") / "model.json").read_text())["facts"]
    assert facts["parity"]["tolerance"]["agreement"] == 0.99
    assert facts["form"] in ("int8", "fp32")
    checkpoints = tmp_path / "lake" / "_checkpoints"
    assert not checkpoints.exists() or not list(checkpoints.iterdir())
    again = reproduce(project, store, lake_of(project), result.version)
    assert again.same


def test_the_seconds_of_a_fit_are_those_of_all_its_pieces(tmp_path):
    labels, side = ("food", "sport"), Examples([], ["bread soup", "goal match"] * 16, np.arange(32) % 2, [], {})
    config = CandidateConfig(family="transformer", params={**params_of(tmp_path), "form": "fp32"})
    about = {"seed": 0, "checkpoints": tmp_path / "keep"}
    fit_classifier(config, labels, Task.BINARY, side, None, **about)
    state = tmp_path / "keep" / "state.json"
    record = json.loads(state.read_text())
    record["state"]["seconds"] = 1000.0
    state.write_text(json.dumps(record))
    classifier, seconds = fit_classifier(config, labels, Task.BINARY, side, None, **about)
    assert classifier.figures()["earlier_seconds"] == 1000.0
    assert 1000.0 < seconds < 1100.0


class Interrupting(SilentListener):
    """Cut a run off at a step of the training."""

    def __init__(self, at: int) -> None:
        self._at = at

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        if "fine-tuning" in message and done == self._at:
            raise KeyboardInterrupt


def test_a_run_that_was_cut_off_goes_on_in_the_same_run_of_mlflow(tmp_path, monkeypatch, mlflow_template):
    monkeypatch.setattr("tamiz.pipeline.follow.EVERY_S", 0.0)
    monkeypatch.setattr("tamiz.pipeline.follow._SHARE", 0)
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    params = {**params_of(tmp_path), "checkpoint_seconds": 0, "form": "fp32"}
    project = make_project(tmp_path, n=120, candidates=[{"family": "transformer", "params": params}])

    def registry() -> MlflowRegistry:  # one a process
        return MlflowRegistry("topics", f"sqlite:///{tmp_path / 'mlflow.db'}", artifacts=str(tmp_path / "artifacts"))

    with pytest.raises(KeyboardInterrupt):
        run(project, registry(), listener=Interrupting(4), until="train")
    seen = registry()
    assert list(seen.runs()) == []
    (begun,) = seen._client.search_runs([seen._experiment])
    assert begun.info.status == "RUNNING"
    run(project, registry(), until="train")
    (finished,) = seen.runs()
    assert finished.run_id == begun.info.run_id
    assert len(seen._client.search_runs([seen._experiment])) == 1
    losses = seen._client.get_metric_history(finished.run_id, "train_loss")
    assert [metric.step for metric in losses] == list(range(1, len(losses) + 1))
    assert len(losses) > 5
    assert finished.metrics["fit_seconds"] > finished.metrics["earlier_seconds"] > 0

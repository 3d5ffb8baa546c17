"""A whole run with a fine-tuned encoder: what is recorded, what is left, and that it can be repeated."""

from __future__ import annotations

import json

import pytest

from tamiz.pipeline.reproduce import reproduce
from tamiz.registry import MemoryRegistry
from tamiz.types import Task
from tests.projects import lake_of, make_project, run, store_of
from tests.tiny_bert import tiny_bert

pytest.importorskip("torch")


def test_a_run_records_history_and_facts_and_leaves_no_checkpoint(tmp_path):
    encoder = tiny_bert(tmp_path / "encoder")
    params = {"encoder": str(encoder), "epochs": 2, "learning_rate": 1e-3, "max_length": 32, "num_threads": 1}
    candidates = [{"family": "transformer", "params": {**params, "precision": "fp32"}}]
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

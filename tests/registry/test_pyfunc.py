"""A version in MLflow is a model that MLflow's own tools load and serve."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import tamiz
from tamiz.errors import RegistryError
from tamiz.model import new_manifest
from tamiz.registry import MlflowRegistry
from tamiz.registry.pyfunc import _requirements, save_pyfunc
from tamiz.types import Task
from tests.models import model_of

TEXTS = ["bread and soup", "the goal of the match", "", "a bank loan with interest"]
PATIENCE_S = 120


@pytest.fixture(scope="module", autouse=True)
def quiet():
    before = dict(os.environ)
    os.environ.update(MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false", MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(params=[Task.BINARY, Task.MULTI_CLASS, Task.MULTI_LABEL], ids=str)
def model(request):
    return model_of("linear", request.param, text_column="plot")


def saved(model, folder: Path) -> Path:
    model.save(folder / "package")
    save_pyfunc(folder / "package", folder / "model")
    shutil.rmtree(folder / "package")  # the model is whole by itself
    return folder / "model"


def table(texts):
    import pandas as pd

    return pd.DataFrame({"plot": texts})


def test_mlflow_loads_it_and_gets_the_same_answers(model, tmp_path):
    import mlflow

    loaded = mlflow.pyfunc.load_model(str(saved(model, tmp_path)))
    got = loaded.predict(table(TEXTS))
    assert list(got.columns) == list(model.answer_columns)
    np.testing.assert_allclose(got[[f"p_{label}" for label in model.labels]], model.predict_proba(TEXTS), atol=1e-12)
    assert got["predicted_label"].tolist() == [one.label for one in model.predict(TEXTS)]


def test_a_missing_text_is_answered_like_an_empty_one(model, tmp_path):
    import mlflow

    got = mlflow.pyfunc.load_model(str(saved(model, tmp_path))).predict(table([None, ""]))
    assert got.iloc[0].tolist() == got.iloc[1].tolist()


def test_the_signature_names_the_text_and_the_answers(model, tmp_path):
    import mlflow

    signature = mlflow.pyfunc.load_model(str(saved(model, tmp_path))).metadata.signature
    assert signature.inputs.input_names() == ["plot"]
    assert signature.outputs.input_names() == list(model.answer_columns)
    label = signature.outputs.inputs[0].type
    assert ("Array" in type(label).__name__) == (model.task is Task.MULTI_LABEL)


@pytest.mark.parametrize(
    ("family", "about", "extras"),
    [
        ("few_shot", {"params": {"form": "int8"}}, "onnx"),
        ("few_shot", {"params": {"form": "bf16"}}, "onnx,openvino"),
        ("transformer", {"params": {"form": "bf16"}, "facts": {"form": "fp32"}}, "onnx"),
        (
            "ensemble",
            {"params": {"members": [{"family": "few_shot", "params": {"form": "bf16"}}]}},
            "train,onnx,openvino",
        ),
    ],
)
def test_the_requirements_follow_family_and_form(family, about, extras):
    manifest = new_manifest(name="topics", task=Task.BINARY, labels=["a", "b"], family=family, **about)
    assert _requirements(manifest)[1].startswith(f"tamiz[{extras}]==")


def test_nothing_in_it_is_a_pickle(model, tmp_path):
    folder = saved(model, tmp_path)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "pyfunc_model.py", "model.json"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib"))]
    for path in folder.rglob("*"):
        assert not (path.is_file() and path.read_bytes()[:2] in (b"\x80\x04", b"\x80\x05")), path
    assert re.search(r"^tamiz==", (folder / "requirements.txt").read_text(), re.MULTILINE)


def abstaining():
    return model_of("linear", Task.MULTI_CLASS, text_column="plot", abstain_below=0.6)


@pytest.fixture(scope="module")
def champion(mlflow_template, tmp_path_factory) -> tuple[str, Path]:
    """A registered champion; the database's address and its folder."""
    folder = tmp_path_factory.mktemp("registered")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    registry = MlflowRegistry("topics", uri, artifacts=str(folder / "artifacts"))
    abstaining().save(folder / "files" / "package")
    about = {"candidate": "words", "family": "linear", "params": {}, "metrics": {}, "tags": {}}
    registry.register(registry.record(key="k", **about), version="1", metrics={}, artifacts=folder / "files")
    registry.alias("champion", "1")
    shutil.rmtree(folder / "files")
    return uri, folder


def test_the_champion_is_loaded_from_the_registry_by_its_alias(champion):
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(champion[0])
    try:
        loaded = mlflow.pyfunc.load_model("models:/topics@champion")
    finally:
        mlflow.set_tracking_uri(before)
    want = abstaining().predict(TEXTS)
    assert loaded.predict(table(TEXTS))["predicted_label"].tolist() == [one.label for one in want]


def test_without_a_package_nothing_is_registered(mlflow_template, tmp_path):
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    registry = MlflowRegistry("topics", f"sqlite:///{tmp_path / 'mlflow.db'}", artifacts=str(tmp_path / "artifacts"))
    run_id = registry.record(key="k", candidate="c", family="f", params={}, metrics={}, tags={})
    (tmp_path / "files").mkdir()
    with pytest.raises(RegistryError, match=r"model\.json"):
        registry.register(run_id, version="1", metrics={}, artifacts=tmp_path / "files")
    assert registry.runs()[0].version is None


@contextmanager
def mlflow_server(uri: str, log: Path):
    """Run `mlflow models serve` on the champion; give host and port."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": uri,
        "PYTHONPATH": str(Path(tamiz.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/topics@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process, "127.0.0.1", port
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.mark.slow
def test_mlflows_server_answers_as_ours_does(champion, tmp_path):
    """The same client asks MLflow's own server, with the registered champion, and ours, with the package in it."""
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    from tamiz.serving.app import create_app
    from tamiz.serving.fixed import FixedModel
    from tests.serving.helpers import listening

    (package,) = champion[1].rglob("model.json")
    with listening(create_app(FixedModel(package.parent))) as address:
        ours = ScoringServerClient("127.0.0.1", address.rpartition(":")[2])
        ours.wait_server_ready()
        want = ours.invoke(table(TEXTS))
    with mlflow_server(champion[0], tmp_path / "log") as (process, host, port):
        theirs = ScoringServerClient(host, port)
        begun = time.monotonic()
        theirs.wait_server_ready(timeout=PATIENCE_S, scoring_server_proc=process)
        got = theirs.invoke(table(TEXTS))
    assert time.monotonic() - begun < PATIENCE_S, (tmp_path / "log").read_text()
    assert None in [row["predicted_label"] for row in got["predictions"]]
    assert [list(row) for row in got["predictions"]] == [list(row) for row in want["predictions"]]
    for row, other in zip(got["predictions"], want["predictions"], strict=True):
        assert row == pytest.approx(other, abs=1e-12)

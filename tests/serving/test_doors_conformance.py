"""One model, many doors: the same texts through every door give the same labels and probabilities.

A new door fails here until it stands in `WAYS`.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import httpx
import numpy as np
import pandas as pd
import pytest
import tritonclient.http as triton
from botocore.config import Config
from huggingface_hub import InferenceClient
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

from tamiz.registry.pyfunc import save_pyfunc
from tamiz.serving.app import create_app
from tamiz.serving.doors import DOORS
from tamiz.serving.fixed import FixedModel
from tamiz.types import Task
from tests.serving.helpers import listening, make_model

TOLERANCE = 1e-6
COLUMN = "plot"
TEXTS = [
    "my card was charged twice",
    "the loan & the <b>mortgage</b> have high interest",
    "a deposit is not in my balance",
    "card, loan; deposit",
    "",
    "nothing that is known",
    'she said "card",\nand left',
    "Tarjeta año 2024 \u2013 \u4f60\u597d \U0001f600",
    "loan " * 400,
]


class Way(NamedTuple):
    """One way to ask.

    Attributes:
        door: name of the door it goes through; empty: through none of ours.
        ask: takes the server's address, the texts and the labels; gives probabilities `(n, k)` and, where the protocol
            has such, the label of each text.
    """

    door: str
    ask: Callable[[str, Sequence[str], Sequence[str]], tuple[Any, Any]]


def post(address: str, path: str, **about: Any) -> httpx.Response:
    got = httpx.post(address + path, timeout=60, **about)
    assert got.status_code == 200, got.text
    return got


def from_native(found: dict, labels: Sequence[str]) -> tuple[Any, Any]:
    assert found["labels"] == list(labels)
    rows = [[one["probabilities"][label] for label in labels] for one in found["predictions"]]
    return rows, [one["label"] for one in found["predictions"]]


def from_rows(rows: Sequence[dict], labels: Sequence[str]) -> tuple[Any, Any]:
    return [[row[f"p_{label}"] for label in labels] for row in rows], [row["predicted_label"] for row in rows]


def from_scores(lists: Sequence[Sequence[dict]], labels: Sequence[str]) -> tuple[Any, Any]:
    scores = [{one["label"]: one["score"] for one in scored} for scored in lists]
    return [[row[label] for label in labels] for row in scores], None


def cell(value: str) -> Any:
    return json.loads(value) if value.startswith("[") else value or None


def from_csv(text: str, labels: Sequence[str]) -> tuple[Any, Any]:
    rows = list(csv.DictReader(io.StringIO(text)))
    found = [[float(row[f"p_{label}"]) for label in labels] for row in rows]
    return found, [cell(row["predicted_label"]) for row in rows]


def native(address, texts, labels):
    return from_native(post(address, "/v1/models/demo/predict", json={"text": texts}).json(), labels)


def native_get(address, texts, labels):
    found = [httpx.get(f"{address}/v1/models/demo/predict", params={"text": text}).json() for text in texts]
    return from_native({**found[0], "predictions": [one["predictions"][0] for one in found]}, labels)


def complaints(address, texts, labels):
    return from_native(post(address, "/predict", json={"text": texts}).json(), labels)


def movie_genres(address, texts, labels):
    found = [httpx.get(f"{address}/inference", params={COLUMN: text}).json() for text in texts]
    assert list(found[0]) == [f"p_{label}" for label in labels]
    return [list(one.values()) for one in found], None


def invoke_inputs(address, texts, labels):
    return from_scores(post(address, "/invocations", json={"inputs": texts}).json(), labels)


def invoke_text(address, texts, labels):
    return from_native(post(address, "/invocations", json={"text": texts}).json(), labels)


def invoke_records(address, texts, labels):
    body = {"dataframe_records": [{COLUMN: text} for text in texts]}
    return from_rows(post(address, "/invocations", json=body).json()["predictions"], labels)


def invoke_instances(address, texts, labels):
    return from_rows(post(address, "/invocations", json={"instances": texts}).json()["predictions"], labels)


def invoke_lines(address, texts, labels):
    body = "".join(json.dumps({COLUMN: text}) + "\n" for text in texts)
    got = post(address, "/invocations", content=body, headers={"content-type": "application/jsonlines"})
    return from_rows([json.loads(line) for line in got.text.splitlines()], labels)


def invoke_csv(address, texts, labels):
    out = io.StringIO()
    csv.writer(out).writerows([["id", COLUMN], *([number, text] for number, text in enumerate(texts))])
    headers = {"content-type": "text/csv", "accept": "text/csv"}
    return from_csv(post(address, "/invocations", content=out.getvalue().encode(), headers=headers).text, labels)


def sagemaker(address, texts, labels):
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=address,
        region_name="eu-west-1",
        aws_access_key_id="unused",
        aws_secret_access_key="unused",
        config=Config(retries={"total_max_attempts": 1}),
    )
    got = client.invoke_endpoint(EndpointName="demo", ContentType="application/json", Body=json.dumps({"text": texts}))
    return from_native(json.loads(got["Body"].read()), labels)


def hugging_face(address, texts, labels):
    client = InferenceClient(model=f"{address}/models/demo", provider="hf-inference", token="unused")
    lists = [[{"label": one.label, "score": one.score} for one in client.text_classification(text)] for text in texts]
    return from_scores(lists, labels)


def mlflow(address, texts, labels):
    client = ScoringServerClient("127.0.0.1", address.rpartition(":")[2])
    return from_rows(client.invoke(pd.DataFrame({COLUMN: texts}))["predictions"], labels)


def open_inference(address, texts, labels):
    body = {"inputs": [{"name": COLUMN, "shape": [len(texts)], "datatype": "BYTES", "data": texts}]}
    found = {one["name"]: one for one in post(address, "/v2/models/demo/infer", json=body).json()["outputs"]}
    assert found["labels"]["data"] == list(labels)
    rows = np.reshape(found["probabilities"]["data"], found["probabilities"]["shape"])
    return rows, [cell(label) for label in found["label"]["data"]]


def open_inference_triton(address, texts, labels):
    tensor = triton.InferInput(COLUMN, [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, dtype=object))
    client = triton.InferenceServerClient(address.removeprefix("http://"))
    got = client.infer("demo", [tensor])
    client.close()
    return got.as_numpy("probabilities"), [cell(label.decode()) for label in got.as_numpy("label")]


def open_inference_bytes(address, texts, labels):
    rest = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    tensor = {"name": COLUMN, "shape": [len(texts)], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(rest)}
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    (found,) = post(address, "/v2/models/demo/infer", content=head + rest, headers=headers).json()["outputs"]
    return np.reshape(found["data"], found["shape"]), None


WAYS = {
    "native": Way("native", native),
    "native by address": Way("native", native_get),
    "complaints": Way("complaints", complaints),
    "movie genres": Way("movie-genres", movie_genres),
    "inputs": Way("invocations", invoke_inputs),
    "text": Way("invocations", invoke_text),
    "records": Way("invocations", invoke_records),
    "instances": Way("invocations", invoke_instances),
    "lines": Way("invocations", invoke_lines),
    "csv": Way("invocations", invoke_csv),
    "mlflow's client": Way("invocations", mlflow),
    "boto3": Way("sagemaker", sagemaker),
    "huggingface_hub": Way("hugging-face", hugging_face),
    "open inference": Way("open-inference", open_inference),
    "open inference in bytes": Way("open-inference", open_inference_bytes),
    "tritonclient": Way("open-inference", open_inference_triton),
}
MODELS = {
    "binary": {"task": Task.BINARY, "labels": ("account", "card")},
    "multi-class, abstaining": {"task": Task.MULTI_CLASS, "abstain_below": 0.6},
    "multi-label": {"task": Task.MULTI_LABEL},
}


@pytest.fixture(scope="module", params=MODELS)
def served(request, tmp_path_factory):
    """Give a model, the address where it is served and its package."""
    model = make_model(text_column=COLUMN, **MODELS[request.param])
    folder: Path = tmp_path_factory.mktemp("conformance")
    model.save(folder / "package")
    with listening(create_app(FixedModel(folder / "package"))) as address:
        yield model, address, folder


def check(model, probabilities, labels) -> None:
    want = model.predict(TEXTS)
    np.testing.assert_allclose(np.asarray(probabilities), [one.probabilities for one in want], atol=TOLERANCE, rtol=0)
    if labels is not None:
        expected = [list(one.label) if isinstance(one.label, tuple) else one.label for one in want]
        assert [list(label) if isinstance(label, tuple) else label for label in labels] == expected


@pytest.mark.parametrize("way", WAYS)
def test_every_door_gives_the_same_labels_and_probabilities(served, way):
    model, address, _ = served
    check(model, *WAYS[way].ask(address, TEXTS, model.labels))


def test_the_pyfunc_gives_the_same_labels_and_probabilities(served):
    import mlflow.pyfunc

    model, _, folder = served
    shutil.rmtree(folder / "mlflow", ignore_errors=True)
    save_pyfunc(folder / "package", folder / "mlflow")
    found = mlflow.pyfunc.load_model(str(folder / "mlflow")).predict(pd.DataFrame({COLUMN: TEXTS}))
    check(model, *from_rows(found.to_dict(orient="records"), model.labels))


def test_the_texts_tell_the_labels_apart(served):
    """Else equal answers would prove little."""
    model, _, _ = served
    labels = {one.label for one in model.predict(TEXTS)}
    assert len(labels) >= 2
    assert (None in labels) == (model.rule.abstain_below is not None)


def test_no_door_is_left_out(served):
    app = create_app(FixedModel(served[2] / "package"))
    doors = {tag for route in app.routes for tag in route.tags} - {"operations"}
    assert doors == {way.door for way in WAYS.values()}
    assert len(doors) == len(DOORS)

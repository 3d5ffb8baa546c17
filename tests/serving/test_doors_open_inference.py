"""The Open Inference Protocol, also as the clients of Triton and KServe speak it."""

import json
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tamiz.serving.app import create_app
from tamiz.serving.live import LiveModels
from tamiz.store import ModelStore
from tamiz.types import Task
from tests.serving.helpers import LABELS, TEXTS, ask, make_model, publish, serve_model

URL = "/v2/models/demo/infer"
KSERVE = Path(__file__).parents[2] / ".tools" / "kserve" / "bin" / "python"
KSERVE_PROGRAM = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

async def ask(address, texts, binary):
    tensor = InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, dtype=object), binary_data=binary)
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=1)) as client:
        assert await client.is_server_live(address) and await client.is_server_ready(address)
        assert await client.is_model_ready(address, "demo")
        assert not await client.is_model_ready(address, "nobody")
        request = InferRequest("demo", [tensor], parameters={"binary_data_output": binary})
        answer = await client.infer(address, request, "demo")
    outputs = {one.name: one.as_numpy() for one in answer.outputs}
    words = [one.decode() if isinstance(one, bytes) else one for one in outputs["label"].tolist()]
    return {"label": words, "probabilities": outputs["probabilities"].tolist()}

address, texts = sys.argv[1], json.loads(sys.argv[2])
print(json.dumps([asyncio.run(ask(address, texts, binary)) for binary in (False, True)]))
"""


def tensor(texts, **about):
    return {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts, **about}


def infer(app, *inputs, url=URL, **about):
    return ask(app, "POST", url, json={"inputs": list(inputs), **about})


def outputs(got):
    return {one["name"]: one for one in got.json()["outputs"]}


def pack(*texts: str) -> bytes:
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


def send_binary(app, document: dict, rest: bytes, header: str | None = None):
    head = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": header or str(len(head)), "content-type": "application/octet-stream"}
    return ask(app, "POST", URL, content=head + rest, headers=headers)


# --- in JSON


def test_texts_are_classified(shared_app):
    got = infer(shared_app, tensor(TEXTS), id="7")
    assert got.status_code == 200
    assert got.headers["content-type"] == "application/json"
    assert {key: got.json()[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "demo",
        "model_version": "1",
        "id": "7",
    }
    found = outputs(got)
    assert found["label"] == {"name": "label", "shape": [3], "datatype": "BYTES", "data": ["card", "loan", "account"]}
    assert found["labels"]["data"] == list(LABELS)
    assert found["probabilities"]["shape"] == [3, 3]
    numbers = np.reshape(found["probabilities"]["data"], (3, 3))
    np.testing.assert_allclose(numbers, make_model().predict_proba(TEXTS), atol=1e-12)


def test_a_column_of_texts_may_be_nested_or_flat_and_has_any_name(shared_app):
    want = outputs(infer(shared_app, tensor(TEXTS)))
    nested = tensor([[text] for text in TEXTS], shape=[3, 1], name="input-0")
    assert outputs(infer(shared_app, nested)) == want
    assert outputs(infer(shared_app, tensor(TEXTS, shape=[3, 1]))) == want


def test_the_outputs_asked_for_are_given(shared_app):
    got = infer(shared_app, tensor(TEXTS), outputs=[{"name": "probabilities"}])
    assert list(outputs(got)) == ["probabilities"]


def test_no_text_is_no_answer(shared_app):
    found = outputs(infer(shared_app, tensor([])))
    assert (found["label"]["data"], found["probabilities"]["shape"]) == ([], [0, 3])


def test_several_labels_of_a_text_are_a_list_in_json(tmp_path):
    model = make_model(task=Task.MULTI_LABEL)
    found = outputs(infer(serve_model(tmp_path, model), tensor(TEXTS)))["label"]["data"]
    assert [tuple(json.loads(one)) for one in found] == [one.label for one in model.predict(TEXTS)]


def test_an_abstention_is_an_empty_label(tmp_path):
    app = serve_model(tmp_path, make_model(abstain_below=1.0))
    assert outputs(infer(app, tensor(["nothing known"])))["label"]["data"] == [""]


def test_the_version_of_the_path_must_be_the_served_one(shared_app):
    for path in ("infer", "ready", ""):
        for version, status in (("1", 200), ("2", 404), ("champion", 404)):
            url = f"/v2/models/demo/versions/{version}/{path}".rstrip("/")
            got = infer(shared_app, tensor(TEXTS), url=url) if path == "infer" else ask(shared_app, "GET", url)
            assert got.status_code == status, url
    assert got.json() == {"error": "This version is not served now; allowed: 1."}


def test_server_and_model_describe_themselves(tmp_path):
    app = serve_model(tmp_path, make_model(text_column="plot"))
    assert ask(app, "GET", "/v2").json()["extensions"] == ["binary_tensor_data"]
    about = ask(app, "GET", "/v2/models/demo").json()
    assert (about["name"], about["versions"], about["platform"]) == ("demo", ["1"], "tamiz_linear")
    assert about["inputs"] == [{"name": "plot", "datatype": "BYTES", "shape": [-1]}]
    assert [one["name"] for one in about["outputs"]] == ["label", "probabilities", "labels"]


def test_health_says_live_and_ready(shared_app, tmp_path):
    for path in ("live", "ready"):
        assert ask(shared_app, "GET", f"/v2/health/{path}").json() == {"live": True, "ready": True}
    store = ModelStore(str(tmp_path / "store"))
    publish(store, make_model(), tmp_path)
    app = create_app(LiveModels(store, ["demo"]))
    assert ask(app, "GET", "/v2/health/live").status_code == 200
    got = ask(app, "GET", "/v2/health/ready")
    assert (got.status_code, got.json()) == (503, {"live": True, "ready": False})
    assert ask(app, "GET", "/v2/models/demo/ready").status_code == 503


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"inputs": []}, "at least 1"),
        ({"inputs": [tensor(["a"]), tensor(["b"])]}, "at most 1"),
        ({"inputs": [tensor(["a"], datatype="FP32")]}, "BYTES"),
        ({"inputs": [tensor(["a"], shape=[2])]}, "1 elements"),
        ({"inputs": [tensor(["a", "b"], shape=[1, 2])]}, "[n, 1]"),
        ({"inputs": [tensor(["a"], shape=[-1])]}, "1 elements"),
        ({"inputs": [tensor(["a", 1])]}, "must be a text"),
        ({"inputs": [tensor([["a"]])]}, "must be a text"),
        ({"inputs": [tensor(["a"], data=None)]}, "binary_data_size"),
        ({"inputs": [tensor(["a"], parameters={"binary_data_size": 5})]}, "binary_data_size"),
        ({"inputs": [tensor(["a"])], "outputs": [{"name": "labl"}]}, "did you mean 'label'"),
        ({"inputs": [tensor(["a"])], "outputs": [{"name": "label", "parameters": {"classification": 1}}]}, "binary"),
        ([], "an object"),
    ],
)
def test_what_is_wrong_is_said_in_the_protocols_shape(shared_app, about, words):
    got = ask(shared_app, "POST", URL, json=about)
    assert got.status_code == 400
    assert got.headers["content-type"] == "application/json"
    assert list(got.json()) == ["error"]
    assert words in got.json()["error"]


def test_an_output_that_there_is_none_of_is_refused_before_the_work(tmp_path):
    app = serve_model(tmp_path)
    assert infer(app, tensor(TEXTS), outputs=[{"name": "labl"}]).status_code == 400
    assert "tamiz_predictions_total{" not in ask(app, "GET", "/metrics").text


def test_other_failures_have_their_status(tmp_path):
    from tamiz.config import ServeConfig

    app = serve_model(tmp_path, limits=ServeConfig(max_texts=2))
    assert infer(app, tensor(TEXTS)).status_code == 413
    assert infer(app, tensor(["a"]), url="/v2/models/nobody/infer").json()["error"].endswith("allowed: demo.")
    assert ask(app, "GET", URL).status_code == 405
    packed = {"content-encoding": "gzip"}
    assert ask(app, "POST", URL, content=b"x", headers=packed).status_code == 415


# --- as bytes


def test_bytes_in_and_bytes_out(shared_app):
    rest = pack("my card", "año ", "")
    document = {
        "inputs": [tensor([], data=None, shape=[3], parameters={"binary_data_size": len(rest)})],
        "outputs": [{"name": "label", "parameters": {"binary_data": True}}, {"name": "probabilities"}],
    }
    got = send_binary(shared_app, document, rest)
    assert got.status_code == 200, got.text
    assert got.headers["content-type"] == "application/octet-stream"
    length = int(got.headers["inference-header-content-length"])
    found = {one["name"]: one for one in json.loads(got.content[:length])["outputs"]}
    want = make_model().predict(["my card", "año ", ""])
    assert got.content[length:] == pack(*(one.label for one in want))
    assert found["label"]["parameters"] == {"binary_data_size": len(got.content) - length}
    assert "data" not in found["label"]
    np.testing.assert_allclose(found["probabilities"]["data"][:3], want[0].probabilities)


@pytest.mark.parametrize(
    ("rest", "size", "header", "words"),
    [
        (pack("a"), 4, None, "5 bytes follow"),
        (pack("a"), "5", None, "5 bytes follow"),
        (b"\x01\x00", 2, None, "within a length"),
        (struct.pack("<I", 9) + b"a", 5, None, "within an element"),
        (struct.pack("<I", 2**32 - 1) + b"a", 5, None, "within an element"),
        (struct.pack("<I", 1) + b"\xff", 5, None, "not UTF-8"),
        (pack("a", "b"), 10, None, "2 elements"),
        (pack("a"), 5, "99999", "Inference-Header-Content-Length"),
        (pack("a"), 5, "-1", "Inference-Header-Content-Length"),
        (pack("a"), 5, "x", "Inference-Header-Content-Length"),
        (pack("a"), 5, "3", "not valid JSON"),
    ],
)
def test_wrong_bytes_are_refused(shared_app, rest, size, header, words):
    document = {"inputs": [tensor([], data=None, shape=[1], parameters={"binary_data_size": size})]}
    got = send_binary(shared_app, document, rest, header)
    assert got.status_code == 400
    assert words in got.json()["error"]


def test_a_document_with_nothing_after_it_may_tell_its_length(shared_app):
    assert send_binary(shared_app, {"inputs": [tensor(["a"])]}, b"").status_code == 200


def test_bytes_that_belong_to_nothing_are_refused(shared_app):
    assert send_binary(shared_app, {"inputs": [tensor(["a"])]}, b"rest").status_code == 400


# --- clients


@pytest.fixture(scope="module")
def client(address):
    client = triton.InferenceServerClient(address.removeprefix("http://"))
    yield client
    client.close()


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("asked", ["all", "binary", "json"])
def test_tritons_client_gets_the_same_numbers(client, binary_in, asked):
    text = triton.InferInput("text", [len(TEXTS)], "BYTES")
    text.set_data_from_numpy(np.array(TEXTS, dtype=object), binary_data=binary_in)
    names = ("label", "probabilities")
    wanted = [triton.InferRequestedOutput(name, binary_data=asked == "binary") for name in names]
    got = client.infer("demo", [text], outputs=None if asked == "all" else wanted, request_id="a-1")
    assert got.get_response()["id"] == "a-1"
    words = [one.decode() if isinstance(one, bytes) else one for one in got.as_numpy("label").tolist()]
    assert words == [one.label for one in make_model().predict(TEXTS)]
    np.testing.assert_allclose(got.as_numpy("probabilities"), make_model().predict_proba(TEXTS), atol=1e-6)


def test_tritons_client_reads_health_metadata_and_errors(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("demo")
    assert client.is_model_ready("demo", "1")
    assert not client.is_model_ready("demo", "2")
    assert client.get_server_metadata()["name"] == "tamiz"
    assert client.get_model_metadata("demo")["inputs"][0]["datatype"] == "BYTES"
    number = triton.InferInput("text", [1], "FP32")
    number.set_data_from_numpy(np.zeros(1, dtype=np.float32))
    with pytest.raises(InferenceServerException, match="BYTES"):
        client.infer("demo", [number])


def test_kserves_client_gets_the_same_numbers(address):
    if not KSERVE.exists():
        pytest.skip("KServe's client has an environment of its own: make tools")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(KSERVE), "-c", KSERVE_PROGRAM, address, json.dumps(TEXTS)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    want = make_model().predict(TEXTS)
    for got in json.loads(found.stdout.splitlines()[-1]):
        assert got["label"] == [one.label for one in want]
        np.testing.assert_allclose(got["probabilities"], make_model().predict_proba(TEXTS), atol=1e-6)


def test_a_model_of_a_server_that_is_about_to_stop_is_not_ready(tmp_path):
    store = ModelStore(str(tmp_path / "store"))
    publish(store, make_model(), tmp_path)
    live = LiveModels(store, ["demo"])
    live.refresh()
    app = create_app(live)
    assert ask(app, "GET", "/v2/models/demo/ready").status_code == 200
    live.drain()
    got = ask(app, "GET", "/v2/models/demo/ready")
    assert (got.status_code, got.json()) == (503, {"name": "demo", "ready": False})

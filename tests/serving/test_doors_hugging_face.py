"""The Hugging Face door, also as `huggingface_hub` speaks to it."""

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tamiz.config import ServeConfig
from tamiz.serving.auth import KeyAuth
from tamiz.serving.keys import KeyRing, create_key
from tamiz.types import Task
from tests.serving.helpers import LABELS, TEXTS, ask, listening, make_model, serve_model
from tests.serving.promptable import promptable_app

URL = "/models/demo"


def client_of(address, path=URL, token="unused"):
    return InferenceClient(model=f"{address}{path}", provider="hf-inference", token=token)


@pytest.fixture(scope="module")
def zero_shot_app():
    return promptable_app()


@pytest.fixture
def client(address):
    return client_of(address)


def test_the_client_classifies_a_text(client):
    model = make_model()
    for text, want in zip(TEXTS, model.predict_proba(TEXTS), strict=True):
        got = client.text_classification(text)
        assert [one.label for one in got] == [LABELS[place] for place in np.argsort(-want)]
        np.testing.assert_allclose([one.score for one in got], sorted(want, reverse=True), atol=1e-6)


def test_the_client_takes_the_best_labels_alone(client):
    assert len(client.text_classification(TEXTS[0], top_k=2, function_to_apply="softmax")) == 2


def test_the_client_raises_what_the_door_says(client, address):
    with pytest.raises(HfHubHTTPError, match="scores are probabilities already"):
        client.text_classification(TEXTS[0], function_to_apply="none")
    with pytest.raises(HfHubHTTPError, match="labels are fixed"):
        client.zero_shot_classification(TEXTS[0], ["a", "b"])
    other = client_of(address, "/models/nobody")
    with pytest.raises(HfHubHTTPError, match="allowed: demo"):
        other.text_classification("x")


def test_the_client_classifies_by_candidate_labels(zero_shot_app):
    with listening(zero_shot_app) as address:
        client = client_of(address)
        got = client.zero_shot_classification("my card", ["xyz", "card", "cart"])
        assert [one.label for one in got] == ["card", "cart", "xyz"]
        assert sum(one.score for one in got) == pytest.approx(1)
        got = client.zero_shot_classification(
            "my card", ["xyz", "card"], multi_label=True, hypothesis_template="It is {}"
        )
        assert sum(one.score for one in got) != pytest.approx(1)


def test_the_clients_token_is_an_api_key(tmp_path):
    key, _ = create_key(tmp_path / "keys.json", "predict")
    with listening(serve_model(tmp_path, auth=KeyAuth(KeyRing(tmp_path / "keys.json")))) as address:
        assert client_of(address, token=key).text_classification("x")
        with pytest.raises(HfHubHTTPError, match="401"):
            client_of(address).text_classification("x")


def test_one_text_and_several_give_a_list_a_text(shared_app):
    one = ask(shared_app, "POST", URL, json={"inputs": TEXTS[0]}).json()
    assert [list(entry) for entry in one[0]] == [["label", "score"]] * 3
    several = ask(shared_app, "POST", URL, json={"inputs": TEXTS, "options": {"wait_for_model": True}}).json()
    assert several[0] == one[0]
    assert len(several) == 3


def test_candidate_labels_give_a_flat_list_for_one_text(zero_shot_app):
    parameters = {"candidate_labels": ["card", "loan"]}
    one = ask(zero_shot_app, "POST", URL, json={"inputs": "my card", "parameters": parameters}).json()
    several = ask(zero_shot_app, "POST", URL, json={"inputs": ["my card"], "parameters": parameters}).json()
    assert [entry["label"] for entry in one] == ["card", "loan"]
    assert several == [one]


def test_independent_labels_take_the_sigmoid(tmp_path):
    app = serve_model(tmp_path, make_model(task=Task.MULTI_LABEL))
    for function, status in (("sigmoid", 200), ("softmax", 422)):
        body = {"inputs": "x", "parameters": {"function_to_apply": function}}
        assert ask(app, "POST", URL, json=body).status_code == status


def test_failures_are_in_the_doors_shape(tmp_path):
    app = serve_model(tmp_path, limits=ServeConfig(max_texts=1))
    for body, status in (({"inputs": ["a", "b"]}, 413), ({"inputs": 5}, 422), ({"text": ["a"]}, 422), (None, 400)):
        got = ask(app, "POST", URL, **({"content": b"{"} if body is None else {"json": body}))
        assert got.status_code == status
        assert got.headers["content-type"] == "application/json"
        assert set(got.json()) == {"error", "error_type"}
    assert ask(app, "POST", "/models/nobody", json={"inputs": "a"}).status_code == 404

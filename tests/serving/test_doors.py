import numpy as np
import pytest

from tamiz.serving.app import create_app
from tamiz.serving.doors import DOORS
from tamiz.serving.doors.base import Door, json_answer, route
from tamiz.serving.live import LiveModels
from tamiz.store import ModelStore
from tests.serving.helpers import LABELS, TEXTS, ask, make_model, predict, publish, serve_model


def test_all_doors_give_the_same_numbers(shared_app):
    want = make_model().predict_proba(TEXTS)
    for number, text in enumerate(TEXTS):
        native = predict(shared_app, [text]).json()["predictions"][0]["probabilities"]
        complaints = ask(shared_app, "POST", "/predict", json={"text": [text]}).json()["predictions"][0]
        genres = ask(shared_app, "GET", "/inference", params={"text": text}).json()
        for got in (native, complaints["probabilities"], genres):
            np.testing.assert_allclose(list(got.values()), want[number], atol=1e-6)


def test_the_complaints_door_answers_as_the_native_one(shared_app):
    assert ask(shared_app, "POST", "/predict", json={"text": TEXTS}).json() == predict(shared_app, TEXTS).json()


def test_the_movie_genres_door_keeps_label_order_and_takes_the_text_column(tmp_path):
    app = serve_model(tmp_path, make_model(text_column="plot"))
    got = ask(app, "GET", "/inference", params={"plot": TEXTS[0]})
    assert list(got.json()) == [f"p_{label}" for label in LABELS]


def test_the_movie_genres_door_names_the_missing_parameter(tmp_path):
    app = serve_model(tmp_path, make_model(text_column="plot"))
    got = ask(app, "GET", "/inference", params={"text": "x"})
    assert got.status_code == 422
    assert got.headers["content-type"] == "application/problem+json"
    assert "'plot'" in got.json()["detail"]


def test_a_query_with_two_texts_is_refused_rather_than_answered_for_one(shared_app):
    for path in ("/inference", "/v1/models/demo/predict"):
        got = ask(shared_app, "GET", f"{path}?text=card&text=card")
        assert got.status_code == 422
        assert got.json()["errors"][0]["location"] == "query.text"
        assert "given 2 times" in got.json()["detail"]


def test_doors_without_a_model_in_their_path_use_the_first_name(tmp_path):
    store = ModelStore(str(tmp_path / "store"))
    for name in ("alpha", "beta"):
        publish(store, make_model(name=name), tmp_path)
    live = LiveModels(store, ["beta", "alpha"])
    live.refresh()
    assert ask(create_app(live), "POST", "/predict", json={"text": ["x"]}).json()["model"] == "beta"


def test_a_new_door_answers_failures_in_its_own_shape_wherever_they_arise(tmp_path):
    def other_door(context):
        async def shout(request):
            """Shout."""
            return json_answer({"name": context.models.get(request.path_params["name"]).name.upper()})

        def render(failure, request_id):
            return json_answer({"error": failure.slug}, failure.status)

        get = route("GET", "/shout/{name}", shout, door="shout", summary="Shout", always=())
        return Door("shout", [get], render=render)

    app = serve_model(tmp_path, doors=[*DOORS, other_door])
    assert ask(app, "GET", "/shout/demo").json() == {"name": "DEMO"}
    assert ask(app, "GET", "/shout/nobody").json() == {"error": "model-not-found"}
    assert ask(app, "POST", "/shout/demo").json() == {"error": "method-not-allowed"}
    refused = ask(app, "GET", "/shout/demo", base_url="http://evil.example")
    assert (refused.status_code, refused.json()) == (403, {"error": "forbidden"})
    assert ask(app, "GET", "/elsewhere").json()["type"] == "urn:tamiz:problem:not-found"


def test_no_two_doors_share_a_path(shared_app):
    calls = [(method, route.path) for route in shared_app.routes for method in route.methods]
    assert len(calls) == len(set(calls))


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/ping"])
def test_health_is_well(shared_app, path):
    assert ask(shared_app, "GET", path).status_code == 200


def test_nothing_is_ready_before_a_model_is_loaded(tmp_path):
    store = ModelStore(str(tmp_path / "store"))
    publish(store, make_model(), tmp_path)
    app = create_app(LiveModels(store, ["demo"]))
    for path in ("/health/ready", "/ping", "/v1/models/demo/predict?text=x", "/inference?text=x"):
        got = ask(app, "GET", path)
        assert got.status_code == 503, path
    assert got.headers["retry-after"] == "1"
    assert ask(app, "GET", "/health/live").status_code == 200


def test_version_names_the_models(shared_app):
    assert ask(shared_app, "GET", "/version").json()["models"] == {"demo": "1"}

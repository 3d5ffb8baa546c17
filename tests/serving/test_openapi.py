import base64
import hashlib
import re

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from tamiz.serving.auth import OPEN_PATHS, KeyAuth
from tamiz.serving.keys import KeyRing, create_key
from tamiz.serving.schemas import PredictAnswer
from tests.serving.helpers import TEXTS, ask, make_model, predict, serve_model

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


def document(app, **about):
    return ask(app, "GET", "/openapi.json", **about).json()


def test_every_route_is_documented(shared_app):
    paths = document(shared_app)["paths"]
    assert {(method.upper(), path) for path, about in paths.items() for method in about} == {
        (method, route.path) for route in shared_app.routes for method in route.methods
    }
    for about in paths.values():
        for operation in about.values():
            assert operation["summary"]
            assert operation["description"]
            assert operation["tags"]


def test_references_resolve(shared_app):
    found = document(shared_app)
    for reference in set(re.findall(r'"\$ref":"#/([^"]+)"', ask(shared_app, "GET", "/openapi.json").text)):
        at = found
        for key in reference.split("/"):
            at = at[key]


def test_failures_are_documented_as_problems(shared_app):
    responses = document(shared_app)["paths"]["/v1/models/{name}/predict"]["post"]["responses"]
    assert {"200", "400", "401", "404", "413", "422", "429", "500", "503"} <= set(responses)
    assert "application/problem+json" in responses["413"]["content"]
    assert "Retry-After" in responses["429"]["headers"]


def test_the_refusal_of_a_compressed_body_is_documented_by_each_route(shared_app):
    for path, about in document(shared_app)["paths"].items():
        if "post" in about:
            got = ask(shared_app, "POST", path.replace("{name}", "demo"), headers={"content-encoding": "gzip"})
            assert str(got.status_code) in about["post"]["responses"], path


def test_answers_follow_their_schema(shared_app):
    PredictAnswer.model_validate_json(predict(shared_app, TEXTS).content, strict=True)


def test_the_text_column_names_the_parameter(tmp_path):
    app = serve_model(tmp_path, make_model(text_column="plot"))
    (parameter,) = document(app)["paths"]["/inference"]["get"]["parameters"]
    assert parameter["name"] == "plot"


def test_the_served_model_is_the_example(shared_app):
    (name,) = document(shared_app)["paths"]["/v1/models/{name}"]["get"]["parameters"]
    assert name["example"] == "demo"


def test_keys_are_documented_where_they_are_needed(tmp_path):
    key, _ = create_key(tmp_path / "keys.json", "predict")
    app = serve_model(tmp_path, auth=KeyAuth(KeyRing(tmp_path / "keys.json")))
    found = document(app, headers={"x-api-key": key})
    assert found["security"] == [{"bearer": []}, {"header": []}]
    for path in OPEN_PATHS:
        assert found["paths"][path]["get"]["security"] == []


def test_the_page_fetches_nothing_from_elsewhere_and_runs_only_its_own_script(shared_app):
    got = ask(shared_app, "GET", "/docs")
    assert got.headers["content-type"].startswith("text/html")
    assert not re.findall(r"[\"'=(`](?:\w+:)?//\w", got.text)
    for element, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{element}>(.*?)</{element}>", got.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in got.headers["content-security-policy"]


def test_generated_requests_never_break_the_server(tmp_path):
    """Whatever follows (or breaks) the description is answered, and as the description says."""
    path = tmp_path / "keys.json"
    headers = {"X-API-Key": create_key(path, "admin")[0]}
    app = serve_model(tmp_path, auth=KeyAuth(KeyRing(path)))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers)
    seen = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path == "/openapi.json":
            continue

        @settings(
            max_examples=8,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        def check(case):
            response = case.call(headers=headers)
            assert response.status_code < 500
            case.validate_response(response, checks=CHECKS)
            seen.add((case.operation.path, response.status_code // 100))

        check()
    assert {(f"/v1/models/{{name}}/{action}", 4) for action in ("predict", "explain", "deploy")} <= seen
    assert {("/predict", 2), ("/predict", 4), ("/inference", 2), ("/ping", 2)} <= seen
    assert {(path, 4) for path in ("/invocations", "/models/{name}", "/v2/models/{name}/infer")} <= seen
    assert {("/invocations", 2), ("/v2/models/{name}", 2)} & seen

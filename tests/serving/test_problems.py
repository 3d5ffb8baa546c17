import logging

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiz import errors
from tamiz.serving.app import create_app
from tamiz.serving.fixed import FixedModel
from tamiz.serving.logs import JsonLines
from tamiz.serving.problems import (
    InvalidFieldsError,
    MalformedBodyError,
    NotReadyError,
    Problem,
    SlowBodyError,
    failure_of,
    problem_response,
)
from tests.serving.helpers import ask

SECRET = "Zitronenfalter"
URL = "/v1/models/demo/predict"


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (MalformedBodyError("x"), 400, None),
        (errors.UnauthorizedError("x"), 401, "WWW-Authenticate"),
        (errors.ForbiddenError("x"), 403, None),
        (errors.ModelNotFoundError("x"), 404, None),
        (SlowBodyError("x"), 408, "Connection"),
        (errors.ConflictError("x"), 409, None),
        (errors.BusyError("x"), 409, "Retry-After"),
        (errors.PackageError("x"), 409, None),
        (errors.TooLargeError("x"), 413, None),
        (errors.RequestError("x"), 422, None),
        (InvalidFieldsError("x", []), 422, None),
        (errors.OverloadedError("x"), 429, "Retry-After"),
        (errors.StoreError("x"), 503, "Retry-After"),
        (NotReadyError("x"), 503, "Retry-After"),
        (errors.ConfigError("x"), 500, None),
        (ZeroDivisionError("x"), 500, None),
    ],
)
def test_each_error_has_its_status(error, status, header):
    failure = failure_of(error)
    answer = problem_response(failure, "id")
    assert answer.status_code == status
    assert header is None or header in failure.headers
    assert answer.media_type == "application/problem+json"
    Problem.model_validate_json(answer.body)


@pytest.mark.parametrize(
    ("method", "path", "about", "status"),
    [
        ("POST", URL, {"content": f'{{"text": ["{SECRET}"'.encode()}, 400),
        ("POST", URL, {"content": SECRET.encode()}, 400),
        ("POST", URL, {"content": b'{"text": ["' + SECRET.encode() + b'\xff"]}'}, 400),
        ("POST", URL, {"content": b'{"text": ["' + SECRET.encode() + b'\\ud800"]}'}, 400),
        ("POST", URL, {"json": {"text": SECRET}}, 422),
        ("POST", URL, {"json": {SECRET: [SECRET]}}, 422),
        ("POST", URL, {"json": {"text": [SECRET], SECRET: 1}}, 422),
        ("POST", URL, {"json": {"text": [{SECRET: SECRET}]}}, 422),
        ("POST", URL, {"json": [SECRET]}, 422),
        ("POST", URL, {"content": b""}, 400),
        ("POST", URL.replace("predict", "explain"), {"json": {"text": "x", "label": SECRET}}, 422),
        ("POST", URL.replace("predict", "deploy"), {"json": {"version": SECRET}}, 422),
        ("POST", URL.replace("predict", "deploy"), {"json": {"version": "1", "alias": SECRET}}, 422),
        ("POST", URL.replace("predict", "deploy"), {"json": {"alias": SECRET}}, 404),
        ("GET", f"/inference?{SECRET}={SECRET}", {}, 422),
        ("GET", f"/v1/models/{SECRET}", {}, 404),
        ("GET", f"/{SECRET}", {}, 404),
        ("GET", f"/version/?text={SECRET}", {}, 404),
        ("PATCH", f"{URL}?text={SECRET}", {}, 405),
    ],
)
def test_failures_are_problems_that_quote_nothing(shared_app, log_lines, method, path, about, status):
    got = ask(shared_app, method, path, **about)
    assert got.status_code == status, got.text
    assert got.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate_json(got.content)
    assert problem.status == status
    assert SECRET not in got.text + str(got.headers)
    assert not [line for line in log_lines if SECRET in JsonLines().format(line)]


def test_wrong_fields_are_listed_by_place(shared_app):
    got = ask(shared_app, "POST", URL, json={"text": ["a", 1, None], "texts": []}).json()
    assert [error["location"] for error in got["errors"]] == ["body.text[1]", "body"]


def test_the_list_of_wrong_fields_is_bounded(shared_app):
    got = ask(shared_app, "POST", URL, json={"text": ["a"], **{f"field{n}": 1 for n in range(500)}})
    assert len(got.json()["errors"]) == 20
    assert len(ask(shared_app, "POST", URL, json={"text": list(range(500))}).json()["errors"]) == 1


def test_an_unknown_path_with_a_known_method_tells_what_is_allowed(shared_app):
    got = ask(shared_app, "DELETE", "/predict")
    assert got.status_code == 405
    assert got.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/openapi.json"])
def test_head_answers_as_get_does_without_a_body(address, path):
    head, get = (httpx.request(method, f"{address}{path}") for method in ("HEAD", "GET"))
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


def test_a_path_with_several_routes_tells_all_its_methods(shared_app):
    got = ask(shared_app, "DELETE", URL)
    assert got.status_code == 405
    assert got.headers["allow"] == "GET, HEAD, POST"
    assert "GET, HEAD, POST" in got.json()["detail"]


def test_a_bug_is_answered_generically_and_logged_without_its_message(tmp_path, log_lines):
    class Broken(FixedModel):
        def get(self, name=None):
            raise ValueError(f"bad text {SECRET}")

    got = ask(create_app(Broken(tmp_path)), "POST", "/predict", json={"text": ["x"]})
    assert got.status_code == 500
    assert got.json()["title"] == "Internal error"
    assert SECRET not in got.text
    (line,) = [JsonLines().format(line) for line in log_lines if line.levelno == logging.ERROR]
    assert '"ValueError"' in line
    assert "in get" in line
    assert SECRET not in line


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_answered(shared_app, body):
    got = ask(shared_app, "POST", URL, content=body)
    assert got.status_code in (200, 400, 422)

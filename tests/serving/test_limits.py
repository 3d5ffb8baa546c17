import asyncio
import json
import threading
import time
from dataclasses import replace

import httpx
import pytest

from tamiz.config import ServeConfig
from tamiz.errors import TooLargeError
from tamiz.serving.app import create_app
from tamiz.serving.batching import EARLY_BYTES, WorkLine
from tamiz.serving.fixed import FixedModel
from tamiz.serving.limits import LimitBody, LimitConcurrency, check_texts
from tamiz.serving.metrics import Metrics
from tamiz.serving.problems import SlowBodyError
from tamiz.serving.served import Served
from tests.serving.helpers import LOCAL, TEXTS, ask, make_model, predict, serve_model

URL = "/v1/models/demo/predict"
SMALL = ServeConfig(max_body_bytes=1000, max_texts=3, max_characters=50, max_concurrent=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return serve_model(tmp_path_factory.mktemp("small"), limits=SMALL)


async def pieces(*parts):
    for part in parts:
        yield part


def test_a_body_over_its_limit_is_refused(small):
    assert predict(small, ["x" * 2000]).status_code == 413


def test_a_streamed_body_without_a_length_is_counted(small):
    got = ask(small, "POST", URL, content=pieces(*[b"x" * 100] * 11))
    assert got.status_code == 413
    assert "1000 bytes" in got.json()["detail"]


def test_a_body_that_lies_about_its_length_is_counted(small):
    got = ask(small, "POST", URL, content=pieces(b"x" * 2000), headers={"content-length": "10"})
    assert got.status_code == 413


@pytest.mark.parametrize("claim", ["1001", "9" * 5000])
def test_a_claimed_length_over_the_limit_is_refused_unread(small, claim):
    async def never():
        raise AssertionError("the body was read")
        yield b""

    assert ask(small, "POST", URL, content=never(), headers={"content-length": claim}).status_code == 413


def test_a_claimed_length_is_refused_alike_while_there_is_too_much_work(small):
    assert predict(small, ["card"]).status_code == 200  # which builds the layers
    line = limiter(small).line
    line._refused_s = time.monotonic()
    try:
        assert ask(small, "POST", URL, content=b"", headers={"content-length": "9" * 5000}).status_code == 413
    finally:
        line._refused_s = float("-inf")


def test_a_client_that_reads_slowly_keeps_no_large_requests_out():
    line, keeps_out = WorkLine(ServeConfig(), Metrics()), []
    size = 2 * EARLY_BYTES

    async def look(*about):
        line._refused_s = time.monotonic()
        keeps_out.append(line.refuses(size))

    async def app(scope, receive, send):
        await look()
        await send({"type": "http.response.start"})

    async def receive():
        return {"type": "http.request", "body": b"x" * size}

    asyncio.run(LimitBody(app, size, line)({"type": "http", "method": "POST", "headers": []}, receive, look))
    assert keeps_out == [True, False]


def test_a_body_of_exactly_the_limit_is_read(small):
    body = json.dumps({"text": ["card"]}).encode()
    assert ask(small, "POST", URL, content=body + b" " * (1000 - len(body))).status_code == 200


def test_a_body_in_pieces_is_read_whole(small):
    assert ask(small, "POST", URL, content=pieces(b'{"text": ["ca', b"", b'rd"]}')).status_code == 200


def test_too_many_texts_are_refused(small):
    assert predict(small, ["x"] * 3).status_code == 200
    got = predict(small, ["x"] * 4)
    assert got.status_code == 413
    assert "at most 3" in got.json()["detail"]


def test_a_text_that_is_too_long_is_refused_everywhere(small):
    assert predict(small, ["x" * 50]).status_code == 200
    long = "x" * 51
    assert predict(small, ["x", long]).status_code == 413
    assert ask(small, "GET", "/inference", params={"text": long}).status_code == 413
    assert ask(small, "POST", "/v1/models/demo/explain", json={"text": long}).status_code == 413


def test_the_message_names_the_place_of_the_long_text():
    with pytest.raises(TooLargeError, match="Text 1 has 51 characters; at most 50"):
        check_texts(["a", "x" * 51], SMALL)


@pytest.mark.parametrize("body", [b"[" * 900, b'{"text":' * 100, b'{"text": NaN}', b'{"text": [1e999]}', b"null", b"1"])
def test_odd_json_is_harmless(small, body):
    assert ask(small, "POST", URL, content=body).status_code in (400, 422)


def test_a_slow_body_is_given_up():
    async def app(scope, receive, send):
        raise AssertionError("the request was passed on")

    async def receive():
        await asyncio.Event().wait()

    limited = LimitBody(app, 10, WorkLine(SMALL, Metrics()), timeout_s=0.01)
    with pytest.raises(SlowBodyError):
        asyncio.run(limited({"type": "http", "method": "POST", "headers": []}, receive, None))


def test_a_client_that_goes_while_sending_is_let_go():
    async def app(scope, receive, send):
        raise AssertionError("the request was passed on")

    async def receive():
        return {"type": "http.disconnect"}

    asyncio.run(
        LimitBody(app, 10, WorkLine(SMALL, Metrics()))({"type": "http", "method": "POST", "headers": []}, receive, None)
    )


def test_more_requests_at_once_than_allowed_are_refused_and_health_is_not(small):
    entered, leave = asyncio.Event(), asyncio.Event()

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(small), base_url=LOCAL) as client:

            async def slowly():
                entered.set()
                yield b'{"text": ['
                await leave.wait()
                yield b'"card"]}'

            slow = [asyncio.create_task(client.post(URL, content=slowly())) for _ in range(2)]
            await entered.wait()
            while limiter(small).gate.at_work < 2:
                await asyncio.sleep(0)
            refused = await client.post(URL, json={"text": ["card"]})
            healthy = await client.get("/ping")
            leave.set()
            answers = await asyncio.gather(*slow)
            again = await client.post(URL, json={"text": ["card"]})
            return refused, healthy, answers, again

    refused, healthy, answers, again = asyncio.run(main())
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert healthy.status_code == 200
    assert [one.status_code for one in answers] == [200, 200]
    assert again.status_code == 200


def limiter(app) -> LimitConcurrency:
    layer = app.middleware_stack
    while not isinstance(layer, LimitConcurrency):
        layer = layer.app
    return layer


def test_a_failed_request_gives_its_place_back(small):
    for _ in range(5):
        assert ask(small, "POST", URL, content=b"{").status_code == 400
    assert predict(small, [TEXTS[0]]).status_code == 200


class Gate:
    """A classifier that waits until it is let go."""

    def __init__(self, inner):
        self.inner, self.labels, self.task = inner, inner.labels, inner.task
        self.begun, self.go = threading.Event(), threading.Event()

    def predict_proba(self, texts):
        self.begun.set()
        assert self.go.wait(5)
        return self.inner.predict_proba(texts)


def test_the_event_loop_answers_others_while_a_model_works(tmp_path):
    model = make_model()
    gate = Gate(model.classifier)
    models = FixedModel(tmp_path)
    models._one = Served("demo", "1", replace(model, classifier=gate), inline_cost=0)
    app = create_app(models)

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=LOCAL) as client:
            slow = asyncio.create_task(client.post(URL, json={"text": ["card"]}))
            while not gate.begun.is_set():
                await asyncio.sleep(0)
            health = await client.get("/health")
            assert not slow.done()
            gate.go.set()
            return health, await slow

    health, answer = asyncio.run(main())
    assert (health.status_code, answer.status_code) == (200, 200)

"""How often a key may ask, and which pages of other sites may."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from tamiz.config import ServeConfig
from tamiz.serving.auth import CALLER, Caller, KeyAuth
from tamiz.serving.keys import KeyRing, create_key
from tamiz.serving.problems import RateError
from tamiz.serving.rates import LimitRate, Rates
from tests.serving.helpers import ask, predict, serve_model

SITE = "https://app.example.org"


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_as_many_at_once_as_a_minute_allows_and_then_as_they_fall_due():
    clock = Clock()
    rates = Rates(6, clock)
    assert [rates.take("a") for _ in range(6)] == [0] * 6
    assert rates.take("a") == pytest.approx(10)
    clock.now_s = 4
    assert rates.take("a") == pytest.approx(6)
    clock.now_s = 10
    assert rates.take("a") == 0
    assert rates.take("a") == pytest.approx(10)


def test_silence_saves_up_no_more_than_a_minute():
    clock = Clock()
    rates = Rates(3, clock)
    assert rates.take("a") == 0
    clock.now_s = 100_000
    assert [rates.take("a") for _ in range(3)] == [0] * 3
    assert rates.take("a") > 0


def test_callers_do_not_share():
    rates = Rates(1, Clock())
    assert rates.take("a") == 0
    assert rates.take("b") == 0
    assert rates.take("a") > 0


def test_processes_that_share_a_folder_count_together(tmp_path):
    clock = Clock()
    workers = [Rates(6, clock, tmp_path) for _ in range(3)]
    assert [workers[number % 3].take("a") for number in range(6)] == [0] * 6
    assert [one.take("a") for one in workers] == [pytest.approx(10)] * 3
    assert workers[0].take("../b") == 0
    clock.now_s = 10
    assert workers[1].take("a") == 0
    assert workers[2].take("a") == pytest.approx(10)
    assert {path.parent for path in tmp_path.rglob("*")} == {tmp_path}


def test_threads_and_processes_that_ask_at_once_get_no_more_than_there_is(tmp_path):
    workers = [Rates(50, Clock(), tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        waits = [wait for found in pool.map(lambda one: [one.take("a") for _ in range(25)], workers) for wait in found]
    assert waits.count(0) == 50


def test_a_folder_that_has_gone_fails_no_request(tmp_path):
    rates = Rates(2, Clock(), tmp_path / "gone")
    assert [rates.take("a") for _ in range(3)] == [0, 0, pytest.approx(30)]


def test_a_bucket_that_was_cut_off_counts_anew(tmp_path):
    rates = Rates(1, Clock(), tmp_path)
    assert rates.take("a") == 0
    assert rates.take("a") > 0
    for path in tmp_path.iterdir():
        path.write_bytes(b"torn")
    assert rates.take("a") == 0


def test_a_key_that_asks_too_often_is_told_when_to_come_back(tmp_path):
    path = tmp_path / "keys.json"
    keys = [{"x-api-key": create_key(path, "predict")[0]} for _ in range(2)]
    app = serve_model(tmp_path, auth=KeyAuth(KeyRing(path)), limits=ServeConfig(requests_per_minute=2))
    for _ in range(2):
        assert predict(app, ["card"], headers=keys[0]).status_code == 200
    got = predict(app, ["card"], headers=keys[0])
    assert got.status_code == 429
    assert got.json()["type"] == "urn:tamiz:problem:rate-limit"
    assert 1 <= int(got.headers["retry-after"]) <= 30
    assert predict(app, ["card"], headers=keys[1]).status_code == 200
    assert ask(app, "GET", "/ping", headers=keys[0]).status_code == 200
    assert predict(app, ["card"]).status_code == 401


def test_whoever_comes_back_when_told_is_answered():
    clock, answered = Clock(), []

    async def app(scope, receive, send):
        answered.append(clock.now_s)

    def call():
        asyncio.run(LimitRate(app, rates)({"type": "http", CALLER: Caller("a", "predict")}, None, None))

    rates = Rates(7, clock)
    for _ in range(7):
        call()
    with pytest.raises(RateError) as caught:
        call()
    clock.now_s += int(caught.value.headers["Retry-After"])
    call()
    assert answered == [0.0] * 7 + [9.0]  # 60 s / 7, rounded up


def test_without_a_setting_there_is_no_limit(shared_app):
    assert {predict(shared_app, ["card"]).status_code for _ in range(100)} == {200}


# --- pages of other sites


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cors")
    path = folder / "keys.json"
    headers = {"x-api-key": create_key(path, "predict")[0], "origin": SITE}
    auth = KeyAuth(KeyRing(path))
    limits = ServeConfig(cors_origins=[SITE])
    return serve_model(folder, auth=auth, limits=limits), headers


ASK_FIRST = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key,content-type"}


def test_by_default_no_page_of_another_site_may_call(shared_app):
    got = ask(shared_app, "GET", "/version", headers={"origin": "http://localhost:3000"})
    assert not any(name.startswith("access-control") for name in got.headers)
    got = ask(shared_app, "OPTIONS", "/predict", headers={"origin": "http://localhost:3000", **ASK_FIRST})
    assert got.status_code == 405
    assert not any(name.startswith("access-control") for name in got.headers)


def test_a_page_that_is_named_may_call_and_read_failures_too(guarded):
    app, headers = guarded
    got = ask(app, "OPTIONS", "/predict", headers={"origin": SITE, **ASK_FIRST})
    assert got.status_code == 200
    assert got.headers["access-control-allow-origin"] == SITE
    assert "access-control-allow-credentials" not in got.headers
    assert got.headers["x-content-type-options"] == "nosniff"
    for shown, status in ((headers, 200), ({"origin": SITE}, 401)):
        got = predict(app, ["card"], headers=shown)
        assert got.status_code == status
        assert got.headers["access-control-allow-origin"] == SITE
        assert "X-Request-ID" in got.headers["access-control-expose-headers"]
        assert got.headers["vary"] == "Origin"


def test_other_pages_may_still_not(guarded):
    app, headers = guarded
    for origin in ("https://evil.example", "https://app.example.org.evil.example", "http://app.example.org", "null"):
        got = ask(app, "OPTIONS", "/predict", headers={"origin": origin, **ASK_FIRST})
        assert got.status_code == 400
        assert "access-control-allow-origin" not in got.headers
        got = predict(app, ["card"], headers={**headers, "origin": origin})
        assert "access-control-allow-origin" not in got.headers


def test_methods_and_headers_beyond_need_are_refused(guarded):
    app, _ = guarded
    for asked in ({"access-control-request-method": "DELETE"}, {"access-control-request-headers": "cookie"}):
        got = ask(app, "OPTIONS", "/predict", headers={"origin": SITE, **ASK_FIRST, **asked})
        assert got.status_code == 400


@pytest.mark.parametrize("origin", ["app.example.org", "https://a.example/path", "ftp://a.example", "https://", "**"])
def test_an_origin_that_is_none_is_refused(origin):
    with pytest.raises(ValidationError):
        ServeConfig(cors_origins=[origin])

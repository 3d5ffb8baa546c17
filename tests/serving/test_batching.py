"""The line of work: its batches, pieces, bounds and deadlines, with real models slowed down at a gate."""

import asyncio
import threading
import time
from dataclasses import replace

import httpx
import numpy as np
import pytest

from tamiz.config import ServeConfig
from tamiz.errors import OverloadedError
from tamiz.serving.app import create_app
from tamiz.serving.batching import WorkLine
from tamiz.serving.current import CURRENT, Current
from tamiz.serving.fixed import FixedModel
from tamiz.serving.metrics import Metrics
from tamiz.serving.problems import ClientGoneError, DeadlineError
from tamiz.serving.served import Served, cost_of, tried
from tests.serving.helpers import LOCAL, TEXTS, ask, make_model

URL = "/v1/models/demo/predict"
PATIENCE_S = 10


class Gate:
    """A classifier that notes what it is asked, and waits at a gate for as long as that is shut."""

    def __init__(self, inner, *, shut=False):
        self.inner, self.labels, self.task = inner, inner.labels, inner.task
        self.asked: list[list[str]] = []
        self.begun, self.open = threading.Event(), threading.Event()
        if not shut:
            self.open.set()

    def predict_proba(self, texts):
        self.asked.append(list(texts))
        self.begun.set()
        assert self.open.wait(PATIENCE_S)
        if "poison" in texts:
            raise ValueError("poison")
        return self.inner.predict_proba(texts)


def gated(*, shut=False, batched=True, pace_s=1e-6, version="1"):
    """Return a served model whose texts go through the line, and its gate."""
    model = make_model()
    gate = Gate(model.classifier, shut=shut)
    return Served("demo", version, replace(model, classifier=gate), 0, pace_s, batched), gate


def line_of(**limits):
    return WorkLine(ServeConfig(**limits), Metrics())


def enter(line, served, texts):
    return asyncio.ensure_future(line.predict(served, texts, cost_of(texts)))


async def until(ask_once):
    ends = time.monotonic() + PATIENCE_S
    while not ask_once():
        assert time.monotonic() < ends
        await asyncio.sleep(0.001)


async def shut_in(line, gate, served, text="first"):
    """Let a request in that holds the only thread until the gate is opened."""
    first = enter(line, served, [text])
    await until(gate.begun.is_set)
    return first


def rows(predictions):
    return np.array([one.probabilities for one in predictions])


def test_requests_that_wait_are_answered_together_and_each_gets_its_own():
    served, gate = gated(shut=True)

    async def main():
        line = line_of()
        first = await shut_in(line, gate, served, TEXTS[0])
        others = [enter(line, served, [text]) for text in TEXTS[1:]] + [enter(line, served, TEXTS[:2])]
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(first, *others)

    answers = asyncio.run(main())
    assert gate.asked == [[TEXTS[0]], [*TEXTS[1:], *TEXTS[:2]]]
    for found, texts in zip(answers, [[text] for text in TEXTS] + [TEXTS[:2]], strict=True):
        np.testing.assert_allclose(rows(found), make_model().predict_proba(texts), atol=1e-12)


def test_a_lone_request_waits_for_nobody_and_the_window_holds_for_company():
    served, gate = gated()

    async def main():
        line = line_of(batch_window_ms=5000)
        await asyncio.wait_for(enter(line, served, ["alone"]), 2)  # far less than the window
        gate.open.clear(), gate.begun.clear()
        first = await shut_in(line, gate, served)
        second, third = (enter(line, served, [text]) for text in ("second", "third"))
        await asyncio.sleep(0)
        gate.open.set()
        await first
        await asyncio.sleep(0.02)
        assert not second.done()  # the thread is free, and the window still open
        fourth = enter(line, served, ["fourth"])
        await asyncio.sleep(0)
        assert len(line._waiting) == 3
        for task in (second, third, fourth):
            task.cancel()

    asyncio.run(main())
    assert gate.asked == [["alone"], ["first"]]


def test_the_window_opens_at_the_first_request_and_closes_by_itself():
    served, gate = gated(shut=True)

    async def main():
        line = line_of(batch_window_ms=50)
        first = await shut_in(line, gate, served)
        others = [enter(line, served, [text]) for text in "ab"]
        gate.open.set()
        await asyncio.gather(first, *others)

    asyncio.run(main())
    assert gate.asked == [["first"], ["a", "b"]]


@pytest.mark.parametrize("waiting", ["ab", "abc"])
def test_a_full_batch_does_not_wait_for_its_window(waiting):
    served, gate = gated(shut=True)

    async def main():
        line = line_of(batch_window_ms=60_000, batch_texts=4)
        first = await shut_in(line, gate, served)
        others = [enter(line, served, [text, text]) for text in waiting]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.wait_for(asyncio.gather(first, *others[:2]), 5)
        for late in others[2:]:
            assert not late.done()
            late.cancel()

    asyncio.run(main())
    assert gate.asked == [["first"], ["a", "a", "b", "b"]]


def test_texts_of_unlike_length_and_of_other_versions_are_not_mixed():
    served, gate = gated(shut=True)
    other = replace(served, version="2")

    async def main():
        line = line_of(batch_window_ms=0)
        first = await shut_in(line, gate, served)
        long = "word " * 500
        others = [enter(line, served, ["a"]), enter(line, served, [long]), enter(line, other, ["b"])]
        others.append(enter(line, served, ["c"]))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, *others)

    asyncio.run(main())
    assert [[text[:4].strip() for text in asked] for asked in gate.asked] == [["firs"], ["a", "c"], ["word"], ["b"]]


def test_one_failing_text_does_not_fail_those_it_was_answered_with():
    served, gate = gated(shut=True)

    async def main():
        line = line_of()
        first = await shut_in(line, gate, served)
        others = [enter(line, served, [text]) for text in ("a", "poison", "b")]
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    found = asyncio.run(main())
    assert isinstance(found[2], ValueError)
    assert [len(found[place]) for place in (0, 1, 3)] == [1, 1, 1]


def test_too_few_answers_are_given_to_nobody():
    served, gate = gated(shut=True)
    given = gate.predict_proba
    gate.predict_proba = lambda texts: given(texts)[: max(1, len(texts) - 1)]

    async def main():
        line = line_of()
        first = await shut_in(line, gate, served)
        others = [enter(line, served, [text]) for text in "ab"]
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.wait_for(asyncio.gather(first, *others, return_exceptions=True), PATIENCE_S)

    found = asyncio.run(main())
    assert [len(found[0]), *(str(one) for one in found[1:])] == [1, *["the model gave 1 answers to 2 texts"] * 2]


@pytest.mark.parametrize("limits", [{"batching": "off"}, {"batch_texts": 1}])
def test_batching_can_be_switched_off(limits):
    served, gate = gated(shut=True)

    async def main():
        line = line_of(**limits)
        first = await shut_in(line, gate, served)
        others = [enter(line, served, [text]) for text in "ab"]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, *others)

    asyncio.run(main())
    assert gate.asked == [["first"], ["a"], ["b"]]


def test_a_long_request_is_worked_off_in_pieces_and_lets_a_short_one_in_between():
    served, gate = gated(shut=True, batched=False, pace_s=1e-4)  # a text of one character is taken for 10 ms
    texts = [f"{number:04d}" for number in range(40)]

    async def main():
        line = line_of(max_wait_ms=60_000)
        long = enter(line, served, texts)
        await until(gate.begun.is_set)
        short = enter(line, served, ["x"])
        await asyncio.sleep(0)
        gate.open.set()
        await short
        assert not long.done()
        return await long

    found = asyncio.run(main())
    assert gate.asked[1] == ["x"]
    assert [text for asked in gate.asked if asked != ["x"] for text in asked] == texts
    np.testing.assert_allclose(rows(found), make_model().predict_proba(texts), atol=1e-12)


def test_all_short_requests_that_wait_go_before_the_rest_of_a_long_one():
    served, gate = gated(shut=True, batched=False, pace_s=1e-4)
    texts = [f"{number:04d}" for number in range(40)]

    async def main():
        line = line_of(max_wait_ms=60_000)
        long = enter(line, served, texts)
        await until(gate.begun.is_set)
        shorts = [enter(line, served, [text]) for text in "xyz"]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(long, *shorts)

    asyncio.run(main())
    assert gate.asked[1:4] == [["x"], ["y"], ["z"]]


def test_long_requests_of_like_length_are_answered_one_after_the_other():
    """Taking turns they would all be late: the first as late as the last."""
    served, gate = gated(shut=True, batched=False, pace_s=1e-4)
    first, second = ([f"{number:04d}" for number in range(start, start + 40)] for start in (0, 100))

    async def main():
        line = line_of(max_wait_ms=60_000)
        one = enter(line, served, first)
        await until(gate.begun.is_set)
        other = enter(line, served, second)
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(one, other)

    asyncio.run(main())
    assert len(gate.asked) > 4
    assert [text for asked in gate.asked for text in asked] == [*first, *second]


def test_requests_that_go_first_do_not_starve_a_long_one():
    """Only those that are there already go first, not all that come."""
    served, _ = gated(batched=False, pace_s=1e-4)
    long = [f"{number:04d}" for number in range(40)]

    async def main():
        line = line_of(max_wait_ms=60_000)
        one, short = enter(line, served, long), [enter(line, served, ["x"])]
        while not one.done():
            assert len(short) < 1000
            await short[-1]
            short.append(enter(line, served, ["x"]))
        await asyncio.gather(one, *short)

    asyncio.run(main())


def test_who_would_wait_too_long_is_refused_and_a_moment_later_let_in():
    served, gate = gated(shut=True, batched=False, pace_s=1e-3)  # 0.1 s a text and more

    async def main():
        line = line_of(max_wait_ms=250)
        first = await shut_in(line, gate, served)
        second = enter(line, served, ["second"])
        await asyncio.sleep(0)
        third = enter(line, served, ["third"])
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await enter(line, served, ["fourth"])
        assert line.overloaded
        assert line.refuses(1_000_000)
        assert not line.refuses(100)  # it may be one that needs no turn
        gate.open.set()
        await asyncio.gather(first, second, third)
        assert not line.refuses(1_000_000)
        return await enter(line, served, ["fifth"])  # overloaded, but nothing is before it

    assert len(asyncio.run(main())) == 1


def test_while_overloaded_only_those_that_hardly_wait_are_let_in():
    served, gate = gated(shut=True, batched=False, pace_s=1e-3)

    async def main():
        line = line_of(max_wait_ms=10_000)
        first = await shut_in(line, gate, served)
        line._refused_s = time.monotonic()
        with pytest.raises(OverloadedError):
            await enter(line, served, ["second"])
        line._refused_s -= 2  # a while later
        second = enter(line, served, ["second"])
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, second)

    asyncio.run(main())


def test_while_overloaded_no_more_large_bodies_are_read_than_are_worked_off():
    async def main():
        line = line_of()
        leave = line.enter(1_000_000)
        assert not line.refuses(1_000_000)
        line._refused_s = time.monotonic() - 0.9
        assert line.refuses(1_000_000)
        assert time.monotonic() - line._refused_s < 0.5  # it goes on for as long as large bodies come
        assert not line.refuses(100)
        leave(), leave()
        assert not line.refuses(1_000_000)
        line.enter(100)
        assert not line.refuses(1_000_000)
        line.enter(1_000_000)  # the first has left once, however often it says so
        assert line.refuses(1_000_000)

    asyncio.run(main())


def test_a_request_out_of_time_is_given_up_and_its_thread_is_free_after_a_piece():
    served, gate = gated(shut=True, batched=False, pace_s=1e-4)
    texts = [f"{number:04d}" for number in range(40)]

    async def main():
        line = line_of(deadline_s=0.1, max_wait_ms=60_000)
        with pytest.raises(DeadlineError, match=r"0\.1 s"):
            await enter(line, served, texts)
        gate.open.set()
        await until(lambda: not line._turns)
        assert len(gate.asked) == 1
        return await enter(line, served, ["next"])

    assert len(asyncio.run(main())) == 1
    assert gate.asked[1:] == [["next"]]


def test_the_deadline_is_that_of_the_whole_request():
    served, gate = gated(shut=True, batched=False)

    async def never():
        await asyncio.Event().wait()

    async def main():
        line, current = line_of(deadline_s=0.1), Current("r", never)
        CURRENT.set(current)
        ends = []
        for _ in range(3):  # as for lines with labels of their own, one after the other
            with pytest.raises(DeadlineError):
                await line.predict(served, ["text"], cost_of(["text"]))
            ends.append(current.ends_s)
        gate.open.set()
        assert len(set(ends)) == 1
        assert current.left_s(0.1) == 0

    asyncio.run(main())


def test_a_client_that_goes_frees_its_place_in_the_line():
    served, gate = gated(shut=True, batched=False)
    gone = asyncio.Event()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def main():
        line = line_of()
        first = await shut_in(line, gate, served)
        before = CURRENT.set(Current("r", receive))
        second = enter(line, served, ["second"])
        CURRENT.reset(before)
        third = enter(line, served, ["third"])
        await asyncio.sleep(0)
        gone.set()
        with pytest.raises(ClientGoneError):
            await second
        assert [job.texts for job in line._waiting] == [["third"]]
        gate.open.set()
        await asyncio.gather(first, third)

    asyncio.run(main())
    assert gate.asked == [["first"], ["third"]]


def test_time_in_the_line_and_batches_are_measured():
    served, gate = gated(shut=True)
    metrics = Metrics()

    async def main():
        line = WorkLine(ServeConfig(), metrics)
        first = await shut_in(line, gate, served)
        others = [enter(line, served, [text]) for text in "abc"]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, *others)

    asyncio.run(main())
    lines = metrics.render().decode().splitlines()
    assert 'tamiz_queue_seconds_count{model="demo"} 4.0' in lines
    assert 'tamiz_batch_texts_sum{model="demo"} 4.0' in lines
    assert 'tamiz_batch_texts_bucket{le="2.0",model="demo"} 1.0' in lines


def test_over_http_refusals_deadlines_and_departures_have_their_status(tmp_path, log_lines):
    served, gate = gated(shut=True, batched=False, pace_s=1e-3)
    models = FixedModel(tmp_path)
    models._one = served
    app = create_app(models, limits=ServeConfig(max_wait_ms=50, deadline_s=0.3))

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=LOCAL) as client:
            slow = asyncio.create_task(client.post(URL, json={"text": ["card"]}))
            await until(gate.begun.is_set)
            refused = await client.post(URL, json={"text": ["card"]})
            early = await client.post(URL, json={"text": ["card " * 10_000]})
            return await slow, refused, early

    slow, refused, early = asyncio.run(main())
    gate.open.set()
    assert (slow.status_code, slow.headers["retry-after"], slow.json()["type"]) == (
        503,
        "1",
        "urn:tamiz:problem:deadline",
    )
    assert [one.status_code for one in (refused, early)] == [429, 429]
    assert refused.headers["retry-after"] == "1"
    text = ask(app, "GET", "/metrics").text
    assert 'tamiz_errors_total{door="native",kind="overloaded"} 2.0' in text
    assert 'tamiz_errors_total{door="native",kind="deadline"} 1.0' in text


def test_a_departed_client_is_logged_as_such_and_leaves_no_trace(tmp_path, log_lines):
    served, gate = gated(shut=True, batched=False)
    models = FixedModel(tmp_path)
    models._one = served
    app = create_app(models)
    body = b'{"text": ["card"]}'
    scope = {
        "type": "http",
        "method": "POST",
        "path": URL,
        "raw_path": URL.encode(),
        "query_string": b"",
        "root_path": "",
    }
    scope |= {
        "scheme": "http",
        "headers": [(b"host", b"localhost")],
        "server": ("localhost", 80),
        "http_version": "1.1",
    }

    async def main():
        gone, sent = asyncio.Event(), []
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        task = asyncio.create_task(app(scope, receive, send))
        await until(gate.begun.is_set)
        gone.set()
        await task
        assert sent == []

    asyncio.run(main())
    gate.open.set()
    (line,) = [line for line in log_lines if line.name == "tamiz.access"]
    assert line.fields["status"] == 499
    assert not [line for line in log_lines if line.levelname == "ERROR"]
    assert "tamiz_requests_in_flight 1.0" in ask(app, "GET", "/metrics").text  # this very request


def test_a_quick_model_is_answered_on_the_event_loop_without_the_line(shared_app):
    from tests.serving.test_limits import limiter

    assert ask(shared_app, "POST", URL, json={"text": [TEXTS[0]]}).status_code == 200
    line = limiter(shared_app).line
    served = tried("demo", "1", make_model())
    assert not served.batched
    assert not line.takes(served, cost_of([TEXTS[0]]))
    assert line.takes(served, cost_of(["x" * 30_000]))


def test_a_network_answers_the_same_in_batches(tmp_path, monkeypatch):
    for module in ("onnx", "onnxruntime", "tokenizers", "safetensors"):
        pytest.importorskip(module)
    from tamiz.classifiers.few_shot import FewShotClassifier
    from tests.tiny_bert import tiny_bert

    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "cache"))
    encoder = str(tiny_bert(tmp_path / "tiny", layers=4, hidden=64))
    base = make_model()
    classifier = FewShotClassifier(base.labels, base.task, encoder=encoder, num_threads=1, C=10)
    words = ["bread soup", "bank loan", "goal match"] * 6
    classifier.fit(words, np.arange(18) % 3)
    served = replace(tried("demo", "1", replace(base, classifier=classifier)), batched=True)

    async def main():
        line = line_of(batch_window_ms=20)
        return await asyncio.gather(*(enter(line, served, [text]) for text in words[:6]))

    found = rows([one for (one,) in asyncio.run(main())])
    np.testing.assert_allclose(found, classifier.predict_proba(words[:6]), atol=1e-5)

"""Slow clients and broken HTTP, against a real server."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import httpx
import pytest

from tamiz.serving.connections import TimedProtocol
from tests.serving.helpers import serve_model
from tests.serving.live_server import PATIENCE_S, answered, connected, flood, heard, live, say, status_of

HOST = b"Host: 127.0.0.1\r\n"
END = b"Connection: close\r\n\r\n"
URL = b"/v1/models/demo/predict"


class Quick(TimedProtocol):
    """Waits for tenths of a second only."""

    head_timeout_s = 0.2
    read_period_s = 0.2
    close_s = 0.1


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with live(serve_model(tmp_path_factory.mktemp("live"))) as found:
        yield found


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    with live(serve_model(tmp_path_factory.mktemp("quick")), Quick, timeout_keep_alive=1) as found:
        yield found


def question(texts: Sequence[str]) -> bytes:
    body = json.dumps({"text": texts}).encode()
    return b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body) + body


@contextmanager
def reading_little(port: int) -> Iterator[socket.socket]:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(PATIENCE_S)
        one.connect(("127.0.0.1", port))
        yield one


def is_well(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200


# --- slow clients


@pytest.mark.parametrize("start", [b"", b"GET /ping HT", b"GET /ping HTTP/1.1\r\n" + HOST + b"X-A: "])
def test_a_head_that_never_ends_is_given_up(quick, start):
    with connected(quick) as one:
        one.sendall(start)
        assert heard(one) == b""
    assert is_well(quick)


def test_a_head_that_trickles_gains_no_time(quick):
    with connected(quick) as one:
        one.sendall(b"GET /ping HTTP/1.1\r\n")
        flood(one, b"X")
    assert is_well(quick)


def test_a_body_that_nobody_waits_for_keeps_no_connection(quick):
    head = b"POST " + URL + b" HTTP/1.1\r\nHost: other.example\r\nContent-Length: 1000\r\n\r\n"
    with connected(quick) as one:
        one.sendall(head)
        assert answered(one) == 403
        one.sendall(b"x")
        heard(one)
    assert is_well(quick)


def test_an_answer_that_is_not_read_is_broken_off(quick):
    with reading_little(quick) as one:
        flood(one, question(["card"] * 900))  # many requests, no answer read: their sum fits into no buffer
    assert is_well(quick)


def test_a_client_that_reads_no_answer_is_no_fault_of_the_server(quick, caplog):
    with reading_little(quick) as one:
        one.sendall(question(["card"] * 900) * 30)  # the next requests wait while the answer to one is not read
        time.sleep(1)
        assert b"HTTP/1.1 200" in heard(one)
    assert is_well(quick)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_what_is_no_http_ends_a_request_at_work_that_has_others_behind_it(port, caplog):
    long = question(["my card was charged " * 40_000] * 9)
    short = b"GET /ping HTTP/1.1\r\n" + HOST + b"\r\n"
    with connected(port) as one:
        one.sendall(long + short + b"nonsense\r\n\r\n")
        answer = heard(one)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert status_of(answer) == 400
    given_up = 'tamiz_requests_total{door="native",method="POST",status="499"}'
    ends = time.monotonic() + PATIENCE_S
    while given_up not in httpx.get(f"http://127.0.0.1:{port}/metrics").text:
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_an_idle_connection_is_closed_politely(quick):
    with connected(quick) as one:
        one.sendall(b"GET /ping HTTP/1.1\r\n" + HOST + b"\r\n")
        assert status_of(heard(one)) == 200


def test_a_request_in_pieces_within_its_time_is_answered(port):
    body = b'{"text": ["card"]}'
    raw = b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n" % len(body) + END + body
    with connected(port) as one:
        for place in range(0, len(raw), 7):
            one.sendall(raw[place : place + 7])
        assert status_of(heard(one)) == 200


def test_requests_one_after_the_other_keep_their_connection(quick):
    with connected(quick) as one:
        for _ in range(4):
            one.sendall(b"GET /ping HTTP/1.1\r\n" + HOST + b"\r\n")
            assert answered(one) == 200
            time.sleep(0.15)  # together longer than a head may take


def test_after_the_rest_of_a_body_that_was_answered_early_a_connection_may_idle(quick):
    head = b"POST " + URL + b" HTTP/1.1\r\nHost: other.example\r\nContent-Length: 1000\r\n\r\n"
    with connected(quick) as one:
        one.sendall(head)
        assert answered(one) == 403
        one.sendall(b"x" * 1000)
        time.sleep(0.35)  # longer than a head may take, shorter than a connection may idle
        one.sendall(b"GET /ping HTTP/1.1\r\n" + HOST + b"\r\n")
        assert answered(one) == 200
        one.sendall(head + b"x" * 1000)
        assert answered(one) == 403
        assert heard(one) == b""  # and in the end it is closed


# --- broken HTTP

BROKEN = {
    "not http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no version": b"GET /ping\r\n\r\n",
    "unknown version": b"GET /ping HTTP/x\r\n" + HOST + END,
    "no host": b"GET /ping HTTP/1.1\r\n" + END,
    "two hosts": b"GET /ping HTTP/1.1\r\n" + HOST + HOST + END,
    "space before colon": b"GET /ping HTTP/1.1\r\n" + HOST + b"X-A : 1\r\n" + END,
    "line folding of the first header": b"GET /ping HTTP/1.1\r\n X-A: 1\r\n" + HOST + END,
    "null in a header": b"GET /ping HTTP/1.1\r\n" + HOST + b"X-A: a\x00b\r\n" + END,
    "empty header name": b"GET /ping HTTP/1.1\r\n" + HOST + b": 1\r\n" + END,
    "no colon": b"GET /ping HTTP/1.1\r\n" + HOST + b"XA\r\n" + END,
    "space in the target": b"GET /pi ng HTTP/1.1\r\n" + HOST + END,
    "non-ascii target": b"GET /p\xc3\xadng HTTP/1.1\r\n" + HOST + END,
    "non-ascii method": b"G\xc3\x89T /ping HTTP/1.1\r\n" + HOST + END,
    "length not a number": b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b"Content-Length: ten\r\n" + END,
    "negative length": b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n" + END,
    "two lengths": b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n" + END,
    "endless length": b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 500 + b"\r\n" + END,
    "unknown transfer coding": b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n" + END,
    "chunk of no size": b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n" + END + b"xyz\r\n",
    "chunk of negative size": b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n" + END
    + b"-1\r\n",
    "chunk of endless size": b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n" + END
    + b"f" * 40 + b"\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_http_is_refused(port, name):
    answer = say(port, BROKEN[name])
    assert status_of(answer) in (400, 413, 501), answer[:200]
    assert b"nosniff" in answer
    assert is_well(port)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 600_000 + b" HTTP/1.1\r\n" + HOST + END,
        b"GET /ping HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 600_000 + b"\r\n" + END,
        b"GET /ping HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: 1\r\n" % n for n in range(20_000)) + END,
        b"GET /ping HTTP/1.1\r\n" + HOST + b"X: 1\r\n" * 100_000,
    ],
    ids=["address", "header", "many headers", "without end"],
)
def test_a_head_that_is_too_large_is_refused(port, head):
    answer = say(port, head)
    # Whoever goes on sending may see the connection reset before the answer.
    assert status_of(answer) in (0, 431)
    assert is_well(port)


def test_a_head_that_is_just_too_large_is_told_so(port):
    answer = say(port, b"GET /ping HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 65_600)
    assert status_of(answer) == 431
    assert b"application/problem+json" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 431


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET http://127.0.0.1/ping HTTP/1.1\r\n" + HOST + END, 200),
        (b"OPTIONS * HTTP/1.1\r\n" + HOST + END, 404),
        (b"CONNECT other.example:443 HTTP/1.1\r\n" + HOST + END, 400),
        (b"TRACE /ping HTTP/1.1\r\n" + HOST + END, 405),
        (b"GET /ping HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n", 200),
        (b"GET /ping HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\n" + END, 200),
        (b"GET /ping HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_odd_but_valid_http_is_answered(port, raw, status):
    assert status_of(say(port, raw)) == status


def test_a_second_request_cannot_hide_in_the_first(port):
    """Both a length and a chunked body: whichever a proxy in front believes, the connection ends."""
    hidden = b"GET /version HTTP/1.1\r\n" + HOST + b"\r\n"
    raw = b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n" % (len(hidden) + 5)
    answer = say(port, raw + b"Transfer-Encoding: chunked\r\n" + END + b"0\r\n\r\n" + hidden)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b'"tamiz"' not in answer


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_an_offer_of_another_protocol_is_declined_and_the_body_read(port, parts):
    """As Java's client makes it with every request that is not encrypted."""
    body = b'{"text": ["my card"]}'
    raw = b"POST " + URL + b" HTTP/1.1\r\n" + HOST + OFFER + b"Content-Length: %d\r\n\r\n" % len(body) + body
    cuts = {1: [], 2: [len(raw) - len(body)], 3: [30, len(raw) - len(body)]}[parts]
    with connected(port) as one:
        for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            one.sendall(raw[begin:end])
            time.sleep(0.05)
        assert answered(one) == 200


@pytest.mark.parametrize("length", [b"Content-Length: %d\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_after_an_offer_is_never_the_next_request(port, length):
    hidden = b"GET /version HTTP/1.1\r\n" + HOST + b"\r\n"
    head = b"POST " + URL + b" HTTP/1.1\r\n" + HOST
    given = length % len(hidden) if b"%" in length else length
    for cut in (head + b"Connection: Upgrade\r\nUpg", head + b"Connection: Upgrade\r\n"):
        rest = (b"rade" if cut.endswith(b"Upg") else b"Upgrade") + b": h2c\r\n" + given + b"\r\n"
        with connected(port) as one:
            one.settimeout(1)
            one.sendall(cut)
            time.sleep(0.05)
            one.sendall(rest)
            time.sleep(0.05)
            found = b""
            with suppress(OSError):
                one.sendall(hidden)
                while part := one.recv(65536):
                    found += part
        assert b'"tamiz"' not in found
        assert found.count(b"HTTP/1.1 ") <= 1


@pytest.mark.parametrize(("ahead", "most"), [(20, 20), (5000, 100)])
def test_requests_that_are_sent_ahead_are_answered_up_to_a_bound(port, ahead, most):
    answer = say(port, (b"GET /ping HTTP/1.1\r\n" + HOST + b"\r\n") * ahead + b"GET /ping HTTP/1.1\r\n" + HOST + END)
    assert answer.count(b"HTTP/1.1 200") <= most + 1
    assert answer.count(b"HTTP/1.1 200") == ahead + 1 or ahead > most
    assert is_well(port)


def test_a_broken_body_ends_the_request_that_waits_for_it(port):
    head = b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"tex\r\n'
    with connected(port) as one:
        one.sendall(head)
        time.sleep(0.1)  # so that the request is at work when the rest comes
        one.sendall(b"xyz\r\n")
        answer = heard(one)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert status_of(answer) == 400
    assert is_well(port)


def test_an_early_end_of_a_body_is_harmless(port):
    with connected(port) as one:
        one.sendall(b"POST " + URL + b" HTTP/1.1\r\n" + HOST + b'Content-Length: 100\r\n\r\n{"text": [')
    assert is_well(port)

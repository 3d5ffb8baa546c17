"""A real server in a thread, and raw sockets to talk to it in any way that a client may."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp

from tamiz.serving.connections import TimedProtocol

PATIENCE_S = 30.0


@contextmanager
def live(app: ASGIApp, protocol: type[TimedProtocol] = TimedProtocol, **options) -> Iterator[int]:
    """Serve the application, as `tamiz serve` does, and give the port."""
    options = {"log_config": None, "access_log": False, "server_header": False, **options}
    config = uvicorn.Config(app, http=protocol, ws="none", **options)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        ends = time.monotonic() + PATIENCE_S
        while not server.started:
            assert time.monotonic() < ends, "the server did not start"
            time.sleep(0.005)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "the server did not stop"


@contextmanager
def connected(port: int, **about) -> Iterator[socket.socket]:
    """Give a socket that is connected to the server."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S, **about) as one:
        yield one


def say(port: int, raw: bytes) -> bytes:
    """Send bytes and return all that comes until the server closes; ask for that with `Connection: close`."""
    with connected(port) as one:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before it had read everything
            one.sendall(raw)
        return heard(one)


def heard(one: socket.socket) -> bytes:
    """Return all that comes until the server closes, politely or not."""
    parts = []
    with suppress(ConnectionResetError):
        while part := one.recv(65536):
            parts.append(part)
    return b"".join(parts)


def answered(one: socket.socket) -> int:
    """Read one whole answer with a JSON object as its body, and return its status."""
    found = b""
    while not found.endswith(b"}"):
        part = one.recv(65536)
        assert part, found
        found += part
    return status_of(found)


def flood(one: socket.socket, raw: bytes) -> None:
    """Send the bytes again and again until the server breaks off."""
    ends = time.monotonic() + PATIENCE_S
    with suppress(ConnectionError):
        while time.monotonic() < ends:
            one.sendall(raw)
            time.sleep(0.02)
        raise AssertionError("the server went on listening")


def status_of(answer: bytes) -> int:
    """Return the status of the first answer; 0 where there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0

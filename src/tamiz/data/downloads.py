"""Download a file over HTTP so that a broken transfer goes on where it stopped, and note what arrived.

Beside a file `NAME` stands `NAME.json`: its address, SHA-256, length, and what the server called this state of the file
(`ETag`, `Last-Modified`). A file without a known hash is asked for again only if the server has another state of it;
a part is continued only if the file on the server is still the one that it is a part of.
Source: RFC 9110, sections 13 (conditional requests) and 14 (range requests).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from tamiz._files import sha256_of
from tamiz._web import open_url, request_for, without_password
from tamiz.errors import ConfigError, SourceError
from tamiz.types import Progress

__all__ = ["Downloaded", "download"]

_BLOCK_BYTES = 1 << 18
_ATTEMPTS = 5
_RESUMED, _UNCHANGED, _PAST_END = 206, 304, 416
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that lies here whole.

    Attributes:
        path: where.
        url: where it came from, without a password.
        sha256: hash of its bytes, hexadecimal.
        size_bytes: its length.
        etag: the server's name of this state of the file.
        last_modified: when it changed on the server, as the server wrote it.
    """

    path: Path
    url: str
    sha256: str
    size_bytes: int
    etag: str | None = None
    last_modified: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record, without the path on this machine."""
        return {name: value for name, value in asdict(self).items() if name != "path"}


class _BrokenOffError(SourceError):
    """A transfer stopped before its end; the part is kept."""


def download(url: str, path: Path, *, sha256: str | None = None, progress: Progress | None = None) -> Downloaded:
    """Return the file at `path`, downloading it unless the same is there.

    A transfer that breaks off is continued, by this call or, if nothing more arrives, by the next.

    Args:
        url: `http://` or `https://` address.
        path: where the file goes; its folder is made if absent.
        sha256: the hash that it must have; `None` takes what the server has now.
        progress: told how many bytes have arrived.

    Raises:
        ConfigError: `url` is no web address.
        SourceError: the server does not answer or lacks the file, the transfer broke off, or the bytes are not the
            expected ones.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"{without_password(url)!r} is not a web address; allowed: http:// or https://")
    kept = _kept(path, url)
    if sha256 is not None:
        if path.is_file() and (found := sha256_of(path)) == sha256:
            return kept or Downloaded(path, without_password(url), found, path.stat().st_size)
        kept = None
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(path, url, pinned=sha256 is not None)
    state = _complete(part, kept, progress)
    if state is None and kept is not None:
        return kept
    return _placed(part, state or {}, sha256)


def _complete(part: _Part, kept: Downloaded | None, progress: Progress | None) -> dict[str, str | None] | None:
    """Transfer the file, going on after a break as long as bytes arrive; `None`: what is kept is still right."""
    for attempt in range(_ATTEMPTS):
        before = part.size()
        try:
            return part.transfer(kept, progress)
        except _BrokenOffError:
            if attempt + 1 == _ATTEMPTS or part.size() <= before:
                raise
    raise AssertionError("the last attempt returns or raises")


def _placed(part: _Part, state: Mapping[str, str | None], sha256: str | None) -> Downloaded:
    found = sha256_of(part.file)
    if sha256 is not None and found != sha256:
        part.drop()
        raise SourceError(
            f"{part.path.name} from {without_password(part.url)} is not the expected file: its SHA-256 is {found}, "
            f"expected {sha256}. Nothing was kept; run again, or take it from another address with --from"
        )
    done = Downloaded(part.path, without_password(part.url), found, part.size(), **state)
    part.file.replace(part.path)
    _note(part.path).write_text(json.dumps(done.to_dict(), indent=1) + "\n", encoding="utf-8")
    part.drop()
    return done


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_note(path: Path, url: str) -> dict[str, Any] | None:
    """Return what is noted about a file, if it came from this address."""
    try:
        found = json.loads(_note(path).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("url") == without_password(url) else None


def _kept(path: Path, url: str) -> Downloaded | None:
    """Return the file of an earlier download, if it is whole."""
    note = _read_note(path, url)
    if note is None or not path.is_file():
        return None
    if path.stat().st_size != note.get("size_bytes") or sha256_of(path) != note.get("sha256"):
        return None
    known = {name: note.get(name) for name in ("etag", "last_modified")}
    return Downloaded(path, note["url"], note["sha256"], note["size_bytes"], **known)


def _open(url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    request = request_for(url, {"Accept-Encoding": "identity", **headers})
    return open_url(request, ssl.create_default_context(), advice=". Another address: --from URL")


class _Part:
    """The bytes that have arrived, and a note of the state of the file that they are of."""

    def __init__(self, path: Path, url: str, *, pinned: bool) -> None:
        self.path, self.url, self._pinned = path, url, pinned
        self.file = path.with_name(f"{path.name}.part")

    def size(self) -> int:
        """Return how many bytes have arrived."""
        return self.file.stat().st_size if self.file.exists() else 0

    def drop(self) -> None:
        """Delete the part and its note."""
        self.file.unlink(missing_ok=True)
        _note(self.file).unlink(missing_ok=True)

    def transfer(self, kept: Downloaded | None, progress: Progress | None) -> dict[str, str | None] | None:
        """Fetch what is missing and return how the server calls this state; `None`: `kept` is the newest."""
        headers = self._resuming() or _unless(kept)
        try:
            with _open(self.url, headers) as answer:
                return self._receive(answer, progress)
        except HTTPError as error:
            if error.code == _UNCHANGED:
                return None
            if error.code == _PAST_END:
                if self._is_whole(error.headers):
                    note = _read_note(self.file, self.url) or {}
                    return {name: note.get(name) for name in ("etag", "last_modified")}
                self.drop()  # what lay there was of another file
                return self.transfer(kept, progress)
            raise SourceError(f"{without_password(self.url)} answered {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(self.size(), 0) from error

    def _is_whole(self, headers: Message) -> bool:
        """Tell whether all bytes of the same state have arrived, and the rest of the work was cut off."""
        note = _read_note(self.file, self.url) or {}
        same = self._pinned or (note.get("etag") is not None and headers.get("ETag", note["etag"]) == note["etag"])
        return bool(same and headers.get("Content-Range", "") == f"bytes */{self.size()}")

    def _resuming(self) -> dict[str, str]:
        """Return headers that ask for the rest, if the file is still the one that the part is of."""
        note = _read_note(self.file, self.url) or {}
        have, etag = self.size(), note.get("etag")
        # Only a strong tag promises the same bytes.
        validator = etag if etag and not etag.startswith("W/") else note.get("last_modified")
        if not have or not (validator or (note and self._pinned)):
            return {}
        return {"Range": f"bytes={have}-", **({"If-Range": validator} if validator else {})}

    def _receive(self, answer: http.client.HTTPResponse, progress: Progress | None) -> dict[str, str | None]:
        state = {"etag": answer.headers.get("ETag"), "last_modified": answer.headers.get("Last-Modified")}
        start, total = 0, int(answer.headers.get("Content-Length") or 0)
        if answer.status == _RESUMED:
            found = _RANGE.fullmatch(answer.headers.get("Content-Range") or "")
            if found is None or int(found.group(1)) != self.size():
                self.drop()
                raise SourceError(
                    f"{without_password(self.url)} sent another part than was asked for. Run again to start anew"
                )
            start, total = map(int, found.groups())
        else:
            self.drop()
            noted = json.dumps({"url": without_password(self.url), **state})
            _note(self.file).write_text(noted, encoding="utf-8")
        done = start
        with self.file.open("ab") as out:
            while block := answer.read(_BLOCK_BYTES):
                out.write(block)
                done += len(block)
                if progress:
                    progress(f"download {self.path.name}", done, total)
            out.flush()
            os.fsync(out.fileno())
        if done < total:
            raise self._broken(done, total)
        return state

    def _broken(self, done: int, total: int) -> _BrokenOffError:
        of = f" of {total}" if total else ""
        return _BrokenOffError(
            f"the download of {self.path.name} broke off after {done}{of} bytes. Run again to continue it"
        )


def _unless(kept: Downloaded | None) -> dict[str, str]:
    """Return headers that ask for the file only if it is not the one that is kept."""
    if kept is None:
        return {}
    if kept.etag:
        return {"If-None-Match": kept.etag}
    return {"If-Modified-Since": kept.last_modified} if kept.last_modified else {}

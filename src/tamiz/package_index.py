"""Get one pinned file of a package from the package index that pip is set up to use, without installing anything.

No index is named here: its address is the caller's, else that of pip's settings, else pip's own default. The index
may answer in the JSON form of the simple interface or in HTML.
Source: packaging.python.org, "Simple repository API" (PEP 503, PEP 691).
"""

from __future__ import annotations

import ast
import http.client
import json
import os
import ssl
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from tamiz._files import sha256_of
from tamiz._web import TIMEOUT_S, open_url, request_for, without_password
from tamiz.errors import ConfigError, SourceError
from tamiz.types import Progress

__all__ = ["PackageFile", "fetch"]

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_BLOCK_BYTES = 1 << 16
_MAX_PAGE_BYTES = 1 << 25
_HTTP_RESUMED = 206
_HTTP_RANGE_PAST_END = 416


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A file of a release, pinned by its content.

    Attributes:
        project: normalised name of the package.
        filename: name of the file in the index.
        sha256: hash of its bytes, hexadecimal.
        size_bytes: its length.
    """

    project: str
    filename: str
    sha256: str
    size_bytes: int


def fetch(file: PackageFile, folder: Path, *, index_url: str | None = None, progress: Progress | None = None) -> Path:
    """Return the verified file in `folder`, downloading it unless it is there.

    An interrupted download is continued by the next call.

    Args:
        file: what to get.
        folder: where it is kept; made if absent.
        index_url: address of the simple index; by default the one pip uses.
        progress: told how many bytes have arrived.

    Raises:
        ConfigError: no index address is given and pip, which would know one, is not installed; or it is no web address.
        SourceError: the index does not answer or lacks the file, or the bytes are not the pinned ones.
    """
    target = folder / file.filename
    if target.is_file() and sha256_of(target) == file.sha256:
        return target
    settings = _pip_settings()
    web = _Web(_setting(settings, "cert"))
    base = index_url or _setting(settings, "index-url") or _pip_default()
    if urlsplit(base).scheme not in ("http", "https"):
        raise ConfigError(f"index-url: {without_password(base)} is not a web address; allowed: http:// or https://")
    url = _file_url(web, f"{base.rstrip('/')}/{file.project}/", file)
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    resumed = part.exists()
    found = _transfer(web, url, part, file, progress)
    if found != file.sha256 and resumed:  # what lay there was of another file: take it all anew
        part.unlink()
        found = _transfer(web, url, part, file, progress)
    if found != file.sha256:
        part.unlink()
        raise SourceError(
            f"{file.filename} from {without_password(url)} is not the expected file: its SHA-256 is {found}, "
            f"expected {file.sha256}. Nothing was kept; try another index with --index-url"
        )
    os.replace(part, target)  # noqa: PTH105 - the atomic call, by its name
    return target


# --- what pip knows


def _pip_settings() -> dict[str, str]:
    """Return pip's settings, such as `global.cert`; empty without pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return {}
    settings = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        key, found, value = line.partition("=")
        if found:
            try:
                settings[key.strip()] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue
    return settings


def _setting(settings: dict[str, str], name: str) -> str | None:
    """Look a setting up where `pip install` would: environment, then its own section, then the global one."""
    found = (settings.get(f"{section}.{name}") for section in (":env:", "install", "global"))
    return next(filter(None, found), None)


def _pip_default() -> str:
    try:
        from pip._internal.models.index import PyPI

        return str(PyPI.simple_url)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "no package index is known: pip is not installed in this environment, or has changed. "
            "State the address of a simple index with --index-url, or install pip with: python -m ensurepip"
        ) from error


# --- the web


class _Web:
    """Opens addresses, trusting the certificates that pip is told to trust, or the system's."""

    def __init__(self, cert: str | None) -> None:
        try:
            folder = cert if cert and Path(cert).is_dir() else None
            self._context = ssl.create_default_context(cafile=None if folder else cert, capath=folder)
        except OSError as error:
            raise ConfigError(f"pip's setting `cert` names {cert}, which holds no certificates. Correct it") from error

    def open(self, url: str, **headers: str) -> http.client.HTTPResponse:
        """Send a GET request; a name and password in the address go to its own host only, not where it redirects."""
        return open_url(request_for(url, headers), self._context)


class _Links(HTMLParser):
    """Collects the addresses of the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links and the page's base address."""
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.links.append(href)
        elif href and tag == "base":
            self.base = href


def _file_url(web: _Web, page_url: str, file: PackageFile) -> str:
    """Find the address of the file on the page of its project."""
    try:
        with web.open(page_url, Accept=_ACCEPT) as answer:
            kind = answer.headers.get_content_type()
            content = answer.read(_MAX_PAGE_BYTES)
            place = answer.url
    except HTTPError as error:
        raise SourceError(
            f"the package index at {without_password(page_url)} answered {error.code} {error.reason}. "
            "Is it the address of a simple index? State another one with --index-url"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise SourceError(f"{without_password(page_url)} cannot be read: {error}") from error
    url = next((link for name, link in _links(kind, content, page_url) if name == file.filename.lower()), None)
    if url is None:
        raise SourceError(
            f"the package index at {without_password(page_url)} does not list {file.filename}. "
            "State another index with --index-url"
        )
    absolute = urljoin(place, url)
    own, other = urlsplit(page_url), urlsplit(absolute)
    if own.username is not None and other.netloc == own.netloc.rpartition("@")[2]:
        absolute = urlunsplit(other._replace(netloc=own.netloc))
    if other.scheme not in ("http", "https"):
        raise SourceError(f"the package index links {file.filename} at {absolute}, which is not a web address")
    return absolute


def _links(kind: str, content: bytes, page_url: str) -> list[tuple[str, str]]:
    """Return file names in lower case and their addresses, as the page gives them."""
    if kind.endswith("json"):
        try:
            files: list[dict[str, Any]] = json.loads(content)["files"]
            return [(str(file["filename"]).lower(), str(file["url"])) for file in files]
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{without_password(page_url)} is not the JSON page of a simple index") from error
    parser = _Links()
    parser.feed(content.decode("utf-8", "replace"))
    return [(_name(link), urljoin(parser.base, link) if parser.base else link) for link in parser.links]


def _name(link: str) -> str:
    return unquote(urlsplit(link).path.rpartition("/")[2]).lower()


def _transfer(web: _Web, url: str, part: Path, file: PackageFile, progress: Progress | None) -> str:
    """Add the missing bytes to `part`, make them durable, and return the SHA-256 of the whole."""
    have = part.stat().st_size if part.exists() else 0
    if have < file.size_bytes:
        try:
            with web.open(url, **({"Range": f"bytes={have}-"} if have else {})) as answer:
                _receive(answer, part, have if answer.status == _HTTP_RESUMED else 0, file, progress)
        except HTTPError as error:
            if error.code == _HTTP_RANGE_PAST_END:
                return ""
            raise SourceError(f"{without_password(url)} answered {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(
                f"the download of {file.filename} broke off: {type(error).__name__}. Run again to continue it"
            ) from error
    return sha256_of(part)


def _receive(
    answer: http.client.HTTPResponse, part: Path, start: int, file: PackageFile, progress: Progress | None
) -> None:
    done = start
    with part.open("ab" if start else "wb") as out:
        while done <= file.size_bytes and (block := answer.read(_BLOCK_BYTES)):
            out.write(block)
            done += len(block)
            if progress:
                progress(f"download {file.filename}", done, file.size_bytes)
        out.flush()
        os.fsync(out.fileno())
    expected = answer.headers.get("Content-Length")
    if done < file.size_bytes and expected and done < start + int(expected):
        raise SourceError(
            f"the download of {file.filename} broke off after {done} of {file.size_bytes} bytes. "
            "Run again to continue it"
        )

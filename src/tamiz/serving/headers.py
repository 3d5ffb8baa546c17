"""Headers: those that every answer carries, pages of other sites that may call, and bodies in forms that are refused.

Cross-origin calls are refused by browsers unless `serve.cors_origins` names the page's site. Bodies that are compressed
are refused unread: a few kilobytes of them may unpack to gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tamiz.serving.problems import UnsupportedMediaError

__all__ = ["SECURITY_HEADERS", "RefuseEncoded", "check_json_type", "cors"]

SECURITY_HEADERS: dict[bytes, bytes] = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-frame-options": b"DENY",
}

ALLOWED_HEADERS = ("Authorization", "Content-Type", "X-API-Key", "X-Request-ID")
EXPOSED_HEADERS = ("Retry-After", "X-Request-ID")
PREFLIGHT_S = 600

# `curl -d` calls any body a form. Reading that one as JSON harms nobody: pages of other sites are told by their origin.
JSON_TYPES = ("application/json", "application/x-www-form-urlencoded")


def cors(origins: Sequence[str]) -> list[Middleware]:
    """Return the outermost layer, which lets pages of these sites call; none where no site may.

    Keys travel in a header that a page must set itself, never in cookies, so that credentials are not allowed.
    """
    if not origins:
        return []
    layer = Middleware(
        _Cors,
        allow_origins=tuple(origins),
        allow_methods=("GET", "POST"),
        allow_headers=ALLOWED_HEADERS,
        expose_headers=EXPOSED_HEADERS,
        max_age=PREFLIGHT_S,
    )
    return [layer]


class _Cors(CORSMiddleware):
    """Starlette's, whose own answers to a browser's question before a call carry the security headers too."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        for name, value in SECURITY_HEADERS.items():
            response.headers[name.decode("ascii")] = value.decode("ascii")
        return response


class RefuseEncoded:
    """Middleware that refuses bodies with a content coding, such as gzip."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on unless its body is encoded."""
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            _check_coding(scope["headers"])
        await self.app(scope, receive, send)


def _check_coding(headers: Iterable[tuple[bytes, bytes]]) -> None:
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMediaError(
                "Bodies with a Content-Encoding are not read; send the body as it is.", {"Accept-Encoding": "identity"}
            )


def check_json_type(headers: Headers) -> None:
    """Refuse a body that is said to be something else than JSON; one that is said to be nothing passes.

    Raises:
        UnsupportedMediaError: the content type is another one, or its charset is not UTF-8.
    """
    given = headers.get("content-type")
    if given is None or given == JSON_TYPES[0]:
        return
    kind, _, about = given.lower().partition(";")
    kind, about = kind.strip(), about.replace(" ", "").replace('"', "")
    is_json = kind in JSON_TYPES or (kind.startswith("application/") and kind.endswith("+json"))
    charset = about.partition("charset=")[2].partition(";")[0]
    if not is_json or charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaError(
            "The body must be JSON in UTF-8: send it with Content-Type: application/json.",
            {"Accept-Post": "application/json"},
        )

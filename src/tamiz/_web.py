"""What all downloads share: addresses that are shown without a password, and opening one."""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Mapping
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from tamiz.errors import SourceError

__all__ = ["TIMEOUT_S", "open_url", "request_for", "without_password"]

TIMEOUT_S = 60.0


def without_password(url: str) -> str:
    """Return an address without the name and password that may stand in it.

    Example:
        >>> without_password("https://me:secret@example.org/a")
        'https://example.org/a'
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def request_for(url: str, headers: Mapping[str, str]) -> Request:
    """Return a GET request; a name and password in the address go to its own host only, not where it redirects.

    Args:
        url: an `http://` or `https://` address.
        headers: further headers.
    """
    request = Request(without_password(url), headers={"User-Agent": "tamiz", **headers})  # noqa: S310 - checked
    parts = urlsplit(url)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    return request


def open_url(request: Request, context: ssl.SSLContext, *, advice: str = "") -> http.client.HTTPResponse:
    """Send a request and return the answer, of which nothing has been read.

    Args:
        request: to an `http://` or `https://` address without a password.
        context: whose certificates are trusted.
        advice: what to do where nobody answers, after the reason.

    Raises:
        HTTPError: the server refuses; it is closed already.
        SourceError: it cannot be reached.
    """
    try:
        answer: http.client.HTTPResponse = urlopen(request, timeout=TIMEOUT_S, context=context)  # noqa: S310 - checked
    except HTTPError as error:
        error.close()
        raise
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise SourceError(f"{request.full_url} cannot be reached: {reason}{advice}") from error
    return answer

"""Who may call: the open paths, the ways to authenticate, and the middleware that applies them.

Everything that is not listed in `OPEN_PATHS` needs a caller. Roles: `predict` may ask, `admin` may also change what is
served. With `platform` the platform lets callers in, and says nothing of their role: they may ask, not change.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from tamiz.errors import ConfigError, ForbiddenError, UnauthorizedError
from tamiz.serving.keys import KeyRing, Role

__all__ = [
    "OPEN_PATHS",
    "Auth",
    "Authenticate",
    "Caller",
    "KeyAuth",
    "NoAuth",
    "PlatformAuth",
    "check_host",
    "is_open",
    "require_admin",
]

OPEN_PATHS = frozenset({"/ping", "/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
"""Paths that answer anybody's GET. Add one here only if it tells nothing about models, texts or settings."""

AuthName = Literal["none", "platform", "keys"]
Headers = Iterable[tuple[bytes, bytes]]
CALLER = "tamiz.caller"


class Caller(NamedTuple):
    """Who is asking: a key's id, or the name of the way in."""

    id: str
    role: Role


class Auth(Protocol):
    """A way to tell who is asking."""

    @property
    def name(self) -> AuthName:
        """Name of the way, as on the command line."""

    def identify(self, headers: Headers) -> Caller:
        """Return who sent these headers.

        Raises:
            UnauthorizedError: nobody that is known.
            ForbiddenError: the request must not be answered at all.
        """


@dataclass(frozen=True)
class NoAuth:
    """Everybody on this machine may do everything.

    A web page in a local browser is not somebody on this machine: requests that name another host, as after DNS
    rebinding, or that come from another site's page, are refused.
    """

    name: AuthName = "none"

    def identify(self, headers: Headers) -> Caller:
        """Accept any request that names this machine by a loopback name."""
        for name, value in headers:
            if name == b"host" and not _names_loopback(value):
                raise ForbiddenError(
                    "Without authentication this server answers only to localhost, 127.0.0.1 and [::1]; "
                    "start it with --auth keys to serve under another name."
                )
            if name == b"origin" and not _names_loopback(value.partition(b"://")[2]):
                raise ForbiddenError("Without authentication this server does not answer pages of other sites.")
        return _LOCAL


_LOCAL = Caller("local", "admin")
_PLATFORM = Caller("platform", "predict")


@dataclass(frozen=True)
class PlatformAuth:
    """The platform in front (API Gateway, SageMaker) has checked the caller."""

    name: AuthName = "platform"

    def identify(self, headers: Headers) -> Caller:
        """Accept any request, for predictions only."""
        return _PLATFORM


@dataclass(frozen=True)
class KeyAuth:
    """Callers show an API key: `Authorization: Bearer tz_...` or `X-API-Key: tz_...`."""

    ring: KeyRing
    name: AuthName = "keys"

    def identify(self, headers: Headers) -> Caller:
        """Look the key up."""
        shown = ""
        for name, value in headers:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                shown = value[7:].strip().decode("latin-1")
                break
            if name == b"x-api-key":
                shown = value.strip().decode("latin-1")
        if not shown:
            raise UnauthorizedError("Send an API key as `Authorization: Bearer tz_...` or `X-API-Key: tz_...`.")
        key = self.ring.check(shown)
        if key is None:
            raise UnauthorizedError("The API key is unknown, revoked or expired; ask for another one.")
        return Caller(key.id, key.role)


@lru_cache(maxsize=16)  # clients say the same at each request
def _names_loopback(value: bytes) -> bool:
    return _is_loopback(_host_of(value))


def _host_of(value: bytes) -> str:
    host = value.decode("latin-1").strip()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(auth: AuthName, host: str) -> None:
    """Refuse to listen to a network without authentication.

    Raises:
        ConfigError: `auth` is `none` and `host` is not a loopback address.
    """
    if auth == "none" and not _is_loopback(host):
        raise ConfigError(
            f"serve: host {host!r} is reachable by others, and auth 'none' lets everybody in. "
            "Use --host 127.0.0.1, or --auth keys (create one with: tamiz keys create)"
        )


def is_open(method: str, path: str) -> bool:
    """Tell whether anybody may make this call."""
    return path in OPEN_PATHS and method in ("GET", "HEAD")


def require_admin(request: Request) -> Caller:
    """Return the caller of an administrative route.

    Raises:
        ForbiddenError: the caller may only ask for predictions.
    """
    caller: Caller = request.scope[CALLER]
    if caller.role != "admin":
        raise ForbiddenError("This call changes what is served and needs a key with the role 'admin'.")
    return caller


class Authenticate:
    """Middleware that lets only known callers through, except to the open paths."""

    def __init__(self, app: ASGIApp, auth: Auth) -> None:
        self.app = app
        self.auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the caller in the scope, or refuse."""
        if scope["type"] == "http" and not is_open(scope["method"], scope["path"]):
            scope[CALLER] = self.auth.identify(scope["headers"])
        await self.app(scope, receive, send)

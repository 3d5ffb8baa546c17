"""What a request may cost: bytes, texts, characters, and requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tamiz.config import ServeConfig
from tamiz.errors import OverloadedError, TooLargeError
from tamiz.serving.auth import is_open
from tamiz.serving.batching import WorkLine
from tamiz.serving.problems import NotReadyError, SlowBodyError

__all__ = ["Gate", "LimitBody", "LimitConcurrency", "check_count", "check_texts"]

BODY_TIMEOUT_S = 30.0
MOST_DIGITS = 18


def check_texts(texts: Sequence[str], limits: ServeConfig) -> None:
    """Refuse too many texts, or one that is too long.

    Raises:
        TooLargeError: a limit is passed; the message names it and the text's place, not the text.
    """
    check_count(len(texts), limits)
    longest = limits.max_characters
    for place, text in enumerate(texts):
        if len(text) > longest:
            raise TooLargeError(f"Text {place} has {len(text)} characters; at most {longest} are allowed.")


def check_count(texts: int, limits: ServeConfig) -> None:
    """Refuse too many texts.

    Raises:
        TooLargeError: there are more than one request may have.
    """
    if texts > limits.max_texts:
        raise TooLargeError(f"{texts} texts in one request; at most {limits.max_texts} are allowed.")


@dataclass
class Gate:
    """Who is let in.

    Attributes:
        most: requests at once.
        at_work: requests under way.
        draining: the server has been told to stop; clients are asked to close their connections.
        closed: nobody is let in any more.
    """

    most: int
    at_work: int = 0
    draining: bool = False
    closed: bool = False

    def check(self) -> None:
        """Refuse where there is no room.

        Raises:
            OverloadedError: enough is under way.
            NotReadyError: the server is about to stop.
        """
        if self.closed:
            raise NotReadyError("This server is about to stop; try again, which will find another one.")
        if self.at_work >= self.most:
            raise OverloadedError(f"{self.most} requests are at work already; try again in a moment.")


class LimitConcurrency:
    """Middleware that refuses work when enough is under way, rather than let it wait without bound.

    The open paths are exempt: a busy server is still alive.
    """

    def __init__(self, app: ASGIApp, gate: Gate, line: WorkLine) -> None:
        self.app = app
        self.gate = gate
        self.line = line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if there is room."""
        if scope["type"] != "http" or is_open(scope["method"], scope["path"]):
            await self.app(scope, receive, send)
            return
        gate = self.gate
        gate.check()
        if self.line.overloaded and self.line.refuses(_claimed_bytes(scope)):
            raise OverloadedError("There is more work than this server can do in time; try again in a moment.")
        gate.at_work += 1
        try:
            await self.app(scope, receive, send)
        finally:
            gate.at_work -= 1


def _claimed_bytes(scope: Scope) -> int:
    """Return what `Content-Length` claims; 0 without one."""
    for name, value in scope["headers"]:
        if name == b"content-length" and len(value) <= MOST_DIGITS and value.isdigit():
            return int(value)
    return 0


class LimitBody:
    """Middleware that reads the body, counting as it comes, and hands it on in one piece.

    What `Content-Length` claims is believed only when it is too much: bytes are counted in any case.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, line: WorkLine, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self.app = app
        self.most_bytes = most_bytes
        self.line = line
        self.timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body read."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        self._check_claim(scope)
        try:
            async with asyncio.timeout(self.timeout_s):
                body = await self._read(receive)
        except TimeoutError as error:
            raise SlowBodyError(f"The body did not arrive within {self.timeout_s:g} s.") from error
        if body is None:
            return  # the client has gone
        whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def replay() -> Message:
            nonlocal whole
            if whole is None:
                return await receive()
            message, whole = whole, None
            return message

        # Neither a client that sends slowly nor one that reads slowly is counted, for they would keep others out.
        leave = self.line.enter(len(body))
        if leave is None:
            await self.app(scope, replay, send)
            return

        async def send_on(message: Message) -> None:
            leave()
            await send(message)

        try:
            await self.app(scope, replay, send_on)
        finally:
            leave()

    def _check_claim(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            # Python refuses to read numbers of thousands of digits: the length alone says that they are too large.
            if name == b"content-length" and (len(value) > MOST_DIGITS or int(value) > self.most_bytes):
                raise self._too_large()

    async def _read(self, receive: Receive) -> bytes | None:
        parts: list[bytes] = []
        size_bytes = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size_bytes += len(part)
            if size_bytes > self.most_bytes:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"The body has more than {self.most_bytes} bytes, the most that is allowed.")

"""The end of a server process, in steps, so that no request is lost.

Told to stop by SIGTERM, it says at once that it is not ready and asks clients to close their connections, and goes on
answering while load balancers turn away. Then newcomers are answered 503, and a moment later the web server is told,
which closes its socket and answers what is under way.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from tamiz.serving.limits import Gate
from tamiz.serving.served import Models

__all__ = ["Ending"]

REFUSING_S = 0.3


class Ending:
    """Stands before the web server's own handling of signals.

    Args:
        models: told that the end has begun.
        gate: told to ask clients to go, then to let nobody in.
        drain_s: seconds to go on answering.
    """

    def __init__(self, models: Models, gate: Gate, drain_s: float) -> None:
        self._models = models
        self._gate = gate
        self._drain_s = drain_s
        self._next: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun = False

    def listen(self) -> None:
        """Take the signals over from a web server that handles them; without one nothing is done."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                self._next[number] = handler
                signal.signal(number, self._told)

    def _told(self, number: int, frame: FrameType | None) -> None:
        """Begin the end; told by Ctrl-C, do not wait.

        SIGTERM often comes twice: systemd, for one, sends it to all processes, and then their parent sends it too.
        """
        self._models.drain()
        self._gate.draining = True
        begun, self._begun = self._begun, True
        if number == signal.SIGINT or not self._drain_s or self._loop is None:
            self._next[number](number, frame)
        elif not begun:
            self._loop.call_soon_threadsafe(self._wind_down, number)

    def _wind_down(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(self._drain_s, self._close)
        loop.call_later(self._drain_s + REFUSING_S, self._next[number], number, None)

    def _close(self) -> None:
        self._gate.closed = True

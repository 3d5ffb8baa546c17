"""How often a caller may ask: a bucket of tokens for each, filled at a steady rate.

Worker processes share the buckets: each is a small file in a folder of theirs, read and written under its lock. Their
clock is one, since the operating system's steady clock is the machine's.
"""

from __future__ import annotations

import hashlib
import math
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from tamiz._files import holding
from tamiz.serving.auth import CALLER, Caller
from tamiz.serving.problems import RateError

__all__ = ["LimitRate", "Rates"]


POLL_S = 0.0005
BUCKET = struct.Struct("<dd")  # requests left, when that was


@dataclass
class Rates:
    """What each caller may still ask.

    A caller that has been silent for a minute may send `per_minute` requests at once, and from then on as many as fall
    due.

    Attributes:
        per_minute: requests a minute.
        clock: gives seconds that never run back.
        folder: where the processes that count together keep the buckets; `None`: this one counts alone.
    """

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    folder: Path | None = None
    _left: dict[str, tuple[float, float]] = field(default_factory=dict, init=False)

    def take(self, who: str) -> float:
        """Count one request; return 0, or the seconds to wait where there is none left."""
        if self.folder is not None:
            with suppress(OSError):  # the folder has gone, or its disk is full: count alone
                return self._take_shared(self.folder, who)
        self._left[who], wait_s = self._taken(self._left.get(who))
        return wait_s

    def _take_shared(self, folder: Path, who: str) -> float:
        path = folder / f"rate-{hashlib.sha256(who.encode()).hexdigest()[:32]}"
        with holding(path, poll_s=POLL_S):
            kept = path.read_bytes()
            bucket, wait_s = self._taken(BUCKET.unpack(kept) if len(kept) == BUCKET.size else None)
            path.write_bytes(BUCKET.pack(*bucket))
        return wait_s

    def _taken(self, bucket: tuple[float, ...] | None) -> tuple[tuple[float, float], float]:
        """Return a bucket after a request, and the seconds to wait."""
        most, now_s, per_s = float(self.per_minute), self.clock(), self.per_minute / 60
        left, seen_s = bucket or (most, now_s)
        left = min(most, left + (now_s - seen_s) * per_s)
        return ((left, now_s), (1 - left) / per_s) if left < 1 else ((left - 1, now_s), 0.0)


class LimitRate:
    """Middleware that refuses callers who ask more often than they may; the open paths are not counted.

    A caller is an API key. Without keys all callers are one.
    """

    def __init__(self, app: ASGIApp, rates: Rates) -> None:
        self.app = app
        self.rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if the caller may ask now."""
        caller: Caller | None = scope.get(CALLER)
        if caller is not None and (wait_s := self.rates.take(caller.id)):
            raise RateError(
                f"More than {self.rates.per_minute} requests a minute; try again in {math.ceil(wait_s)} s.",
                {"Retry-After": str(math.ceil(wait_s))},
            )
        await self.app(scope, receive, send)

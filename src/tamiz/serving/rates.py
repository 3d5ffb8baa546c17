"""How often a caller may ask: a bucket of tokens for each, filled at a steady rate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from tamiz.serving.auth import CALLER, Caller
from tamiz.serving.problems import RateError

__all__ = ["LimitRate", "Rates"]


@dataclass
class Rates:
    """What each caller may still ask.

    A caller that has been silent for a minute may send `per_minute` requests at once, and from then on as many as fall
    due. Counted in this process alone.

    Attributes:
        per_minute: requests a minute.
        clock: gives seconds that never run back.
    """

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _left: dict[str, tuple[float, float]] = field(default_factory=dict, init=False)

    def take(self, who: str) -> float:
        """Count one request; return 0, or the seconds to wait where there is none left."""
        now_s, per_s = self.clock(), self.per_minute / 60
        left, seen_s = self._left.get(who, (float(self.per_minute), now_s))
        left = min(float(self.per_minute), left + (now_s - seen_s) * per_s)
        if left < 1:
            self._left[who] = (left, now_s)
            return (1 - left) / per_s
        self._left[who] = (left - 1, now_s)
        return 0.0


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

"""The request that a task answers, for what is called deep below the door: its name, and whether its client is there.

Doors hand texts on without the request they came with; a context variable costs the fast path less than a parameter
through every door would cost in code.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.types import Receive

__all__ = ["CURRENT", "Current"]


@dataclass(slots=True)
class Current:
    """A request under way.

    Attributes:
        request_id: its identifier, as in the answer's header and the log.
        receive: the server's own `receive`; once the body has been read, it gives the end of the connection.
        ends_s: when its time is up, on the clock of `time.monotonic`; `None` while it has not waited for anything.
    """

    request_id: str
    receive: Receive
    ends_s: float | None = None

    def left_s(self, allowed_s: float) -> float:
        """Return the seconds that are left of those allowed to the request as a whole, from its first wait on."""
        if self.ends_s is None:
            self.ends_s = time.monotonic() + allowed_s
        return max(0.0, self.ends_s - time.monotonic())

    async def gone(self) -> None:
        """Return when the client has gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


CURRENT: ContextVar[Current | None] = ContextVar("tamiz_current_request", default=None)
"""The request under way in this task; `None` outside of requests."""

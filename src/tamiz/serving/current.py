"""The request that a task answers, for what is called deep below the door: its name, and whether its client is there.

Doors hand texts on without the request they came with; a context variable costs the fast path less than a parameter
through every door would cost in code.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from starlette.types import Receive

__all__ = ["CURRENT", "Current"]


class Current(NamedTuple):
    """A request under way.

    Attributes:
        request_id: its identifier, as in the answer's header and the log.
        receive: the server's own `receive`; once the body has been read, it gives the end of the connection.
    """

    request_id: str
    receive: Receive

    async def gone(self) -> None:
        """Return when the client has gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


CURRENT: ContextVar[Current | None] = ContextVar("tamiz_current_request", default=None)
"""The request under way in this task; `None` outside of requests."""

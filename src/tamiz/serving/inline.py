"""What is quick enough to be done on the event loop, and where else the rest is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread

__all__ = ["MOST_INLINE_BYTES", "MOST_INLINE_TEXTS", "beside"]

Result = TypeVar("Result")

MOST_INLINE_BYTES = 65_536
"""Of a body that is read on the event loop."""
MOST_INLINE_TEXTS = 100
"""Whose answers are counted or written on the event loop."""


async def beside(is_large: bool, work: Callable[..., Result], *about: object) -> Result:
    """Do the work here, or in a thread if it is so large that the event loop, and all refusals, would wait for it."""
    return await anyio.to_thread.run_sync(work, *about) if is_large else work(*about)

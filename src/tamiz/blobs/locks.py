"""What a lock says of its holder, and the error that tells the others."""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Self

from tamiz.errors import BusyError

__all__ = ["LockRecord", "busy"]


@dataclass(frozen=True, slots=True)
class LockRecord:
    """What a lock says of its holder.

    Attributes:
        owner: as given to `lock`.
        host: machine of the holder.
        pid: process of the holder.
        since: when the lock was taken, UTC, ISO 8601.
        token: distinguishes two holds by the same owner.
        expires_at: seconds since 1970 after which others may take the lock (S3 only).
    """

    owner: str
    host: str
    pid: int
    since: str
    token: str
    expires_at: float = 0.0

    @classmethod
    def new(cls, owner: str) -> Self:
        """Describe this process as holder from now on."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(owner, socket.gethostname(), os.getpid(), now, secrets.token_hex(8))

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """Read what `to_bytes` wrote, or return None where it is something else."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return None

    def to_bytes(self) -> bytes:
        """Return the record as JSON."""
        return json.dumps(asdict(self)).encode()


def busy(what: str, holder: LockRecord | None, *, expires: bool = False) -> BusyError:
    """Build the error for a lock that somebody else holds."""
    if holder is None:
        return BusyError(f"{what} is held by another process; wait until it ends and try again")
    until = ""
    if expires:
        at = datetime.fromtimestamp(holder.expires_at, UTC).isoformat(timespec="seconds")
        until = f" If that process is gone, the lock is free after {at}."
    return BusyError(
        f"{what} is held by {holder.owner!r} (process {holder.pid} on {holder.host}) since {holder.since}; "
        f"wait until it ends and try again.{until}"
    )

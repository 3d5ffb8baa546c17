"""Small object storage over a local folder or an `s3://` address, with compare-and-swap and locks.

Both kinds keep what is their own (locks, unfinished files) under `.tamiz/`, which `list` does not show.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from tamiz._files import Blob, check_key
from tamiz.errors import ConfigError

__all__ = ["Blob", "Blobs", "Lease", "open_blobs"]

_S3_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")


class Lease(Protocol):
    """A lock that is held."""

    def check(self) -> None:
        """Raise when the lock was lost meanwhile.

        Raises:
            ConflictError: it expired (a stopped machine, no network) and somebody else took it.
            StoreError: the storage cannot be reached.
        """


class Blobs(Protocol):
    """Objects by key: relative paths with `/` between their parts.

    All methods raise `StoreError` with place and key when the key is not a plain relative path or the storage refuses.
    """

    place: str

    def read(self, key: str) -> Blob:
        """Return bytes and tag of an object.

        Raises:
            KeyError: there is none.
        """

    def etag(self, key: str) -> str:
        """Return the tag alone; it changes when the bytes do.

        Raises:
            KeyError: there is no such object.
        """

    def write(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        """Write an object whole or not at all and return its tag.

        Args:
            key: where.
            data: what.
            if_match: write only over the object that has this tag.
            if_absent: write only where no object is.

        Raises:
            ConflictError: the condition does not hold (any more).
        """

    def exists(self, key: str) -> bool:
        """Tell whether there is an object with exactly this key."""

    def folders(self, prefix: str = "") -> list[str]:
        """Return the names of the folders directly in the folder `prefix`, sorted."""

    def list(self, prefix: str = "") -> list[str]:
        """Return the keys in the folder `prefix` and below, sorted; `""` is everything."""

    def delete(self, key: str) -> None:
        """Delete an object; none there is no error."""

    def upload(self, folder: Path, prefix: str, *, skip: Collection[str] = ()) -> None:
        """Copy every file of a local folder to `prefix`, except those relative names in `skip`; links are refused."""

    def download(self, prefix: str, folder: Path) -> None:
        """Copy every object in the folder `prefix` and below into a local folder."""

    def local(self, prefix: str) -> Path | None:
        """Return the folder that holds `prefix` where objects are local files, else None."""

    def lock(self, key: str, *, wait_s: float, owner: str) -> AbstractContextManager[Lease]:
        """Hold the lock `key` for the length of a `with` block; it names no object and needs none.

        Args:
            key: name of the lock.
            wait_s: how long to wait for another holder.
            owner: who asks, for the message that others get.

        Raises:
            BusyError: another holder kept it for all of `wait_s`; says who and since when.
            ConflictError: at the end of the block, when the lock was lost meanwhile.
        """


def open_blobs(place: str) -> Blobs:
    """Open a folder or `s3://bucket/prefix`; nothing is read or made before the first use.

    Raises:
        ConfigError: `place` is neither.
        MissingExtraError: for S3, when boto3 is not installed.
    """
    if "://" not in place:
        if not place:
            raise ConfigError("the place of a store is empty; give a folder or s3://BUCKET/PREFIX")
        from tamiz.blobs.local import LocalBlobs

        return LocalBlobs(Path(place))
    match = _S3_ADDRESS.fullmatch(place)
    if match is None:
        raise ConfigError(f"{place!r} is no place for a store; give a folder or s3://BUCKET/PREFIX")
    from tamiz.blobs.s3 import S3Blobs

    prefix = (match.group(2) or "").strip("/")
    if prefix:
        check_key(prefix, place)
    return S3Blobs(match.group(1), prefix)

"""Objects as files of a local folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tamiz._files import (
    RESERVED,
    Blob,
    check_key,
    explain,
    flush_file,
    flush_folder,
    holding,
    local_files,
    try_lock,
    unlock,
)
from tamiz.blobs.locks import LockRecord, busy
from tamiz.errors import ConflictError, StoreError

if TYPE_CHECKING:
    from tamiz.blobs import Lease

__all__ = ["LocalBlobs"]

_STALE_S = 24 * 3600.0
_POLL_S = 0.05


class LocalBlobs:
    """Objects as files of a local folder; safe between threads and processes of one machine."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.place = str(self._root)

    def read(self, key: str) -> Blob:
        """See `Blobs.read`."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise KeyError(f"{path} does not exist") from error
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {explain(error)}") from error
        return Blob(data, hashlib.sha256(data).hexdigest())

    def etag(self, key: str) -> str:
        """See `Blobs.etag`."""
        return self.read(key).etag

    def write(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        """See `Blobs.write`."""
        path = self._path(key)
        with self._refusals(path), self._temporary() as temporary:
            temporary.write_bytes(data)
            flush_file(temporary)
            with self._guard():
                if if_absent and path.exists():
                    raise ConflictError(f"{path} exists already")
                if if_match is not None and self._etag_or_none(key) != if_match:
                    raise ConflictError(f"{path} was changed by somebody else meanwhile; read it again and retry")
                self._place(temporary, path)
        return hashlib.sha256(data).hexdigest()

    def exists(self, key: str) -> bool:
        """See `Blobs.exists`."""
        return self._path(key).is_file()

    def folders(self, prefix: str = "") -> list[str]:
        """See `Blobs.folders`."""
        folder = self._folder(prefix)
        try:
            return sorted(p.name for p in folder.iterdir() if p.is_dir() and (prefix or p.name != RESERVED))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreError(f"{folder} cannot be read: {explain(error)}") from error

    def list(self, prefix: str = "") -> list[str]:
        """See `Blobs.list`."""
        folder = self._folder(prefix)
        found = []
        for path, folders, names in os.walk(folder):
            if Path(path) == self._root and RESERVED in folders:
                folders.remove(RESERVED)
            found += [Path(path, name).relative_to(self._root).as_posix() for name in names]
        return sorted(found)

    def delete(self, key: str) -> None:
        """See `Blobs.delete`; folders that are empty afterwards go too."""
        path = self._path(key)
        if not path.is_file():
            return
        with self._refusals(path), self._guard():
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the first one that is not empty ends it
                for folder in path.relative_to(self._root).parents[:-1]:
                    (self._root / folder).rmdir()

    def upload(self, folder: Path, prefix: str, *, skip: Collection[str] = ()) -> None:
        """See `Blobs.upload`."""
        for name, source in local_files(folder):
            if name in skip:
                continue
            path = self._path(f"{prefix}/{name}")
            with self._refusals(path), self._temporary() as temporary:
                shutil.copyfile(source, temporary)
                flush_file(temporary)
                with self._guard():
                    self._place(temporary, path)

    def download(self, prefix: str, folder: Path) -> None:
        """See `Blobs.download`."""
        for key in self.list(prefix):
            target = folder / Path(key).relative_to(prefix)
            with self._refusals(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._path(key), target)

    def local(self, prefix: str) -> Path | None:
        """See `Blobs.local`."""
        return self._path(prefix)

    @contextlib.contextmanager
    def lock(self, key: str, *, wait_s: float, owner: str) -> Iterator[Lease]:
        """See `Blobs.lock`; the operating system releases the lock of a killed process at once."""
        check_key(key, self.place)
        path = self._root / RESERVED / "locks" / f"{key}.lock"
        with self._refusals(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _acquire(descriptor, path, wait_s, f"the lock {key!r} of {self.place}")
            record = LockRecord.new(owner).to_bytes()
            with self._refusals(path):
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, record)
            try:
                yield _HeldByProcess()
            finally:
                # Explicitly, because a child process may have inherited the descriptor. The file stays: removing it
                # would let two processes lock two files of the same name.
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, 0)
                unlock(descriptor)
        finally:
            os.close(descriptor)

    def _path(self, key: str) -> Path:
        check_key(key, self.place)
        path = self._root / key
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise StoreError(f"{key!r} leads out of {self.place} through a link; remove the link")
        return path

    def _folder(self, prefix: str) -> Path:
        return self._path(prefix.rstrip("/")) if prefix else self._root

    def _etag_or_none(self, key: str) -> str | None:
        try:
            return self.etag(key)
        except KeyError:
            return None

    @contextlib.contextmanager
    def _refusals(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{path} could not be written: {explain(error)}") from error

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Yield the path of a file on the same disk; remove it afterwards if it is still there, and stale ones."""
        folder = self._root / RESERVED / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink()
        temporary = folder / secrets.token_hex(8)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Make comparing and replacing one step, and keep folders from being pruned between making and using them."""
        (self._root / RESERVED).mkdir(parents=True, exist_ok=True)
        with holding(self._root / RESERVED / "guard", poll_s=0.002):
            yield

    def _place(self, temporary: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(path)
        flush_folder(path.parent)


class _HeldByProcess:
    """A lock of the operating system, which is not lost while the process lives."""

    def check(self) -> None:
        """See `Lease.check`."""


def _acquire(descriptor: int, path: Path, wait_s: float, what: str) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            if try_lock(descriptor):
                return
        except OSError as error:
            raise StoreError(f"{path} cannot be locked: {explain(error)}; use a folder on a local disk") from error
        if time.monotonic() >= deadline:
            try:
                holder = LockRecord.parse(path.read_bytes())
            except OSError:
                holder = None
            raise busy(what, holder)
        time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))

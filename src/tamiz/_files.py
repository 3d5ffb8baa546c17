"""What packages and object storage are made of: checked paths, locks of the operating system, folders written whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tamiz.errors import StoreError

__all__ = [
    "RESERVED",
    "Blob",
    "building",
    "check_key",
    "explain",
    "flush_file",
    "flush_folder",
    "holding",
    "is_unfinished",
    "local_files",
    "relative_fault",
    "replacing",
    "sha256_of",
    "try_lock",
    "unlock",
]

RESERVED = ".tamiz"  # what object storage keeps for itself: locks, unfinished files

_STALE_S = 24 * 3600.0
_LOCK_AT = 1 << 30  # Windows locks bytes, and a locked byte cannot be read: take one far behind the content


class Blob(NamedTuple):
    """The bytes of an object and the tag that `write(..., if_match=)` compares."""

    data: bytes
    etag: str


def explain(error: OSError) -> str:
    """Say in a few words what the operating system refused and what to do."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "no space is left on the disk; free some and try again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{(error.strerror or 'not permitted').lower()}; check who owns it and its permissions"
        case _:
            return (error.strerror or str(error)).lower()


def relative_fault(path: str) -> str | None:
    """Say why `path` is no plain relative path with `/` between its parts, or return None when it is one.

    Example:
        >>> relative_fault("a/../b")
        "it has the part '..'"
    """
    if not path or len(path) > 900:
        return "it is empty or longer than 900 characters"
    if any(char in '\\:*?"<>|' or not char.isprintable() for char in path):
        return "it holds a character that not every system takes in a file name"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"it has the part {part!r}"
    return None


def check_key(key: str, place: str) -> None:
    """Refuse a key that could lead out of the place, or into what is reserved.

    Raises:
        StoreError: always with the reason.
    """
    fault = relative_fault(key)
    if fault is None and key.split("/", 1)[0] == RESERVED:
        fault = f"{RESERVED!r} is reserved"
    if fault:
        raise StoreError(f"{key!r} is not a valid key in {place}: {fault}")


def local_files(folder: Path) -> list[tuple[str, Path]]:
    """Return relative name and path of every file of a folder, sorted.

    Raises:
        StoreError: there is a link or something else that is no regular file.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise StoreError(f"{path} is a link or no regular file and is not uploaded; replace it by a copy")
        if path.is_file():
            found.append((path.relative_to(folder).as_posix(), path))
    return found


if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> bool:
        """Take the exclusive lock of an open file without waiting; the system releases it when the process ends."""
        try:
            os.lseek(descriptor, _LOCK_AT, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Give back what `try_lock` took."""
        os.lseek(descriptor, _LOCK_AT, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Take the exclusive lock of an open file without waiting; the system releases it when the process ends.

        Raises:
            OSError: the file system has no locks.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Give back what `try_lock` took."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextlib.contextmanager
def holding(
    path: Path, *, poll_s: float, mode: int = 0o666, waiting: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold the exclusive lock of a file, made if absent; the system frees it when the process ends.

    Args:
        path: the file; its folder exists.
        poll_s: seconds between two tries.
        mode: permissions of a new file.
        waiting: called after each try that failed; may raise to give up.

    Raises:
        OSError: the file cannot be opened, or the file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        while not try_lock(descriptor):
            if waiting is not None:
                waiting()
            time.sleep(poll_s)
        try:
            yield
        finally:
            unlock(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush_file(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk (Windows does so by itself)."""
    if sys.platform != "win32":
        flush_file(path)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a file to write, beside `path`, whose name it takes when it is complete and on the disk.

    On any error the file is removed, and what stood at `path` stays.

    Raises:
        OSError: the system refused, or no file was written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    try:
        yield temporary
        flush_file(temporary)
        temporary.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        if error.filename == str(temporary):  # a name that means nothing to anybody
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def is_unfinished(folder: Path) -> bool:
    """Tell whether `folder` has the name that `building` gives to what it has not finished."""
    stem, _, token = folder.name.removesuffix(".tmp").rpartition(".")
    return folder.name.endswith(".tmp") and stem.startswith(".") and len(token) == 16 and token.isalnum()


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `folder` to fill; rename it to `folder` at the end, remove it on any error.

    What a killed process left behind is removed by the next call for the same `folder`.

    Raises:
        OSError: the system refused; `errno.ENOTEMPTY` or `EEXIST` when something stands at `folder` by now.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    path, descriptor = _start(folder)
    try:
        yield path
        _flush_tree(path)
        if folder.is_dir():
            folder.rmdir()
        path.rename(folder)
        flush_folder(folder.parent)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _start(folder: Path) -> tuple[Path, int | None]:
    """Make a temporary folder that is locked as long as this process works on it."""
    while True:
        path = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.tmp")
        path.mkdir()
        descriptor, mine = _lock_folder(path)
        # Another process may have swept the folder away between these two steps: then begin again.
        if mine and path.is_dir():
            return path, descriptor
        if descriptor is not None:
            os.close(descriptor)


def _lock_folder(path: Path) -> tuple[int | None, bool]:
    """Open and lock a folder: its descriptor, if it could be opened, and whether it is ours (or cannot be locked)."""
    if sys.platform == "win32":
        return None, True
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None, False
    try:
        return descriptor, try_lock(descriptor)
    except OSError:
        return descriptor, True


def _sweep(folder: Path) -> None:
    """Remove temporary siblings whose process is gone."""
    for path in folder.parent.glob(f".{_literal(folder.name)}.*.tmp"):
        if not is_unfinished(path) or path.is_symlink():
            continue
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    shutil.rmtree(path, ignore_errors=True)
            continue
        descriptor, free = _lock_folder(path)
        if descriptor is not None:
            if free:
                shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)


def _literal(name: str) -> str:
    """Escape what `glob` would take as a pattern."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _flush_tree(folder: Path) -> None:
    for path, _, names in os.walk(folder):
        for name in names:
            flush_file(Path(path, name))
        flush_folder(Path(path))

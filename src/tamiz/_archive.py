"""Archives (`.tar.gz`) of plain files: reproducible to the byte, and read with distrust.

The standard library's own extraction filters allow links and set no bound on size; a model package needs no links, so
everything but a regular file is refused here before a byte of it is written. Only the entries of folders, which `tar`
writes beside the files, are passed over.
"""

from __future__ import annotations

import contextlib
import gzip
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tamiz._files import explain, relative_fault, replacing
from tamiz.errors import PackageError

__all__ = ["extract_archive", "write_archive"]

_CHUNK_BYTES = 2**20
_FREE_BYTES = 16 * 2**20  # below this size no ratio of compression is suspicious


def write_archive(archive: Path, files: Mapping[str, Path]) -> None:
    """Write `files` (name in the archive, path) in the order of their names; equal files give equal bytes.

    Raises:
        PackageError: the disk refused; nothing stands at `archive` then that did not stand there before.
    """
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with replacing(archive) as temporary, temporary.open("xb") as raw:
            _write(raw, files)
    except OSError as error:
        raise PackageError(f"{archive} could not be written: {explain(error)}") from error


def extract_archive(archive: Path, folder: Path, *, max_bytes: int, max_files: int, max_ratio: float) -> None:
    """Write the files of an archive into the existing empty `folder`.

    Raises:
        PackageError: the archive is damaged, holds anything but folders and regular files with plain relative names, or
            exceeds a limit. What was written until then stays in `folder`.
        OSError: the disk refused.
    """
    try:
        packed_bytes = archive.stat().st_size
        raw = archive.open("rb")
    except OSError as error:
        raise PackageError(f"{archive} cannot be read: {explain(error)}") from error
    allowed = min(max_bytes, max(int(packed_bytes * max_ratio), _FREE_BYTES))
    overhead = (max_files + 1) * 4096 + _CHUNK_BYTES  # headers and padding come on top of the files
    with raw, gzip.GzipFile(fileobj=raw, mode="rb") as unpacked, _archive_errors(archive):
        stream: Any = _Bounded(unpacked, allowed + overhead, archive)
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            _extract(tar, folder, _Limits(archive, allowed, max_files))
        while stream.read(_CHUNK_BYTES):  # to the end, where gzip compares its checksum
            pass


def _write(raw: IO[bytes], files: Mapping[str, Path]) -> None:
    with (
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, path in sorted(files.items()):
            member = tarfile.TarInfo(name)  # owner 0 and time 0 by itself
            member.size = path.stat().st_size
            member.mode = 0o644
            with path.open("rb") as file:
                tar.addfile(member, file)


class _Bounded:
    """A readable stream that refuses to give more than `limit` bytes, or more than a chunk at once.

    The second bound keeps a header that claims gigabytes from being read into memory.
    """

    def __init__(self, stream: gzip.GzipFile, limit: int, archive: Path) -> None:
        self._stream, self._limit, self._archive = stream, limit, archive

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK_BYTES:
            raise PackageError(f"{self._archive}: a header claims {size} bytes; this is not an archive by Tamiz")
        data = self._stream.read(size)
        self._check(self._stream.tell())
        return data

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, position: int) -> int:
        self._check(position)
        return self._stream.seek(position)

    def _check(self, position: int) -> None:
        if position > self._limit:
            raise PackageError(
                f"{self._archive} unpacks to more than {self._limit} bytes. If you trust it, allow more bytes"
            )


class _Limits:
    """Counts files and bytes of an archive and knows the names already seen."""

    def __init__(self, archive: Path, max_bytes: int, max_files: int) -> None:
        self.archive, self.max_bytes, self.max_files = archive, max_bytes, max_files
        self.entries = 0
        self.seen: set[str] = set()
        self.folders: set[str] = set()
        self.size_bytes = 0

    def check(self, member: tarfile.TarInfo) -> str | None:
        """Return the name of a plain file, without the `./` that `tar` writes before it; `None` for a folder.

        Raises:
            PackageError: it is neither, or one too many; always with the archive's and the member's name.
        """
        name, folder = member.name.removeprefix("./"), member.isdir()
        if not folder and (member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse()):
            raise PackageError(f"{self.archive}: {name!r} is not a regular file; only those are accepted")
        fault = None if folder and name == "." else relative_fault(name)
        if fault:
            raise PackageError(f"{self.archive}: {name!r} is not a plain relative path: {fault}")
        self.entries += 1
        if self.entries > self.max_files:
            raise PackageError(f"{self.archive} holds more than {self.max_files} files and folders")
        if folder:
            return None
        self._check_new(name)
        self.size_bytes += member.size
        if member.size < 0 or self.size_bytes > self.max_bytes:
            raise PackageError(
                f"{self.archive} unpacks to more than {self.max_bytes} bytes. If you trust it, allow more bytes"
            )
        return name

    def _check_new(self, name: str) -> None:
        folded = PurePosixPath(name.casefold())  # names that differ in case only are one file on some systems
        parents = {str(parent) for parent in folded.parents}
        if str(folded) in self.seen | self.folders or parents & self.seen:
            raise PackageError(f"{self.archive}: {name!r} occurs twice")
        self.seen.add(str(folded))
        self.folders |= parents


def _extract(tar: tarfile.TarFile, folder: Path, limits: _Limits) -> None:
    for member in tar:
        name = limits.check(member)
        if name is None:
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = tar.extractfile(member)
        left = member.size
        with target.open("xb") as file:
            while left and source is not None and (data := source.read(min(left, _CHUNK_BYTES))):
                file.write(data)
                left -= len(data)
        if left:
            raise PackageError(f"{limits.archive} is cut off inside {member.name!r}. Copy or fetch it again")


@contextlib.contextmanager
def _archive_errors(archive: Path) -> Iterator[None]:
    """Translate what gzip and tar say of a damaged archive."""
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, UnicodeError, ValueError) as error:
        if isinstance(error, PackageError):
            raise
        raise PackageError(
            f"{archive} is damaged, cut off or not a .tar.gz file ({type(error).__name__}). Copy or fetch it again"
        ) from error

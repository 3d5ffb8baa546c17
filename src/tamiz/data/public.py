"""The public data sets that `tamiz fetch` brings: what each is, whose, and how it gets here.

A data set is downloaded into a cache, written in the form that the examples read, and put into the target, a folder or
an `s3://` address, with `NAME.fetched.json` beside it: licence, citation, hashes of what was downloaded, rows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from tamiz import package_index
from tamiz.blobs import Blobs, open_blobs
from tamiz.data import complaints, film_snippets, imdb
from tamiz.data.downloads import Downloaded
from tamiz.errors import ConfigError, one_of
from tamiz.types import Progress

__all__ = ["DATA_SETS", "DataSet", "Fetched", "fetch"]


class _Download(Protocol):
    def __call__(self, cache: Path, *, address: str | None, progress: Progress | None) -> list[Downloaded]: ...


class _Write(Protocol):
    def __call__(self, found: Sequence[Downloaded], folder: Path, *, progress: Progress | None) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set that can be fetched.

    Attributes:
        about: what it is, in a few words.
        licence: terms of its makers.
        citation: whom to name.
        download_mb: about how much is downloaded.
        writes: files or folders that it becomes, relative to the target.
        download: brings its files into a cache.
        write: makes the table of them, in a folder.
    """

    about: str
    licence: str
    citation: str
    download_mb: int
    writes: tuple[str, ...]
    download: _Download
    write: _Write


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch did.

    Attributes:
        name: of the data set.
        files: keys of what it consists of in the target.
        record: what stands in `NAME.fetched.json`.
        fresh: whether anything was written; false if the same was there.
    """

    name: str
    files: tuple[str, ...]
    record: Mapping[str, Any]
    fresh: bool


def fetch(
    name: str,
    to: str,
    *,
    cache: Path,
    address: str | None = None,
    progress: Progress | None = None,
    data_sets: Mapping[str, DataSet] | None = None,
    dry_run: bool = False,
) -> Fetched:
    """Put a data set into a folder or an `s3://` address, unless the same is there.

    A dry run asks nobody and writes nothing: its record says what is known before a download.

    Args:
        name: key of `DATA_SETS`.
        to: the target; a folder is made if absent.
        cache: folder for downloads, so that no later call repeats them.
        address: of a mirror: the package index, the hub or the archive.
        progress: told how far it has come.
        data_sets: what can be fetched, by name; by default `DATA_SETS`.
        dry_run: check name and target alone.

    Raises:
        ConfigError: no such data set, or the target or address is none.
        MissingExtraError: a library is missing.
        SourceError: the download failed or does not hold what is expected.
        StoreError: the target cannot be written.
    """
    known = DATA_SETS if data_sets is None else data_sets
    if name not in known:
        raise ConfigError(f"no data set {name!r}; {one_of(name, known)}")
    wanted, target = known[name], open_blobs(to)
    terms = {"licence": wanted.licence, "citation": wanted.citation}
    if dry_run:
        about = {"name": name, **terms, "files": list(wanted.writes), "download_mb": wanted.download_mb}
        return Fetched(name, wanted.writes, about, fresh=False)
    found = wanted.download(cache, address=address, progress=progress)
    before = _read_record(target, name)
    sources = [one.to_dict() for one in found]
    if before and _hashes(before) == _hashes({"sources": sources}) and all(map(target.exists, before["files"])):
        return Fetched(name, tuple(before["files"]), before, fresh=False)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="writing-") as folder:
        rows = wanted.write(found, Path(folder), progress=progress)
        files = sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())
        _put(target, Path(folder), files)
    record = {
        "name": name,
        "fetched_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **terms,
        "sources": sources,
        **rows,
        "files": files,
    }
    for stale in set(before["files"] if before else ()) - set(files):
        target.delete(stale)
    target.write(_record_key(name), (json.dumps(record, ensure_ascii=False, indent=1) + "\n").encode())
    return Fetched(name, tuple(files), record, fresh=True)


def _record_key(name: str) -> str:
    return f"{name}.fetched.json"


def _read_record(target: Blobs, name: str) -> dict[str, Any] | None:
    try:
        found = json.loads(target.read(_record_key(name)).data)
    except (KeyError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("files"), list) else None


def _hashes(record: Mapping[str, Any]) -> list[str]:
    return [source["sha256"] for source in record["sources"]]


def _put(target: Blobs, folder: Path, files: Sequence[str]) -> None:
    for top in sorted({file.partition("/")[0] for file in files}):
        if (folder / top).is_dir():
            target.upload(folder / top, top)
        else:
            target.write(top, (folder / top).read_bytes())


# --- the table


def _download_snippets(cache: Path, *, address: str | None, progress: Progress | None) -> list[Downloaded]:
    file = film_snippets.RELEASE.file
    path = package_index.fetch(file, cache, index_url=address, progress=progress)
    return [Downloaded(path, f"{file.project}/{file.filename} of the package index", file.sha256, file.size_bytes)]


def _write_snippets(found: Sequence[Downloaded], folder: Path, *, progress: Progress | None) -> dict[str, Any]:
    path = film_snippets.write_film_snippets(found[0].path, folder)
    if progress:
        progress(f"write {path.name}", film_snippets.RELEASE.rows, film_snippets.RELEASE.rows)
    return {"rows": {path.name: film_snippets.RELEASE.rows}}


DATA_SETS: dict[str, DataSet] = {
    "film-snippets": DataSet(
        about="10,605 sentences of film reviews: binary",
        licence=film_snippets.LICENSE,
        citation=film_snippets.CITATION,
        download_mb=2,
        writes=("film_snippets.csv",),
        download=_download_snippets,
        write=_write_snippets,
    ),
    "imdb": DataSet(
        about="100,000 film reviews, half with a label: binary",
        licence=imdb.LICENSE,
        citation=imdb.CITATION,
        download_mb=83,
        writes=("imdb/train.parquet", "imdb/test.parquet", "imdb/unsup.parquet"),
        download=imdb.download_imdb,
        write=imdb.write_imdb,
    ),
    "complaints": DataSet(
        about="complaints about financial products: five categories",
        licence=complaints.LICENSE,
        citation=complaints.CITATION,
        download_mb=1_500,
        writes=("complaints/train.parquet/",),
        download=complaints.download_complaints,
        write=complaints.write_complaints,
    ),
}
"""Data sets by the name that `tamiz fetch` takes."""

"""Find the files that a place names: a file, a folder, a glob pattern or an `s3://` address."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tamiz import extras
from tamiz._files import explain
from tamiz.errors import SourceError, one_of

__all__ = ["FORMATS", "Found", "digest", "find_files", "local_copy"]

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".xlsx": "excel",
    ".xls": "excel",
}
"""File name endings and the format each stands for; the text formats may carry `.gz` as well."""

_TEXT_FORMATS = {"csv", "tsv", "jsonl", "json"}
_S3 = "s3://"
_WILDCARD = re.compile(r"[*?\[]")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class Found:
    """One file to read, or one folder with a sub-folder of `.txt` files per label.

    Attributes:
        path: local path or `s3://` address.
        format: a value of `FORMATS`, or `"folder"`.
        gzipped: whether the bytes are compressed.
        members: the `.txt` files of a folder, sorted; empty otherwise.
        listed: whether it was found in a folder, below a prefix or by a pattern, not named itself.
        partitions: columns and values that the folders it was found in tell, such as `year=2023`.
    """

    path: str
    format: str
    gzipped: bool = False
    members: tuple[Path, ...] = ()
    listed: bool = False
    partitions: tuple[tuple[str, str | None], ...] = ()


def find_files(places: Sequence[str]) -> list[Found]:
    """List the files that `places` name, in the order of the places and sorted within each, none twice.

    Raises:
        SourceError: a place holds no file, or none of a supported format.
    """
    if not places:
        raise SourceError("no file, folder, pattern or s3:// address was given to read from")
    found: dict[str, Found] = {}
    for place in places:
        for file in _in_s3(place) if place.startswith(_S3) else _on_disk(place):
            key = file.path if file.path.startswith(_S3) else str(Path(file.path).absolute())
            listed = replace(file, listed=file.path != place, partitions=_partitions(file.path, place))
            found.setdefault(key, listed)
    return list(found.values())


def _partitions(path: str, place: str) -> tuple[tuple[str, str | None], ...]:
    """Return the columns that folders between a place and a file in it tell, as Spark, Hive and others write them.

    Example:
        >>> _partitions("in/year=2023/label=a%2Fb/0.csv", "in")
        (('year', '2023'), ('label', 'a/b'))
    """
    named = Path(place).parts
    told = [folder.partition("=") for folder in Path(path).parts[:-1] if folder not in named]
    values = {unquote(name): None if value == _HIVE_NULL else unquote(value) for name, mark, value in told if mark}
    return tuple(values.items())


def _recognise(path: str) -> Found | None:
    name = path.lower()
    gzipped = name.endswith(".gz")
    format_ = FORMATS.get(Path(name.removesuffix(".gz")).suffix)
    if format_ is None or (gzipped and format_ not in _TEXT_FORMATS):
        return None
    return Found(path, format_, gzipped)


def _supported() -> str:
    return (
        f"supported: {', '.join(FORMATS)} (text formats also with .gz), or a folder with one folder of .txt per label"
    )


def _on_disk(place: str) -> list[Found]:
    if "://" in place:
        raise SourceError(f"{place} is an address of another kind; allowed: local files and s3://BUCKET/PREFIX")
    path = Path(place)
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        file = _recognise(place)
        if file is None:
            raise SourceError(f"{place}: files of this kind are not read; {_supported()}")
        return [file]
    if _WILDCARD.search(place):
        folder, pattern = _fixed_part(path)
        found = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 - `Path.glob` differs in versions
        matches = sorted(str(folder / match) for match in found if _visible(Path(match).name))
        files = [file for match in matches if Path(match).is_file() and (file := _recognise(match))]
        if not files:
            raise SourceError(f"the pattern {place} matches {len(matches)} files and none can be read; {_supported()}")
        return files
    raise SourceError(f"{place} does not exist. {_nearest(path)}")


def _fixed_part(place: Path) -> tuple[Path, str]:
    """Return the folders at the head of a pattern that are there, whatever their names, and the rest."""
    parts = place.parts
    for n in range(len(parts) - 1, 0, -1):
        if Path(*parts[:n]).is_dir():
            return Path(*parts[:n]), str(Path(*parts[n:]))
    return Path(), str(place)


def _nearest(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"Neither does its folder {folder}"
    names = [entry.name for entry in folder.iterdir() if _visible(entry.name)]
    return f"In its folder {folder}, {one_of(path.name, names, limit=10)}"


def _visible(name: str) -> bool:
    return not name.startswith((".", "~$"))  # the latter beside a workbook that is open in Excel


def _in_folder(folder: Path) -> list[Found]:
    """Return the tables of a folder and its partitions; without any, the folder itself, a label per sub-folder."""
    entries = sorted(entry for entry in folder.iterdir() if _visible(entry.name))
    tables = [file for entry in _with_partitions(entries) if (file := _recognise(str(entry)))]
    if tables:
        return tables
    members = tuple(
        text
        for entry in entries
        if entry.is_dir()
        for text in sorted(entry.iterdir())
        if text.suffix.lower() == ".txt" and _visible(text.name)
    )
    if members:
        return [Found(str(folder), "folder", members=members)]
    raise SourceError(f"the folder {folder} holds no file that can be read; {_supported()}")


def _with_partitions(entries: Sequence[Path]) -> Iterator[Path]:
    """Give the files, and those in folders such as `year=2023`."""
    for entry in entries:
        if entry.is_file():
            yield entry
        elif entry.is_dir() and "=" in entry.name:
            yield from _with_partitions(sorted(inner for inner in entry.iterdir() if _visible(inner.name)))


def _client() -> Any:
    return extras.require("boto3", extra="aws").client("s3")


@contextmanager
def _s3_errors(place: str) -> Iterator[None]:
    """Translate what boto3 raises."""
    errors = extras.require("botocore.exceptions", extra="aws")
    transfer = extras.require("boto3.exceptions", extra="aws")
    try:
        yield
    except errors.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise SourceError(
            f"{place} cannot be read: S3 answered {code}. Check the address and your permissions"
        ) from error
    except (errors.BotoCoreError, transfer.Boto3Error) as error:
        raise SourceError(f"{place} cannot be read: {error}") from error


def _in_s3(place: str) -> list[Found]:
    """Return one object, all readable objects below a prefix, or the objects that match a pattern.

    As on disk, what has exactly this name comes before a pattern: `reviews [final].csv` names an object. A key with the
    name of a file may also be a prefix: Spark writes folders such as `reviews.parquet/`.
    """
    bucket, _, key = place.removeprefix(_S3).partition("/")
    wildcard = _WILDCARD.search(key)
    keys = _keys(place, bucket, key[: wildcard.start()] if wildcard else key)
    if key in keys and (file := _recognise(place)):
        return [file]
    base = key.rstrip("/")
    below = [one for one in keys if not base or one.startswith(f"{base}/")]
    if wildcard and not below:
        base = key[: wildcard.start()].rpartition("/")[0]
        below = [one for one in keys if fnmatch.fnmatchcase(one, key)]
    shown = [one for one in below if all(map(_shown, one.removeprefix(base).strip("/").split("/")))]
    files = [file for one in shown if (file := _recognise(f"{_S3}{bucket}/{one}"))]
    if not files:
        raise SourceError(f"{place}: no object that can be read is there. {_nearest_key(place, bucket, key, below)}")
    return files


def _keys(place: str, bucket: str, prefix: str) -> list[str]:
    with _s3_errors(place):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))
    # Other tools mark folders by empty objects whose key ends in a slash; the folder may be called `reviews.parquet`.
    return [key for key in keys if not key.endswith("/")]


def _shown(name: str) -> bool:
    """Leave out what writers keep beside the data, such as `_delta_log` and `_temporary`."""
    return not name.startswith((".", "_"))


def _nearest_key(place: str, bucket: str, key: str, below: Sequence[str]) -> str:
    if below:
        return f"Objects found: {len(below)}; {_supported()}"
    parent = key.rstrip("/").rpartition("/")[0]
    with _s3_errors(place):
        prefix = f"{parent}/" if parent else ""
        page = _client().list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/")
    found = [entry["Key"] for entry in page.get("Contents", [])]
    found += [entry["Prefix"].rstrip("/") for entry in page.get("CommonPrefixes", [])]
    names = [key.removeprefix(prefix) for key in found if key != prefix]
    return f"Beside it, {one_of(key.rpartition('/')[2], names, limit=10)}"


def digest(file: Found) -> tuple[str, int]:
    """Return the SHA-256 (hexadecimal) and the size in bytes of a file; of a folder, those of names and contents.

    What folders tell of a file belongs to its content. An object is hashed as a copy, which is fetched anew where the
    connection breaks.
    """
    if file.members:
        return _digest_folder(file)
    with local_copy(file.path) as path, path.open("rb") as stream:
        content, size = hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell()
    if file.partitions:
        content = hashlib.sha256(f"{file.partitions}\0{content}".encode("utf-8", "surrogateescape")).hexdigest()
    return content, size


def _digest_folder(file: Found) -> tuple[str, int]:
    whole, size = hashlib.sha256(), 0
    for member in file.members:
        data = member.read_bytes()
        name = member.relative_to(file.path).as_posix()
        whole.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
        size += len(data)
    return whole.hexdigest(), size


@contextmanager
def local_copy(place: str) -> Iterator[Path]:
    """Give a local path to read: the file itself, or a temporary download that is removed afterwards."""
    if not place.startswith(_S3):
        yield Path(place)
        return
    bucket, _, key = place.removeprefix(_S3).partition("/")
    with tempfile.TemporaryDirectory(prefix="tamiz-") as folder:
        path = Path(folder) / f"object{Path(key).suffix}"  # a key may be longer than the name of a file
        try:
            with _s3_errors(place):
                _client().download_file(bucket, key, str(path))
        except OSError as error:
            raise SourceError(
                f"{place} cannot be copied into the temporary folder {folder}: {explain(error)}; TMPDIR names another"
            ) from error
        yield path

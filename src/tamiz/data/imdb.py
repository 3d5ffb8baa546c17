"""Fetch the Large Movie Review Dataset from a hub of data sets: 100,000 film reviews, half of them with a label.

The hub keeps three Parquet files, pinned here by revision and hash, with the columns `text` and `label` (0 negative,
1 positive, -1 none).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tamiz import extras
from tamiz.data.downloads import Downloaded, download
from tamiz.errors import SourceError
from tamiz.types import Progress

__all__ = ["CITATION", "LICENSE", "RELEASE", "HubFile", "Release", "download_imdb", "write_imdb"]

LICENSE = "No formal licence: free for research with citation of the paper. The reviews belong to their authors."
CITATION = (
    "Maas, A.L., Daly, R.E., Pham, P.T., Huang, D., Ng, A.Y. & Potts, C. (2011). Learning Word Vectors for Sentiment "
    "Analysis. 49th Annual Meeting of the Association for Computational Linguistics, Portland, OR."
)

_LABELS = ("negative", "positive")
_ROWS = 5_000
_LABELLED = pa.schema([("id", pa.string()), ("text", pa.string()), ("label", pa.string())])
_UNLABELLED = pa.schema([("id", pa.string()), ("text", pa.string())])


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a data set, pinned by its content.

    Attributes:
        path: its path in the data set.
        sha256: hash of its bytes, hexadecimal.
        written: name, without ending, of the file that is made from it.
        labelled: whether its rows carry labels.
    """

    path: str
    sha256: str
    written: str
    labelled: bool = True


@dataclass(frozen=True, slots=True)
class Release:
    """A revision of the data set.

    Attributes:
        repository: its name on the hub.
        revision: commit.
        files: what it holds.
    """

    repository: str
    revision: str
    files: tuple[HubFile, ...]


RELEASE = Release(
    repository="stanfordnlp/imdb",
    revision="e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
    files=(
        HubFile(
            "plain_text/train-00000-of-00001.parquet",
            "db47d16b5c297cc0dd625e519c81319c24c9149e70e8496de5475f6fa928342c",
            "train",
        ),
        HubFile(
            "plain_text/test-00000-of-00001.parquet",
            "b52e26e2f872d282ffac460bf9770b25ac6f102cda0e6ca7158df98c94e8b3da",
            "test",
        ),
        HubFile(
            "plain_text/unsupervised-00000-of-00001.parquet",
            "74d14fbfcbb39fb7d299c38ca9f0ae6d231bf97108da85d620027ba437b6d52e",
            "unsup",
            labelled=False,
        ),
    ),
)


def download_imdb(
    cache: Path, *, address: str | None = None, progress: Progress | None = None, release: Release = RELEASE
) -> list[Downloaded]:
    """Bring the files of the release into `cache`, in their order.

    Args:
        cache: folder where they are kept, so that no later call downloads them.
        address: of the hub; by default the one that `huggingface_hub` uses (`HF_ENDPOINT`).
        progress: told how many bytes have arrived.
        release: what to fetch.

    Raises:
        MissingExtraError: no address is given and `huggingface_hub`, which knows one, is not installed.
        SourceError: the download failed, or the bytes are not the pinned ones.
    """
    base = (address or _hub()).rstrip("/")
    folder = cache / "imdb" / release.revision
    found = []
    for file in release.files:
        url = f"{base}/datasets/{release.repository}/resolve/{release.revision}/{file.path}"
        found.append(download(url, folder / Path(file.path).name, sha256=file.sha256, progress=progress))
    return found


def write_imdb(
    found: Sequence[Downloaded], folder: Path, *, progress: Progress | None = None, release: Release = RELEASE
) -> dict[str, Any]:
    """Write `imdb/train.parquet`, `imdb/test.parquet` and `imdb/unsup.parquet` into `folder`; return rows by file.

    Columns are `id`, `text` and, but for `unsup`, `label` (`negative` or `positive`), rows in the order of the hub.

    Args:
        found: what `download_imdb` gave.
        folder: where to write; made if absent.
        progress: told how many rows are written.
        release: what was fetched.

    Raises:
        SourceError: a file is not of the hub's layout.
    """
    target = folder / "imdb"
    target.mkdir(parents=True, exist_ok=True)
    rows = {}
    for source, file in zip(found, release.files, strict=True):
        rows[f"imdb/{file.written}.parquet"] = _convert(source.path, target / f"{file.written}.parquet", file, progress)
    return {"rows": rows}


def _hub() -> str:
    return str(extras.require("huggingface_hub.constants", extra="onnx").ENDPOINT)


def _convert(source: Path, target: Path, file: HubFile, progress: Progress | None) -> int:
    schema = _LABELLED if file.labelled else _UNLABELLED
    done = 0
    try:
        with pq.ParquetFile(source) as table, pq.ParquetWriter(target, schema, compression="zstd") as out:
            for batch in table.iter_batches(_ROWS, columns=["text", "label"]):
                out.write_batch(_batch(batch, done, file, schema))
                done += batch.num_rows
                if progress:
                    progress(f"write {target.name}", done, table.metadata.num_rows)
    except (pa.ArrowInvalid, KeyError) as error:
        raise SourceError(f"{file.path} cannot be read as Parquet with the columns text and label: {error}") from error
    return done


def _batch(batch: pa.RecordBatch, first: int, file: HubFile, schema: pa.Schema) -> pa.RecordBatch:
    ids = pa.array([f"{file.written}-{number:05d}" for number in range(first, first + batch.num_rows)])
    columns = [ids, batch.column("text").cast(pa.string())]
    if file.labelled:
        codes = batch.column("label").cast(pa.int64())
        known = pc.is_in(codes, value_set=pa.array(range(len(_LABELS)), pa.int64()))
        if batch.num_rows and not pc.all(known).as_py():
            raise SourceError(f"{file.path}: a label is neither 0 (negative) nor 1 (positive)")
        columns.append(pa.array(_LABELS).take(codes))
    return pa.RecordBatch.from_arrays(columns, schema=schema)

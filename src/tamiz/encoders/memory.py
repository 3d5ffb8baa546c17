"""What training adds to embeddings: the model made ready once, and what it said of a text remembered on disk.

What is remembered is found by the SHA-256 of the text's tokens, never by the text; the embeddings themselves are stored
as they are. Nothing is remembered of texts that are only predicted.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tamiz.encoders import cache
from tamiz.encoders.embedding import MODEL
from tamiz.encoders.find import Weights
from tamiz.encoders.runtime import TOKENIZER, RowModel
from tamiz.errors import SourceError
from tamiz.types import Progress

__all__ = ["Memory", "ready"]

Array = NDArray[np.float32]

_FORMAT = 1  # of the prepared model and of what is remembered
_CHUNK = 512  # rows between two writes
_MOST_BYTES = 1 << 29  # of what is remembered for one encoder
_ASKED_AT_ONCE = 500
_WAIT_S = 30.0
_UNUSED_S = 90 * 24 * 3600.0  # after which what is remembered for an encoder goes


def ready(weights: Weights, form: str = "fp32", progress: Progress | None = None, *, head: str = "embedding") -> Path:
    """Return the cached folder with the encoder as ONNX and its tokenizer, made from the weights if need be.

    Args:
        weights: as `tamiz.encoders.find.find` gives them.
        form: one of `tamiz.encoders.forms.FORMS`.
        progress: told that it is made.
        head: `embedding` or `classification`.

    Raises:
        ConfigError: the model makes its vectors in a way that is not known.
        SourceError: the weights cannot be used, or the cache cannot be written.
        MissingExtraError: a library is not installed.
    """
    sources = {name: cache.checksum(weights.folder / name) for name in ("config.json", TOKENIZER)}
    sources["model.safetensors"] = weights.sha256
    if head == "embedding" and weights.pooling != "mean":
        sources["pooling"] = weights.pooling
    content = hashlib.sha256("".join(f"{name}{sources[name]}" for name in sorted(sources)).encode()).hexdigest()
    name = f"{head}-{content[:16]}-{form}-{_FORMAT}"
    folder = cache.place(name)
    with cache.locked(name, progress):
        files = cache.manifest(folder)
        if not files or cache.check(folder, files) is not None:
            if progress:
                progress("preparing the encoder")
            with cache.make(folder, {"sources": sources}) as target:
                _write(weights, target, form, head)
                shutil.copyfile(weights.folder / TOKENIZER, target / TOKENIZER)
    return folder


def _write(weights: Weights, target: Path, form: str, head: str) -> None:
    from tamiz.encoders.export import export
    from tamiz.encoders.forms import make_form

    if form == "fp32":
        export(weights.folder, target / MODEL, head=head, pooling=weights.pooling)
        return
    with tempfile.TemporaryDirectory(prefix="tamiz-") as name:
        whole = Path(name, MODEL)
        export(weights.folder, whole, head=head, pooling=weights.pooling)
        make_form(whole, target / MODEL, form)


class Memory:
    """What an encoder said of rows of tokens before, in one file for each encoder; the oldest give way.

    A row is all that the encoder is given: the piece of a text that is read, with prefix and special tokens. So texts,
    windows of long ones, prefixes and lengths need not be told apart otherwise. Whether a row is remembered or computed
    with whatever others does not change its vector. Processes may use one file at once. Where the file cannot be used,
    everything is computed.

    Args:
        model: computes what is not remembered.
        folder: where it lies, as `ready` gives it.
        path: the file; by default in the user's cache.
        most_bytes: about how large the vectors in it may become.

    Raises:
        SourceError: a file of the model cannot be read.
    """

    def __init__(
        self, model: RowModel, folder: Path, *, path: Path | None = None, most_bytes: int = _MOST_BYTES
    ) -> None:
        self._model, self._most_bytes = model, most_bytes
        if path is None:
            models = sorted(folder.glob(f"{MODEL}*"))  # the weights of a large one lie beside its graph
            key = "\0".join([*map(cache.checksum, models), str(_FORMAT)])
            path = cache.place("embeddings", f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.sqlite")
        self.path = path

    def run(self, rows: Sequence[Sequence[int]]) -> Array:
        """Return the vectors of rows of token ids, float32 `(n, d)`; equal rows are computed once.

        Raises:
            DataError: a row is empty or longer than the encoder allows.
        """
        keys = [hashlib.sha256(np.asarray(row, "<i4").tobytes()).digest() for row in rows]
        distinct = dict(zip(keys, rows, strict=True))
        known = self._recall(list(distinct))
        missing = [key for key in distinct if key not in known]
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            found = self._model.run([distinct[key] for key in chunk], steady=True)
            new = dict(zip(chunk, found, strict=True))
            self._keep(new)
            known.update(new)
        return np.stack([known[key] for key in keys]) if keys else self._model.run([])

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            with suppress(OSError):
                os.utime(self.path)
        else:
            self._remove_unused()
        connection = sqlite3.connect(self.path, timeout=_WAIT_S)
        try:
            connection.execute("CREATE TABLE IF NOT EXISTS seen (key BLOB PRIMARY KEY, at REAL, vector BLOB)")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _remove_unused(self) -> None:
        """Remove the files of encoders that were not asked for a long time; nothing else would."""
        for other in self.path.parent.glob(f"*{self.path.suffix}"):
            with suppress(OSError):
                if time.time() - other.stat().st_mtime > _UNUSED_S:
                    other.unlink()

    def _recall(self, keys: Sequence[bytes]) -> dict[bytes, Array]:
        known: dict[bytes, Array] = {}
        try:
            with closing(self._open()) as connection:
                for start in range(0, len(keys), _ASKED_AT_ONCE):
                    asked = keys[start : start + _ASKED_AT_ONCE]
                    query = f"SELECT key, vector FROM seen WHERE key IN ({','.join('?' * len(asked))})"  # noqa: S608
                    for key, vector in connection.execute(query, asked):
                        known[key] = np.frombuffer(vector, "<f4")
        except (sqlite3.Error, OSError, ValueError) as error:
            self._drop_if_damaged(error)
            return {}
        return known

    def _keep(self, new: dict[bytes, Array]) -> None:
        at = time.time()
        rows = [(key, at, vector.astype("<f4").tobytes()) for key, vector in new.items()]
        most = self._most_bytes // max(1, len(rows[0][2]))
        try:
            with closing(self._open()) as connection, connection:
                connection.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", rows)
                (count,) = connection.execute("SELECT COUNT(*) FROM seen").fetchone()
                if count > most:
                    oldest = "SELECT rowid FROM seen ORDER BY at LIMIT ?"
                    connection.execute(f"DELETE FROM seen WHERE rowid IN ({oldest})", (count - most,))  # noqa: S608
        except (sqlite3.Error, OSError) as error:
            self._drop_if_damaged(error)

    def _drop_if_damaged(self, error: Exception) -> None:
        """Remove a file that is no database, so that the next one is whole; a busy or full one is left alone."""
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            try:
                self.path.unlink(missing_ok=True)
            except OSError as refused:
                raise SourceError(f"{self.path} is damaged and cannot be removed; remove it by hand") from refused

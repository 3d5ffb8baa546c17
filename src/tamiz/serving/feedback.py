"""What a server keeps of answers and of feedback to them: JSON lines that are only ever added to.

Nothing is kept unless the operator names a folder; answers only by the share that is asked for; texts only if asked.
Feedback names an earlier answer by its request's identifier and the text's place in it, or a text by its SHA-256; the
kept answers have both, so that the two files can be joined.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from tamiz.config import RecordsConfig
from tamiz.errors import ConflictError
from tamiz.serving.current import CURRENT
from tamiz.serving.metrics import Metrics
from tamiz.serving.problems import FullError, log_error
from tamiz.serving.served import Served

if TYPE_CHECKING:
    from tamiz.model import Prediction

__all__ = ["Records", "is_sampled", "text_sha256"]

log = logging.getLogger("tamiz.serving")

MB = 1_000_000
LOOK_EVERY_S = 10.0
LOOK_EVERY_BYTES = MB
CHAMPION, CHALLENGER = "champion", "challenger"


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hexadecimal: what names a text in the records.

    Example:
        >>> text_sha256("a")[:8]
        'ca978112'
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_sampled(request_id: str, share: float) -> bool:
    """Tell whether a request is in a sample; one in a smaller sample is in every larger one too."""
    return zlib.crc32(request_id.encode()) < share * 2**32


class _File:
    """One file of this process and day, opened to add to; never more than the folder may hold, or little more."""

    def __init__(self, folder: Path, kind: str, most_bytes: int) -> None:
        self._folder = folder
        self._kind = kind
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._handle = -1
        self._day = ""
        self._held_bytes = 0
        self._since_bytes = LOOK_EVERY_BYTES  # so that the first line looks
        self._looked_s = 0.0
        self._torn = False  # whether the file ends within a line

    def add(self, lines: bytes, *, sync: bool = False) -> bool:
        """Add whole lines in one write; tell whether there was room.

        Raises:
            OSError: the disk refused.
        """
        with self._lock:
            if self._held() + len(lines) > self._most_bytes:
                return False
            handle = self._opened()
            content = b"\n" + lines if self._torn else lines  # else the first line would go on with what is there
            written = os.write(handle, content)
            self._torn = not content[:written].endswith(b"\n")
            if written != len(content):
                raise OSError("a line was written in part")
            if sync:
                os.fsync(handle)
            self._held_bytes += len(lines)
            self._since_bytes += len(lines)
        return True

    def close(self) -> None:
        """Close the file, if it is open."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
            self._handle, self._day = -1, ""

    def _held(self) -> int:
        """Return how much the folder holds, files of other processes included; looked up now and then."""
        now_s = time.monotonic()
        if self._since_bytes >= LOOK_EVERY_BYTES or now_s - self._looked_s > LOOK_EVERY_S:
            self._held_bytes = sum(path.stat().st_size for path in self._folder.glob("*.jsonl"))
            self._since_bytes, self._looked_s = 0, now_s
        return self._held_bytes

    def _opened(self) -> int:
        day = datetime.now(UTC).strftime("%Y%m%d")
        path = self._folder / f"{self._kind}-{day}-{os.getpid()}.jsonl"
        if day != self._day or not self._is_at(path):
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1
            self._folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._day, self._torn = day, False
        return self._handle

    def _is_at(self, path: Path) -> bool:
        """Tell whether the open file still stands at its path: people move files away to make room."""
        try:
            return os.path.samestat(os.fstat(self._handle), path.stat())
        except OSError:
            return False


class Records:
    """The records of one process.

    Args:
        config: where, how much and what is kept.
        metrics: where to count.
    """

    def __init__(self, config: RecordsConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        folder = Path(config.folder) if config.folder else None
        most_bytes = config.max_mb * MB
        self._answers = _File(folder, "answers", most_bytes) if folder else None
        self._feedback = _File(folder, "feedback", most_bytes) if folder else None
        self._failing = False
        self.samples = folder is not None and config.share > 0

    def close(self) -> None:
        """Close the files."""
        for file in (self._answers, self._feedback):
            if file is not None:
                file.close()

    def keeps(self, request_id: str) -> bool:
        """Tell whether a request is among those kept; the same in every process, and for every version that sees it."""
        return self.samples and is_sampled(request_id, self._config.share)

    def keep_answers(
        self,
        served: Served,
        texts: Sequence[str],
        predictions: Sequence[Prediction],
        *,
        request_id: str | None = None,
        role: str = CHAMPION,
        places: Sequence[int] | None = None,
    ) -> None:
        """Keep the answers to a request, if it is among those kept; a disk that refuses fails no request.

        Args:
            served: what answered.
            texts: the texts.
            predictions: the answers.
            request_id: the request; by default the one under way.
            role: `champion`, or `challenger` for answers that nobody was given.
            places: of the texts in the request; by default in this order.
        """
        current = CURRENT.get()
        request_id = request_id or (current.request_id if current else "")
        if self._answers is None or not self.keeps(request_id):
            return
        about = {"time": _now(), "request_id": request_id, **_of(served), "role": role}
        lines = b"".join(
            to_json({**about, "place": place, **self._line(text, one)}) + b"\n"
            for place, text, one in zip(places or range(len(texts)), texts, predictions, strict=True)
        )
        self._keep(self._answers, lines, len(texts))

    def _line(self, text: str, one: Prediction) -> dict[str, Any]:
        line = {
            "sha256": text_sha256(text),
            "characters": len(text),
            "label": one.label,
            "probability": one.probability,
            "probabilities": one.probabilities.tolist(),
        }
        return {**line, "text": text.encode("utf-8", "replace").decode()} if self._config.texts else line

    def _keep(self, file: _File, lines: bytes, count: int) -> None:
        try:
            kept = file.add(lines)
        except OSError as error:
            if not self._failing:
                log_error("answers cannot be kept", error)
            self._failing, kept = True, False
            self._metrics.count_records("failed", count)
            return
        if not kept and not self._failing:
            log.warning("the folder of records is full: answers are no longer kept")
        self._failing = not kept
        self._metrics.count_records("kept" if kept else "full", count)

    def keep_feedback(self, served: Served, about: dict[str, Any], labels: Sequence[str], *, by: str) -> None:
        """Keep a label that somebody gives a text, on the disk when this returns.

        Args:
            served: the model that was asked.
            about: which text: `request_id` and `place`, or `sha256`; and the `label`.
            labels: the label, or several for a multi-label model.
            by: who gives it.

        Raises:
            ConflictError: no folder is named.
            FullError: the folder holds as much as it may, or the disk refused.
        """
        if self._feedback is None:
            raise ConflictError("This server keeps no feedback; name a folder for it: serve.records.folder.")
        known = {"time": _now(), **_of(served), "by": by}
        try:
            kept = self._feedback.add(to_json({**known, **about}) + b"\n", sync=True)
        except OSError as error:
            log_error("feedback cannot be kept", error)
            raise FullError("The disk refused the feedback; the log says how.") from error
        if not kept:
            raise FullError("The folder of records holds as much as it may (serve.records.max_mb); move files away.")
        self._metrics.count_feedback(served.name, labels)


def _of(served: Served) -> dict[str, str | None]:
    return {"model": served.name, "version": served.version}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

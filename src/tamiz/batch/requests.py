"""Answer a file of requests, one JSON document a line, each with labels of its own if it likes.

A line is `{"inputs": TEXT, "parameters": {"candidate_labels": [...], "multi_label": true}}`, as zero-shot endpoints
take it, or `{"text": TEXT, "labels": [...], "multi_label": true, "template": "..."}`. There is one line out for each
line in, in the same order; a line that cannot be answered gives `{"error": ..., "line": ...}`, and the others go on.
An `id` comes back with the answer, and with the error where the line could be read as far as that.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from tamiz.batch.files import replaced
from tamiz.data.places import local_copy
from tamiz.errors import ConfigError, RequestError, SourceError, TamizError
from tamiz.model import Model
from tamiz.prompted import Kind, Prompted, read_prompted
from tamiz.prompting import PromptLimits
from tamiz.rankings import sequence_answer
from tamiz.types import Progress

__all__ = ["Counts", "answer_lines", "answer_request_file"]

_LINES = 256  # answered at once


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the lines.

    Attributes:
        lines: how many there were.
        failed: how many of them could not be answered.
    """

    lines: int
    failed: int


def answer_lines(
    model: Model,
    lines: Iterable[bytes],
    *,
    labels: tuple[str, ...] | None = None,
    multi_label: bool | None = None,
    limits: PromptLimits | None = None,
) -> Iterator[dict[str, Any] | list[dict[str, Any]]]:
    """Yield one answer for each line, in order.

    Args:
        model: a model whose family can answer for labels it was not trained on.
        lines: JSON documents as UTF-8.
        labels: of lines that have none of their own; by default the model's own labels.
        multi_label: whether each label of lines that do not say is answered by itself; by default as by the model.
        limits: what a line may cost.
    """
    limits = limits or PromptLimits()
    usual = Kind(labels, None, multi_label)
    numbered = enumerate(lines)
    while block := list(islice(numbered, _LINES)):
        asked: dict[int, Prompted] = {}
        answers: dict[int, Any] = {}
        for number, line in block:
            try:
                asked[number] = _request(line, model, usual, limits, first=number == 0)
            except TamizError as error:
                answers[number] = _failure(error, number, _id(line))
        for kind in dict.fromkeys(request.kind for request in asked.values()):
            answers |= _together(model, kind, {n: one for n, one in asked.items() if one.kind == kind})
        yield from (answers[number] for number, _ in block)


def answer_request_file(
    model: Model,
    source: str,
    target: Path | IO[str],
    *,
    labels: tuple[str, ...] | None = None,
    multi_label: bool | None = None,
    limits: PromptLimits | None = None,
    progress: Progress | None = None,
) -> Counts:
    """Answer a file of requests into a file, whole or not at all, in constant memory.

    Args:
        model: a model whose family can answer for labels it was not trained on.
        source: JSON lines, also gzipped, or an `s3://` address of them; `-` for standard input.
        target: file to write, or an open text file.
        labels: of lines that have none of their own; by default the model's own labels.
        multi_label: whether each label of lines that do not say is answered by itself; by default as by the model.
        limits: what a line may cost.
        progress: told how many lines are done.

    Raises:
        SourceError: the source cannot be read.
        ConfigError: the target is the source.
    """
    if isinstance(target, Path):
        if target.exists() and Path(source).exists() and target.samefile(source):
            raise ConfigError(f"{target} holds the requests, which answers would replace; name another file for them")
        with replaced(target) as temporary, temporary.open("w", encoding="utf-8") as file:
            counts = answer_request_file(
                model, source, file, labels=labels, multi_label=multi_label, limits=limits, progress=progress
            )
        return counts
    done = failed = 0
    for answer in answer_lines(model, _lines(source), labels=labels, multi_label=multi_label, limits=limits):
        target.write(json.dumps(answer, ensure_ascii=False) + "\n")
        done += 1
        failed += isinstance(answer, dict) and "error" in answer
        if progress and done % _LINES == 0:
            progress("answering lines", done)
    return Counts(done, failed)


def _lines(source: str) -> Iterator[bytes]:
    if source == "-":
        yield from sys.stdin.buffer
        return
    try:
        with local_copy(source) as path, (gzip.open if source.endswith(".gz") else open)(path, "rb") as file:
            yield from file
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SourceError(f"{source} cannot be read: {reason}") from error


def _failure(error: TamizError, number: int, id_: Any) -> dict[str, Any]:
    known = {} if id_ is None else {"id": id_}
    return {**known, "error": str(error), "line": number + 1}


def _id(line: bytes) -> Any:
    """Return the `id` of a line that is no request, `None` where none can be read."""
    try:
        said = _document(line.removeprefix(b"\xef\xbb\xbf"))
    except RequestError:
        return None
    return said.get("id")


def _together(model: Model, kind: Kind, requests: Mapping[int, Prompted]) -> dict[int, Any]:
    """Answer requests for the same labels at once."""
    try:
        asked = kind.told(model)
        found = iter(asked.predict_proba([text for one in requests.values() for text in one.texts]))
    except TamizError as error:
        return {number: _failure(error, number, one.id) for number, one in requests.items()}
    answers: dict[int, Any] = {}
    for number, request in requests.items():
        many = [request.known | sequence_answer(text, asked.labels, next(found)) for text in request.texts]
        answers[number] = many[0] if request.one else many
    return answers


def _request(line: bytes, model: Model, usual: Kind, limits: PromptLimits, *, first: bool) -> Prompted:
    """Read one line.

    Raises:
        RequestError: it is no request.
        TooLargeError: it asks for too much.
    """
    asked = read_prompted(_document(line.removeprefix(b"\xef\xbb\xbf") if first else line), usual)
    limits.check(asked.texts, asked.kind.labels_of(model), template=asked.kind.template)
    return asked


def _document(line: bytes) -> dict[str, Any]:
    if not line.strip():
        raise RequestError("the line is empty; a JSON object with `inputs` is expected")
    try:
        said = json.loads(line.decode("utf-8"), parse_constant=_finite, parse_float=_finite)
        if b"\\u" in line:  # only an escape can bring in half a pair, which neither a tokenizer nor a file takes
            json.dumps(said, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"byte {error.start + 1} of the line is not UTF-8 text") from error
    except UnicodeEncodeError as error:
        raise RequestError("the line holds half a surrogate pair, which is no text") from error
    except OverflowError as error:
        raise RequestError("the line holds NaN, an infinity or a number beyond all that JSON can give back") from error
    except (ValueError, RecursionError) as error:
        raise RequestError("the line is not JSON") from error
    if not isinstance(said, dict):
        raise RequestError("a JSON object with `inputs` is expected")
    return said


def _finite(written: str) -> float:
    """Read a number that can be written again, as an `id` is: Python would write others as no JSON has them."""
    number = float(written)
    if not math.isfinite(number):
        raise OverflowError(written)
    return number

"""Media types: in which form a body came, and in which one its answer is wanted."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any, Literal, NamedTuple

from pydantic_core import to_json

from tamiz.serving.problems import NotAcceptableError, UnsupportedMediaError

__all__ = ["CSV", "JSON", "LINES", "TYPES", "Media", "media_of", "to_csv", "to_lines", "wanted"]

Form = Literal["json", "lines", "csv"]


class Media(NamedTuple):
    """A media type and the form it stands for."""

    name: str
    form: Form


JSON = Media("application/json", "json")
LINES = Media("application/jsonlines", "lines")
CSV = Media("text/csv", "csv")

TYPES: Mapping[str, Media] = {
    media.name: media
    for media in (
        JSON,
        LINES,
        Media("application/x-jsonlines", "lines"),
        Media("application/jsonl", "lines"),
        Media("application/x-ndjson", "lines"),
        Media("application/ndjson", "lines"),
        CSV,
    )
}
# What clients say when nobody told them what they send: curl the last, others nothing or the first.
UNSAID = ("", "application/octet-stream", "application/x-www-form-urlencoded")


def media_of(content_type: str | None) -> Media:
    """Return in which form a body is, JSON if nothing tells.

    Raises:
        UnsupportedMediaError: in none that is read here, or not in UTF-8.
    """
    name, *parameters = [part.strip().lower() for part in (content_type or "").split(";")]
    media = JSON if name in UNSAID else TYPES.get(name)
    if media is None:
        raise UnsupportedMediaError(f"The body's media type is not read here; allowed: {', '.join(TYPES)}.")
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key == "charset" and value.strip('"') not in ("utf-8", "utf8"):
            raise UnsupportedMediaError("The body's character encoding is not read here; allowed: utf-8.")
    return media


def wanted(accept: str | None, default: Media) -> Media:
    """Return the form that `Accept` prefers.

    Args:
        accept: the header, if there is one.
        default: what to give where the client leaves it open: JSON or JSON lines.

    Raises:
        NotAcceptableError: none that is given here.
    """
    if not accept or not accept.strip():
        return default
    for name in _by_preference(accept):
        if name in TYPES:
            return TYPES[name]
        if name in ("*/*", "application/*"):
            return default
        if name == "text/*":
            return CSV
    raise NotAcceptableError(f"The answer is not given in the form that Accept asks for; allowed: {', '.join(TYPES)}.")


def _by_preference(accept: str) -> list[str]:
    """Return the types of an `Accept` header, the preferred one first, without those that it rules out."""
    weighed: list[tuple[float, str]] = []
    for part in accept.lower().split(","):
        name, *parameters = [piece.strip() for piece in part.split(";")]
        weights = [value for key, _, value in (piece.partition("=") for piece in parameters) if key.strip() == "q"]
        weighed.append((_weight(weights[0]) if weights else 1.0, name))
    return [name for weight, name in sorted(weighed, key=lambda one: -one[0]) if weight > 0]


def _weight(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0


def to_lines(items: Sequence[object]) -> bytes:
    """Write one JSON document a line; an `id` that is no finite number, which JSON cannot say, is null."""
    return b"".join(to_json(item, inf_nan_mode="null") + b"\n" for item in items)


def to_csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, header: bool = True) -> bytes:
    """Write rows as CSV; lists as JSON, a missing value as an empty cell."""
    out = StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    if header:
        writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    return out.getvalue().encode()


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple) else value

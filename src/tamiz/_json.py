"""JSON that others can read: numbers that it cannot say are null."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["json_text"]


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON, other objects as their text; NaN and infinities, which JSON lacks, are null.

    Example:
        >>> json_text({"né": [1.5, float("nan")]})
        '{"né": [1.5, null]}'
    """
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent, default=str, allow_nan=False)
    except ValueError:
        finite = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
        return json.dumps(finite, ensure_ascii=False, indent=indent)

"""What each step last did and from what, so that a step with unchanged inputs is skipped."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tamiz
from tamiz.blobs import Blobs

__all__ = ["StepState", "code_version", "fingerprint"]

_FOLDER = "_state"


def fingerprint(**inputs: Any) -> str:
    """Return a hash of JSON-able inputs, the same in every process.

    Example:
        >>> fingerprint(a=1, b=[2]) == fingerprint(b=[2], a=1)
        True
    """
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def code_version() -> str:
    """Return the installed version and a hash of Tamiz's own source files."""
    folder = Path(tamiz.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return f"{version('tamiz')}+{digest.hexdigest()[:12]}"


class StepState:
    """Small JSON records beside the lake's tables, one a step.

    Args:
        blobs: the lake's own storage.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def recall(self, step: str, inputs: str) -> dict[str, Any] | None:
        """Return the result that `step` recorded for these inputs, `None` if it did something else last."""
        record = self.last(step)
        return record["result"] if record and record.get("inputs") == inputs else None

    def last(self, step: str) -> dict[str, Any] | None:
        """Return the last record of `step`: its `inputs` and `result`."""
        try:
            record = json.loads(self._blobs.read(f"{_FOLDER}/{step}.json").data)
        except (KeyError, ValueError):  # ValueError: from before a crash of the machine itself; do the step again
            return None
        return record if isinstance(record, dict) and isinstance(record.get("result"), dict) else None

    def remember(self, step: str, inputs: str, result: dict[str, Any]) -> None:
        """Record that `step` made `result` from these inputs."""
        text = json.dumps({"inputs": inputs, "result": result}, ensure_ascii=False, indent=1)
        self._blobs.write(f"{_FOLDER}/{step}.json", text.encode())

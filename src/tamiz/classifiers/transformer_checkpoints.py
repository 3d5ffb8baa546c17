"""Checkpoints of a training: weights as safetensors, all else as JSON, each replaced whole or not at all."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamiz.extras import require

__all__ = ["Checkpoint", "Checkpoints"]

_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stands.

    Attributes:
        state: JSON-able facts: steps done, figures so far.
        tensors: weights and the optimizer's state, by name.
        best: weights of the best evaluation so far, if there was one.
    """

    state: dict[str, Any]
    tensors: dict[str, Any]
    best: dict[str, Any] | None


class Checkpoints:
    """Keep the last state of one training in a folder.

    Args:
        folder: where; `None` keeps nothing.
        identity: fingerprint of what is trained, on what and how; a state of another training is not used.
        seconds: how long after one checkpoint the next is due.
    """

    def __init__(self, folder: Path | None, identity: str, seconds: float) -> None:
        self._folder, self._identity, self._seconds = folder, identity, seconds
        self._last = time.monotonic()
        self._best_step: int | None = None

    def due(self) -> bool:
        """Tell whether it is time for the next one."""
        return self._folder is not None and time.monotonic() - self._last >= self._seconds

    def save(self, checkpoint: Checkpoint, *, step: int, best_step: int | None) -> None:
        """Keep a checkpoint in place of the one before; one that is cut off leaves the one before.

        Args:
            checkpoint: what to keep.
            step: which step it is of.
            best_step: which step `checkpoint.best` is of.
        """
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        names = [f"step-{step}.safetensors"]
        self._write(self._folder, names[0], checkpoint.tensors)
        if checkpoint.best is not None:
            names.append(f"best-{best_step}.safetensors")
            if not (self._folder / names[1]).exists():
                self._write(self._folder, names[1], checkpoint.best)
        record = {"identity": self._identity, "files": names, "state": checkpoint.state}
        _replace(self._folder / _STATE, json.dumps(record, indent=1).encode())
        for path in self._folder.glob("*.safetensors*"):
            if path.name not in names:
                path.unlink()
        self._last = time.monotonic()

    def load(self) -> Checkpoint | None:
        """Return the kept checkpoint; none if there is none, or it is damaged or of another training."""
        if self._folder is None:
            return None
        load = require("safetensors.torch", extra="transformers").load_file
        try:
            record = json.loads((self._folder / _STATE).read_text(encoding="utf-8"))
            if record["identity"] != self._identity:
                self.clear()
                return None
            tensors = [load(self._folder / name) for name in record["files"]]
            return Checkpoint(record["state"], tensors[0], tensors[1] if len(tensors) > 1 else None)
        except FileNotFoundError:
            return None
        except Exception:  # a damaged file: what json, safetensors and the disk raise; the training begins anew
            self.clear()
            return None

    def clear(self) -> None:
        """Take the kept files away."""
        if self._folder is None or not self._folder.is_dir():
            return
        (self._folder / _STATE).unlink(missing_ok=True)  # first, since it names the others
        for path in self._folder.glob("*.safetensors*"):
            path.unlink()
        with suppress(OSError):  # something else of somebody's stands there
            self._folder.rmdir()

    @staticmethod
    def _write(folder: Path, name: str, tensors: dict[str, Any]) -> None:
        temporary = folder / f"{name}.tmp"
        require("safetensors.torch", extra="transformers").save_file(tensors, temporary)
        temporary.replace(folder / name)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

"""Weights of an encoder in 8 bits: matrices as whole numbers with a scale a row, all else in float32.

A folder holds `FILE`, `config.json` and `tokenizer.json`; it is converted once into one of float32 weights in Hugging
Face layout. The rounding error of a value is at most a 254th of the largest of its row.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tamiz._files import explain
from tamiz.errors import SourceError
from tamiz.extras import require
from tamiz.types import Progress

__all__ = ["FILE", "FILES", "convert", "write"]

FILE = "model-int8.safetensors"
"""Name of the file of weights."""
FILES = ("config.json", "tokenizer.json", FILE)
"""What a folder holds."""

_SCALE = ".scale"  # ending of the name of a matrix's scales
_ABOUT = {"format": "tamiz-int8", "version": "1"}
_MOST = 127


def write(tensors: Mapping[str, NDArray[np.float32]], target: Path) -> None:
    """Write weights in 8 bits.

    Args:
        tensors: float32 by name; those with two dimensions are stored in 8 bits.
        target: the file.

    Raises:
        ValueError: a value is no finite number.
        MissingExtraError: safetensors is not installed.
    """
    save = require("safetensors.numpy", extra="onnx").save_file
    stored: dict[str, NDArray[np.generic]] = {}
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise ValueError(f"tensor {name} holds values that are no finite numbers")
        if values.ndim != 2:
            stored[name] = np.ascontiguousarray(values, np.float32)
            continue
        scale = np.maximum(np.abs(values).max(axis=1), np.finfo(np.float32).tiny).astype(np.float32) / _MOST
        stored[name] = np.rint(values / scale[:, None]).clip(-_MOST, _MOST).astype(np.int8)
        stored[name + _SCALE] = scale
    save(stored, target, metadata=_ABOUT)


def convert(sources: Sequence[Path], target: Path, progress: Progress | None = None) -> None:
    """Write config.json, tokenizer.json and model.safetensors (float32) into the existing empty folder `target`.

    Args:
        sources: paths of the files `FILES`, whose own names may differ in their folders alone.
        target: folder for the result.
        progress: told how many tensors are done.

    Raises:
        SourceError: a file is missing or damaged, or of another layout.
        MissingExtraError: safetensors is not installed.
    """
    save = require("safetensors.numpy", extra="onnx").save_file
    by_name = {path.name: path for path in sources}
    missing = [name for name in FILES if name not in by_name]
    if missing:
        raise SourceError(f"weights in 8 bits: {', '.join(missing)} is missing beside {', '.join(sorted(by_name))}")
    tensors = _read(by_name[FILE], progress)
    try:
        for name in FILES[:2]:
            json.loads(by_name[name].read_bytes())
            shutil.copyfile(by_name[name], target / name)
    except OSError as error:
        raise SourceError(f"{by_name[name]} could not be copied: {explain(error)}") from error
    except ValueError as error:
        raise SourceError(f"{by_name[name]} is damaged: it is no JSON") from error
    save(tensors, target / "model.safetensors", metadata={"format": "pt"})


def _read(path: Path, progress: Progress | None) -> dict[str, NDArray[np.float32]]:
    """Return all tensors in float32.

    Raises:
        SourceError: the file is damaged or of another layout.
    """
    safe_open = require("safetensors", extra="onnx").safe_open
    found: dict[str, NDArray[np.float32]] = {}
    try:
        with safe_open(path, "numpy") as file:
            if file.metadata() != _ABOUT:
                raise ValueError("other format or version")
            names = list(file.keys())
            scales = {name for name in names if name.endswith(_SCALE)}
            for done, name in enumerate(sorted(set(names) - scales)):
                values = file.get_tensor(name)
                scale = file.get_tensor(name + _SCALE) if name + _SCALE in scales else None
                found[name] = _values(name, values, scale)
                if progress:
                    progress("convert", done + 1, len(names) - len(scales))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {explain(error)}") from error
    except Exception as error:  # safetensors raises its own errors
        raise SourceError(f"{path} is damaged or holds no weights in 8 bits ({error})") from error
    return found


def _values(name: str, values: NDArray[np.generic], scale: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if values.dtype == np.float32 and scale is None:
        return values.astype(np.float32)
    if values.dtype != np.int8 or values.ndim != 2 or scale is None or scale.shape != values.shape[:1]:
        raise ValueError(f"tensor {name} is of another type or shape")
    return np.asarray(values.astype(np.float32) * scale[:, None], np.float32)

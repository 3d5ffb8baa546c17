"""Tiny encoders on disk: a 4-bit file, a package that carries one, a folder in Hugging Face layout."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tamiz.encoders.catalogue import CATALOGUE, Entry, Part
from tamiz.package_index import PackageFile

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁red", "▁bread", "▁a", "b", "c", "<mask>"]
SCORES = [0.0, 0.0, 0.0, 0.0, -3.0, -1.0, -1.5, -2.0, -4.0, -4.5, 0.0]
HIDDEN, LAYERS, INNER, POSITIONS = 32, 1, 64, 16


def q4(values: NDArray[np.float32]) -> bytes:
    """Pack values in blocks of 32 as a scale and sixteen bytes of two values each."""
    out = b""
    for block in values.ravel().reshape(-1, 32):
        scale = np.float16(np.abs(block).max() / 7)
        steps = np.clip(np.rint(block / np.float32(scale)) + 8, 0, 15).astype(np.uint8)
        out += scale.tobytes() + (steps[:16] | (steps[16:] << 4)).tobytes()
    return out


def tensors() -> dict[str, NDArray[np.float32]]:
    """Return random tensors by the names in the file; matrices are two-dimensional."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "emb.word": (len(PIECES), HIDDEN),
        "emb.pos": (POSITIONS, HIDDEN),
        "emb.type": (2, HIDDEN),
        "emb.ln.w": (HIDDEN,),
        "emb.ln.b": (HIDDEN,),
    }
    for layer in range(LAYERS):
        for name, shape in {"fi": (INNER, HIDDEN), "fo": (HIDDEN, INNER)}.items():
            shapes[f"l{layer}.{name}.w"], shapes[f"l{layer}.{name}.b"] = shape, shape[:1]
        for name in ("q", "k", "v", "ao"):
            shapes[f"l{layer}.{name}.w"], shapes[f"l{layer}.{name}.b"] = (HIDDEN, HIDDEN), (HIDDEN,)
        for name in ("aln", "oln"):
            shapes[f"l{layer}.{name}.w"] = shapes[f"l{layer}.{name}.b"] = (HIDDEN,)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def e5_file() -> bytes:
    """Return the bytes of a whole 4-bit file."""
    blob = "".join(PIECES).encode()
    ends = np.cumsum([0] + [len(piece.encode()) for piece in PIECES]).astype("<u4")
    head = struct.pack("<4sI7ifi", b"E5S1", 1, HIDDEN, LAYERS, 2, INNER, len(PIECES), POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob)) + ends.tobytes()
    head += np.array(SCORES, "<f4").tobytes() + blob + struct.pack("<iI", 0, 0)
    parts = []
    for name, values in tensors().items():
        packed = name == "emb.word" or (values.ndim == 2 and name.startswith("l"))
        parts.append((name.encode(), int(packed), values.size, q4(values) if packed else values.tobytes()))
    at = len(head) + 4 + sum(2 + len(name) + 21 for name, *_ in parts)
    table, data = struct.pack("<i", len(parts)), b""
    for name, kind, count, raw in parts:
        table += struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", kind, count, at + len(data), len(raw))
        data += raw
    return head + table + data


def hf_files() -> dict[str, bytes]:
    """Return the files of a folder whose weights are one number."""
    from safetensors.numpy import save

    return {
        "config.json": json.dumps({"model_type": "bert"}).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": save({"one": np.ones(1, np.float32)}),
    }


def hf_folder(folder: Path, **more: bytes) -> Path:
    """Write `hf_files` and others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in {**hf_files(), **more}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def entry(like: str, files: dict[str, bytes]) -> Entry:
    """Return an entry as `like` is one, of a package `tinyenc` with other files (path, bytes) and no wheel yet."""
    parts = tuple(Part(path, hashlib.sha256(data).hexdigest(), len(data)) for path, data in files.items())
    wheel = PackageFile("tinyenc", "tinyenc-1.0-py3-none-any.whl", "", 0)
    return replace(CATALOGUE[like], name="tiny", wheel=wheel, version="1.0", parts=parts)


def package(site: Path, files: dict[str, bytes]) -> None:
    """Install a package `tinyenc` whose code must not run."""
    for path, data in {**files, "tinyenc/__init__.py": b"raise SystemExit('imported')"}.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)
    about = site / "tinyenc-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tinyenc\nVersion: 1.0\n", encoding="utf-8")
    (about / "RECORD").write_text("".join(f"{path},,\n" for path in files), encoding="utf-8")

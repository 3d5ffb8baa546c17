"""Convert the 4-bit file of multilingual-e5-small into a folder in Hugging Face layout.

The file (little-endian) holds dimensions, the pieces of a Unigram tokenizer, its normalisation map and named tensors:
float32, or Q4_0, which is blocks of 32 values as one float16 scale and 16 bytes of two values each.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.errors import SourceError
from tamiz.extras import require
from tamiz.types import Progress

__all__ = ["convert"]

_MAGIC = b"E5S1"
_VERSION = 1
_BLOCK = 32
_Q4 = np.dtype([("scale", "<f2"), ("pairs", "u1", (_BLOCK // 2,))])
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True, slots=True)
class _Shape:
    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class _Pieces:
    texts: list[str]
    scores: list[float]
    bos: int
    eos: int
    pad: int
    unk: int


def convert(source: Path, target: Path, progress: Progress | None = None) -> None:
    """Write config.json, model.safetensors (float32) and tokenizer.json into the existing empty folder `target`.

    Args:
        source: the 4-bit file.
        target: folder for the result.
        progress: told how many tensors are done.

    Raises:
        SourceError: the file is damaged or of another layout.
        MissingExtraError: a library that writes the result is not installed.
    """
    save = require("safetensors.numpy", extra="onnx").save_file
    require("tokenizers", extra="onnx")
    try:
        data = source.read_bytes()
        reader = _Reader(data)
        shape = _read_shape(reader)
        pieces = _read_pieces(reader)
        _, size = reader.take("<iI")
        reader.skip(size)  # the normalisation map, which is Nmt and NFKC
        tensors = _read_tensors(reader, shape, progress)
    except OSError as error:
        raise SourceError(f"{source} cannot be read: {error.strerror}") from error
    except (struct.error, ValueError, KeyError, IndexError, OverflowError) as error:
        raise SourceError(f"{source} is damaged or no 4-bit file of e5-small ({error})") from error
    _write_json(target / "config.json", _config(shape, pieces))
    _write_json(target / "tokenizer_config.json", _tokenizer_config(shape))
    _tokenizer(pieces).save(str(target / "tokenizer.json"), pretty=False)
    save(tensors, target / "model.safetensors", metadata={"format": "pt"})


class _Reader:
    """Reads structures one after the other, refusing to leave the data."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return found

    def array(self, kind: str, count: int) -> NDArray[Any]:
        found = np.frombuffer(self.data, kind, count, self.at)
        self.at += found.nbytes
        return found

    def skip(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise ValueError("cut off")
        found = self.data[self.at : self.at + size]
        self.at += size
        return found


def _read_shape(reader: _Reader) -> _Shape:
    magic, version = reader.take("<4sI")
    if magic != _MAGIC or version != _VERSION:
        raise ValueError("other magic bytes or version")
    hidden, layers, heads, inner, vocabulary, positions, types, epsilon, block = reader.take("<7ifi")
    if block != _BLOCK or min(hidden, layers, heads, inner, vocabulary, positions, types) <= 0:
        raise ValueError("other dimensions")
    shortest = float(str(np.float32(epsilon)))  # the shortest decimal that means the same
    return _Shape(hidden, layers, heads, inner, vocabulary, positions, types, shortest)


def _read_pieces(reader: _Reader) -> _Pieces:
    count, bos, eos, pad, unk = reader.take("<5i")
    (size,) = reader.take("<Q")
    if count <= 0 or not all(0 <= special < count for special in (bos, eos, pad, unk)):
        raise ValueError("other pieces")
    ends = reader.array("<u4", count + 1).tolist()
    scores = reader.array("<f4", count).tolist()
    blob = reader.skip(size)
    texts = [blob[start:end].decode("utf-8") for start, end in pairwise(ends)]
    return _Pieces(texts, scores, bos, eos, pad, unk)


def _read_tensors(reader: _Reader, shape: _Shape, progress: Progress | None) -> dict[str, NDArray[np.float32]]:
    """Return all tensors of the model by their usual names.

    Raises:
        ValueError: one is missing, or has another length or type.
    """
    wanted = _wanted(shape)
    (count,) = reader.take("<i")
    found: dict[str, NDArray[np.float32]] = {}
    for done in range(count):
        (length,) = reader.take("<H")
        name = reader.skip(length).decode("utf-8")
        kind, values, offset, size = reader.take("<BIQQ")
        usual, dimensions = wanted[name]
        if values != math.prod(dimensions):
            raise ValueError(f"tensor {name} has another length")
        found[usual] = _values(reader.data, kind, values, offset, size).reshape(dimensions)
        if progress:
            progress("convert", done + 1, count)
    if len(found) != len(wanted):
        raise ValueError(f"{len(found)} tensors found, {len(wanted)} expected")
    return found


def _values(data: bytes, kind: int, count: int, offset: int, size: int) -> NDArray[np.float32]:
    if kind == 0 and size == 4 * count:
        return np.frombuffer(data, "<f4", count, offset).astype(np.float32)
    if kind != 1 or count % _BLOCK or size != count // _BLOCK * _Q4.itemsize:
        raise ValueError("a tensor of another type")
    blocks = np.frombuffer(data, _Q4, count // _BLOCK, offset)
    values = np.empty((len(blocks), _BLOCK), np.float32)
    values[:, : _BLOCK // 2] = blocks["pairs"] & 15
    values[:, _BLOCK // 2 :] = blocks["pairs"] >> 4
    values -= 8
    values *= blocks["scale"].astype(np.float32)[:, None]
    return values.ravel()


def _wanted(shape: _Shape) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return usual name and dimensions of every tensor."""
    h, inner = shape.hidden, shape.inner
    sizes: dict[str, tuple[int, ...]] = {
        "emb.word": (shape.vocabulary, h),
        "emb.pos": (shape.positions, h),
        "emb.type": (shape.types, h),
        "emb.ln.w": (h,),
        "emb.ln.b": (h,),
    }
    names = dict(_NAMES)
    for layer in range(shape.layers):
        for short, usual in _LAYER_NAMES.items():
            out, into = {"fi": (inner, h), "fo": (h, inner)}.get(short, (h, h))
            sizes[f"l{layer}.{short}.w"] = (out,) if short.endswith("ln") else (out, into)
            sizes[f"l{layer}.{short}.b"] = (out,)
            names[f"l{layer}.{short}.w"] = f"encoder.layer.{layer}.{usual}.weight"
            names[f"l{layer}.{short}.b"] = f"encoder.layer.{layer}.{usual}.bias"
    return {name: (names[name], size) for name, size in sizes.items()}


def _config(shape: _Shape, pieces: _Pieces) -> dict[str, object]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.types,
        "layer_norm_eps": shape.epsilon,
        "pad_token_id": pieces.pad,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "position_embedding_type": "absolute",
    }


def _tokenizer_config(shape: _Shape) -> dict[str, object]:
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), _SPECIAL, strict=True))
    return {
        **names,
        "cls_token": "<s>",
        "sep_token": "</s>",
        "model_max_length": shape.positions,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _tokenizer(pieces: _Pieces) -> Any:
    """Build the tokenizer: runs of spaces count as one, and every text begins with a space."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    made: Any = Tokenizer(models.Unigram(list(zip(pieces.texts, pieces.scores, strict=True)), unk_id=pieces.unk))
    one_space = normalizers.Replace(Regex(" {2,}"), " ")
    made.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), one_space])
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    bos, eos = pieces.texts[pieces.bos], pieces.texts[pieces.eos]
    made.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, pieces.bos), (eos, pieces.eos)],
    )
    known = set(pieces.texts)
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in _SPECIAL if text in known])
    return made


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")

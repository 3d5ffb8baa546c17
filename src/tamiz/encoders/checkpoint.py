"""Read the weights of a BERT-like encoder from its folder, without PyTorch.

The folder has the Hugging Face layout: `config.json` beside `model.safetensors`, in one file or in several.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.errors import ConfigError, SourceError
from tamiz.extras import require

__all__ = ["Checkpoint", "Dense", "Layer", "Norm", "config_of", "first_place", "is_readable", "read_checkpoint"]

Array = NDArray[np.float32]

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_BERT = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
_DISTILBERT = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "out": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "norm": "output_layer_norm",
}


@dataclass(frozen=True)
class _Family:
    """How one architecture names things.

    Attributes:
        prefix: of the encoder's tensors under a classification head.
        layer: name of a layer, with its number left open.
        parts: Tamiz's name of a layer's part to the architecture's.
        head: dense layers of the classification head, each with what follows it.
        counts: what the configuration calls the numbers of layers and of heads.
    """

    prefix: str
    layer: str
    parts: Mapping[str, str]
    head: tuple[tuple[str, str], ...]
    counts: tuple[str, str] = ("num_hidden_layers", "num_attention_heads")


_ROBERTA = _Family(
    "roberta.", "encoder.layer.{}", _BERT, (("classifier.dense", "tanh"), ("classifier.out_proj", "none"))
)
_FAMILIES = {
    "bert": _Family("bert.", "encoder.layer.{}", _BERT, (("pooler.dense", "tanh"), ("classifier", "none"))),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _Family(
        "distilbert.",
        "transformer.layer.{}",
        _DISTILBERT,
        (("pre_classifier", "relu"), ("classifier", "none")),
        ("n_layers", "n_heads"),
    ),
}


@dataclass(frozen=True)
class Dense:
    """A dense layer: `weight` of shape (inputs, outputs), `bias` of shape (outputs,)."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Norm:
    """A layer normalisation: `scale` and `bias` of shape (hidden,)."""

    scale: Array
    bias: Array


@dataclass(frozen=True)
class Layer:
    """One layer: self-attention and a feed-forward network, each followed by a normalisation."""

    query: Dense
    key: Dense
    value: Dense
    out: Dense
    attention_norm: Norm
    up: Dense
    down: Dense
    norm: Norm


@dataclass(frozen=True)
class Checkpoint:
    """An encoder's weights and shape.

    Attributes:
        words: embeddings of the vocabulary (pieces, hidden).
        positions: embeddings of the places of a text, the first one first (places, hidden).
        types: embeddings of the token types (types, hidden), absent where a text has no types.
        norm: after the embeddings.
        layers: first to last.
        heads: attention heads a layer.
        epsilon: of the normalisations.
        activation: of the feed-forward networks: `gelu`, `gelu_tanh` or `relu`.
        head: dense layers on the first token, each with `tanh`, `relu` or `none` after it; empty without such a head.
        pad: id of the padding token.
    """

    words: Array
    positions: Array
    types: Array | None
    norm: Norm
    layers: tuple[Layer, ...]
    heads: int
    epsilon: float
    activation: str
    head: tuple[tuple[Dense, str], ...]
    pad: int

    @property
    def max_length(self) -> int:
        """The most tokens a text may have, special ones included."""
        return len(self.positions)


def config_of(folder: Path) -> dict[str, Any]:
    """Read `config.json` of an encoder's folder.

    Raises:
        SourceError: it is not there or is no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path} cannot be read as JSON; an encoder's folder needs it beside its weights and tokenizer"
        ) from error
    if not isinstance(config, dict):
        raise SourceError(f"{path} holds no JSON object; take the config.json that came with the weights")
    return config


def is_readable(config: Mapping[str, Any]) -> bool:
    """Say whether `read_checkpoint` knows the architecture."""
    return (
        config.get("model_type") in _FAMILIES
        and config.get("position_embedding_type", "absolute") == "absolute"
        and _activation(config) in _ACTIVATIONS
        and not config.get("is_decoder")
        and not config.get("sinusoidal_pos_embds")
    )


def first_place(config: Mapping[str, Any]) -> int:
    """Return the number of a text's first place; a readable RoBERTa counts from behind the padding token's number."""
    return _pad(config) + 1 if is_readable(config) and _FAMILIES[config["model_type"]] is _ROBERTA else 0


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the weights of a BERT, RoBERTa, XLM-RoBERTa, CamemBERT or DistilBERT.

    Raises:
        ConfigError: the architecture is another one.
        SourceError: a file or a tensor is missing, or a file is damaged.
    """
    config = config_of(folder)
    if not is_readable(config):
        known = ", ".join(_FAMILIES)
        raise ConfigError(f"architecture {config.get('model_type')!r} is not read directly; allowed: {known}")
    family = _FAMILIES[config["model_type"]]
    tensors = _Tensors(folder, family.prefix)
    count, heads = (int(config[name]) for name in family.counts)
    positions, types = _places(config, tensors)
    return Checkpoint(
        words=tensors.take("embeddings.word_embeddings.weight"),
        positions=positions,
        types=types,
        norm=tensors.norm("embeddings.LayerNorm"),
        layers=tuple(_layer(tensors, family, number) for number in range(count)),
        heads=heads,
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        activation=_ACTIVATIONS[_activation(config)],
        head=_head(tensors, family),
        pad=_pad(config),
    )


def _pad(config: Mapping[str, Any]) -> int:
    found = config.get("pad_token_id")
    return int(_FAMILIES[config["model_type"]] is _ROBERTA) if found is None else int(found)


def _activation(config: Mapping[str, Any]) -> str:
    return str(config.get("hidden_act", config.get("activation", "gelu")))


def _places(config: Mapping[str, Any], tensors: _Tensors) -> tuple[Array, Array | None]:
    """Return embeddings of places and of token types; a single type is added to the places."""
    positions = tensors.take("embeddings.position_embeddings.weight")
    positions = positions[first_place(config) :]
    if not tensors.has("embeddings.token_type_embeddings.weight"):
        return positions, None
    types = tensors.take("embeddings.token_type_embeddings.weight")
    return (positions + types, None) if len(types) == 1 else (positions, types)


def _layer(tensors: _Tensors, family: _Family, number: int) -> Layer:
    at = family.layer.format(number)
    parts: dict[str, Any] = {}
    for part, name in family.parts.items():
        parts[part] = tensors.norm(f"{at}.{name}") if part.endswith("norm") else tensors.dense(f"{at}.{name}")
    return Layer(**parts)


def _head(tensors: _Tensors, family: _Family) -> tuple[tuple[Dense, str], ...]:
    if not all(tensors.has(f"{name}.weight") for name, _ in family.head):
        return ()
    return tuple((tensors.dense(name), after) for name, after in family.head)


class _Tensors:
    """Named tensors of a folder, with or without the prefix of the encoder, as float32."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder = folder
        found: dict[str, Any] = {}
        for path in _files(folder):
            found.update(_load(path))
        renamed = {name.replace(".gamma", ".weight").replace(".beta", ".bias"): one for name, one in found.items()}
        self._found = {name.removeprefix(prefix): one for name, one in renamed.items()}

    def has(self, name: str) -> bool:
        return name in self._found

    def take(self, name: str) -> Array:
        if name not in self._found:
            raise SourceError(f"{self._folder}: the weights hold no tensor {name}; get the encoder's files again")
        return np.ascontiguousarray(self._found[name], dtype=np.float32)

    def dense(self, name: str) -> Dense:
        return Dense(np.ascontiguousarray(self.take(f"{name}.weight").T), self.take(f"{name}.bias"))

    def norm(self, name: str) -> Norm:
        return Norm(self.take(f"{name}.weight"), self.take(f"{name}.bias"))


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    whole = folder / "model.safetensors"
    if whole.is_file() or not index.is_file():  # both: an index that was left behind, as Transformers sees it
        return [whole]
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / name for name in dict.fromkeys(names)]


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SourceError(f"{path} is not there; an encoder's folder needs its weights as model.safetensors")
    require("ml_dtypes", extra="onnx")  # lets numpy hold bfloat16
    load = require("safetensors.numpy", extra="onnx").load_file
    try:
        tensors: dict[str, Any] = load(path)
    except require("safetensors", extra="onnx").SafetensorError as error:
        raise SourceError(f"{path} is damaged, cut off or no safetensors file. Copy it again") from error
    return tensors

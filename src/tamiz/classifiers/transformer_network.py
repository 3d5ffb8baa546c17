"""The network that is fine-tuned: loading it, what is frozen, groups of the optimizer, precision, losses."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tamiz.classifiers.transformer_params import TransformerParams
from tamiz.errors import ConfigError
from tamiz.extras import require
from tamiz.types import BoolArray, FloatArray, Task

__all__ = [
    "attend_in_fp32",
    "chosen_device",
    "chosen_precision",
    "label_weights",
    "load_network",
    "losses",
    "one_pad",
    "optimizer_for",
    "threads",
]

_IN_FP32 = "sdpa_in_fp32"  # as an attention of the library
_WORTH = 0.8  # of the time in fp32, that a product in bf16 may take; the conversions around it take time too
_LAYER = re.compile(r"\.(?:layer|layers|h|block|blocks)\.(\d+)\.")
_EMBEDDINGS = re.compile(r"(?:^|\.)(?:embeddings|embed_tokens|wte|wpe|word_embedding)\.")
_DROPOUTS = {
    "dropout": ("hidden_dropout_prob", "classifier_dropout", "dropout", "seq_classif_dropout", "embedding_dropout"),
    "attention_dropout": ("attention_probs_dropout_prob", "attention_dropout"),
}
"""How configurations of models call what a parameter sets."""


def load_network(folder: Path, labels: tuple[str, ...], params: TransformerParams) -> Any:
    """Return the encoder with a new head for the labels; freeze what is to stay as it is.

    Args:
        folder: weights in Hugging Face's layout.
        labels: labels in order; the head has one output each.
        params: which dropout, what is frozen.

    Raises:
        ConfigError: the folder holds no model that transformers can load, weights of the encoder are missing or of
            another shape, or it has fewer layers than are to be frozen.
        MissingExtraError: PyTorch or transformers is not installed.
    """
    torch, transformers = require("torch", extra="transformers"), require("transformers", extra="transformers")
    transformers.utils.logging.set_verbosity_error()  # it warns that the head is new
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: place for place, label in enumerate(labels)}
        _set_dropout(config, params)
        network, about = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,  # never a pickle
            ignore_mismatched_sizes=True,  # a head for other labels
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"encoder: {params.encoder!r} cannot be fine-tuned: {str(error).strip()[:300]}") from error
    _check_loaded(network, about, params.encoder)
    _freeze(network, params)
    return network


def _check_loaded(network: Any, about: dict[str, Any], encoder: str) -> None:
    """Refuse an encoder of which a part would be new; a head is new always, and some encoders come without a pooler."""
    own = f"{network.base_model_prefix}."
    missing = sorted(name for name in about["missing_keys"] if name.startswith(own) and ".pooler." not in name)
    if missing:
        raise ConfigError(
            f"encoder: {encoder!r} lacks {len(missing)} of the weights that its config.json tells of, such as "
            f"{missing[0]}; take the config.json and the model.safetensors of one model"
        )
    other = sorted((name, *map(list, shapes)) for name, *shapes in about["mismatched_keys"] if name.startswith(own))
    if other:
        name, found, wanted = other[0]
        raise ConfigError(
            f"encoder: {encoder!r} has weights of another shape than its config.json says: {name} is {found} and not "
            f"{wanted}; take the config.json and the model.safetensors of one model"
        )


def one_pad(network: Any, tokenizer: Any) -> int:
    """Return the id that fills up rows, and let the network know it: a decoder finds a text's last token by it."""
    config, pieces = network.config, len(network.get_input_embeddings().weight)
    known = (getattr(config, "pad_token_id", None), tokenizer.pad_id, getattr(config, "eos_token_id", None))
    config.pad_token_id = next((one for one in known if isinstance(one, int) and 0 <= one < pieces), 0)
    return int(config.pad_token_id)


def _set_dropout(config: Any, params: TransformerParams) -> None:
    for param, names in _DROPOUTS.items():
        value = getattr(params, param)
        for name in names:
            if value is not None and hasattr(config, name):
                setattr(config, name, value)


def _freeze(network: Any, params: TransformerParams) -> None:
    layers = _layers(network)
    if params.freeze_layers > layers:
        raise ConfigError(f"freeze_layers: {params.freeze_layers}; the model has {layers} layers")
    for name, weights in network.named_parameters():
        depth = _depth(name, layers)
        frozen_embeddings = (params.freeze_embeddings or params.freeze_layers > 0) and depth == layers + 1
        weights.requires_grad_(not (frozen_embeddings or layers - params.freeze_layers < depth <= layers))


def _layers(network: Any) -> int:
    found = [int(match[1]) for name, _ in network.named_parameters() if (match := _LAYER.search(name))]
    return 1 + max(found, default=-1)


def _depth(name: str, layers: int) -> int:
    """Return how far below the head weights lie: 0 for the head, `layers + 1` for the embeddings."""
    if match := _LAYER.search(name):
        return layers - int(match[1])
    return layers + 1 if _EMBEDDINGS.search(name) else 0


def optimizer_for(network: Any, params: TransformerParams) -> Any:
    """Return AdamW with a group for each depth, with and without decay; `initial_lr` is a group's highest rate."""
    torch = require("torch", extra="transformers")
    layers = _layers(network)
    groups: dict[tuple[int, bool], list[Any]] = {}
    for name, weights in network.named_parameters():
        if weights.requires_grad:
            groups.setdefault((max(0, _depth(name, layers) - 1), weights.ndim > 1), []).append(weights)
    rates = {depth: params.learning_rate * params.layer_decay**depth for depth, _ in groups}
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "lr": rates[depth],
                "initial_lr": rates[depth],
                "weight_decay": params.weight_decay if decays else 0.0,
            }
            for (depth, decays), members in sorted(groups.items(), key=lambda item: item[0])
        ],
        fused=True,
    )


def losses(logits: Any, targets: Any, task: Task, weights: Any, smoothing: float) -> Any:
    """Return the loss of each row, `(n,)`.

    Args:
        logits: `(n, k)`.
        targets: int64 `(n,)`; multi-label: float `(n, k)`.
        task: cross-entropy, or for multi-label tasks the mean over labels of the binary one.
        weights: of each label, `(k,)`; multi-label: of its presence.
        smoothing: share of the target that is spread over all labels.
    """
    functional = require("torch", extra="transformers").nn.functional
    if task is not Task.MULTI_LABEL:
        return functional.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing, reduction="none")
    soft = targets * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, soft, pos_weight=weights, reduction="none").mean(dim=1)


def label_weights(has: BoolArray, task: Task) -> FloatArray:
    """Return weights by the inverse of the labels' frequency, `(k,)`; labels without examples have weight 1."""
    counts = has.sum(axis=0)
    if task is Task.MULTI_LABEL:
        weights = np.asarray((len(has) - counts) / np.maximum(counts, 1)).clip(1e-3, 1e3)
    else:
        weights = np.asarray(len(has) / (np.maximum(1, np.count_nonzero(counts)) * np.maximum(counts, 1)))
    return np.where(counts > 0, weights, 1.0)  # smoothing gives a target to absent labels too


def chosen_device(params: TransformerParams) -> str:
    """Return `cpu` or `cuda`.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    torch = require("torch", extra="transformers")
    if params.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: 'cuda', and PyTorch finds no GPU; use 'cpu' or 'auto'")
    if params.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return params.device


def chosen_precision(params: TransformerParams, device: str) -> str:
    """Return `fp32` or `bf16`; `auto` takes bf16 only where the hardware computes in it."""
    if params.precision != "auto":
        return params.precision
    torch = require("torch", extra="transformers")
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    able = torch.cpu.get_capabilities()
    claimed = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))
    return "bf16" if claimed and _bf16_pays() else "fp32"


def attend_in_fp32(network: Any) -> None:
    """Let a network that trains in bf16 on a processor compute attention, and nothing else, in fp32.

    PyTorch's attention in bf16 is slow there: over 128 tokens its gradient takes eleven times as long as in fp32, a
    third of a step (PyTorch 2.13, a processor with AMX). Networks with an attention of their own stay as they are.
    """
    if network.config._attn_implementation != "sdpa":  # the library has no public name for it
        return
    transformers = require("transformers", extra="transformers")
    transformers.AttentionInterface.register(_IN_FP32, _attention_in_fp32)
    transformers.AttentionMaskInterface.register(_IN_FP32, transformers.masking_utils.sdpa_mask)
    network.set_attn_implementation(_IN_FP32)


def _attention_in_fp32(module: Any, query: Any, key: Any, value: Any, mask: Any, **more: Any) -> tuple[Any, None]:
    torch, transformers = require("torch", extra="transformers"), require("transformers", extra="transformers")
    with torch.autocast("cpu", enabled=False):
        attend = transformers.integrations.sdpa_attention.sdpa_attention_forward
        found, _ = attend(module, query.float(), key.float(), value.float(), mask, **more)
    return found.to(query.dtype), None


@cache
def _bf16_pays() -> bool:
    """Tell whether this processor multiplies matrices faster in bf16, conversions paid.

    With AVX512-BF16 alone some take twice as long for it as for fp32; with AMX they take a fraction.
    """
    return _product_seconds("bfloat16") < _WORTH * _product_seconds("float32")


def _product_seconds(dtype: str) -> float:
    """Return the seconds that one layer of a small encoder takes for a batch, the best of a few."""
    torch = require("torch", extra="transformers")
    values, weights = (torch.ones(shape, dtype=getattr(torch, dtype)) for shape in ((2048, 384), (1536, 384)))
    found = []
    for _ in range(6):
        began = time.perf_counter()
        torch.nn.functional.linear(values, weights)
        found.append(time.perf_counter() - began)
    return min(found)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads (0: as many as this process has cores), and as many as before afterwards."""
    torch = require("torch", extra="transformers")
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(count or cores)
    try:
        yield
    finally:
        torch.set_num_threads(before)

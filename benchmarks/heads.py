"""MiniLM with a head, as a folder that Transformers and Tamiz both read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tamiz.encoders.find import find

__all__ = ["HIDDEN", "write_classifier"]

HIDDEN = 384


def write_classifier(
    folder: Path, weight: NDArray[Any], bias: NDArray[Any], names: Sequence[str], *, pooler: float = 1.0
) -> dict[str, Any]:
    """Write a `BertForSequenceClassification` over MiniLM's first token, and return its config.

    Args:
        folder: for config, tokenizer and weights; what stands there is replaced.
        weight: of the head, `(k, HIDDEN)`.
        bias: `(k,)`.
        names: of the labels.
        pooler: factor of the token before the pooler's tanh, which is nearly straight for small ones.
    """
    source = find("minilm").folder
    folder.mkdir(exist_ok=True)
    shutil.copy(source / "tokenizer.json", folder)
    about = {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["BertForSequenceClassification"], **about}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = {f"bert.{name}": one for name, one in load_file(source / "model.safetensors").items()}
    tensors.pop("bert.embeddings.position_ids", None)
    tensors["bert.pooler.dense.weight"] = pooler * np.eye(HIDDEN)
    tensors["bert.pooler.dense.bias"] = np.zeros(HIDDEN)
    tensors |= {"classifier.weight": weight, "classifier.bias": bias}
    # safetensors writes an array's memory as it lies: it has to lie in rows.
    rows = {name: np.ascontiguousarray(one, np.float32) for name, one in tensors.items()}
    save_file(rows, folder / "model.safetensors", metadata={"format": "pt"})
    return dict(config)

"""From trained weights to what is shipped: averaging with the starting weights, 8 bits, the record of a release."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from recipes.zero_shot.sources import NliPairs
from recipes.zero_shot.training import Encoder
from recipes.zero_shot.vocabulary import CUT
from tamiz.encoders import int8
from tamiz.encoders.find import find
from tamiz.encoders.own import own_of
from tamiz.errors import ConfigError

__all__ = ["ALPHAS", "average", "choose", "export", "nli_quality", "read_training", "release", "write_full"]

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the trained weights that are tried."""


def average(start: Path, trained: Path, alpha: float) -> dict[str, NDArray[np.float32]]:
    """Return `alpha` of the trained weights and the rest of the starting ones.

    Args:
        start: folder of the starting weights.
        trained: folder of the trained ones.
        alpha: from 0 to 1.

    Raises:
        ConfigError: the two have other tensors, or `alpha` is out of range.

    Source: Wortsman et al. (2022), "Robust fine-tuning of zero-shot models", equation 2.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha: {alpha} is not from 0 to 1")
    before, after = load_file(start / "model.safetensors"), load_file(trained / "model.safetensors")
    if missing := [name for name in after if name not in before or before[name].shape != after[name].shape]:
        raise ConfigError(f"the trained weights do not fit those they started from: {missing[0]}")
    return {name: np.asarray((1 - alpha) * before[name] + alpha * after[name], np.float32) for name in after}


def nli_quality(encoder: Encoder, pairs: NliPairs, max_length: int = 128) -> float:
    """Return how often what follows from a premise is nearer to it than what contradicts it (ties count half)."""
    rows = [place for place, no in enumerate(pairs.contradicted) if no]
    if not rows:
        raise ConfigError("no premise of the NLI pairs has both a sentence that follows and one that contradicts")
    texts = [pairs.premises[row] for row in rows]
    yes, no = [pairs.entailed[row][0] for row in rows], [pairs.contradicted[row][0] for row in rows]
    vectors = encoder.embed([*texts, *yes, *no], max_length)
    premise, nearer, farther = np.split(vectors, 3)
    margin = ((nearer - farther) * premise).sum(axis=1)
    return float(((margin > 0) + (margin == 0) / 2).mean())


def choose(measure: Callable[[float], Mapping[str, float]], alphas: Sequence[float] = ALPHAS) -> dict[str, Any]:
    """Return the share whose mean figure is highest, and all figures; the smaller share on ties.

    Args:
        measure: figures of a share, the higher the better.
        alphas: shares to try, ascending.
    """
    found = {alpha: dict(measure(alpha)) for alpha in alphas}
    means = {alpha: float(np.mean(list(values.values()))) for alpha, values in found.items()}
    best = max(alphas, key=lambda alpha: (means[alpha], -alpha))
    return {"alpha": best, "figures": {str(alpha): {**found[alpha], "mean": means[alpha]} for alpha in alphas}}


def write_full(trained: Path, weights: Mapping[str, NDArray[np.float32]], target: Path) -> Path:
    """Write averaged weights in Hugging Face layout."""
    target.mkdir(parents=True, exist_ok=True)
    for name in int8.FILES[:2]:
        (target / name).write_bytes((trained / name).read_bytes())
    save_file(dict(weights), target / "model.safetensors", metadata={"format": "pt"})
    return target


def export(trained: Path, target: Path, alpha: float, *, choice: Mapping[str, Any] | None = None) -> Path:
    """Write what is shipped: averaged weights in 8 bits, settings, tokenizer, and what it was trained on.

    Args:
        trained: folder that `train` wrote.
        target: folder for the result.
        alpha: share of the trained weights.
        choice: how it was chosen, for the record.

    Raises:
        ConfigError: the trained weights are not there, or did not start from the encoder that they name.
    """
    about = read_training(trained)
    start = find(about["options"]["start"])
    if start.sha256 != about["start_sha256"]:
        raise ConfigError(f"the encoder {start.name} is not the one that the training started from")
    weights = average(start.folder, trained, alpha)
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.safetensors").unlink(missing_ok=True)  # of another time; it would be taken instead
    for name in int8.FILES[:2]:
        (target / name).write_bytes((trained / name).read_bytes())
    int8.write(weights, target / int8.FILE)
    about.pop("losses")
    about |= {"alpha": alpha, "choice": dict(choice or {})}
    if (start.folder / CUT).is_file():
        about["cut"] = json.loads((start.folder / CUT).read_text(encoding="utf-8"))
    (target / "training.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    return target


def read_training(folder: Path) -> dict[str, Any]:
    """Return what `train` or `export` recorded.

    Raises:
        ConfigError: the folder has no such record.
    """
    try:
        found: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} holds no finished training: training.json is missing or damaged") from error
    return found


def release(wheel: Path, target: Path | None = None) -> Path:
    """Write the record by which the catalogue knows a wheel: its hash and those of the model's files.

    Args:
        wheel: a built wheel of one of our encoders.
        target: the JSON file; by default that which the catalogue reads.

    Raises:
        ConfigError: the wheel is none of ours, or lacks a file of the model.
    """
    own = own_of(wheel.name)
    target = target or own.record
    files = []
    with zipfile.ZipFile(wheel) as archive:
        for name in int8.FILES:
            try:
                data = archive.read(f"{own.folder}/{name}")
            except KeyError as error:
                raise ConfigError(
                    f"{wheel.name} does not hold {own.folder}/{name}; export into the package first"
                ) from error
            files.append({"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)})
    data = wheel.read_bytes()
    about = {
        "version": wheel.name.split("-")[1],
        "wheel": {"filename": wheel.name, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)},
        "files": files,
    }
    target.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return target

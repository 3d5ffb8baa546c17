"""A training that can be killed in the middle."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from tamiz.classifiers.checks import examples
from tamiz.classifiers.transformer import TransformerClassifier
from tamiz.types import Task, Validation


def long_training(encoder: str, keep: Path | None, tell: Callable[[int], None]) -> TransformerClassifier:
    """Train a small encoder with dropout for 30 steps, evaluating within epochs, with a checkpoint after every step."""
    texts, targets, labels = examples(Task.BINARY, 96)
    about = {"epochs": 3, "batch_size": 8, "max_length": 32, "num_threads": 1, "precision": "fp32", "form": "fp32"}
    about |= {"learning_rate": 1e-3, "dropout": 0.1, "eval_steps": 5, "checkpoint_seconds": 0, "early_stopping": None}
    made = TransformerClassifier(labels, Task.BINARY, seed=3, encoder=encoder, **about)
    made.keep_in(keep)

    def progress(message: str, done: int = 0, total: int = 0) -> None:
        if message.startswith("fine-tuning"):
            tell(done)

    return made.fit(texts[:80], targets[:80], validation=Validation(texts[80:], targets[80:]), progress=progress)


def _slowly(done: int) -> None:
    print(done, flush=True)
    time.sleep(0.05)


if __name__ == "__main__":
    long_training(sys.argv[1], Path(sys.argv[2]), _slowly)

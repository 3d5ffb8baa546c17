"""Every form of an exported encoder beside Transformers' own pipeline: the same weights, texts and processor."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.datasets import project_of, read
from benchmarks.heads import HIDDEN, write_classifier
from benchmarks.record import Board, Figure, Goal, Outcome, say
from tamiz.encoders.export import export
from tamiz.encoders.forms import EXACT, FORMS, make_form
from tamiz.encoders.runtime import OnnxModel, RowModel, Tokenizer, open_model

__all__ = ["measure"]

_EXAMPLE = "complaints"
_MAX_LENGTH = 256
_TRAIN, _TEST, _REPEATS = 1_500, 400, 2
_ALONE = 32  # texts answered one by one, too
_BATCH_SIZES = (1, 8, 32)
_POOLER = 0.1
_HEADINGS = ["what", "texts/s", "x peer", "accuracy", "agreement", "shift from fp32", "shift by batch", "MB"]
_PEER = "transformers.pipeline, fp32, best batch size"

Array = NDArray[np.float32]


@dataclass
class _Run:
    """One way to answer, its best time and its answers."""

    name: str
    answer: Callable[[], Array]
    megabytes: float
    seconds: float = float("inf")
    found: Array | None = None
    by_batch: float = 0.0


def measure(options: dict[str, Any]) -> Outcome:
    """Compare texts a second, accuracy and answers on one thread; processor time, which other work leaves alone.

    The weights are those of the folder that `parts` names (a fine-tuned classifier of the data set's labels), else
    MiniLM's with a logistic head.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    data = read(project_of(_EXAMPLE))
    order = np.random.default_rng(0).permutation(len(data.texts))
    train, test = order[:_TRAIN], order[_TRAIN : _TRAIN + _TEST]
    texts = [data.texts[row] for row in test]
    with TemporaryDirectory() as scratch:
        folder = Path(options["parts"][0]) if options["parts"] else Path(scratch) / "encoder"
        if not options["parts"]:
            _with_head(folder, [data.texts[row] for row in train], data.targets[train], data.labels)
        runs = [*_forms(folder, Path(scratch), texts), *_pipelines(folder, texts)]
        for _ in range(_REPEATS):
            for run in runs:
                _time(run, len(texts))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    numbers = np.array([data.labels.index(config["id2label"][str(place)]) for place in range(len(data.labels))])
    return _outcome(runs, numbers, data.targets[test])


def _forms(folder: Path, scratch: Path, texts: Sequence[str]) -> list[_Run]:
    export(folder, scratch / "fp32.onnx", head="classification")
    tokenizer = Tokenizer(folder)
    runs = []
    for form in FORMS:
        path = scratch / f"form-{form}.onnx"
        make_form(scratch / "fp32.onnx", path, form)
        model = open_model(path, form=form, threads=1)
        run = _Run(form, lambda model=model: _answer(tokenizer, model, texts), path.stat().st_size / 1e6)  # type: ignore[misc]
        few = texts[:_ALONE]
        alone = np.concatenate([_answer(tokenizer, model, [text]) for text in few])
        run.by_batch = float(np.abs(alone - _answer(tokenizer, model, few)).max())
        runs.append(run)
    return runs


def _answer(tokenizer: Tokenizer, model: RowModel, texts: Sequence[str]) -> Array:
    room = _MAX_LENGTH - tokenizer.specials
    logits = model.run([tokenizer.wrap(ids[:room]) for ids in tokenizer.encode(texts)])
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def _pipelines(folder: Path, texts: Sequence[str]) -> list[_Run]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    peer = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    places = {name: place for place, name in model.config.id2label.items()}

    def answer(size: int) -> Array:
        given = peer(list(texts), batch_size=size, top_k=None, truncation=True, max_length=_MAX_LENGTH)
        found = np.empty((len(texts), len(places)), np.float32)
        for row, scores in enumerate(given):
            for one in scores:
                found[row, places[one["label"]]] = one["score"]  # type: ignore[index]
        return found

    size = (folder / "model.safetensors").stat().st_size / 1e6
    return [_Run(f"pipeline, {one}", lambda one=one: answer(one), size) for one in _BATCH_SIZES]  # type: ignore[misc]


def _time(run: _Run, texts: int) -> None:
    start = time.process_time()
    run.found = run.answer()
    run.seconds = min(run.seconds, time.process_time() - start)
    say(f"{run.name}: {texts / run.seconds:.1f} texts/s")


def _outcome(runs: list[_Run], numbers: NDArray[np.int64], targets: NDArray[np.int64]) -> Outcome:
    peer = min((run for run in runs if run.name.startswith("pipeline")), key=lambda run: run.seconds)
    fp32 = next(run for run in runs if run.name == "fp32")
    rows = [_row(run, peer, fp32, numbers, targets) for run in runs]
    by_name = {row["what"]: row for row in rows}
    figures = []
    chosen = max(EXACT, key=lambda form: by_name[form]["texts_per_s"])  # which one is fastest depends on the processor
    for name in (chosen, *(form for form in FORMS if form != chosen)):
        row, best = by_name[name], by_name[peer.name]
        speed = Goal(">=", 3, ratio=True) if name == chosen else None
        loss = Goal("<=", 0.005) if name == chosen else None
        figures.append(Figure(f"{name}", "texts/s", row["texts_per_s"], best["texts_per_s"], _PEER, speed))
        figures.append(Figure(f"{name}: accuracy lost", "", best["accuracy"] - row["accuracy"], goal=loss))
    figures.append(Figure(f"{chosen}: largest shift by batch", "", by_name[chosen]["by_batch"], goal=Goal("<=", 1e-6)))
    board = Board(f"{len(targets)} texts of {_EXAMPLE}, one thread", _HEADINGS, [_cells(row) for row in rows])
    return Outcome(figures, {"rows": rows, "best_pipeline": peer.name}, [board])


def _row(run: _Run, peer: _Run, fp32: _Run, numbers: NDArray[np.int64], targets: NDArray[np.int64]) -> dict[str, Any]:
    assert run.found is not None
    assert fp32.found is not None
    return {
        "what": run.name,
        "texts_per_s": len(targets) / run.seconds,
        "ratio": peer.seconds / run.seconds,
        "accuracy": float((numbers[run.found.argmax(1)] == targets).mean()),
        "agreement": float((run.found.argmax(1) == fp32.found.argmax(1)).mean()),
        "shift": float(np.abs(run.found - fp32.found).max()),
        "by_batch": run.by_batch,
        "megabytes": run.megabytes,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["what"],
        f"{row['texts_per_s']:.1f}",
        f"{row['ratio']:.2f}",
        f"{row['accuracy']:.4f}",
        f"{row['agreement']:.4f}",
        f"{row['shift']:.4f}",
        f"{row['by_batch']:.1e}" if not row["what"].startswith("pipeline") else "",
        f"{row['megabytes']:.1f}",
    ]


def _with_head(folder: Path, texts: Sequence[str], targets: NDArray[Any], labels: Sequence[str]) -> None:
    """Write MiniLM with a logistic head on its first token, as a `BertForSequenceClassification`."""
    write_classifier(folder, np.eye(HIDDEN), np.zeros(HIDDEN), [str(one) for one in range(HIDDEN)], pooler=_POOLER)
    export(folder, folder / "features.onnx", head="classification")
    tokenizer, model = Tokenizer(folder), OnnxModel(folder / "features.onnx", threads=1)
    rows = [tokenizer.wrap(ids[: _MAX_LENGTH - tokenizer.specials]) for ids in tokenizer.encode(texts)]
    fitted = LogisticRegression(C=30, max_iter=2000).fit(model.run(rows), targets)
    weight, bias = (np.asarray(one, np.float32) for one in (fitted.coef_, fitted.intercept_))
    if len(labels) == len(weight) + 1:  # two labels share one column
        weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
        weight, bias = weight * np.float32(0.5), bias * np.float32(0.5)
    write_classifier(folder, weight, bias, labels, pooler=_POOLER)

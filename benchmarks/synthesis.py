"""As many different complaints as wanted, from the sentences of the real ones.

A new complaint takes label and number of sentences from a real one (at least two) and draws each sentence from all
real ones of that label. One word in fifty is then replaced by a word of another place of the corpus, drawn as often as
it occurs there: without it no new pair of words would ever turn up inside a sentence. No text occurs twice. Distinct
n-grams grow with the number of texts, as they do in real data; `benchmarks scaling` records how fast.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.datasets import project_of

__all__ = ["complaints", "write"]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_REPLACED = 0.02
_BATCH_ROWS = 20_000


def complaints(rows: int, seed: int = 0) -> Iterator[tuple[list[str], list[str]]]:
    """Yield batches of texts and labels, `rows` in all."""
    project = project_of("complaints")
    real = pl.read_parquet(project.data.source).drop_nulls([project.data.text, project.data.label])
    labels = real[project.data.label].to_list()
    sentences = [_SENTENCE_END.split(text) for text in real[project.data.text].to_list()]
    pools: dict[str, list[str]] = {}
    for label, found in zip(labels, sentences, strict=True):
        pools.setdefault(label, []).extend(found)
    words = [word for found in sentences[::4] for sentence in found for word in sentence.split()]
    rng = np.random.default_rng(seed)
    seen: set[int] = set()
    for start in range(0, rows, _BATCH_ROWS):
        texts, names = [], []
        for like in rng.integers(0, len(labels), min(_BATCH_ROWS, rows - start)).tolist():
            pool = pools[labels[like]]
            text = _text(pool, max(len(sentences[like]), 2), words, rng)
            while hash(text.casefold()) in seen:
                text += f" {pool[rng.integers(len(pool))]}"
            seen.add(hash(text.casefold()))
            texts.append(text)
            names.append(labels[like])
        yield texts, names


def _text(pool: list[str], count: int, words: list[str], rng: np.random.Generator) -> str:
    found = " ".join([pool[place] for place in rng.integers(0, len(pool), count).tolist()]).split()
    changed = rng.binomial(len(found), _REPLACED)
    others = rng.integers(0, len(words), changed).tolist()
    for place, other in zip(rng.integers(0, max(len(found), 1), changed).tolist(), others, strict=True):
        found[place] = words[other]
    return " ".join(found)


def write(path: Path, rows: int) -> None:
    """Write complaints as Parquet with the columns of the example."""
    schema = pa.schema([("id", pa.string()), ("narrative", pa.string()), ("category", pa.string())])
    done = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for texts, labels in complaints(rows):
            ids = [f"made-{done + place}" for place in range(len(texts))]
            writer.write_table(pa.table([ids, texts, labels], schema=schema))
            done += len(texts)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
    print("{}")

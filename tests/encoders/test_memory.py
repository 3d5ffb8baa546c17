from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tamiz.encoders import cache
from tamiz.encoders.embedding import MODEL, Embedder
from tamiz.encoders.find import find
from tamiz.encoders.memory import Memory, ready
from tamiz.encoders.runtime import TOKENIZER
from tamiz.errors import ConfigError

for module in ("onnx", "onnxruntime", "tokenizers", "safetensors"):
    pytest.importorskip(module)

ROOT = Path(__file__).parents[2]
TEXTS = ["bread and butter", "a bank loan", "goal of the match", "", "bank \ud800", "bread and butter"]


@pytest.fixture
def prepared(tmp_path, cached) -> Path:
    from tests.tiny_bert import tiny_bert

    return ready(find(str(tiny_bert(tmp_path / "tiny"))))


def embedder(folder: Path, **about) -> Embedder:
    return Embedder(folder, **{"prefix": "", "max_length": 32, "threads": 1, **about})


def counted(folder: Path):
    """An embedder that notes how many texts it was given."""
    real, asked = embedder(folder), []

    class Counted(Embedder):
        def __init__(self) -> None:
            self.max_length = real.max_length

        def __call__(self, texts, progress=None):
            asked.append(len(texts))
            return real(texts, progress)

    return Counted(), asked


def test_an_encoder_is_made_ready_once(prepared, tmp_path):
    made = (prepared / MODEL).stat().st_mtime_ns
    assert ready(find(str(tmp_path / "tiny"))) == prepared
    assert (prepared / MODEL).stat().st_mtime_ns == made
    (prepared / TOKENIZER).write_text("damaged")
    ready(find(str(tmp_path / "tiny")))
    assert cache.check(prepared, cache.manifest(prepared)) is None


def test_embeddings_have_length_one_and_read_the_beginning(prepared):
    embed = embedder(prepared, max_length=8)
    found = embed(["bread " * 6, "bread " * 60, "bread"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert np.abs(found[0] - found[2]).max() > 1e-3
    assert embed([]).shape == (0, found.shape[1])


def test_a_prefix_is_read(prepared):
    with_it, without = embedder(prepared, prefix="this text is ")(["good"]), embedder(prepared)(["this text is good"])
    np.testing.assert_array_equal(with_it, without)


def test_a_text_is_computed_once(prepared):
    count, asked = counted(prepared)
    memory = Memory(count, prepared, prefix="")
    texts = [text for text in TEXTS if text.isascii()]
    first = memory(texts)
    again = Memory(count, prepared, prefix="")([*texts, "new"])
    assert asked == [4, 1]
    np.testing.assert_array_equal(again[:-1], first)
    np.testing.assert_array_equal(first[0], first[-1])
    np.testing.assert_allclose(first, embedder(prepared)(texts), atol=1e-6)


def test_no_text_is_in_the_file(prepared):
    memory = Memory(embedder(prepared), prepared, prefix="")
    memory(["goal of the match"])
    assert b"goal" not in memory.path.read_bytes()
    assert Memory(embedder(prepared), prepared, prefix="")([]).shape[0] == 0


def test_what_is_computed_in_another_way_is_another_file(prepared):
    paths = {
        Memory(embedder(prepared), prepared, prefix="").path,
        Memory(embedder(prepared), prepared, prefix="query: ").path,
        Memory(embedder(prepared, max_length=16), prepared, prefix="").path,
    }
    assert len(paths) == 3


def test_models_whose_graphs_are_alike_are_told_apart_by_their_weights(tmp_path, cached, monkeypatch):
    """Large models have their weights in a file beside the graph."""
    monkeypatch.setattr("tamiz.encoders.export._LARGEST_BYTES", 0)
    from tests.tiny_bert import tiny_bert

    tiny = [tiny_bert(tmp_path / str(seed), seed=seed, hidden=256, layers=1) for seed in (0, 1)]
    folders = [ready(find(str(folder))) for folder in tiny]
    assert len({(folder / MODEL).read_bytes() for folder in folders}) == 1
    first, second = (Memory(embedder(folder), folder, prefix="")(TEXTS[:2]) for folder in folders)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(second, embedder(folders[1])(TEXTS[:2]), atol=1e-6)


def test_vectors_are_made_as_the_folder_says(tmp_path, cached):
    from tests.tiny_bert import tiny_bert

    folder = tiny_bert(tmp_path / "tiny")
    (folder / "1_Pooling").mkdir()
    found = []
    for kind in ("mean_tokens", "cls_token"):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{kind}": True}))
        found.append(embedder(ready(find(str(folder))))(["goal of the match"]))
    assert np.abs(found[0] - found[1]).max() > 1e-3
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cls and 2_Dense"):
        ready(find(str(folder)))


def test_the_oldest_give_way(prepared, tmp_path):
    count, asked = counted(prepared)
    memory = Memory(count, prepared, prefix="", path=tmp_path / "m.sqlite", most_bytes=3 * 4 * 32)
    for text in ("bread", "soup", "cheese", "apple"):
        memory([text])
    memory(["apple", "cheese", "soup"])
    assert asked == [1, 1, 1, 1]
    memory(["bread"])
    assert asked == [1, 1, 1, 1, 1]


def test_a_damaged_file_is_made_anew_and_an_unusable_place_costs_time_alone(prepared, tmp_path):
    expected = embedder(prepared)(TEXTS[:3])
    path = tmp_path / "m.sqlite"
    path.write_bytes(b"no database at all, but long enough to be taken for one" * 50)
    np.testing.assert_array_equal(Memory(embedder(prepared), prepared, prefix="", path=path)(TEXTS[:3]), expected)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT COUNT(*) FROM seen").fetchone() == (3,)
    nowhere = Memory(embedder(prepared), prepared, prefix="", path=path / "below" / "m.sqlite")
    np.testing.assert_array_equal(nowhere(TEXTS[:3]), expected)


PROGRAM = """
import sys
from pathlib import Path
from tamiz.encoders.embedding import Embedder
from tamiz.encoders.memory import Memory
folder, start = Path(sys.argv[1]), int(sys.argv[2])
memory = Memory(Embedder(folder, prefix="", max_length=32, threads=1), folder, prefix="")
for number in range(start, start + 60):
    memory([f"text {number}", f"text {number + 1}"])
print(memory.path)
"""


def test_two_processes_may_use_one_file(prepared):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", PROGRAM, str(prepared)]
    both = [
        subprocess.Popen([*command, start], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for start in ("0", "30")
    ]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    with sqlite3.connect(answers[0][0].strip()) as connection:
        assert connection.execute("SELECT COUNT(*) FROM seen").fetchone() == (91,)

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
from tamiz.encoders.runtime import TOKENIZER, OnnxModel
from tamiz.errors import ConfigError, SourceError

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


def remembering(folder: Path, model=None, *, prefix: str = "", max_length: int = 32, **about) -> Embedder:
    """An embedder whose memory is made as `about` says."""
    made = embedder(folder, prefix=prefix, max_length=max_length)
    made._model = Memory(model or OnnxModel(folder / MODEL, threads=1), folder, **about)
    return made


def counted(folder: Path):
    """A model that notes how many rows it was given."""
    asked = []

    class Counted(OnnxModel):
        def run(self, rows, **about):
            asked.append(len(rows))
            return super().run(rows, **about)

    return Counted(folder / MODEL, threads=1), asked


def rows_in(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT COUNT(*) FROM seen").fetchone()[0]


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
    memory = remembering(prepared, count)
    texts = [text for text in TEXTS if text.isascii()]
    first = memory(texts)
    again = remembering(prepared, count)([*texts, "new"])
    assert asked == [4, 1]
    np.testing.assert_array_equal(again[:-1], first)
    np.testing.assert_array_equal(first[0], first[-1])
    np.testing.assert_allclose(first, embedder(prepared)(texts), atol=1e-6)


def test_no_text_is_in_the_file(prepared):
    memory = embedder(prepared).remembering()
    memory(["goal of the match"])
    assert b"goal" not in memory._model.path.read_bytes()
    assert embedder(prepared).remembering()([]).shape[0] == 0


def test_what_is_read_in_another_way_is_computed_and_the_same_tokens_are_not(prepared):
    count, asked = counted(prepared)
    text = "goal of the match " * 4
    ways = ({}, {"prefix": "query: "}, {"max_length": 16}, {"prefix": "bread ", "max_length": 16})
    for way in ways:
        found = remembering(prepared, count, **way)([text])
        np.testing.assert_allclose(found, embedder(prepared, **way)([text]), atol=1e-6)
    assert asked == [1, 1, 1, 1]
    remembering(prepared, count)(["query: " + text])
    remembering(prepared, count, max_length=16)(["bread " + text, text + "and of butter"])
    assert asked == [1, 1, 1, 1]


def test_another_form_or_pooling_is_another_file(tmp_path, cached):
    from tests.tiny_bert import tiny_bert

    folder = tiny_bert(tmp_path / "tiny")
    folders = [ready(find(str(folder)), form) for form in ("fp32", "int8", "weight8")]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    folders.append(ready(find(str(folder))))
    assert len({embedder(one).remembering()._model.path for one in folders}) == 4


@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_no_bit_of_a_vector_tells_what_was_remembered(tmp_path, cached, form):
    """Sums of floats depend on the width that a row is padded to: it must not come from the rows beside it."""
    from tests.tiny_bert import tiny_bert

    folder = ready(find(str(tiny_bert(tmp_path / "tiny", hidden=64))), form)
    words = [
        "the",
        "goal",
        "of",
        "the",
        "match",
        "was",
        "a",
        "loan",
        "of",
        "the",
        "bank",
        "for",
        "bread",
        "and",
        "butter",
    ]
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(words, size)) for size in draw.integers(1, 60, 80)]

    def reading(name):
        made = embedder(folder, form=form, max_length=64)
        made._model = Memory(OnnxModel(folder / MODEL, threads=1), folder, path=tmp_path / f"{name}.sqlite")
        return made

    together = reading("together")(texts)
    for one in texts:
        reading("alone")([one])
    reading("half")(texts[::2])
    for name in ("together", "alone", "half"):
        np.testing.assert_array_equal(reading(name)(texts), together)
    np.testing.assert_allclose(embedder(folder, form=form, max_length=64)(texts), together, atol=1e-6)


def test_models_whose_graphs_are_alike_are_told_apart_by_their_weights(tmp_path, cached, monkeypatch):
    """Large models have their weights in a file beside the graph."""
    monkeypatch.setattr("tamiz.encoders.export._LARGEST_BYTES", 0)
    from tests.tiny_bert import tiny_bert

    tiny = [tiny_bert(tmp_path / str(seed), seed=seed, hidden=256, layers=1) for seed in (0, 1)]
    folders = [ready(find(str(folder))) for folder in tiny]
    assert len({(folder / MODEL).read_bytes() for folder in folders}) == 1
    first, second = (embedder(folder).remembering()(TEXTS[:2]) for folder in folders)
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
    memory = remembering(prepared, count, path=tmp_path / "m.sqlite", most_bytes=3 * 4 * 32)
    for text in ("bread", "soup", "cheese", "apple"):
        memory([text])
    memory(["apple", "cheese", "soup"])
    assert asked == [1, 1, 1, 1]
    memory(["bread"])
    assert asked == [1, 1, 1, 1, 1]


def test_a_damaged_file_is_made_anew_and_an_unusable_place_costs_time_alone(prepared, tmp_path):
    expected = embedder(prepared).remembering()(TEXTS[:3])
    np.testing.assert_allclose(expected, embedder(prepared)(TEXTS[:3]), atol=1e-6)
    path = tmp_path / "m.sqlite"
    path.write_bytes(b"no database at all, but long enough to be taken for one" * 50)
    np.testing.assert_array_equal(remembering(prepared, path=path)(TEXTS[:3]), expected)
    assert rows_in(path) == 3
    nowhere = remembering(prepared, path=path / "below" / "m.sqlite")
    np.testing.assert_array_equal(nowhere(TEXTS[:3]), expected)


PROGRAM = """
import sys
from pathlib import Path
from tamiz.encoders.embedding import Embedder
folder, start = Path(sys.argv[1]), int(sys.argv[2])
memory = Embedder(folder, prefix="", max_length=32, threads=1).remembering()
for number in range(start, start + 60):
    memory([f"text {number}", f"text {number + 1}"])
print(memory._model.path)
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
    assert rows_in(Path(answers[0][0].strip())) == 91


def test_what_no_encoder_asked_for_a_long_time_is_removed(prepared, tmp_path):
    places = {name: tmp_path / "embeddings" / f"{name}.sqlite" for name in ("unused", "used", "asked", "new")}
    days = {"unused": 91, "used": 89, "asked": 91}
    for name in days:
        remembering(prepared, path=places[name])(["bread"])
    for name, old in days.items():
        written = places[name].stat().st_mtime
        os.utime(places[name], (written, written - old * 24 * 3600))
    remembering(prepared, path=places["asked"])(["bread"])
    assert all(places[name].exists() for name in days)
    remembering(prepared, path=places["new"])(["bread"])
    assert sorted(path.stem for path in (tmp_path / "embeddings").iterdir()) == ["asked", "new", "used"]


def test_a_cache_that_cannot_be_written_says_how_to_name_another(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "file"))
    with pytest.raises(SourceError, match="TAMIZ_CACHE names another folder"), cache.locked("any"):
        pass

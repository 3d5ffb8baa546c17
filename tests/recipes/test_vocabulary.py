"""A multilingual encoder cut to the pieces of some words answers as before what these pieces can say."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pytest
from recipes.zero_shot.training import Encoder
from recipes.zero_shot.vocabulary import CUT, cut, frequencies, needed
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing

from tamiz.encoders.find import find
from tamiz.errors import ConfigError
from tests.tiny_bert import tiny_bert

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
ALPHABET = string.ascii_letters + string.digits + string.punctuation
WANTED = ["▁the", "▁bread", "▁soup", "▁pan", "▁sopa", "▁The", "ing", "▁cook"]
OTHERS = ["▁хлеб", "▁суп", "х", "л", "е", "б", "с", "у", "п", "▁Brot", "▁Suppe", "面", "包"]
MARKS = "¿¡«»’“”—€ßłğÉ"
WORDS = frequencies([{"the": 0.05, "bread": 1e-4, "soup": 1e-4, "cooking": 1e-4}, {"pan": 1e-4, "sopa": 1e-4}])
SIZE = len(SPECIAL) + len(ALPHABET) + len(MARKS) + 1 + len(WANTED)


@pytest.fixture
def encoder(tmp_path, monkeypatch) -> Path:
    """A tiny BERT with a Unigram vocabulary of several scripts, special pieces where XLM-R has them."""
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "cache"))
    folder = tiny_bert(tmp_path / "whole")
    config = json.loads((folder / "config.json").read_text())
    scores = [(piece, -8.0) for piece in (*OTHERS, *WANTED)] + [(one, -12.0) for one in ("▁", *ALPHABET, *MARKS)]
    filler = [(f"▁filler{place}", -9.0) for place in range(config["vocab_size"] - len(SPECIAL) - len(scores))]
    pieces = [(one, 0.0) for one in SPECIAL] + filler + scores
    tokenizer = Tokenizer(Unigram(pieces[: config["vocab_size"]], unk_id=3))
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", [("<s>", 0), ("</s>", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": 1}))
    return folder


def test_texts_in_the_pieces_that_stay_have_the_vectors_of_before(encoder, tmp_path):
    made = cut(str(encoder), tmp_path / "cut", WORDS, SIZE, ["en", "es"])
    texts = ["the bread", "The soup, cooking", "sopa pan xyz", "42 (the)", "¿«sopa»? ¡Erdoğan’s €5!"]
    whole, small = Encoder(encoder, "fp32"), Encoder(find(str(made)).folder, "fp32")
    assert small.network.config.vocab_size == SIZE < whole.network.config.vocab_size
    assert [len(row) for row in small.rows(texts, 64)] == [len(row) for row in whole.rows(texts, 64)]
    assert np.allclose(small.embed(texts, 64), whole.embed(texts, 64), atol=1e-6)


def test_pieces_of_other_languages_go_and_the_record_says_what_stayed(encoder, tmp_path):
    made = cut(str(encoder), tmp_path / "cut", WORDS, SIZE, ["en", "es"])
    tokenizer = Tokenizer.from_file(str(made / "tokenizer.json"))
    kept = set(tokenizer.get_vocab())
    assert kept == {*SPECIAL, *ALPHABET, *MARKS, "▁", *WANTED}
    names = ("<s>", "▁", "<unk>", "</s>")
    assert tokenizer.encode("хлеб").ids == [tokenizer.token_to_id(name) for name in names]
    about = json.loads((made / CUT).read_text())
    assert (about["pieces"], about["languages"]) == (SIZE, ["en", "es"])


def test_words_are_written_in_three_ways_and_numbers_are_words():
    assert WORDS["the"] > WORDS["The"] > WORDS["THE"] > 0
    assert {"0", "1999", "2025"} <= set(WORDS)
    both = frequencies([{"pan": 0.1}, {"pan": 0.2}])
    assert both["pan"] == pytest.approx(0.3)


def test_what_cannot_be_cut_is_refused(encoder, tmp_path):
    with pytest.raises(ConfigError, match="too few: special pieces and single characters alone are"):
        cut(str(encoder), tmp_path / "cut", WORDS, 20)
    other = tiny_bert(tmp_path / "wordpiece")
    with pytest.raises(ConfigError, match="Unigram"):
        needed(json.loads((other / "tokenizer.json").read_text()), WORDS, SIZE)

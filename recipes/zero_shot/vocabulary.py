"""A multilingual encoder cut to some languages: the pieces that their words need, and no others.

Most weights of a small multilingual encoder are vectors of pieces (multilingual-e5-small: 96 of 118 million), most of
them for other scripts. What is cut away changes nothing of a text that does not hold it.

Source: Abdaoui et al. (2020), "Load what you need: smaller versions of multilingual BERT".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tamiz.encoders.find import find
from tamiz.errors import ConfigError, one_of
from tamiz.extras import require

__all__ = ["CUT", "cut", "frequencies", "listed", "needed"]

CUT = "cut.json"
"""What a cut encoder was made from, beside its weights."""

_MOST_WORDS = 100_000  # of a language
_CASES: tuple[tuple[Callable[[str], str], float], ...] = ((str, 1.0), (str.capitalize, 0.2), (str.upper, 0.02))
_NUMBERS = 2100  # whole numbers, years among them, which lists of words leave out
_NUMBER_SHARE = 1e-6
# Lists of words hold no marks, and few of the letters that names of other languages have.
_LATIN = (range(0x21, 0x7F), range(0xA1, 0x180))
_MARKS = "‐‑‒–—―‘’‚“”„†‡•‹›€₤™−"
_EVERYWHERE = [*_MARKS, *(chr(code) for codes in _LATIN for code in codes)]
_EMBEDDINGS = "embeddings.word_embeddings.weight"


def listed(language: str) -> Mapping[str, float]:
    """Return how frequent the words of a language are, in lower case.

    Raises:
        ConfigError: `wordfreq` is not installed, or has no list of the language.

    Source: Speer (2022), wordfreq 3; its lists are given under CC BY-SA 4.0.
    """
    try:
        import wordfreq
    except ImportError as error:
        raise ConfigError("lists of words come from wordfreq: pip install wordfreq") from error
    if language not in wordfreq.available_languages():
        raise ConfigError(f"--languages: {one_of(language, wordfreq.available_languages())}")
    found: Mapping[str, float] = wordfreq.get_frequency_dict(language, wordlist="best")
    return found


def frequencies(lists: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return how frequent words are in three ways of writing them, each list alike, and whole numbers."""
    found = {str(number): _NUMBER_SHARE for number in range(_NUMBERS)}
    for one in lists:
        for word in sorted(one, key=lambda word: (-one[word], word))[:_MOST_WORDS]:
            for written, share in _CASES:
                spelled = written(word)
                found[spelled] = found.get(spelled, 0.0) + share * one[word]
    return found


def needed(tokenizer: Mapping[str, Any], words: Mapping[str, float], size: int) -> list[int]:
    """Return the pieces to keep, ascending: special ones, single characters of the words, and the most used.

    Args:
        tokenizer: content of `tokenizer.json`, of a Unigram model.
        words: how frequent each is.
        size: number of pieces to keep.

    Raises:
        ConfigError: it is no Unigram model, or `size` is too small for the characters alone.
    """
    if tokenizer["model"]["type"] != "Unigram":
        raise ConfigError("only vocabularies of Unigram models can be cut")
    pieces = [piece for piece, _ in tokenizer["model"]["vocab"]]
    places = {piece: place for place, piece in enumerate(pieces)}
    always = {one["id"] for one in tokenizer["added_tokens"]} | {tokenizer["model"]["unk_id"], places.get("▁", 0)}
    for character in {*_EVERYWHERE, *(character for word in words for character in word)}:
        always |= {places[one] for one in (character, f"▁{character}") if one in places}
    if len(always) > size:
        raise ConfigError(f"{size} pieces are too few: special pieces and single characters alone are {len(always)}")
    used = np.zeros(len(pieces))
    for ids, share in _read(tokenizer, words):
        used[ids] += share
    used[list(always)] = np.inf
    return sorted(int(place) for place in np.argsort(-used, kind="stable")[:size])


def _read(tokenizer: Mapping[str, Any], words: Mapping[str, float]) -> Iterator[tuple[list[int], float]]:
    reader = require("tokenizers", extra="onnx").Tokenizer.from_str(json.dumps(tokenizer))
    encoded = reader.encode_batch_fast(list(words), add_special_tokens=False)
    for one, share in zip(encoded, words.values(), strict=True):
        yield one.ids, share


def cut(start: str, target: Path, words: Mapping[str, float], size: int, languages: Sequence[str] = ()) -> Path:
    """Write an encoder with a smaller vocabulary, in Hugging Face layout.

    Args:
        start: encoder to cut: a name of `tamiz models`, or a folder.
        target: for the result.
        words: that it shall read well, with how frequent each is.
        size: number of pieces to keep.
        languages: of the words, for the record.

    Raises:
        ConfigError: there is no such encoder; see `needed`, too.
    """
    found = find(start)
    source = found.folder
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    kept = needed(tokenizer, words, size)
    places = {old: new for new, old in enumerate(kept)}
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = [vocabulary[old] for old in kept]
    tokenizer["model"]["unk_id"] = places[tokenizer["model"]["unk_id"]]
    for one in tokenizer["added_tokens"]:
        one["id"] = places[one["id"]]
    for one in (tokenizer.get("post_processor") or {}).get("special_tokens", {}).values():
        one["ids"] = [places[old] for old in one["ids"]]
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"vocab_size": len(kept), "pad_token_id": places[config["pad_token_id"]]}
    weights = load_file(source / "model.safetensors")
    weights[_EMBEDDINGS] = np.ascontiguousarray(weights[_EMBEDDINGS][kept])
    target.mkdir(parents=True, exist_ok=True)
    (target / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (target / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    about = {"start": start, "start_sha256": found.sha256, "languages": list(languages), "pieces": len(kept)}
    (target / CUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target

"""A tiny random BERT in the Hugging Face layout, made in milliseconds without PyTorch."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "bread soup cheese apple salt butter kitchen dinner taste oven "
    "bank loan credit interest account debt payment market share price "
    "goal match team ball coach league score stadium referee player "
    "this text is about food money sport the a of and good bad not very"
)


def tiny_bert(
    folder: Path,
    *,
    labels: Sequence[str] = (),
    words: str = WORDS,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 2,
    max_length: int = 64,
    seed: int = 0,
) -> Path:
    """Write `config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json` to a folder.

    Args:
        folder: where to; made if absent.
        labels: of the classification head (`BertForSequenceClassification`); none for a bare `BertModel`.
        words: whole words of the vocabulary; other words of letters and digits fall into pieces of one character.
        hidden: width.
        layers: how many.
        heads: attention heads a layer.
        max_length: positions.
        seed: of the weights.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*SPECIALS, *characters, *(f"##{one}" for one in string.ascii_lowercase + string.digits), *words.split()]
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    config = {
        "architectures": ["BertForSequenceClassification" if labels else "BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": max_length,
        "type_vocab_size": 2,
        "vocab_size": len(vocabulary),
        "pad_token_id": 0,
        "layer_norm_eps": 1e-12,
        "id2label": {str(place): label for place, label in enumerate(labels)},
        "label2id": {label: place for place, label in enumerate(labels)},
    }
    if not labels:
        del config["id2label"], config["label2id"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "BertTokenizer", "model_max_length": max_length, "do_lower_case": True}
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIALS, strict=True))
    (folder / "tokenizer_config.json").write_text(json.dumps({**about, **names}), encoding="utf-8")
    sizes = (len(vocabulary), hidden, layers, max_length, len(labels))
    save_file(_weights(*sizes, seed=seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=ends)
    return tokenizer


def _weights(
    vocabulary: int, hidden: int, layers: int, positions: int, labels: int, *, seed: int
) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    made: dict[str, NDArray[np.float32]] = {}

    def add(name: str, *shape: int, around: float = 0.0) -> None:
        # Wide enough that answers differ between texts, as a trained model's do.
        made[name] = (around + rng.normal(0, 0.15, shape)).astype(np.float32)

    def dense(name: str, outputs: int, inputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    def norm(name: str) -> None:
        add(f"{name}.weight", hidden, around=1.0)
        add(f"{name}.bias", hidden)

    base = "bert." if labels else ""
    for name, rows in (("word", vocabulary), ("position", positions), ("token_type", 2)):
        add(f"{base}embeddings.{name}_embeddings.weight", rows, hidden)
    norm(f"{base}embeddings.LayerNorm")
    for layer in range(layers):
        at = f"{base}encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            dense(f"{at}.attention.self.{name}", hidden, hidden)
        dense(f"{at}.attention.output.dense", hidden, hidden)
        norm(f"{at}.attention.output.LayerNorm")
        dense(f"{at}.intermediate.dense", 4 * hidden, hidden)
        dense(f"{at}.output.dense", hidden, 4 * hidden)
        norm(f"{at}.output.LayerNorm")
    dense(f"{base}pooler.dense", hidden, hidden)
    if labels:
        dense("classifier", labels, hidden)
    return made

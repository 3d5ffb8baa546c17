"""Write a pretrained or fine-tuned encoder as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tamiz.encoders.checkpoint import config_of, is_readable, read_checkpoint
from tamiz.encoders.graph import build
from tamiz.encoders.runtime import TOKENIZER, Tokenizer
from tamiz.errors import ConfigError, one_of
from tamiz.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["HEADS", "POOLINGS", "export", "write"]

HEADS = ("classification", "embedding")
POOLINGS = ("mean", "cls", "max")
_LARGEST_BYTES = 1_900_000_000  # one ONNX file holds less than 2 GB


def export(folder: Path, target: Path, *, head: str, pooling: str = "mean") -> None:
    """Write an encoder as float32 ONNX.

    Inputs: `input_ids`, `attention_mask` and, where the encoder has them, `token_type_ids`, int64 (n, length).
    Output: float32 `logits` (n, labels), or `embedding` (n, hidden), of length 1.

    BERT, RoBERTa, XLM-RoBERTa, CamemBERT and DistilBERT are written from their weights; any other architecture goes
    through PyTorch and needs the extra `transformers`.

    Args:
        folder: encoder in the Hugging Face layout.
        target: the file to write; weights of 2 GB or more go to `<target>.data` beside it.
        head: `classification` or `embedding`.
        pooling: what an embedding is of the states of the tokens: their `mean`, the first one (`cls`) or their `max`.

    Raises:
        ConfigError: there is no such head or pooling, or the weights have no such head.
        SourceError: a file or a tensor is missing, weights are damaged, or the tokenizer beside them is of another
            encoder.
        MissingExtraError: the architecture needs PyTorch and it is not installed.
    """
    if head not in HEADS:
        raise ConfigError(f"head: {head!r} is not known; {one_of(head, HEADS)}")
    if head == "embedding" and pooling not in POOLINGS:
        raise ConfigError(
            f"the model in {folder} makes its vectors by {pooling}, which is not known; {one_of(pooling, POOLINGS)}. "
            "Take another encoder"
        )
    config = config_of(folder)
    if not is_readable(config):
        from tamiz.encoders.trace import trace

        write(trace(folder, head=head, config=config, pooling=pooling), target)
        return
    checkpoint = read_checkpoint(folder)
    if (folder / TOKENIZER).is_file():
        Tokenizer(folder).check(len(checkpoint.words))
    if head == "classification" and not checkpoint.head:
        raise ConfigError(
            f"head: the weights in {folder} have no classification head; take head='embedding' or fine-tune first"
        )
    write(build(checkpoint, head=head, pooling=pooling), target)


def write(model: ModelProto, target: Path) -> None:
    """Write a model to one file, with its weights beside it where they are too large for that."""
    onnx = require("onnx", extra="onnx")
    outside = model.ByteSize() >= _LARGEST_BYTES
    target.with_name(f"{target.name}.data").unlink(missing_ok=True)  # what is there would be appended to
    location = f"{target.name}.data" if outside else None
    onnx.save_model(model, target, save_as_external_data=outside, all_tensors_to_one_file=True, location=location)

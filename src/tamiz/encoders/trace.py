"""Write an encoder of any architecture as ONNX by way of PyTorch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamiz.encoders.graph import MAX_LENGTH, PAD
from tamiz.encoders.runtime import TOKENIZER, Tokenizer
from tamiz.errors import ConfigError
from tamiz.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["readable", "trace"]

_EXTRA = "transformers"
_OUTPUT = "encoder_answer"


def trace(folder: Path, *, head: str, config: Mapping[str, Any], pooling: str = "mean") -> ModelProto:
    """Return the ONNX model of an encoder, with inputs and output as `tamiz.encoders.graph.build` names them.

    Args:
        folder: encoder in the Hugging Face layout.
        head: `classification` or `embedding`.
        config: what its `config.json` says.
        pooling: of an embedding: `mean`, `cls` or `max`.

    Raises:
        ConfigError: the architecture cannot be loaded, or the weights have no classification head.
        SourceError: the tokenizer beside them is of another encoder.
        MissingExtraError: PyTorch, Transformers or onnxscript is not installed.
    """
    torch = require("torch", extra=_EXTRA)
    require("onnxscript", extra=_EXTRA)
    model = _load(folder, head=head, config=config)
    if (folder / TOKENIZER).is_file():
        Tokenizer(folder).check(len(model.get_input_embeddings().weight))
    accepted = inspect.signature(model.forward).parameters
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in accepted and int(config.get("type_vocab_size") or 0) > 1:
        names.append("token_type_ids")
    shape = (2, 8)
    values = [torch.ones(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.int64)]
    values += [torch.zeros(shape, dtype=torch.int64)] * (len(names) - 2)
    axes = {0: torch.export.Dim("n"), 1: torch.export.Dim("length")}
    output = "logits" if head == "classification" else "embedding"
    program = torch.onnx.export(
        _wrapped(model, names, head=head, pooling=pooling),
        tuple(values),
        input_names=names,
        output_names=[_OUTPUT],
        dynamic_shapes=(tuple(axes for _ in names),),
        dynamo=True,
        verbose=False,
    )
    made = program.model_proto
    _rename(made.graph, _OUTPUT, output)
    about = {MAX_LENGTH: readable(model, config.get("max_position_embeddings")), PAD: config.get("pad_token_id")}
    known = {name: str(value) for name, value in about.items() if isinstance(value, int) and value >= 0}
    require("onnx", extra="onnx").helper.set_model_props(made, known)
    return made  # type: ignore[no-any-return]


def readable(model: Any, positions: int | None) -> int | None:
    """Return how many tokens a model reads: fewer than it has positions where these begin after the padding's.

    Args:
        model: a PyTorch model of Transformers.
        positions: `max_position_embeddings` of its config.
    """
    for name, module in model.named_modules():
        padding: int | None = getattr(module, "padding_idx", None)
        if "position" in name.rpartition(".")[2] and padding is not None and positions:
            return positions - padding - 1
    return positions


def _load(folder: Path, *, head: str, config: Mapping[str, Any]) -> Any:
    torch, transformers = require("torch", extra=_EXTRA), require("transformers", extra=_EXTRA)
    kind = transformers.AutoModelForSequenceClassification if head == "classification" else transformers.AutoModel
    try:
        model, about = kind.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    except ValueError as error:
        raise ConfigError(
            f"architecture {config.get('model_type')!r} cannot be loaded by Transformers; take another encoder"
        ) from error
    if head == "classification" and about["missing_keys"]:
        raise ConfigError(
            f"head: the weights in {folder} have no classification head; take head='embedding' or fine-tune first"
        )
    return model.eval()


def _rename(graph: Any, old: str, new: str) -> None:
    """Give the output its name, and another one to the value inside that may have it already."""
    names = {old: new, new: f"{new}_inside"}
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(one, one) for one in side]
    graph.output[0].name = new
    del graph.value_info[:]


def _wrapped(model: Any, names: list[str], *, head: str, pooling: str) -> Any:
    torch = require("torch", extra=_EXTRA)

    class Wrapped(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> Any:
            given = dict(zip(names, values, strict=True))
            if head == "classification":
                return self.model(**given).logits
            states = self.model(**given).last_hidden_state
            mask = given["attention_mask"].unsqueeze(-1).to(states.dtype)
            match pooling:
                case "cls":
                    found = states[:, 0]
                case "max":
                    found = states.masked_fill(mask == 0, torch.finfo(states.dtype).min).max(1).values
                case _:
                    found = (states * mask).sum(1)
            return torch.nn.functional.normalize(found, dim=-1)

    return Wrapped().eval()

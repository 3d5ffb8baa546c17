"""Build the ONNX graph of a BERT-like encoder from its weights, of the fused operators of ONNX Runtime.

All dense layers are `MatMul` nodes with constant weights, whose biases go into the operator that follows, so that
`tamiz.encoders.forms` can put other multiplications in their place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tamiz.encoders.checkpoint import Checkpoint, Dense, Layer, Norm
from tamiz.extras import require

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["IR_VERSION", "MAX_LENGTH", "OPSET", "PAD", "build"]

IR_VERSION = 8
OPSET = 17
MAX_LENGTH = "max_length"
PAD = "pad_id"
_FUSED = "com.microsoft"


def build(checkpoint: Checkpoint, *, head: str, pooling: str = "mean") -> ModelProto:
    """Return the graph of an encoder with a head.

    Inputs are `input_ids`, `attention_mask` and, where the encoder has them, `token_type_ids`, all int64 (n, length).

    Args:
        checkpoint: the weights.
        head: `classification` for `logits` (n, labels), computed of the first token; `embedding` for `embedding`
            (n, hidden), of length 1.
        pooling: of an embedding: `mean` or `max` over the tokens under the mask, or `cls`, the first token.
    """
    graph = _Graph(checkpoint)
    states = graph.embed()
    for place, layer in enumerate(checkpoint.layers):
        # Some heads look at the first token only: the last layer computes no other.
        only_first = (head == "classification" or pooling == "cls") and place == len(checkpoint.layers) - 1
        states = graph.layer(states, layer, only_first=only_first)
    if head == "classification":
        return graph.finish("logits", graph.classify(states), checkpoint.head[-1][0].bias.shape[0])
    return graph.finish("embedding", graph.pool(states, pooling), checkpoint.words.shape[1])


class _Graph:
    """Nodes and constants, as they are added."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._onnx = require("onnx", extra="onnx")
        self._checkpoint = checkpoint
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._count = 0

    def add(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        self._count += 1
        name = f"{kind}_{self._count}"
        node = self._onnx.helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes)
        self._nodes.append(node)
        return name

    def constant(self, array: Any) -> str:
        """Add a constant; return its name."""
        array = np.asarray(array)
        name = f"constant_{len(self._constants)}"
        self._constants[name] = self._onnx.numpy_helper.from_array(array, name)
        return name

    def multiply(self, states: str, dense: Dense) -> str:
        """Add a dense layer without its bias."""
        return self.add("MatMul", states, self.constant(dense.weight))

    def embed(self) -> str:
        """Add the embeddings: of words, places and types, summed and normalised."""
        own = self._checkpoint
        words = self.add("Gather", self.constant(own.words), "input_ids")
        length = self.add("Slice", self.add("Shape", "input_ids"), *(self.constant([one]) for one in (1, 2)))
        places = self.add("Slice", self.constant(own.positions), self.constant([0]), length, self.constant([0]))
        summed = self.add("Add", words, places)
        if own.types is not None:
            summed = self.add("Add", summed, self.add("Gather", self.constant(own.types), "token_type_ids"))
        scale, bias = self._norm(own.norm)
        return self.add("LayerNormalization", summed, scale, bias, axis=-1, epsilon=own.epsilon)

    def layer(self, states: str, layer: Layer, *, only_first: bool) -> str:
        """Add one layer; `only_first` leaves of every text the first token."""
        asking = states
        if only_first:
            ends = (self.constant([one]) for one in (0, 1, 1))
            asking = self.add("Slice", states, *ends)
        biases = np.concatenate([layer.query.bias, layer.key.bias, layer.value.bias])
        attended = self.add(
            "MultiHeadAttention",
            self.multiply(asking, layer.query),
            self.multiply(states, layer.key),
            self.multiply(states, layer.value),
            self.constant(biases),
            self._mask(),
            domain=_FUSED,
            num_heads=self._checkpoint.heads,
        )
        mixed = self._join(self.multiply(attended, layer.out), asking, layer.attention_norm, layer.out)
        inner = self._activate(self.multiply(mixed, layer.up), layer.up)
        return self._join(self.multiply(inner, layer.down), mixed, layer.norm, layer.down)

    def classify(self, states: str) -> str:
        """Add the classification head to the only token left."""
        found = self.add("Squeeze", states, self.constant([1]))
        for dense, after in self._checkpoint.head:
            found = self.add("Gemm", found, self.constant(dense.weight), self.constant(dense.bias))
            found = found if after == "none" else self.add(after.capitalize(), found)
        return found

    def pool(self, states: str, pooling: str) -> str:
        """Add one vector of the tokens under the mask, scaled to length 1."""
        match pooling:
            case "cls":
                found = self.add("Squeeze", states, self.constant([1]))
            case "max":
                real = self.add("Cast", "attention_mask", to=self._onnx.TensorProto.BOOL)
                least = self.constant(np.float32(np.finfo(np.float32).min))
                kept = self.add("Where", self.add("Unsqueeze", real, self.constant([2])), states, least)
                found = self.add("ReduceMax", kept, axes=[1], keepdims=0)
            case _:  # the length 1 that follows makes dividing by the number of tokens needless
                mask = self.add("Cast", "attention_mask", to=self._onnx.TensorProto.FLOAT)
                rows = self.add("Unsqueeze", mask, self.constant([1]))
                found = self.add("Squeeze", self.add("MatMul", rows, states), self.constant([1]))
        norm = self.add("ReduceL2", found, axes=[1], keepdims=1)
        return self.add("Div", found, self.add("Max", norm, self.constant(np.float32(1e-12))))

    def finish(self, name: str, found: str, columns: int) -> ModelProto:
        """Return the model that gives `found` as `name` (n, columns)."""
        helper, types = self._onnx.helper, self._onnx.TensorProto
        self._nodes.append(helper.make_node("Identity", [found], [name], name=name))
        inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if self._checkpoint.types is not None else [])]
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(one, types.INT64, ["n", "length"]) for one in inputs],
            [helper.make_tensor_value_info(name, types.FLOAT, ["n", columns])],
            list(self._constants.values()),
        )
        sets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_FUSED, 1)]
        model = helper.make_model(graph, opset_imports=sets, ir_version=IR_VERSION, producer_name="tamiz")
        helper.set_model_props(model, {MAX_LENGTH: str(self._checkpoint.max_length), PAD: str(self._checkpoint.pad)})
        return model  # type: ignore[no-any-return]

    def _mask(self) -> str:
        if not hasattr(self, "_mask_name"):
            self._mask_name = self.add("Cast", "attention_mask", to=self._onnx.TensorProto.INT32)
        return self._mask_name

    def _norm(self, norm: Norm) -> tuple[str, str]:
        return self.constant(norm.scale), self.constant(norm.bias)

    def _join(self, states: str, skipped: str, norm: Norm, dense: Dense) -> str:
        """Add the dense layer's bias and what it skipped, normalised.

        Plain nodes: the fused SkipLayerNormalization takes several times as long on a CPU.
        """
        summed = self.add("Add", self.add("Add", states, self.constant(dense.bias)), skipped)
        return self.add("LayerNormalization", summed, *self._norm(norm), axis=-1, epsilon=self._checkpoint.epsilon)

    def _activate(self, states: str, dense: Dense) -> str:
        bias = self.constant(dense.bias)
        match self._checkpoint.activation:
            case "gelu":
                return self.add("BiasGelu", states, bias, domain=_FUSED)
            case "gelu_tanh":
                return self.add("FastGelu", states, bias, domain=_FUSED)
            case _:
                return self.add("Relu", self.add("Add", states, bias))

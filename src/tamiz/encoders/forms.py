"""Smaller and faster forms of an exported encoder.

| form | dense layers | activations | a text's answer depends on its batch |
|---|---|---|---|
| `fp32` | float32 | float32 | no |
| `int8` | 8-bit integers, a scale each output | 8-bit integers, a scale each token | no |
| `bf16` | bfloat16 | bfloat16, or float32 where the processor has no other | no |
| `weight8` | 8-bit integers in the file, float32 when run | float32 | no |
| `dynamic` | 8-bit integers, a scale each output | 8-bit integers, one scale for all tokens of a batch | yes |

All but `fp32` keep the embeddings of the vocabulary as 8-bit integers with a scale each row. OpenVINO runs `bf16`, ONNX
Runtime the others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.encoders.export import write
from tamiz.errors import ConfigError, one_of
from tamiz.extras import require

__all__ = ["EXACT", "FORMS", "make_form"]

Array = NDArray[np.float32]

_FUSED = "com.microsoft"
_LEVELS = 127
# 7 bits: without VNNI a processor adds two products in 16 bits, and 2 x 255 x 63 is the most that is sure to fit.
_WEIGHT_LEVELS = 63
_ZERO = np.uint8(128)
_LEAST = np.float32(1e-12)
_AXES_AS_INPUT = 18
_LEAST_ROWS = 512  # smaller tables, such as those of token types, are not worth a change


def make_form(fp32: Path, target: Path, form: str) -> None:
    """Write another form of an exported encoder.

    Args:
        fp32: what `tamiz.encoders.export.export` wrote.
        target: the file to write.
        form: one of `FORMS`.

    Raises:
        ConfigError: there is no such form.
    """
    if form not in FORMS:
        raise ConfigError(f"form: {form!r} is not known; {one_of(form, FORMS)}")
    model = require("onnx", extra="onnx").load(fp32)
    change = _CHANGES[form]
    if change is not None:
        _Editor(model).apply(change)
    write(model, target)


class _Editor:
    """Puts other nodes in the place of a graph's multiplications by constants and of its large tables."""

    def __init__(self, model: Any) -> None:
        self._onnx = require("onnx", extra="onnx")
        self._model = model
        self._constants = {one.name: one for one in model.graph.initializer}
        self._nodes: list[Any] = []
        self._count = 0
        self._tokens: dict[str, tuple[str, str, str]] = {}

    def apply(self, change: Callable[[_Editor, str, Array, str], None]) -> None:
        """Let `change` replace every product of states with a constant matrix, and store large tables in 8 bits."""
        graph = self._model.graph
        for node in graph.node:
            if node.op_type == "MatMul" and self._is_matrix(node.input[1]):
                change(self, node.input[0], self._array(node.input[1]), node.output[0])
            elif node.op_type == "Gather" and self._is_matrix(node.input[0], rows=_LEAST_ROWS):
                self._gather(self._array(node.input[0]), node.input[1], node.output[0])
            else:
                self._nodes.append(node)
        used = {name for node in self._nodes for name in node.input}
        kept = [one for name, one in self._constants.items() if name in used]
        for field, values in ((graph.node, self._nodes), (graph.initializer, kept)):
            del field[:]
            field.extend(values)
        if all(one.domain != _FUSED for one in self._model.opset_import):
            self._model.opset_import.append(self._onnx.helper.make_opsetid(_FUSED, 1))

    def add(self, kind: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        name = output or self._name()
        made = self._onnx.helper.make_node(
            kind, list(inputs), [name], name=f"{kind}_{name}", domain=domain, **attributes
        )
        self._nodes.append(made)
        return name

    def constant(self, array: Any) -> str:
        """Add a constant; return its name."""
        name = self._name()
        self._constants[name] = self._onnx.numpy_helper.from_array(np.asarray(array), name)
        return name

    def halves(self, array: Array) -> str:
        """Add a constant rounded to bfloat16, half-way cases to the even one; return its name."""
        bits = np.ascontiguousarray(array).view(np.uint32)
        upper = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
        name, kind = self._name(), self._onnx.TensorProto.BFLOAT16
        self._constants[name] = self._onnx.helper.make_tensor(name, kind, array.shape, upper.tobytes(), raw=True)
        return name

    def quantised(self, states: str, width: int) -> tuple[str, str, str]:
        """Add states (..., width) as integers (tokens, width), their scales (tokens, 1), and the shape before `width`.

        A token's scale is taken of that token alone, so that no other text changes it.
        """
        if states not in self._tokens:
            flat = self.add("Reshape", states, self.constant([-1, width]))
            largest = self._largest(self.add("Abs", flat))
            above = self.add("Max", largest, self.constant(_LEAST))
            scales = self.add("Mul", above, self.constant(np.float32(1 / _LEVELS)))
            line = self.add("Reshape", scales, self.constant([-1]))
            zero = self._onnx.numpy_helper.from_array(np.array([_ZERO]))
            zeros = self.add("ConstantOfShape", self.add("Shape", line), value=zero)
            integers = self.add("QuantizeLinear", flat, line, zeros, axis=0)
            self._tokens[states] = integers, scales, self.add("Shape", states, end=-1)
        return self._tokens[states]

    def _largest(self, values: str) -> str:
        """Add the largest value of every row; the axes became an input with operator set 18."""
        version = next(one.version for one in self._model.opset_import if one.domain in ("", "ai.onnx"))
        if version >= _AXES_AS_INPUT:
            return self.add("ReduceMax", values, self.constant([1]), keepdims=1)
        return self.add("ReduceMax", values, axes=[1], keepdims=1)

    def _gather(self, table: Array, places: str, output: str) -> None:
        integers, scales = _integers(table, axis=1, levels=_LEVELS)
        rows = self.add("Cast", self.add("Gather", self.constant(integers), places), to=self._onnx.TensorProto.FLOAT)
        self.add("Mul", rows, self.add("Gather", self.constant(scales), places), output=output)

    def _is_matrix(self, name: str, *, rows: int = 1) -> bool:
        found = self._constants.get(name)
        if found is None or found.data_type != self._onnx.TensorProto.FLOAT or len(found.dims) != 2:
            return False
        return bool(found.dims[0] >= rows)

    def _array(self, name: str) -> Array:
        return np.asarray(self._onnx.numpy_helper.to_array(self._constants[name]), np.float32)

    def _name(self) -> str:
        self._count += 1
        return f"form_{self._count}"


def _integers(weights: Array, *, axis: int, levels: int) -> tuple[NDArray[np.int8], Array]:
    """Return weights as integers from -levels to levels, and the scales that undo it."""
    scales = np.maximum(np.abs(weights).max(axis, keepdims=True), _LEAST) / np.float32(levels)
    return np.rint(weights / scales).astype(np.int8), scales.astype(np.float32)


def _int8(editor: _Editor, states: str, weights: Array, output: str) -> None:
    """Multiply integers, then undo the scale of every token and of every output."""
    tokens, scales, shape = editor.quantised(states, weights.shape[0])
    integers, columns = _integers(weights, axis=0, levels=_WEIGHT_LEVELS)
    one, zero = editor.constant(np.float32(1)), editor.constant(_ZERO)
    matrix = editor.constant(integers)
    product = editor.add("MatMulIntegerToFloat", tokens, matrix, one, editor.constant(columns[0]), zero, domain=_FUSED)
    flat = editor.add("Mul", product, scales)
    whole = editor.add("Concat", shape, editor.constant([weights.shape[1]]), axis=0)
    editor.add("Reshape", flat, whole, output=output)


def _bf16(editor: _Editor, states: str, weights: Array, output: str) -> None:
    """Store half of every weight's bits; the runtime is told in what to multiply."""
    editor.add("MatMul", states, editor.add("Cast", editor.halves(weights), to=1), output=output)


def _weight8(editor: _Editor, states: str, weights: Array, output: str) -> None:
    """Leave the product as it is; ONNX Runtime makes float32 of the weights once, when it loads them."""
    integers, columns = _integers(weights, axis=0, levels=_LEVELS)
    wide = editor.add("Cast", editor.constant(integers), to=1)
    editor.add("MatMul", states, editor.add("Mul", wide, editor.constant(columns)), output=output)


def _dynamic(editor: _Editor, states: str, weights: Array, output: str) -> None:
    """Multiply integers with one scale for all tokens."""
    integers, columns = _integers(weights, axis=0, levels=_WEIGHT_LEVELS)
    given = (states, editor.constant(integers), editor.constant(columns[0]))
    editor.add("DynamicQuantizeMatMul", *given, domain=_FUSED, output=output)


_CHANGES: dict[str, Callable[[_Editor, str, Array, str], None] | None] = {
    "fp32": None,
    "int8": _int8,
    "bf16": _bf16,
    "weight8": _weight8,
    "dynamic": _dynamic,
}
FORMS = tuple(_CHANGES)
EXACT = ("fp32", "int8", "bf16", "weight8")  # a text's answer does not depend on its batch

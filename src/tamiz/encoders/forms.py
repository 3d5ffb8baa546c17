"""Smaller and faster forms of an exported encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.encoders.export import write
from tamiz.errors import ConfigError, one_of
from tamiz.extras import require

__all__ = ["FORMS", "make_form"]

Array = NDArray[np.float32]
_FUSED = "com.microsoft"
_WEIGHT_LEVELS = 127
import os
_WEIGHT_LEVELS = int(os.environ.get("WL", "127"))
_LEAST_ROWS = 512


class _Editor:
    def __init__(self, model: Any) -> None:
        self.onnx = require("onnx", extra="onnx")
        self.model = model
        self.graph = model.graph
        self.constants = {one.name: one for one in self.graph.initializer}
        self.nodes: list[Any] = []
        self.used: set[str] = set()
        self.count = 0
        self.known: dict[Any, Any] = {}
        self.calib: dict[str, float] = {}

    def array(self, name: str) -> Any:
        return self.onnx.numpy_helper.to_array(self.constants[name])

    def constant(self, array: Any) -> str:
        name = f"form_{self.count}"
        self.count += 1
        self.graph.initializer.append(self.onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, kind: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        name = output or f"form_{self.count}"
        self.count += 1
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], name=f"{kind}_{name}", domain=domain, **attributes))
        return name

    def edit(self, matmul, gather=None):
        for node in self.graph.node:
            c = [self.constants.get(i) for i in node.input]
            if node.op_type == "MatMul" and c[1] is not None and len(c[1].dims) == 2 and matmul:
                matmul(self, node, self.array(node.input[1]))
            elif node.op_type == "Gather" and c[0] is not None and len(c[0].dims) == 2 and c[0].dims[0] >= _LEAST_ROWS and gather:
                gather(self, node, self.array(node.input[0]))
            else:
                self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {i for n in self.nodes for i in n.input}
        kept = [i for i in self.graph.initializer if i.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        if not any(o.domain == _FUSED for o in self.model.opset_import):
            self.model.opset_import.append(self.onnx.helper.make_opsetid(_FUSED, 1))


def columns8(w: Array):
    scale = np.maximum(np.abs(w).max(0), 1e-12) / _WEIGHT_LEVELS
    return np.rint(w / scale).astype(np.int8), scale.astype(np.float32)


def gather8(e: _Editor, node, table):
    scale = (np.maximum(np.abs(table).max(1, keepdims=True), 1e-12) / 127).astype(np.float32)
    q = np.rint(table / scale).astype(np.int8)
    values = e.add("Cast", e.add("Gather", e.constant(q), node.input[1]), to=1)
    e.add("Mul", values, e.add("Gather", e.constant(scale), node.input[1]), output=node.output[0])


def token(e: _Editor, node, w):
    x = node.input[0]
    if x not in e.known:
        flat = e.add("Reshape", x, e.constant(np.array([-1, w.shape[0]])))
        top = e.add("ReduceMax", e.add("Abs", flat), axes=[1], keepdims=1)
        scale = e.add("Mul", e.add("Max", top, e.constant(np.float32(1e-12))), e.constant(np.float32(1 / 127)))
        row = e.add("Reshape", scale, e.constant(np.array([-1])))
        zero = e.add("ConstantOfShape", e.add("Shape", row), value=e.onnx.numpy_helper.from_array(np.array([128], np.uint8)))
        e.known[x] = e.add("QuantizeLinear", flat, row, zero, axis=0), scale, e.add("Shape", x, end=-1)
    q, scale, shape = e.known[x]
    qw, ws = columns8(w)
    y = e.add("MatMulIntegerToFloat", q, e.constant(qw), e.constant(np.float32(1)), e.constant(ws), e.constant(np.uint8(128)), domain=_FUSED)
    y = e.add("Mul", y, scale)
    e.add("Reshape", y, e.add("Concat", shape, e.constant(np.array([w.shape[1]])), axis=0), output=node.output[0])


def static(e: _Editor, node, w):
    x = node.input[0]
    s = np.float32(e.calib[x] / 127)
    if x not in e.known:
        e.known[x] = e.add("QuantizeLinear", x, e.constant(s), e.constant(np.uint8(128)))
    qw, ws = columns8(w)
    e.add("MatMulIntegerToFloat", e.known[x], e.constant(qw), e.constant(s), e.constant(ws), e.constant(np.uint8(128)), domain=_FUSED, output=node.output[0])


def dynamic(e: _Editor, node, w):
    qw, ws = columns8(w)
    e.add("DynamicQuantizeMatMul", node.input[0], e.constant(qw), e.constant(ws), domain=_FUSED, output=node.output[0])


def weight8(e: _Editor, node, w):
    qw, ws = columns8(w)
    back = e.add("Mul", e.add("Cast", e.constant(qw), to=1), e.constant(ws))
    e.add("MatMul", node.input[0], back, output=node.output[0])


def nbits(bits, block, level=4):
    def change(e: _Editor, node, w):
        k, n = w.shape
        b = w.T.reshape(n, k // block, block)
        if bits == 4:
            top = np.take_along_axis(b, np.abs(b).argmax(2, keepdims=True), 2)
            scale = top / -8
            q = np.clip(np.rint(b / np.where(scale == 0, 1, scale)) + 8, 0, 15).astype(np.uint8)
            q = q[..., ::2] | (q[..., 1::2] << 4)
        else:
            scale = np.maximum(np.abs(b).max(2, keepdims=True), 1e-12) / 127
            q = (np.rint(b / scale) + 128).astype(np.uint8)
        e.add("MatMulNBits", node.input[0], e.constant(q), e.constant(scale.astype(np.float32).reshape(n, k // block)), domain=_FUSED, output=node.output[0], K=k, N=n, bits=bits, block_size=block, accuracy_level=level)
    return change

FORMS = {"fp32": None, "int8": token, "static": static, "dynamic": dynamic, "weight8": weight8,
  **{f"nbits{b}_{k}": nbits(b, k) for b in (4, 8) for k in (32, 64, 128)}}


def make_form(fp32: Path, target: Path, form: str, *, rows=()) -> None:
    onnx = require("onnx", extra="onnx")
    e = _Editor(onnx.load(fp32))
    if form == "static":
        e.calib = calibrate(fp32, rows)
    if FORMS[form]:
        e.edit(FORMS[form], gather8)
    write(e.model, target)


def calibrate(fp32, rows):
    import onnx, onnxruntime as ort
    m = onnx.load(fp32)
    consts = {i.name for i in m.graph.initializer}
    names = list(dict.fromkeys(n.input[0] for n in m.graph.node if n.op_type == "MatMul" and n.input[1] in consts))
    m.graph.output.extend(onnx.helper.make_tensor_value_info(n, 1, None) for n in names)
    s = ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
    top = dict.fromkeys(names, 0.0)
    ins = {i.name for i in s.get_inputs()}
    for r in rows:
        ids = np.array([r]); feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        for n, v in zip(names, s.run(names, {k: v for k, v in feed.items() if k in ins})):
            top[n] = max(top[n], float(np.abs(v).max()))
    return top

"""Exported encoders in bfloat16, run by OpenVINO: the fastest on processors that have bfloat16 arithmetic."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.encoders.graph import MAX_LENGTH, PAD
from tamiz.encoders.runtime import Array, Feed, RowModel, by_width
from tamiz.errors import SourceError
from tamiz.extras import require

__all__ = ["OpenVinoModel", "arithmetic"]

_STEP = 32  # tokens
_BATCH_TOKENS = 2048  # the fastest of 512 to 4,096 on one thread


class OpenVinoModel(RowModel):
    """An exported encoder, run by OpenVINO in bfloat16 where the processor has it, else in float32.

    Sums of bfloat16 depend on the length a row is padded to, and not on how many rows there are. So a row is padded to
    the next multiple of 32 tokens, whatever it is computed with.

    Args:
        path: the ONNX file.
        threads: for the work inside one batch; 0 takes all cores.

    Raises:
        SourceError: the file is not there or OpenVINO cannot run it.
        MissingExtraError: OpenVINO is not installed.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": arithmetic(),
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # other models and the server itself run on the same cores
        }
        try:
            model = _core().read_model(path)
            self._compiled = _core().compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise SourceError(f"{path} cannot be run by OpenVINO; take another form") from error
        self._inputs = {one.get_any_name() for one in self._compiled.inputs}
        # where it keeps what an ONNX file says of itself
        about = {name: ["framework", name] for name in (MAX_LENGTH, PAD)}
        self._know({name: model.get_rt_info(at).value for name, at in about.items() if model.has_rt_info(at)})
        self._own = threading.local()

    def _columns(self) -> int:
        columns = self._compiled.outputs[0].partial_shape[-1]
        return int(columns.get_length()) if columns.is_static else 0

    def _plan(self, lengths: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
        return by_width(lengths, step=_STEP, tokens=_BATCH_TOKENS, most=self.max_length)

    _steady = _plan

    def _answer(self, feed: Feed) -> Array:
        if not hasattr(self._own, "request"):  # one may be used by one thread at a time
            self._own.request = self._compiled.create_infer_request()
        found = self._own.request.infer({name: feed[name] for name in self._inputs})
        return np.array(next(iter(found.values())))  # the next request writes over what it gave


@cache
def _core() -> Any:
    return require("openvino", extra="openvino").Core()


def arithmetic() -> str:
    """Return in what OpenVINO computes on this processor: `bf16` or `f32`.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    return "bf16" if "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"

"""Tensors of the Open Inference Protocol, in JSON and in its binary extension.

A binary BYTES tensor holds each element as its length (4 bytes, little-endian) and its bytes; binary tensors follow the
JSON document in the order in which it names them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tamiz.serving.problems import FieldError, InvalidFieldsError, MalformedBodyError

if TYPE_CHECKING:
    from tamiz.types import FloatArray

__all__ = ["InputTensor", "OutputTensor", "bytes_tensor", "float_tensor", "split_body", "texts_of"]

LENGTH = struct.Struct("<I")
MOST_AXES = 8


class InputTensor(BaseModel):
    """Texts, one an element."""

    model_config = ConfigDict(frozen=True)

    name: str
    shape: list[int] = Field(min_length=1, max_length=MOST_AXES, examples=[[2]])
    datatype: str = Field(examples=["BYTES"])
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_size`: its bytes follow the document")
    data: list[Any] | None = Field(None, description="The elements, flat or nested", examples=[["a", "b"]])


class OutputTensor(BaseModel):
    """A part of the answer."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_size`: its bytes follow the document")
    data: list[Any] | None = None


def split_body(body: bytes, header: str | None) -> tuple[bytes, bytes]:
    """Return the JSON document and the binary tensors after it.

    Args:
        body: the whole body.
        header: `Inference-Header-Content-Length`, the length of the document; `None`: there is nothing after it.

    Raises:
        MalformedBodyError: the header is not such a length.
    """
    if header is None:
        return body, b""
    if not (header.isascii() and header.isdecimal() and len(header) < 19 and int(header) <= len(body)):
        raise MalformedBodyError("Inference-Header-Content-Length is not the length of a part of the body.")
    return body[: int(header)], body[int(header) :]


def texts_of(tensor: InputTensor, binary: bytes) -> list[str]:
    """Return the texts of the one input tensor.

    Args:
        tensor: the tensor.
        binary: what follows the JSON document.

    Raises:
        InvalidFieldsError: the datatype is another one, or shape, size and elements do not go together.
    """
    if tensor.datatype != "BYTES":
        raise _wrong("datatype", "Texts are expected; allowed: BYTES")
    size = (tensor.parameters or {}).get("binary_data_size")
    if (size is None) == (tensor.data is None):
        raise _wrong("data", "Either data or parameters.binary_data_size is needed")
    if size is None:
        if binary:
            raise _wrong("data", "Bytes follow the document that belong to no tensor")
        texts = list(_flat(tensor.data or [], len(tensor.shape)))
    else:
        if size != len(binary) or isinstance(size, bool):
            raise _wrong("parameters.binary_data_size", f"{len(binary)} bytes follow the document")
        texts = list(_elements(binary))
    _check_shape(tensor.shape, len(texts))
    return texts


def _flat(data: Sequence[Any], axes: int) -> Iterator[str]:
    for element in data:
        if isinstance(element, str):
            yield element
        elif isinstance(element, list) and axes > 1:
            yield from _flat(element, axes - 1)
        else:
            raise _wrong("data", "Every element must be a text")


def _elements(binary: bytes) -> Iterator[str]:
    at = 0
    while at < len(binary):
        begin = at + LENGTH.size
        if begin > len(binary):
            raise _wrong("data", "The binary tensor ends within a length")
        at = begin + LENGTH.unpack_from(binary, begin - LENGTH.size)[0]
        if at > len(binary):
            raise _wrong("data", "The binary tensor ends within an element")
        try:
            yield binary[begin:at].decode()
        except UnicodeDecodeError:
            raise _wrong("data", "An element is not UTF-8") from None


def _check_shape(shape: Sequence[int], count: int) -> None:
    if any(axis < 0 for axis in shape) or math.prod(shape) != count:
        raise _wrong("shape", f"It does not go with {count} elements")
    if shape[0] != count:
        raise _wrong("shape", "One text an item is expected; allowed: [n] or [n, 1]")


def bytes_tensor(name: str, values: Sequence[str], *, binary: bool) -> tuple[OutputTensor, bytes]:
    """Return a BYTES tensor `(n,)`, and its bytes if it is binary."""
    tensor = OutputTensor(name=name, shape=[len(values)], datatype="BYTES")
    if not binary:
        return tensor.model_copy(update={"data": list(values)}), b""
    encoded = [value.encode() for value in values]
    return _binary(tensor, b"".join(LENGTH.pack(len(one)) + one for one in encoded))


def float_tensor(name: str, values: FloatArray, *, binary: bool) -> tuple[OutputTensor, bytes]:
    """Return an FP64 tensor, and its bytes if it is binary."""
    tensor = OutputTensor(name=name, shape=list(values.shape), datatype="FP64")
    if not binary:
        return tensor.model_copy(update={"data": values.ravel().tolist()}), b""
    return _binary(tensor, np.ascontiguousarray(values, dtype="<f8").tobytes())


def _binary(tensor: OutputTensor, content: bytes) -> tuple[OutputTensor, bytes]:
    return tensor.model_copy(update={"parameters": {"binary_data_size": len(content)}}), content


def _wrong(field: str, message: str) -> InvalidFieldsError:
    place = f"body.inputs[0].{field}"
    return InvalidFieldsError(f"One field is wrong: {place}: {message}", [FieldError(place, message, "wrong_tensor")])

"""The doors: one module per protocol, one line in `DOORS` each."""

from __future__ import annotations

from collections.abc import Callable

from tamiz.serving.context import Context
from tamiz.serving.doors import complaints, hugging_face, invocations, movie_genres, native, open_inference, sagemaker
from tamiz.serving.doors.base import Door

__all__ = ["DOORS"]

# The most used first: routes are tried in order.
DOORS: tuple[Callable[[Context], Door], ...] = (
    native.door,
    complaints.door,
    movie_genres.door,
    invocations.door,
    sagemaker.door,
    hugging_face.door,
    open_inference.door,
)

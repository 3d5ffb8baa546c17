"""The complaints door: `POST /predict` on the default model, answered as the native door does."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from tamiz.serving.context import Context
from tamiz.serving.doors.base import Door, route
from tamiz.serving.doors.native import native_answer, read_predict_body
from tamiz.serving.schemas import PredictAnswer, PredictBody

__all__ = ["door"]

NAME = "complaints"


def door(context: Context) -> Door:
    """Build the complaints door."""

    async def predict(request: Request) -> Response:
        """Classify texts with the default model: one prediction per text, in order."""
        texts = await read_predict_body(request)
        served = context.models.get()
        return await native_answer(served, await context.predict(served, texts))

    post = route(
        "POST",
        "/predict",
        predict,
        door=NAME,
        summary="Classify texts with the default model",
        answer=PredictAnswer,
        body=PredictBody,
        problems=(400, 422),
    )
    return Door(NAME, [post])

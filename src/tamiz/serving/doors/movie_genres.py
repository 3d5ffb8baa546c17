"""The movie-genres door: `GET /inference?<text column>=...` gives `{"p_<label>": probability, ...}`."""

from __future__ import annotations

from typing import Any

from pydantic import Field, RootModel
from starlette.requests import Request
from starlette.responses import Response

from tamiz.serving.context import Context
from tamiz.serving.doors.base import Door, json_answer, query_value, route

__all__ = ["door"]

NAME = "movie-genres"
PATH = "/inference"


class GenresAnswer(RootModel[dict[str, float]]):
    """The probability of each label, in label order, under `p_<label>`."""

    root: dict[str, float] = Field(examples=[{"p_Action": 0.127, "p_Western": 0.022}])


def door(context: Context) -> Door:
    """Build the movie-genres door."""

    async def inference(request: Request) -> Response:
        """Classify one text with the default model; the parameter is called as the text column is."""
        served = context.models.get()
        text = query_value(request, served.model.text_column)
        (prediction,) = await context.predict(served, [text])
        names = [f"p_{label}" for label in served.model.labels]
        return json_answer(dict(zip(names, prediction.probabilities.tolist(), strict=True)))

    parameter = {
        "name": "text",
        "in": "query",
        "required": True,
        "description": "The text to classify",
        "schema": {"type": "string"},
    }

    def name_the_parameter(document: dict[str, Any]) -> None:
        served = context.models.served()
        if served:
            column = served[0].model.text_column
            document["paths"][PATH]["get"]["parameters"] = [{**parameter, "name": column}]

    get = route(
        "GET",
        PATH,
        inference,
        door=NAME,
        summary="Classify one text: a probability per label",
        answer=GenresAnswer,
        parameters=[parameter],
        problems=(413, 422),
    )
    return Door(NAME, [get], complete=name_the_parameter)

"""The Hugging Face door: text classification and zero-shot classification, as `InferenceClient` asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from tamiz.errors import RequestError
from tamiz.prompting import split_labels
from tamiz.rankings import ranked, sequence_answer
from tamiz.serving.doors.asked import Prompt, Question, Style, answer
from tamiz.serving.doors.base import ALWAYS, Door, JsonObject, add_schemas, failures, json_answer, read_json, route
from tamiz.serving.doors.base import reference as ref
from tamiz.serving.problems import Failure
from tamiz.serving.schemas import EXAMPLE_TEXT, FirstError
from tamiz.types import Task

if TYPE_CHECKING:
    from tamiz.model import Model, Prediction
    from tamiz.serving.context import Context

__all__ = [
    "InputsBody",
    "LabelScore",
    "SequenceAnswer",
    "checked_prompt",
    "door",
    "inputs_question",
    "sequences",
]

NAME = "hugging-face"
PATH = "/models/{name}"
NAMED: list[JsonObject] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]


class Parameters(BaseModel):
    """How to classify."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate_labels: list[str] | str | None = Field(
        None, description="Zero-shot: the labels to choose from, also as one string with commas"
    )
    hypothesis_template: str | None = Field(None, description="Zero-shot: sentence in which {} stands for the label")
    multi_label: bool | None = Field(None, description="Zero-shot: whether each label is answered by itself")
    top_k: Annotated[int, Field(ge=1)] | None = Field(None, description="Give the highest scores only")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None, description="Scores are probabilities already, so only what the model does anyway is taken"
    )


class InputsBody(BaseModel):
    """One text or several, in the shape of Hugging Face's interfaces."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [{"inputs": EXAMPLE_TEXT}, {"inputs": ["a", "b"]}]}
    )

    inputs: str | Annotated[list[str], FirstError()]
    parameters: Parameters | None = None
    options: dict[str, Any] | None = Field(None, description="Taken, and of no effect")


class LabelScore(BaseModel):
    """A label and its probability."""

    label: str
    score: float


class SequenceAnswer(BaseModel):
    """The answer to one text for candidate labels, the highest score first."""

    sequence: str
    labels: list[str]
    scores: list[float]


class HuggingFaceAnswer(RootModel[list[list[LabelScore]] | list[LabelScore]]):
    """Lists of labels by falling score: one a text; for candidate labels and one text, that list alone."""


class HuggingFaceProblem(BaseModel):
    """What went wrong."""

    error: str
    error_type: str


BODY = TypeAdapter(InputsBody)


def _scores(top_k: int | None, *, one: bool) -> Style:
    def item(model: Model, text: str, prediction: Prediction) -> list[dict[str, Any]]:
        best = ranked(model.labels, prediction.probabilities)[:top_k]
        return [{"label": label, "score": score} for label, score in best]

    return Style(item, lambda served, items: items[0] if one else items)


def sequences(known: Mapping[str, Any], *, one: bool, top_k: int | None = None) -> Style:
    """Return the style of zero-shot pipelines: text, labels and scores, the highest first.

    Args:
        known: what else each answer holds.
        one: whether the question is one text rather than a list.
        top_k: give so many labels only.
    """

    def item(model: Model, text: str, prediction: Prediction) -> dict[str, Any]:
        return {**known, **sequence_answer(text, model.labels, prediction.probabilities, top_k=top_k)}

    return Style(item, lambda served, items: items[0] if one else items)


def inputs_question(body: InputsBody, model: Model, *, own_path: bool = False) -> Question:
    """Return what a body asks.

    Args:
        body: the body.
        model: the model that will answer.
        own_path: answer in the shapes that `InferenceClient` reads, in place of those of the pipelines.

    Raises:
        RequestError: a parameter asks for what the model does not do.
    """
    asked = body.parameters or Parameters()
    one = isinstance(body.inputs, str)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if asked.candidate_labels is None:
        _check_plain(asked, model)
        return Question(texts, _scores(asked.top_k, one=one and not own_path))
    if asked.function_to_apply is not None:
        raise RequestError("parameters.function_to_apply does not go with candidate_labels; leave it out.")
    style = _scores(asked.top_k, one=one) if own_path else sequences({}, one=one, top_k=asked.top_k)
    return Question(texts, style, _prompt(asked))


def _prompt(asked: Parameters) -> Prompt:
    given = asked.candidate_labels or []
    return checked_prompt(split_labels(given), asked.hypothesis_template, bool(asked.multi_label), "parameters.")


def checked_prompt(labels: Sequence[str], template: str | None, multi_label: bool, where: str = "") -> Prompt:
    """Return labels that the caller chose.

    Raises:
        RequestError: there are none, or one is empty or given twice, or the template has no place for a label.
    """
    if not labels or any(not label.strip() for label in labels) or len(set(labels)) < len(labels):
        raise RequestError(f"{where}candidate_labels: one or more are needed, none of them empty or given twice.")
    if template is not None and "{}" not in template:
        raise RequestError(f"{where}hypothesis_template: {{}} must stand where the label goes.")
    return Prompt(tuple(labels), template, multi_label)


def _check_plain(asked: Parameters, model: Model) -> None:
    """Refuse what only zero-shot classification takes, and functions that the scores were not made with."""
    for name in ("hypothesis_template", "multi_label"):
        if getattr(asked, name) is not None:
            raise RequestError(f"parameters.{name} goes with candidate_labels, and there are none.")
    natural = "sigmoid" if model.task is Task.MULTI_LABEL else "softmax"
    if asked.function_to_apply not in (None, natural):
        raise RequestError(f"parameters.function_to_apply: scores are probabilities already; allowed: {natural}.")


def _render(failure: Failure, request_id: str) -> Response:
    """Answer as Hugging Face's servers do."""
    response = json_answer({"error": failure.detail, "error_type": failure.slug}, failure.status)
    response.headers.update(failure.headers)
    return response


def door(context: Context) -> Door:
    """Build the Hugging Face door."""

    async def classify(request: Request) -> Response:
        """Classify texts, for `huggingface_hub.InferenceClient(model="http://HOST/models/NAME")`.

        Without candidate labels: all labels by falling score, a list a text, also for one text alone. With
        `parameters.candidate_labels`, which only models of a zero-shot family take: those labels by falling score.
        """
        body = await read_json(request, BODY, InputsBody)
        served = context.models.get(request.path_params["name"])
        question = inputs_question(body, served.model, own_path=True)
        found = await answer(context, served, question)
        return json_answer(found.whole())

    def describe(document: JsonObject) -> None:
        add_schemas(document, InputsBody)
        served = context.models.served()
        if served:
            document["paths"][PATH]["post"]["parameters"] = [{**NAMED[0], "example": served[0].name}]

    post = route(
        "POST",
        PATH,
        classify,
        door=NAME,
        summary="Classify texts, in Hugging Face's shapes",
        answer=HuggingFaceAnswer,
        body={"application/json": ref(InputsBody)},
        parameters=NAMED,
        responses=failures(HuggingFaceProblem, (400, 404, 408, 413, 415, 422, *ALWAYS)),
        always=(),
    )
    return Door(NAME, [post], render=_render, complete=describe)

"""The door `/invocations`: what SageMaker and MLflow call, in JSON, JSON lines and CSV.

A JSON body has exactly one of the keys in `SHAPES`, and the key decides what the answer looks like.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response

from tamiz.config import ServeConfig
from tamiz.errors import RequestError
from tamiz.prompted import NAMES, SILENT, read_prompted
from tamiz.serving.doors.asked import FRAME, NATIVE, RECORD, Answer, Question, answer_each
from tamiz.serving.doors.base import (
    ALWAYS,
    Door,
    JsonObject,
    add_schemas,
    failures,
    reference,
    route,
)
from tamiz.serving.doors.frames import (
    InstancesBody,
    RecordsBody,
    SplitBody,
    instance_texts,
    record_texts,
    split_texts,
)
from tamiz.serving.doors.hugging_face import (
    InputsBody,
    LabelScore,
    Parameters,
    SequenceAnswer,
    checked_prompt,
    inputs_question,
    sequences,
)
from tamiz.serving.doors.media import CSV, JSON, LINES, Media, media_of, to_csv, to_lines, wanted
from tamiz.serving.inline import MOST_INLINE_BYTES, beside
from tamiz.serving.limits import check_count
from tamiz.serving.problems import (
    FieldError,
    InvalidFieldsError,
    MalformedBodyError,
    NotAcceptableError,
    explain_validation,
    failure_of,
)
from tamiz.serving.schemas import EXAMPLE_TEXT, PredictAnswer, PredictBody
from tamiz.types import Promptable

if TYPE_CHECKING:
    from tamiz.model import Model
    from tamiz.serving.context import Context
    from tamiz.serving.problems import Failure
    from tamiz.serving.served import Served

__all__ = ["BODIES", "SHAPES", "STATUSES", "InvocationsAnswer", "add_bodies", "door", "invoke"]

NAME = "invocations"
PATH = "/invocations"
_PARAMETERS = Parameters.model_fields.keys() - {"function_to_apply"}
_OWN = NAMES.keys() - {"inputs", "text", "id"}  # keys with which a line brings labels of its own
STATUSES = (400, 406, 408, 413, 415, *ALWAYS)

CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "BAD_REQUEST",
    406: "BAD_REQUEST",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    429: "RESOURCE_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}


class FrameAnswer(BaseModel):
    """A row a text: `predicted_label`, `predicted_probability` and a `p_<label>` for each label."""

    predictions: list[dict[str, Any]]


class InvocationsAnswer(
    RootModel[
        FrameAnswer
        | PredictAnswer
        | SequenceAnswer
        | list[SequenceAnswer]
        | list[LabelScore]
        | list[list[LabelScore]]
        | list[Any]
    ]
):
    """What the shape of the question asks for."""


class InvocationsProblem(BaseModel):
    """What went wrong, in the shape of MLflow's scoring server."""

    error_code: str
    message: str


class Shape(NamedTuple):
    """A key of a JSON body: how the body is read, and the question that it asks."""

    body: type[BaseModel]
    adapter: TypeAdapter[Any]
    question: Callable[[Any, Model], Question]


def _shape(body: type[BaseModel], question: Callable[[Any, Model], Question]) -> Shape:
    return Shape(body, TypeAdapter(body), question)


SHAPES: dict[str, Shape] = {
    "inputs": _shape(InputsBody, inputs_question),
    "text": _shape(PredictBody, lambda body, model: Question(body.text, NATIVE)),
    "dataframe_split": _shape(SplitBody, lambda body, model: Question(split_texts(body, model.text_column), FRAME)),
    "dataframe_records": _shape(
        RecordsBody, lambda body, model: Question(record_texts(body, model.text_column), FRAME)
    ),
    "instances": _shape(InstancesBody, lambda body, model: Question(instance_texts(body, model.text_column), FRAME)),
}
SCHEMAS = (InputsBody, PredictBody, SplitBody, RecordsBody, InstancesBody)
BODIES: dict[str, JsonObject] = {
    JSON.name: {"oneOf": [reference(one) for one in SCHEMAS]},
    LINES.name: {"type": "string", "description": "A JSON document or a JSON string a line", "example": '"a"\n"b"\n'},
    CSV.name: {"type": "string", "description": "With or without a header", "example": f"text\n{EXAMPLE_TEXT}\n"},
}


@dataclass(frozen=True)
class Asked:
    """A body as it was read.

    Attributes:
        questions: what it asks; several only for JSON lines, in which an error may stand for one.
        header: whether an answer in CSV begins with names of columns.
        known: by place, what comes back even where a line cannot be answered.
    """

    questions: list[Question | RequestError]
    header: bool = True
    known: Mapping[int, JsonObject] = field(default_factory=dict)


def _parse(body: bytes, where: str, *, is_line: bool = False) -> Any:
    if is_line and not body.strip():
        raise MalformedBodyError(f"{where} is empty.")
    try:
        return from_json(body)
    except ValueError as error:  # its words name places, not what stands there
        said = str(error).replace("at line 1 column", "at column") if is_line else error
        raise MalformedBodyError(f"{where} is not valid JSON: {said}.") from None


def _question(found: Any, model: Model, where: str = "body") -> Question:
    """Return what a JSON document asks.

    Raises:
        InvalidFieldsError: it has none of the keys that make a question, or several, or a field of it is wrong.
    """
    keys = [key for key in SHAPES if key in found] if isinstance(found, dict) else []
    if keys == ["inputs"] and (strays := _PARAMETERS & found.keys()):
        message = f"{', '.join(sorted(strays))}: such keys go under parameters"
        raise InvalidFieldsError(f"One field is wrong: {where}: {message}.", [FieldError(where, message, "place")])
    if len(keys) != 1:
        message = f"Exactly one of {', '.join(SHAPES)} is needed; there are {len(keys)}"
        raise InvalidFieldsError(f"One field is wrong: {where}: {message}.", [FieldError(where, message, "shape")])
    shape = SHAPES[keys[0]]
    try:
        return shape.question(shape.adapter.validate_python(found), model)
    except ValidationError as error:
        raise explain_validation(error, where=where, shape=shape.body) from None


def _read_lines(body: bytes, model: Model, limits: ServeConfig) -> Asked:
    check_count(body.count(b"\n"), limits)  # the last line need not end in one
    questions: list[Question | RequestError] = []
    known: dict[int, JsonObject] = {}
    prompts = isinstance(model.classifier, Promptable)
    for place, line in enumerate(body.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")):
        where = f"line {place + 1}"
        try:
            found = _parse(line, where.capitalize(), is_line=True)
            if prompts and isinstance(found, dict) and found.get("id") is not None:
                known[place] = {"id": found["id"]}
            if prompts and _brings_labels(found):
                questions.append(_prompted(found, where, model))
            else:
                questions.append(_line(found, where, model))
        except RequestError as error:
            questions.append(error.with_traceback(None))  # which would hold what was read
    return Asked(_placed(questions), known=known)


def _placed(questions: Sequence[Question | RequestError]) -> list[Question | RequestError]:
    """Tell each question its place among the texts of the request; a line that is none has a place, too."""
    placed: list[Question | RequestError] = []
    place = 0
    for one in questions:
        placed.append(replace(one, place=place) if isinstance(one, Question) else one)
        place += len(one.texts) if isinstance(one, Question) else 1
    return placed


def _brings_labels(found: Any) -> bool:
    """Tell whether a line says more than a body may, as a line of a file of requests does: labels, or an `id`."""
    if not isinstance(found, dict):
        return False
    return bool(_OWN & found.keys()) or ("id" in found and bool({"inputs", "text"} & found.keys()))


def _prompted(found: JsonObject, where: str, model: Model) -> Question:
    """Return what a line of a file of requests asks.

    Raises:
        RequestError: it is none.
    """
    given = found.get("parameters")
    parameters = dict(given) if isinstance(given, dict) else {}
    top_k = parameters.pop("top_k", None)
    if not {*found, *parameters} <= {*NAMES, "parameters", "options"}:
        message = f"Unknown field; allowed: {', '.join(NAMES)}, parameters (with top_k, too), options"
        raise InvalidFieldsError(f"One field is wrong: {where}: {message}.", [FieldError(where, message, "extra")])
    try:
        asked = read_prompted({**found, "parameters": parameters if isinstance(given, dict) else given}, SILENT)
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise RequestError("top_k: a whole number from 1 is expected")
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from None
    style = sequences(asked.known, one=asked.one, top_k=top_k)
    kind = asked.kind
    if kind == SILENT:
        return Question(asked.texts, style)
    return Question(asked.texts, style, checked_prompt(kind.labels_of(model), kind.template, kind.each(model)))


def _line(found: Any, where: str, model: Model) -> Question:
    """Return what one line asks: a JSON string or a row is one text, and anything else as in a JSON body."""
    text = found
    if isinstance(found, dict) and not (SHAPES.keys() - {"text", model.text_column}) & found.keys():
        text = found.get(model.text_column, found.get("text"))
    if isinstance(text, str):
        return Question([text], RECORD)
    if not isinstance(found, dict) or not SHAPES.keys() & found.keys():
        message = f"A text, an object with {model.text_column!r}, or one with one of {', '.join(SHAPES)} is needed"
        raise InvalidFieldsError(f"One field is wrong: {where}: {message}.", [FieldError(where, message, "shape")])
    return _question(found, model, where)


def _read_csv(body: bytes, model: Model, most_bytes: int) -> Asked:
    """Read a text a row; blank lines are no rows, as for pandas."""
    csv.field_size_limit(max(csv.field_size_limit(), most_bytes))  # else a long text is an error
    try:
        rows = [row for row in csv.reader(StringIO(body.decode("utf-8-sig"), newline=""), strict=True) if row]
    except UnicodeDecodeError:
        raise MalformedBodyError("The body is not valid UTF-8.") from None
    except csv.Error as error:
        raise MalformedBodyError(f"The body is not valid CSV: {error}.") from None
    header = bool(rows) and model.text_column in rows[0]
    at = rows[0].index(model.text_column) if header else 0
    for number, row in enumerate(rows[header:], 1):
        if len(row) <= at:
            message = f"The row has {len(row)} cells, and the text is in column {at + 1}"
            raise InvalidFieldsError(f"Row {number}: {message}.", [FieldError(f"row[{number}]", message, "csv")])
    return Asked([Question([row[at] for row in rows[header:]], FRAME)], header)


def _read(body: bytes, context: Context, media: Media, model: Model) -> Asked:
    if media.form == "csv":
        return _read_csv(body, model, context.limits.max_body_bytes)
    if media.form == "lines":
        return _read_lines(body, model, context.limits)
    try:
        return Asked([_question(_parse(body, "The body"), model)])
    except RequestError as error:
        return Asked([error.with_traceback(None)])


def _form(body: bytes, sent: Media, limits: ServeConfig) -> Media:
    """Return the form of a body; where nothing may be refused, lines that are said to be one JSON document are lines.

    So a batch transform sends them where its content type is that of a line.
    """
    if sent.form != "json" or limits.unanswerable == "refuse" or b"\n" not in body.strip():
        return sent
    try:
        from_json(body)
    except ValueError:
        return LINES
    return sent


async def invoke(request: Request, context: Context, name: str | None = None) -> Response:
    """Answer a request in any of the shapes, in the form that it accepts.

    Args:
        request: the request.
        context: its surroundings.
        name: the model to ask; by default the default one.

    Raises:
        TamizError: something is wrong with the request, or the model is not there.
    """
    said = media_of(request.headers.get("content-type"))
    served = context.models.get(name)
    body = await request.body()
    is_large = len(body) > MOST_INLINE_BYTES
    sent = await beside(is_large, _form, body, said, context.limits)
    give = wanted(request.headers.get("accept"), default=sent if sent.form == "lines" else JSON)
    asked = await beside(is_large, _read, body, context, sent, served.model)
    answers = await _answers(context, served, asked, marks=sent.form != "csv" and give.form != "csv")
    content = await beside(is_large, _write, answers, asked, served.model, sent, give)
    return Response(content, media_type=f"{CSV.name}; charset=utf-8" if give.form == "csv" else give.name)


async def _answers(context: Context, served: Served, asked: Asked, *, marks: bool) -> list[Answer | JsonObject]:
    """Answer each question; where it cannot be, its place says why, if `marks`.

    Raises:
        RequestError: one cannot be answered, without `marks`, or none can, unless the limits want that marked too.
    """
    asking = [one for one in asked.questions if isinstance(one, Question)]
    found = iter(await answer_each(context, served, asking))
    every = [next(found) if isinstance(one, Question) else one for one in asked.questions]
    errors = [one for one in every if isinstance(one, RequestError)]
    refuses = len(errors) == len(every) and context.limits.unanswerable == "refuse"
    if errors and (refuses or not marks):
        raise errors[0]
    for error in errors:
        context.metrics.count_error(NAME, failure_of(error).slug)
    return [
        {**asked.known.get(place, {}), "error": str(one), "line": place + 1} if isinstance(one, RequestError) else one
        for place, one in enumerate(every)
    ]


def _write(answers: Sequence[Answer | JsonObject], asked: Asked, model: Model, sent: Media, give: Media) -> bytes:
    if sent.form == "lines" and give.form != "csv":
        wholes = [one.whole() if isinstance(one, Answer) else one for one in answers]
        return to_lines(wholes) if give.form == "lines" else to_json(wholes, inf_nan_mode="null")
    if not isinstance(answers[0], Answer):  # the only one, so no line need be told
        error = {"error": answers[0]["error"]}
        return to_lines([error]) if give.form == "lines" else to_json(error)
    return _write_answers([one for one in answers if isinstance(one, Answer)], asked, model, give)


def _write_answers(answers: Sequence[Answer], asked: Asked, model: Model, give: Media) -> bytes:
    if give.form == "csv":
        prompted = {one.question.prompt is not None for one in answers}
        if len(prompted) > 1:
            raise NotAcceptableError("Answers with and without candidate labels make no one table; take JSON lines.")
        if True in prompted:
            names = ["sequence", "labels", "scores"]
            return to_csv([item for one in answers for item in one.items()], names, header=asked.header)
        return to_csv([row for one in answers for row in one.rows()], model.answer_columns, header=asked.header)
    if give.form == "lines":
        return to_lines([item for one in answers for item in one.items()])
    return to_json(answers[0].whole())


def _render(failure: Failure, request_id: str) -> Response:
    """Answer as MLflow's scoring server does: any fault of the body is 400."""
    status = 400 if failure.status == 422 else failure.status
    code = CODES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
    body = to_json({"error_code": code, "message": failure.detail})
    return Response(body, status, dict(failure.headers), JSON.name)


def add_bodies(document: JsonObject) -> None:
    """Put the schemas that `BODIES` refers to into the OpenAPI document."""
    add_schemas(document, *SCHEMAS)


def door(context: Context) -> Door:
    """Build the door."""

    async def invocations(request: Request) -> Response:
        """Classify texts with the default model, in the shape that the body's key names.

        `inputs`: labels by falling score, or with `parameters.candidate_labels` sequence, labels and scores; `text`: as
        `/v1/models`; `dataframe_split`, `dataframe_records` and `instances`: a row a text. JSON lines: a line out for
        each line in, `error` and `line` where it cannot be answered; a line may also be a JSON string, or a row with
        the text's column. CSV: has a header if its first row contains the text's column, else the first column is the
        text. The answer is JSON (JSON lines: JSON lines), or what `Accept` asks for.
        """
        return await invoke(request, context)

    post = route(
        "POST",
        PATH,
        invocations,
        door=NAME,
        summary="Classify texts in any of several shapes",
        answer=InvocationsAnswer,
        body=BODIES,
        responses={**answer_types(), **failures(InvocationsProblem, STATUSES)},
        always=(),
    )
    return Door(NAME, [post], render=_render, complete=add_bodies)


def answer_types() -> dict[int | str, JsonObject]:
    """Document the forms of an answer besides JSON."""
    text = {"schema": {"type": "string"}}
    return {200: {"content": {LINES.name: text, CSV.name: text}}}

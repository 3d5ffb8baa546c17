"""The door of the Open Inference Protocol, version 2 (KServe, Triton, MLServer), with its binary extension."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from tamiz import __version__
from tamiz.errors import ModelNotFoundError, one_of
from tamiz.serving.auth import is_open
from tamiz.serving.doors.base import (
    ALWAYS,
    Door,
    Handler,
    JsonObject,
    PlainRoute,
    add_schemas,
    failures,
    json_answer,
    reference,
    route,
)
from tamiz.serving.doors.tensors import InputTensor, OutputTensor, bytes_tensor, float_tensor, split_body, texts_of
from tamiz.serving.problems import FieldError, InvalidFieldsError, explain_validation
from tamiz.types import Task

if TYPE_CHECKING:
    from tamiz.model import Model, Prediction
    from tamiz.serving.context import Context
    from tamiz.serving.problems import Failure
    from tamiz.serving.served import Served

__all__ = ["door"]

NAME = "open-inference"
LIVE, READY = "/v2/health/live", "/v2/health/ready"
MODEL = "/v2/models/{name}"
VERSION = f"{MODEL}/versions/{{version}}"
HEADER = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
STATUSES = (400, 404, 408, 413, 415, *ALWAYS)


class RequestedOutput(BaseModel):
    """A part of the answer that is wanted."""

    model_config = ConfigDict(frozen=True)

    name: str
    parameters: dict[str, Any] | None = Field(None, description="`binary_data`: whether as bytes after the document")


class InferRequest(BaseModel):
    """Texts to classify: one BYTES tensor, whatever its name."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [{"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]}]
        },
    )

    id: str | None = None
    parameters: dict[str, Any] | None = Field(
        None, description="`binary_data_output`: whether outputs come as bytes where their own parameters do not say"
    )
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] | None = Field(None, description="The outputs that are wanted; by default all")


class InferAnswer(BaseModel):
    """The answer to each text: `label`, `probabilities` in the order of `labels`, and `labels`."""

    model_name: str
    model_version: str | None = None
    id: str | None = None
    outputs: list[OutputTensor]


class TensorInfo(BaseModel):
    """What a tensor is like; -1: as many as there are texts."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


class ServerMetadata(BaseModel):
    """What answers here."""

    name: str
    version: str
    extensions: list[str]


class HealthAnswer(BaseModel):
    """Whether the server is alive, and ready for requests."""

    live: bool
    ready: bool


class ModelReady(BaseModel):
    """Whether a model answers."""

    name: str
    ready: bool


class OpenInferenceProblem(BaseModel):
    """What went wrong."""

    error: str


REQUEST = TypeAdapter(InferRequest)


def _labels_output(model: Model, predictions: Sequence[Prediction]) -> list[str]:
    """Return a text for each label: none for an abstention, a list in JSON where a text may have several."""
    if model.task is Task.MULTI_LABEL:
        return [json.dumps(one.label, ensure_ascii=False) for one in predictions]
    return [str(one.label or "") for one in predictions]


def _probabilities(model: Model, predictions: Sequence[Prediction]) -> Any:
    return np.stack([one.probabilities for one in predictions]) if predictions else np.empty((0, len(model.labels)))


Make = Callable[["Model", Sequence["Prediction"], bool], tuple[OutputTensor, bytes]]
OUTPUTS: dict[str, Make] = {
    "label": lambda model, found, binary: bytes_tensor("label", _labels_output(model, found), binary=binary),
    "probabilities": lambda model, found, binary: float_tensor(
        "probabilities", _probabilities(model, found), binary=binary
    ),
    "labels": lambda model, found, binary: bytes_tensor("labels", model.labels, binary=binary),
}


def _wanted(asked: InferRequest) -> dict[str, bool]:
    """Return the outputs to give, and whether as bytes.

    Raises:
        InvalidFieldsError: there is no such output, or it is wanted in a way that is not known here.
    """
    binary = bool((asked.parameters or {}).get("binary_data_output", False))
    if not asked.outputs:
        return dict.fromkeys(OUTPUTS, binary)
    for place, output in enumerate(asked.outputs):
        where = f"body.outputs[{place}]"
        if output.name not in OUTPUTS:
            raise _wrong(f"{where}.name", f"No such output; {one_of(output.name[:80], OUTPUTS)}")
        if {"classification", "shared_memory_region"} & (output.parameters or {}).keys():
            raise _wrong(
                f"{where}.parameters", "Neither classification nor shared memory is known; allowed: binary_data"
            )
    return {output.name: bool((output.parameters or {}).get("binary_data", binary)) for output in asked.outputs}


def _wrong(place: str, message: str) -> InvalidFieldsError:
    return InvalidFieldsError(f"One field is wrong: {place}: {message}", [FieldError(place, message, "wrong_output")])


def _answer(served: Served, asked: InferRequest, predictions: Sequence[Prediction]) -> Response:
    made = [OUTPUTS[name](served.model, predictions, binary) for name, binary in _wanted(asked).items()]
    outputs = [tensor for tensor, _ in made]
    about = InferAnswer(model_name=served.name, model_version=served.version, id=asked.id, outputs=outputs)
    document = about.model_dump_json(exclude_none=True).encode()
    if not any(tensor.parameters for tensor in outputs):
        return Response(document, media_type="application/json")
    content = document + b"".join(content for _, content in made)
    return Response(content, headers={HEADER: str(len(document))}, media_type=BINARY)


def _metadata(served: Served) -> ModelMetadata:
    model = served.model
    return ModelMetadata(
        name=served.name,
        versions=[served.version] if served.version else [],
        platform=f"tamiz_{model.manifest.family}",
        inputs=[TensorInfo(name=model.text_column, datatype="BYTES", shape=[-1])],
        outputs=[
            TensorInfo(name="label", datatype="BYTES", shape=[-1]),
            TensorInfo(name="probabilities", datatype="FP64", shape=[-1, len(model.labels)]),
            TensorInfo(name="labels", datatype="BYTES", shape=[len(model.labels)]),
        ],
    )


def _render(failure: Failure, request_id: str) -> Response:
    """Answer as inference servers do: any fault of the body is 400."""
    response = json_answer({"error": failure.detail}, 400 if failure.status == 422 else failure.status)
    response.headers.update(failure.headers)
    return response


class OpenInference:
    """The handlers of the door."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def _served(self, request: Request) -> Served:
        """Return the model of the path; where a version is named, it must be the one that is served."""
        served = self.context.models.get(request.path_params["name"])
        version = request.path_params.get("version")
        if version is not None and version != served.version:
            raise ModelNotFoundError(f"This version is not served now; allowed: {served.version or 'no version'}.")
        return served

    async def server(self, request: Request) -> Response:
        """Describe the server."""
        about = ServerMetadata(name="tamiz", version=__version__, extensions=["binary_tensor_data"])
        return json_answer(about.model_dump())

    async def live(self, request: Request) -> Response:
        """Say that the process answers."""
        return json_answer({"live": True, "ready": self.context.models.ready})

    async def ready(self, request: Request) -> Response:
        """Say whether to send requests here: 503 while models are loaded and while the server stops."""
        is_ready = self.context.models.ready
        return json_answer({"live": True, "ready": is_ready}, 200 if is_ready else 503)

    async def model(self, request: Request) -> Response:
        """Describe a model's tensors."""
        return json_answer(_metadata(self._served(request)).model_dump())

    async def model_ready(self, request: Request) -> Response:
        """Say whether a model answers."""
        served, is_ready = self._served(request), self.context.models.ready
        return json_answer({"name": served.name, "ready": is_ready}, status=200 if is_ready else 503)

    async def infer(self, request: Request) -> Response:
        """Classify texts.

        The input is one BYTES tensor of the shape `[n]` or `[n, 1]`, under any name. Outputs: `label` (empty: the model
        abstains; multi-label: a list in JSON), `probabilities` (`[n, k]`) and `labels`, the names of their columns.
        Tensors come and go as bytes after the JSON document where the binary extension asks for it.
        """
        document, binary = split_body(await request.body(), request.headers.get(HEADER))
        try:
            asked = REQUEST.validate_json(document)
        except ValidationError as error:
            raise explain_validation(error) from None
        served = self._served(request)
        texts = texts_of(asked.inputs[0], binary)
        _wanted(asked)  # before the work
        return _answer(served, asked, await self.context.predict(served, texts))


def door(context: Context) -> Door:
    """Build the door."""

    def describe(document: JsonObject) -> None:
        add_schemas(document, InferRequest)

    return Door(NAME, _routes(OpenInference(context)), render=_render, complete=describe)


def _routes(handlers: OpenInference) -> list[PlainRoute]:
    failed = failures(OpenInferenceProblem, ALWAYS)
    not_ready: dict[int | str, JsonObject] = {503: {"model": HealthAnswer, "description": "Not yet, or no more"}}
    guarded = {} if is_open("GET", LIVE) else failures(OpenInferenceProblem, (401, 403))

    def get(path: str, handler: Handler, summary: str, answer: type[BaseModel], **about: Any) -> PlainRoute:
        name = _operation(path, handler)
        return route(
            "GET", path, handler, door=NAME, summary=summary, answer=answer, always=(), operation=name, **about
        )

    routes = [
        get(LIVE, handlers.live, "Is the process alive?", HealthAnswer, responses=guarded),
        get(READY, handlers.ready, "May requests be sent here?", HealthAnswer, responses={**not_ready, **guarded}),
        get("/v2", handlers.server, "Describe the server", ServerMetadata, responses=failed),
    ]
    for path in (MODEL, VERSION):
        names = ("name", "version") if path == VERSION else ("name",)
        about: JsonObject = {
            "parameters": [
                {"name": one, "in": "path", "required": True, "schema": {"type": "string"}} for one in names
            ],
        }
        known = failures(OpenInferenceProblem, (404, *ALWAYS))
        routes += [
            get(f"{path}/ready", handlers.model_ready, "Is the model ready?", ModelReady, responses=known, **about),
            get(path, handlers.model, "Describe a model's tensors", ModelMetadata, responses=known, **about),
            _infer_route(f"{path}/infer", handlers, about),
        ]
    return routes


def _infer_route(path: str, handlers: OpenInference, about: JsonObject) -> PlainRoute:
    binary: JsonObject = {"schema": {"type": "string", "format": "binary"}}
    return route(
        "POST",
        path,
        handlers.infer,
        door=NAME,
        summary="Classify texts",
        answer=InferAnswer,
        body={"application/json": reference(InferRequest), BINARY: binary["schema"]},
        responses={200: {"content": {BINARY: binary}}, **failures(OpenInferenceProblem, STATUSES)},
        always=(),
        operation=_operation(path, handlers.infer),
        **about,
    )


def _operation(path: str, handler: Handler) -> str:
    """Return a name of its own for each route, although two may share a handler."""
    return handler.__name__ + ("_version" if path.startswith(VERSION) else "")

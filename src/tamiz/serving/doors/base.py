"""What a door is: routes of one protocol, and the shape of its errors.

A new door is one module with a function `door(context) -> Door`, and one line in `doors/__init__.py`. Its handlers take
the request and return a response; they raise errors of `tamiz.errors`, which the door's `render` puts into its shape.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from tamiz.serving.headers import check_json_type
from tamiz.serving.inline import MOST_INLINE_BYTES, beside
from tamiz.serving.problems import (
    KINDS,
    FieldError,
    InvalidFieldsError,
    Kind,
    Render,
    explain_validation,
    problem_response,
)

__all__ = [
    "ALWAYS",
    "Door",
    "Doors",
    "PlainRoute",
    "add_schemas",
    "failures",
    "json_answer",
    "query_value",
    "read_json",
    "reference",
    "route",
]

Handler = Callable[[Request], Awaitable[Response]]
Body = TypeVar("Body", bound=BaseModel)
JsonObject = dict[str, Any]

REF = "#/components/schemas/{model}"

# What any call may be answered, whatever it asks.
ALWAYS = (401, 403, 429, 500, 503)
REASONS = {
    400: "The body is not valid JSON",
    401: "No API key, or an unknown one (with `--auth keys`)",
    403: "The caller may not do this",
    404: "No such model",
    406: "The answer is not given in the form that `Accept` asks for",
    408: "The body did not arrive in time",
    409: "It clashes with the present state",
    413: "The body, a text or the batch is over its limit",
    415: "The body is in a form that is not read here",
    422: "A field is missing or wrong",
    424: "The model could not answer this request",
    429: "Too many requests at once; see `Retry-After`",
    500: "Something failed on the server",
    503: "The model is being loaded, the server is stopping, or the answer took too long; see `Retry-After`",
    507: "The folder of records is full",
}


class PlainRoute(APIRoute):
    """A route that FastAPI documents and whose endpoint reads the request itself; where it takes GET, it takes HEAD.

    FastAPI's own way from a request to its endpoint takes as long as a small model's answer.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether the request is for this path and method."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        return super().matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the endpoint answer.

        Raises:
            HTTPException: the path does not take the method.
        """
        if scope["method"] not in self.takes:
            raise HTTPException(405)
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    @cached_property
    def takes(self) -> frozenset[str]:
        """Methods that it answers."""
        methods = frozenset(self.methods or ())
        return methods | {"HEAD"} if "GET" in methods else methods


@dataclass(frozen=True)
class Door:
    """One protocol in which models answer.

    Attributes:
        name: name in metrics, logs and the documentation.
        routes: its routes; no two doors share a path.
        render: the shape of its errors.
        complete: gives the OpenAPI document what only the served models know.
    """

    name: str
    routes: Sequence[PlainRoute]
    render: Render = problem_response
    complete: Callable[[JsonObject], None] | None = None


class Doors:
    """All doors of an application, to find the one that a request is for."""

    def __init__(self, doors: Sequence[Door], fallback: Door) -> None:
        self.all = tuple(doors)
        self._fallback = fallback
        self._of_route = {id(route): door for door in doors for route in door.routes}

    def of(self, scope: Scope) -> Door:
        """Return the door of a request, also of one that was refused before it was routed."""
        door = self._of_route.get(id(scope.get("route")))
        if door is not None:
            return door
        for door in self.all:
            if any(route.matches(scope)[0] is not Match.NONE for route in door.routes):
                return door
        return self._fallback

    def methods(self, scope: Scope) -> list[str]:
        """Return the methods that the path of a request takes, in order: a path may have a route for each."""
        every = (one for door in self.all for one in door.routes if one.matches(scope)[0] is not Match.NONE)
        return sorted({method for one in every for method in one.takes})


def route(
    method: str,
    path: str,
    handler: Handler,
    *,
    door: str,
    summary: str,
    answer: type[BaseModel] | None = None,
    body: type[BaseModel] | Mapping[str, JsonObject] | None = None,
    parameters: Sequence[JsonObject] = (),
    problems: Sequence[int] = (),
    responses: Mapping[int | str, JsonObject] | None = None,
    always: Sequence[int] = ALWAYS,
    operation: str | None = None,
) -> PlainRoute:
    """Make a documented route.

    Args:
        method: HTTP method.
        path: path with `{parameters}`.
        handler: takes the request, returns the response.
        door: name of the door.
        summary: one line for the documentation.
        answer: schema of a successful answer.
        body: schema of the request's body, if it has one; or a schema for each media type.
        parameters: OpenAPI parameters.
        problems: statuses it may answer besides `ALWAYS`.
        responses: further documented responses.
        always: statuses that any call may be answered with problem details; a door with another shape of errors
            gives none here and documents its own in `responses`.
        operation: name of the operation in the documentation; by default the handler's.
    """
    extra: JsonObject = {"parameters": list(parameters)} if parameters else {}
    if body is not None:
        schemas = body if isinstance(body, Mapping) else {"application/json": body.model_json_schema(ref_template=REF)}
        extra["requestBody"] = {"required": True, "content": {kind: {"schema": one} for kind, one in schemas.items()}}
    statuses = sorted({*problems, *always, *((408, 413, 415) if always and method == "POST" else ())})
    return PlainRoute(
        path,
        handler,
        methods=[method],
        response_model=answer,
        responses={**{status: _problem_doc(status) for status in statuses}, **(responses or {})},
        openapi_extra=extra or None,
        operation_id=f"{door}_{operation or handler.__name__}",
        summary=summary,
        description=(handler.__doc__ or summary).strip(),
        tags=[door],
    )


def _problem_doc(status: int) -> JsonObject:
    doc: JsonObject = {
        "description": REASONS[status],
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    kinds: list[Kind] = [kind for kind in KINDS.values() if kind.status == status]
    names = {name for kind in kinds for name in kind.headers if name != "Connection"}
    if names:
        doc["headers"] = {name: {"schema": {"type": "string"}} for name in sorted(names)}
    return doc


def failures(shape: type[BaseModel], statuses: Sequence[int]) -> dict[int | str, JsonObject]:
    """Document failures that have a shape of their own, for `responses` of `route`."""
    return {status: {"model": shape, "description": REASONS[status]} for status in sorted(statuses)}


def reference(shape: type[BaseModel]) -> JsonObject:
    """Return a reference to a schema that `add_schemas` puts into the document."""
    return {"$ref": REF.format(model=shape.__name__)}


def add_schemas(document: JsonObject, *shapes: type[BaseModel]) -> None:
    """Put schemas, and those that they are made of, into the OpenAPI document."""
    known = document["components"].setdefault("schemas", {})
    for shape in shapes:
        schema = shape.model_json_schema(ref_template=REF)
        known.update(schema.pop("$defs", {}))
        known[shape.__name__] = schema


async def read_json(request: Request, adapter: TypeAdapter[Body], shape: type[BaseModel]) -> Body:
    """Read the body as `adapter` says.

    Raises:
        UnsupportedMediaError: it is said to be something else than JSON.
        MalformedBodyError: it is not JSON.
        InvalidFieldsError: a field is missing, unknown or wrong.
    """
    check_json_type(request.headers)
    body = await request.body()
    try:
        return await beside(len(body) > MOST_INLINE_BYTES, adapter.validate_json, body)
    except ValidationError as error:
        # Cut off from its cause, which holds what was sent.
        raise explain_validation(error, shape=shape) from None


def query_value(request: Request, name: str) -> str:
    """Return a query parameter that must be there, once.

    Raises:
        InvalidFieldsError: it is not; the message names it.
    """
    values = request.query_params.getlist(name)
    if len(values) == 1:
        return values[0]
    said, kind = (f"given {len(values)} times", "repeated") if values else ("missing", "missing")
    error = FieldError(f"query.{name}", f"This query parameter is {said}", kind)
    raise InvalidFieldsError(f"The query parameter {name!r} is {said}.", [error])


def json_answer(data: object, status: int = 200) -> Response:
    """Answer with JSON."""
    return Response(to_json(data), status, media_type="application/json")

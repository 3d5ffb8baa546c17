"""Failures as every door sees them, and their default form: problem details (RFC 9457).

One table maps errors to HTTP statuses. What is not in it is our fault: a generic 500, with the traceback in the log.
A failure never carries what the caller sent.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tamiz._config_errors import fields_at
from tamiz.errors import (
    BusyError,
    ConflictError,
    ForbiddenError,
    ModelNotFoundError,
    OverloadedError,
    PackageError,
    RequestError,
    StoreError,
    TamizError,
    TooLargeError,
    UnauthorizedError,
    reason_of,
)

__all__ = [
    "ClientGoneError",
    "DeadlineError",
    "Failure",
    "FieldError",
    "FullError",
    "InvalidFieldsError",
    "MalformedBodyError",
    "NotAcceptableError",
    "NotReadyError",
    "Problem",
    "RateError",
    "Render",
    "SlowBodyError",
    "UnsupportedMediaError",
    "explain_validation",
    "failure_of",
    "problem_response",
]

log = logging.getLogger("tamiz.serving")

MOST_FIELD_ERRORS = 20
MOST_EXAMINED = 1000  # pydantic makes all errors or none, and each takes its time


class FieldError(NamedTuple):
    """What is wrong with one field of a request.

    Attributes:
        location: the place, such as `body.text[3]` or `query.text`.
        message: what is wrong there; never the value itself.
        type: a stable word for programs, such as `string_type`.
    """

    location: str
    message: str
    type: str


class MalformedBodyError(RequestError):
    """The body is not JSON at all."""


class InvalidFieldsError(RequestError):
    """The request is well-formed, and a field of it is missing or wrong; `errors` says which."""

    def __init__(self, message: str, errors: Sequence[FieldError]) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class SlowBodyError(RequestError):
    """The body did not arrive in time."""


class NotAcceptableError(RequestError):
    """The answer is wanted in a form that the door does not give."""


class UnsupportedMediaError(RequestError):
    """The body is in a form that is not read; `headers` may say which is."""

    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or {}


class RateError(OverloadedError):
    """The caller asks too often; `headers` say how long to wait."""

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.headers = headers


class NotReadyError(TamizError, RuntimeError):
    """The model is still being loaded, or the server is about to stop."""


class DeadlineError(TamizError, RuntimeError):
    """The answer was not there in time; the work on it has been given up."""


class FullError(TamizError, RuntimeError):
    """The folder of records holds as much as it may."""


class ClientGoneError(TamizError, RuntimeError):
    """The client has closed its connection; nobody is there to be answered."""


class Kind(NamedTuple):
    """How errors of one class are answered."""

    status: int
    slug: str
    title: str
    headers: Mapping[str, str] = {}
    detail: str | None = None  # in place of the error's own message


RETRY = {"Retry-After": "1"}

KINDS: dict[type[Exception], Kind] = {
    MalformedBodyError: Kind(400, "malformed-body", "The body is not valid JSON"),
    UnauthorizedError: Kind(401, "unauthorized", "An API key is needed", {"WWW-Authenticate": 'Bearer realm="tamiz"'}),
    ForbiddenError: Kind(403, "forbidden", "The call is not allowed"),
    ModelNotFoundError: Kind(404, "model-not-found", "No such model"),
    NotAcceptableError: Kind(406, "not-acceptable", "The answer cannot be given in this form"),
    SlowBodyError: Kind(408, "slow-body", "The body did not arrive in time", {"Connection": "close"}),
    BusyError: Kind(409, "busy", "Another operation is under way", RETRY),
    ConflictError: Kind(409, "conflict", "It clashes with the present state"),
    PackageError: Kind(409, "bad-package", "The model package cannot be used"),
    TooLargeError: Kind(413, "too-large", "The request is too large"),
    UnsupportedMediaError: Kind(415, "unsupported-media-type", "The body cannot be read in this form"),
    RequestError: Kind(422, "invalid-request", "The request is not valid"),
    OverloadedError: Kind(429, "overloaded", "Too many requests at once", RETRY),
    RateError: Kind(429, "rate-limit", "Too many requests in a minute", RETRY),
    NotReadyError: Kind(503, "not-ready", "The server is not ready", RETRY),
    DeadlineError: Kind(503, "deadline", "The answer took too long", RETRY),
    FullError: Kind(507, "full", "There is no room for more records"),
    StoreError: Kind(503, "store-failed", "The model store failed", RETRY, "The model store failed; the log says how."),
}

UNKNOWN = Kind(500, "internal", "Internal error", detail="Something failed on the server; its log says what.")

FROM_ROUTING = {
    404: Kind(404, "not-found", "No such path", detail="Nothing is served at this path; GET /openapi.json lists all."),
    405: Kind(405, "method-not-allowed", "The path does not take this method"),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error on its way to the caller, before a door gives it the shape of its protocol.

    Attributes:
        status: HTTP status.
        slug: stable word for programs.
        title: the kind of failure in words; the same for all of a kind.
        detail: this occurrence in words.
        headers: headers that belong to the status.
        errors: wrong fields, if that is what it is about.
    """

    status: int
    slug: str
    title: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[FieldError, ...] = ()


Render = Callable[[Failure, str], Response]
"""How a door answers a failure, given the request's identifier."""


class ProblemField(BaseModel):
    """One wrong field."""

    location: str = Field(examples=["body.text[3]"])
    message: str = Field(examples=["Input should be a valid string"])
    type: str = Field(examples=["string_type"])


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(examples=["urn:tamiz:problem:invalid-request"], description="URI of the kind of problem")
    title: str = Field(examples=["The request is not valid"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["One field is missing or wrong."])
    instance: str = Field(examples=["urn:tamiz:request:6f1c"], description="Names the request, as the log does")
    errors: list[ProblemField] | None = Field(None, description="The wrong fields, at most 20")


def failure_of(error: Exception) -> Failure:
    """Translate any error; an unknown one is logged with its traceback and answered as a generic 500."""
    if isinstance(error, HTTPException):
        return _from_routing(error)
    kind = next((KINDS[cls] for cls in type(error).__mro__ if cls in KINDS), UNKNOWN)
    if kind.detail is not None:
        log_error("request failed", error)
    errors = error.errors if isinstance(error, InvalidFieldsError) else ()
    headers = getattr(error, "headers", kind.headers)
    return Failure(kind.status, kind.slug, kind.title, kind.detail or str(error), headers, errors)


def log_error(message: str, error: BaseException, **fields: object) -> None:
    """Log where an error came from; its message only if it is one of ours, since others may quote a user's text."""
    about = {
        "error": type(error).__name__,
        "error_message": str(error) if isinstance(error, TamizError) else "(withheld: it may hold a user's text)",
        "traceback": "".join(traceback.format_tb(error.__traceback__)),
    }
    log.error(message, extra={"fields": {**fields, **about}})


def _from_routing(error: HTTPException) -> Failure:
    kind = FROM_ROUTING.get(error.status_code)
    headers = dict(error.headers or {})
    if kind is None:
        phrase = HTTPStatus(error.status_code).phrase
        return Failure(error.status_code, phrase.lower().replace(" ", "-"), phrase, f"{phrase}.", headers)
    detail = kind.detail or f"This path takes {headers.get('Allow', 'other methods')}."
    return Failure(kind.status, kind.slug, kind.title, detail, headers)


def problem_response(failure: Failure, request_id: str) -> Response:
    """Answer in the form of RFC 9457."""
    body: dict[str, Any] = {
        "type": f"urn:tamiz:problem:{failure.slug}",
        "title": failure.title,
        "status": failure.status,
        "detail": failure.detail,
        "instance": f"urn:tamiz:request:{request_id}",
    }
    if failure.errors:
        body["errors"] = [error._asdict() for error in failure.errors]
    return Response(to_json(body), failure.status, dict(failure.headers), "application/problem+json")


def explain_validation(
    error: ValidationError, *, where: str = "body", shape: type[BaseModel] | None = None
) -> RequestError:
    """Turn pydantic's findings into an error that quotes nothing of what was sent.

    Args:
        error: what pydantic raised.
        where: `body` or `query`.
        shape: what was read; its fields are named when an unknown one was sent (whose own name is the caller's, so
            not repeated).
    """
    if error.error_count() > MOST_EXAMINED:
        return InvalidFieldsError(f"{error.error_count()} fields are missing or wrong.", [])
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if any(item["type"] == "json_invalid" for item in found):
        return MalformedBodyError(f"The {where} is not valid JSON: {found[0]['msg'].removeprefix('Invalid JSON: ')}.")
    errors = [_field_error(item, where, shape) for item in found[:MOST_FIELD_ERRORS]]
    count = "One field is" if len(found) == 1 else f"{len(found)} fields are"
    return InvalidFieldsError(f"{count} missing or wrong: {errors[0].location}: {errors[0].message}", errors)


def _field_error(item: ErrorDetails, where: str, shape: type[BaseModel] | None) -> FieldError:
    loc = item["loc"]
    if item["type"] == "extra_forbidden":
        allowed = [] if shape is None else fields_at(shape, loc[:-1])
        message = f"Unknown field; allowed: {', '.join(allowed)}" if allowed else "Unknown field"
        return FieldError(_place(where, loc[:-1]), message, item["type"])
    return FieldError(_place(where, loc), reason_of(item), item["type"])


def _place(where: str, loc: tuple[int | str, ...]) -> str:
    return where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)

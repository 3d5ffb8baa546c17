"""The SageMaker door: what its platform asks of a container, and what boto3's `sagemaker-runtime` client calls."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from tamiz.config import ServeConfig
from tamiz.serving.doors.base import ALWAYS, Door, JsonObject, failures, json_answer, route
from tamiz.serving.doors.invocations import BODIES, InvocationsAnswer, add_bodies, answer_types, invoke

if TYPE_CHECKING:
    from tamiz.serving.context import Context
    from tamiz.serving.problems import Failure

__all__ = ["door", "transform_limits"]

NAME = "sagemaker"
PATH = "/endpoints/{name}/invocations"
NAMED: list[JsonObject] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]

MIB = 2**20
SHORTEST_LINE_BYTES = 4  # a JSON string of one character, and the end of its line
USUAL_PAYLOAD_MB = 6  # SageMaker's own default
MODEL_ERROR = 424  # with which SageMaker tells that the container refused
# Failures that are not about what was asked. SageMaker knows no other status than 400 for an endpoint it does not know.
CODES = {
    401: (401, "AccessDeniedException"),
    403: (403, "AccessDeniedException"),
    404: (400, "ValidationError"),
    405: (405, "ValidationError"),
    429: (429, "ThrottlingException"),
    500: (500, "InternalFailure"),
    503: (503, "ServiceUnavailable"),
}


class ExecutionParameters(BaseModel):
    """How batch transform shall send its records."""

    MaxConcurrentTransforms: int
    BatchStrategy: Literal["MULTI_RECORD", "SINGLE_RECORD"]
    MaxPayloadInMB: int


class SageMakerProblem(BaseModel):
    """What went wrong, as SageMaker's runtime says it; the header `x-amzn-ErrorType` names the kind."""

    Message: str
    OriginalStatusCode: int | None = None
    OriginalMessage: str | None = None


def transform_limits(limits: ServeConfig, cores: int) -> ExecutionParameters:
    """Return how batch transform shall send records so that no payload passes a limit.

    Args:
        limits: what a request may cost.
        cores: processor cores of the machine.
    """
    most_bytes = min(limits.max_body_bytes, limits.max_texts * SHORTEST_LINE_BYTES)
    together = most_bytes >= MIB
    most_mb = most_bytes // MIB if together else max(1, limits.max_body_bytes // MIB)
    return ExecutionParameters(
        MaxConcurrentTransforms=min(limits.max_concurrent, cores),
        BatchStrategy="MULTI_RECORD" if together else "SINGLE_RECORD",
        MaxPayloadInMB=min(most_mb, USUAL_PAYLOAD_MB),
    )


def _render(failure: Failure, request_id: str) -> Response:
    """Answer as SageMaker's runtime does, so that boto3 raises the error that it raises there."""
    headers, body = dict(failure.headers), {"Message": failure.detail}
    if failure.status in CODES:
        status, code = CODES[failure.status]
    else:
        status, code = MODEL_ERROR, "ModelError"
        from_container = 400 if failure.status == 422 else failure.status  # as `/invocations` answers
        original = {"OriginalStatusCode": from_container, "OriginalMessage": failure.detail}
        told = f'Received client error ({from_container}) from the model with message "{failure.detail}"'
        body = {"Message": told, **original}  # type: ignore[dict-item]
    headers["x-amzn-ErrorType"] = code
    return Response(to_json(body), status, headers, "application/json")


def door(context: Context) -> Door:
    """Build the SageMaker door."""

    async def execution_parameters(request: Request) -> Response:
        """Say how batch transform shall send its records."""
        return json_answer(transform_limits(context.limits, os.cpu_count() or 1).model_dump())

    async def invoke_endpoint(request: Request) -> Response:
        """Classify texts in any shape that `/invocations` takes; the endpoint is called as the model is.

        For boto3: `boto3.client("sagemaker-runtime", endpoint_url="http://HOST").invoke_endpoint(EndpointName=...)`.
        """
        return await invoke(request, context, request.path_params["name"])

    def describe(document: JsonObject) -> None:
        add_bodies(document)
        served = context.models.served()
        if served:
            document["paths"][PATH]["post"]["parameters"] = [{**NAMED[0], "example": served[0].name}]

    get = route(
        "GET",
        "/execution-parameters",
        execution_parameters,
        door=NAME,
        summary="Limits for batch transform",
        answer=ExecutionParameters,
        responses=failures(SageMakerProblem, ALWAYS),
        always=(),
    )
    # 400 is an unknown endpoint; what a container would answer with another status becomes a ModelError.
    post = route(
        "POST",
        PATH,
        invoke_endpoint,
        door=NAME,
        summary="Invoke an endpoint, as SageMaker's runtime",
        answer=InvocationsAnswer,
        body=BODIES,
        parameters=NAMED,
        responses={**answer_types(), **failures(SageMakerProblem, (400, MODEL_ERROR, *ALWAYS))},
        always=(),
    )
    return Door(NAME, [get, post], render=_render, complete=describe)

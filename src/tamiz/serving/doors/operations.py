"""Routes for people and platforms that run the server: health, version, metrics, documentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anyio.to_thread
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from tamiz import __version__
from tamiz.serving.context import Context
from tamiz.serving.docs_page import CONTENT_SECURITY_POLICY, PAGE
from tamiz.serving.doors.base import ALWAYS, Door, Handler, JsonObject, PlainRoute, json_answer, route
from tamiz.serving.metrics import CONTENT_TYPE

__all__ = ["door"]

NAME = "operations"


class StatusAnswer(BaseModel):
    """Whether the server is well."""

    status: str


class ReadyAnswer(BaseModel):
    """Whether every model is loaded and the server is not about to stop."""

    ready: bool


class VersionAnswer(BaseModel):
    """What runs here."""

    tamiz: str
    models: dict[str, str | None]


def door(context: Context, document: Callable[[], JsonObject]) -> Door:
    """Build the routes; `document` gives the OpenAPI document."""

    async def health(request: Request) -> Response:
        """Say that the process answers."""
        return json_answer({"status": "ok"})

    async def live(request: Request) -> Response:
        """Say that the process answers; a platform restarts it when it does not."""
        return json_answer({"status": "ok"})

    async def ready(request: Request) -> Response:
        """Say whether to send requests here: 503 while models are loaded and while the server stops."""
        is_ready = context.models.ready
        return json_answer({"ready": is_ready}, 200 if is_ready else 503)

    async def ping(request: Request) -> Response:
        """Say whether to send requests here, as SageMaker asks."""
        is_ready = context.models.ready
        return json_answer({"status": "ok" if is_ready else "loading"}, 200 if is_ready else 503)

    async def show_version(request: Request) -> Response:
        """Name the version of Tamiz and of each model."""
        served = {one.name: one.version for one in context.models.served()}
        return json_answer({"tamiz": __version__, "models": served})

    async def metrics(request: Request) -> Response:
        """Give the figures of all worker processes in Prometheus' text format."""
        text = await anyio.to_thread.run_sync(context.metrics.render)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def openapi(request: Request) -> Response:
        """Give the OpenAPI document."""
        return await anyio.to_thread.run_sync(lambda: json_answer(document()))

    async def docs(request: Request) -> Response:
        """Show the documentation, to read and to try out."""
        headers = {"content-security-policy": CONTENT_SECURITY_POLICY}
        return Response(PAGE, media_type="text/html", headers=headers)

    def get(
        path: str,
        handler: Handler,
        summary: str,
        *,
        answer: type[BaseModel] | None = None,
        always: Sequence[int] = ALWAYS,
        responses: Mapping[int | str, JsonObject] | None = None,
    ) -> PlainRoute:
        return route(
            "GET", path, handler, door=NAME, summary=summary, answer=answer, always=always, responses=responses
        )

    return Door(
        NAME,
        [
            get("/health", health, "Is the process alive?", answer=StatusAnswer, always=()),
            get("/health/live", live, "Is the process alive?", answer=StatusAnswer, always=()),
            get(
                "/health/ready",
                ready,
                "May requests be sent here?",
                answer=ReadyAnswer,
                always=(),
                responses={503: {"model": ReadyAnswer, "description": "Not yet, or no more"}},
            ),
            get(
                "/ping",
                ping,
                "May requests be sent here? (as SageMaker asks)",
                answer=StatusAnswer,
                always=(),
                responses={503: {"model": StatusAnswer, "description": "Not yet, or no more"}},
            ),
            get("/version", show_version, "Versions", answer=VersionAnswer),
            get("/metrics", metrics, "Prometheus metrics", responses=_text("text/plain")),
            get("/openapi.json", openapi, "This description"),
            get("/docs", docs, "The page to read and try this", responses=_text("text/html")),
        ],
    )


def _text(media_type: str) -> dict[int | str, JsonObject]:
    return {200: {"description": "Text", "content": {media_type: {"schema": {"type": "string"}}}}}

"""The web application: doors, middleware and errors put together, in this one place."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from tamiz import __version__
from tamiz.config import ServeConfig
from tamiz.serving.auth import OPEN_PATHS, Auth, Authenticate, NoAuth
from tamiz.serving.context import Context
from tamiz.serving.doors import DOORS
from tamiz.serving.doors.base import Door, Doors, JsonObject, PlainRoute
from tamiz.serving.doors.operations import door as operations_door
from tamiz.serving.ending import Ending
from tamiz.serving.headers import RefuseEncoded, cors
from tamiz.serving.limits import Gate, LimitBody, LimitConcurrency
from tamiz.serving.metrics import Metrics
from tamiz.serving.observe import Observe
from tamiz.serving.problems import Problem
from tamiz.serving.rates import LimitRate, Rates
from tamiz.serving.served import Models

__all__ = ["Application", "create_app"]

TITLE = "Tamiz"
DESCRIPTION = "Text classification: one model, many doors. Every door gives the same labels and probabilities."


class Application(Starlette):
    """The routes of all doors behind their layers.

    FastAPI documents the routes and does not serve them: its own layers, of which nothing here makes use, take as
    long as a small model's answer. All errors end in `Observe`.

    Args:
        routes: in the order in which they are tried.
        layers: around the routes, the outermost first.
        lifespan: starts and ends what answers.
        document: makes the OpenAPI document.
    """

    def __init__(
        self,
        routes: Sequence[PlainRoute],
        layers: Sequence[Middleware],
        lifespan: Callable[[Any], AbstractAsyncContextManager[None]],
        document: Callable[[], JsonObject],
    ) -> None:
        super().__init__(routes=routes, middleware=layers, lifespan=lifespan)
        self.router.redirect_slashes = False
        self.openapi = document

    def build_middleware_stack(self) -> ASGIApp:
        """Put the layers around the routes, and no others."""
        app: ASGIApp = self.router
        for layer, args, about in reversed(self.user_middleware):
            app = layer(app, *args, **about)
        return app


def create_app(
    models: Models,
    *,
    limits: ServeConfig | None = None,
    auth: Auth | None = None,
    doors: Sequence[Callable[[Context], Door]] = DOORS,
    metrics: Metrics | None = None,
    title: str = TITLE,
    shared: Path | None = None,
) -> Application:
    """Build the application.

    Args:
        models: what to serve; started and stopped with the application.
        limits: what a request may cost; by default `ServeConfig`'s.
        auth: who may call; by default anybody on this machine.
        doors: the protocols to answer in.
        metrics: where to count; by default a registry of its own.
        title: title of the documentation.
        shared: folder in which several worker processes count together how often callers ask.
    """
    limits, metrics = limits or ServeConfig(), metrics or Metrics()
    who: Auth = auth or NoAuth()
    context, gate = Context(models, limits, metrics), Gate(limits.max_concurrent)
    operations = operations_door(context, lambda: app.openapi())
    every = Doors([*(build(context) for build in doors), operations], fallback=operations)
    routes = [route for door in every.all for route in door.routes]
    app = Application(
        routes,
        _middleware(every, context, who, gate, shared),
        _lifespan(context, gate),
        partial(_document, title, every, routes, who),
    )
    models.subscribe(metrics.set_served)
    return app


def _middleware(doors: Doors, context: Context, auth: Auth, gate: Gate, shared: Path | None) -> list[Middleware]:
    """Return the layers around the routes, the outermost first.

    Errors of all of them, and of the routes, end in `Observe`, which answers them in the door's shape.
    """
    limits = context.limits
    most = limits.requests_per_minute
    return [
        *cors(limits.cors_origins),
        Middleware(Observe, doors=doors, metrics=context.metrics, gate=gate),
        Middleware(Authenticate, auth=auth),
        *([Middleware(LimitRate, rates=Rates(most, folder=shared))] if most else []),
        Middleware(RefuseEncoded),
        Middleware(LimitConcurrency, gate=gate, line=context.line),
        Middleware(LimitBody, most_bytes=limits.max_body_bytes, line=context.line),
    ]


def _lifespan(context: Context, gate: Gate) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        models = context.models
        models.start()
        ending = Ending(models, gate, context.limits.drain_s)
        ending.listen()
        try:
            yield
        finally:
            gate.draining = True
            models.stop()
            context.close()
            context.metrics.close(os.getpid())

    return lifespan


def _document(title: str, doors: Doors, routes: Sequence[PlainRoute], auth: Auth) -> JsonObject:
    """Return the OpenAPI document; it is made anew each time, for it names the model's text column."""
    made = get_openapi(title=title, version=__version__, description=DESCRIPTION, routes=routes, tags=_tags(doors))
    components = made.setdefault("components", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    components.setdefault("schemas", {}).update(problem.pop("$defs"), Problem=problem)
    for door in doors.all:
        if door.complete is not None:
            door.complete(made)
    if auth.name == "keys":
        _secure(made)
    return made


def _tags(doors: Doors) -> list[dict[str, Any]]:
    return [{"name": door.name} for door in doors.all]


def _secure(document: JsonObject) -> None:
    """Say which calls need a key."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    document["security"] = [{"bearer": []}, {"header": []}]
    for path in OPEN_PATHS & set(document["paths"]):
        document["paths"][path]["get"]["security"] = []

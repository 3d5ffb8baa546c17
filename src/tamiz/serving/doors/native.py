"""The native door: `/v1/models`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from tamiz.errors import one_of
from tamiz.serving.auth import CALLER, require_admin
from tamiz.serving.context import Context
from tamiz.serving.doors.asked import native_document
from tamiz.serving.doors.base import (
    Door,
    JsonObject,
    PlainRoute,
    json_answer,
    query_value,
    read_json,
    route,
)
from tamiz.serving.inline import MOST_INLINE_TEXTS, beside
from tamiz.serving.problems import FieldError, InvalidFieldsError
from tamiz.serving.schemas import (
    EXAMPLE_TEXT,
    DeployAnswer,
    DeployBody,
    ExplainAnswer,
    ExplainBody,
    FeedbackAnswer,
    FeedbackBody,
    ModelAnswer,
    ModelsAnswer,
    PredictAnswer,
    PredictBody,
)
from tamiz.serving.served import ModelCard, Served
from tamiz.types import Task

if TYPE_CHECKING:
    from tamiz.metrics.choice import Best
    from tamiz.model import Prediction

__all__ = ["door", "native_answer", "read_predict_body"]

NAME = "native"
SETTLE_S = 15.0
SETTLE_POLL_S = 0.1

PREDICT = TypeAdapter(PredictBody)
EXPLAIN = TypeAdapter(ExplainBody)
FEEDBACK = TypeAdapter(FeedbackBody)
DEPLOY = TypeAdapter(DeployBody)

ONE = "/v1/models/{name}"
NAMED: list[JsonObject] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
TEXT_PARAMETER = {
    "name": "text",
    "in": "query",
    "required": True,
    "description": "The text to classify",
    "schema": {"type": "string"},
    "example": EXAMPLE_TEXT,
}


async def read_predict_body(request: Request) -> list[str]:
    """Return the texts of a body `{"text": [...]}`.

    Raises:
        RequestError: the body is something else.
    """
    return (await read_json(request, PREDICT, PredictBody)).text


async def native_answer(served: Served, predictions: Sequence[Prediction]) -> Response:
    """Answer predictions in the native form."""
    return await beside(len(predictions) > MOST_INLINE_TEXTS, _native_answer, served, predictions)


def _native_answer(served: Served, predictions: Sequence[Prediction]) -> Response:
    return json_answer(native_document(served, [served.model.answer(one) for one in predictions]))


class NativeDoor:
    """The handlers of the native door."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.models = context.models

    async def predict(self, request: Request) -> Response:
        """Classify texts: one prediction per text, in order."""
        texts = await read_predict_body(request)
        served = self.models.get(request.path_params["name"])
        return await native_answer(served, await self.context.predict(served, texts))

    async def predict_one(self, request: Request) -> Response:
        """Classify the text of the query parameter `text`; for trying out, since addresses have a limited length."""
        served = self.models.get(request.path_params["name"])
        return await native_answer(served, await self.context.predict(served, [query_value(request, "text")]))

    async def explain(self, request: Request) -> Response:
        """Say which words of a text made the score of a label (by default of the predicted one)."""
        body = await read_json(request, EXPLAIN, ExplainBody)
        served = self.models.get(request.path_params["name"])
        _check_label(body.label, served.model.labels)
        found = await self.context.explain(served, body.text, body.label)
        about = {"model": served.name, "version": served.version, "label": found.label}
        pieces = [
            {"start": one.start, "end": one.end, "text": body.text[one.start : one.end], "value": one.value}
            for one in found.contributions
        ]
        return json_answer({**about, "base": found.base, "score": found.score, "contributions": pieces})

    async def feedback(self, request: Request) -> Response:
        """Keep the right label of a text: of an earlier answer by its `X-Request-ID`, or of a text by its SHA-256.

        It is kept where the operator said (`serve.records.folder`), never with the text itself.
        """
        body = await read_json(request, FEEDBACK, FeedbackBody)
        served = self.models.get(request.path_params["name"])
        labels = _feedback_labels(body.label, served)
        about = body.model_dump(exclude_none=True)
        if body.request_id is not None:
            about.setdefault("place", 0)
        keep = partial(self.context.records.keep_feedback, served, about, labels, by=request.scope[CALLER].id)
        await anyio.to_thread.run_sync(keep)
        return json_answer({"model": served.name, "kept": 1})

    async def list_models(self, request: Request) -> Response:
        """List the served models, the default one first."""
        cards = [await anyio.to_thread.run_sync(self.models.card, name) for name in self.models.names]
        return json_answer({"models": [_card(card) for card in cards]})

    async def show_model(self, request: Request) -> Response:
        """Show a model: the version served now, and the versions and aliases in the store."""
        return json_answer(_card(await anyio.to_thread.run_sync(self.models.card, request.path_params["name"])))

    async def deploy(self, request: Request) -> Response:
        """Make a version the champion: one by number or alias, or the best by a metric in the store.

        The version is loaded and tried, swapped in without a break, and the answer comes once every worker process
        serves it, or after a few seconds with the number of those that do. Needs the role `admin`.
        """
        caller = require_admin(request)
        body = await read_json(request, DEPLOY, DeployBody)
        name = request.path_params["name"]

        def change() -> tuple[Served, Best | None]:
            best = self.models.best(name, body.by, body.mode) if body.by is not None else None
            served = self.models.deploy(name, version=body.version, alias=body.alias, by=caller.id, best=best)
            return served, best

        return await self._changed(name, change)

    async def rollback(self, request: Request) -> Response:
        """Go back to the previous champion; answers as `deploy` does. Needs the role `admin`."""
        caller = require_admin(request)
        name = request.path_params["name"]
        return await self._changed(name, lambda: (self.models.rollback(name, by=caller.id), None))

    async def _changed(self, name: str, change: Callable[[], tuple[Served, Best | None]]) -> Response:
        """Change what is served, in a thread since it loads a model, and answer what is served then."""
        before = next((one.version for one in self.models.served() if one.name == name), None)
        now, best = await anyio.to_thread.run_sync(change)
        answer: JsonObject = {"model": now.name, "version": now.version, "previous": before}
        answer["workers"] = await self._settled(name, now.version)
        if best is not None:
            answer["by"] = {"metric": best.metric, "mode": best.mode, "value": best.value, "reason": best.reason}
        return json_answer(answer)

    async def _settled(self, name: str, version: str | None) -> dict[str, int]:
        """Wait until every worker process serves the version, but no longer than a load should take."""
        ends = anyio.current_time() + SETTLE_S
        while True:
            counts = await anyio.to_thread.run_sync(self.context.metrics.serving, name)
            serving, every = counts.get(version or "", 0), sum(counts.values())
            if serving == every or anyio.current_time() >= ends:
                return {"serving": serving, "all": every}
            await anyio.sleep(SETTLE_POLL_S)

    def name_the_model(self, document: JsonObject) -> None:
        """Give the default model's name as the example of the path's parameter."""
        served = self.models.served()
        for path, methods in document["paths"].items():
            if served and path.startswith(ONE):
                for about in methods.values():
                    about["parameters"] = [{**NAMED[0], "example": served[0].name}, *about["parameters"][1:]]


def door(context: Context) -> Door:
    """Build the native door."""
    native = NativeDoor(context)
    return Door(NAME, _routes(native), complete=native.name_the_model)


def _routes(native: NativeDoor) -> list[PlainRoute]:
    return [
        route(
            "POST",
            f"{ONE}/predict",
            native.predict,
            door=NAME,
            summary="Classify texts",
            answer=PredictAnswer,
            body=PredictBody,
            parameters=NAMED,
            problems=(400, 404, 422),
        ),
        route(
            "GET",
            f"{ONE}/predict",
            native.predict_one,
            door=NAME,
            summary="Classify one text",
            answer=PredictAnswer,
            parameters=[*NAMED, TEXT_PARAMETER],
            problems=(404, 413, 422),
        ),
        route(
            "POST",
            f"{ONE}/explain",
            native.explain,
            door=NAME,
            summary="Explain an answer",
            answer=ExplainAnswer,
            body=ExplainBody,
            parameters=NAMED,
            problems=(400, 404, 422),
        ),
        route(
            "POST",
            f"{ONE}/feedback",
            native.feedback,
            door=NAME,
            summary="Give the right label of a text",
            answer=FeedbackAnswer,
            body=FeedbackBody,
            parameters=NAMED,
            problems=(400, 404, 409, 422, 507),
        ),
        route("GET", "/v1/models", native.list_models, door=NAME, summary="List the models", answer=ModelsAnswer),
        route(
            "GET",
            ONE,
            native.show_model,
            door=NAME,
            summary="Show a model",
            answer=ModelAnswer,
            parameters=NAMED,
            problems=(404,),
        ),
        route(
            "POST",
            f"{ONE}/deploy",
            native.deploy,
            door=NAME,
            summary="Serve another version",
            answer=DeployAnswer,
            body=DeployBody,
            parameters=NAMED,
            problems=(400, 404, 409, 422),
        ),
        route(
            "POST",
            f"{ONE}/rollback",
            native.rollback,
            door=NAME,
            summary="Serve the previous version",
            answer=DeployAnswer,
            parameters=NAMED,
            problems=(404, 409),
        ),
    ]


def _check_label(label: str | None, labels: Sequence[str]) -> None:
    if label is not None and label not in labels:
        error = FieldError("body.label", f"No such label; {one_of(label[:80], labels)}", "unknown_label")
        raise InvalidFieldsError(f"One field is wrong: body.label: {error.message}", [error])


def _feedback_labels(label: str | list[str], served: Served) -> list[str]:
    """Return the labels of a piece of feedback: labels of the model, as many as its answers may have."""
    several = served.model.task is Task.MULTI_LABEL
    if isinstance(label, list) is not several:
        message = f"A {served.model.task} model takes {'a list of labels' if several else 'one label'}"
        error = FieldError("body.label", message, "wrong_kind")
        raise InvalidFieldsError(f"One field is wrong: body.label: {message}", [error])
    labels = label if isinstance(label, list) else [label]
    for one in labels[: len(served.model.labels) + 1]:
        _check_label(one, served.model.labels)
    if len(set(labels)) != len(labels):
        error = FieldError("body.label", "A label stands there twice", "twice")
        raise InvalidFieldsError("One field is wrong: body.label: a label stands there twice", [error])
    return labels


def _card(card: ModelCard) -> dict[str, Any]:
    served = card.served
    return {
        "name": card.name,
        "version": served.version if served else None,
        "task": served.model.task if served else None,
        "labels": served.model.labels if served else (),
        "aliases": card.aliases,
        "versions": card.versions,
    }

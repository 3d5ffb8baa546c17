"""Small real models and stores, and a way to ask an application without a socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import uvicorn

from tamiz.classifiers import classifier_class
from tamiz.cleaning import Cleaner
from tamiz.decision import Calibrator, DecisionRule
from tamiz.model import Model
from tamiz.package import Manifest
from tamiz.serving.app import create_app
from tamiz.serving.live import LiveModels
from tamiz.store import CHAMPION, ModelStore
from tamiz.types import Task

WORDS = {
    "account": ["balance", "deposit", "statement"],
    "card": ["card", "charge", "chip"],
    "loan": ["loan", "interest", "mortgage"],
}
LABELS = tuple(WORDS)
TEXTS = ["my card was charged", "the loan has high interest", "a deposit is not in my balance"]
LOCAL = "http://127.0.0.1"


@cache
def fitted(family: str = "linear", task: Task = Task.MULTI_CLASS, labels: tuple[str, ...] = LABELS):
    """Fit a classifier on texts that consist of the words of their label."""
    rng = np.random.default_rng(0)
    targets = np.arange(60) % len(labels)
    pools = list(WORDS.values())
    texts = [" ".join(rng.choice(pools[target], 4)) for target in targets]
    classifier = classifier_class(family)(labels, task)
    if task is Task.MULTI_LABEL:
        targets = np.eye(len(labels), dtype=bool)[targets]
    return classifier.fit(texts, targets)


def make_model(
    family: str = "linear",
    task: Task = Task.MULTI_CLASS,
    labels: tuple[str, ...] = LABELS,
    *,
    name: str = "demo",
    abstain_below: float | None = None,
    text_column: str = "text",
) -> Model:
    """Put a model together as training would."""
    manifest = Manifest(
        name=name,
        task=task,
        labels=labels,
        family=family,
        positive=labels[-1] if task is Task.BINARY else None,
        text_column=text_column,
        clean=["html"],
    )
    return Model(
        name=name,
        classifier=fitted(family, task, labels),
        clean=Cleaner(["html"]),
        prepare=Cleaner([]),
        calibrator=Calibrator("none", task),
        rule=DecisionRule(task, abstain_below=abstain_below),
        manifest=manifest,
    )


def publish(store: ModelStore, model: Model, folder: Path, *, champion: bool = True) -> str:
    """Save a model below `folder`, publish it and return its version."""
    package = folder / f"package-{len(list(folder.iterdir()))}"
    model.save(package)
    version = store.publish(model.name, package)
    if champion:
        store.set_alias(model.name, CHAMPION, version, by="test", reason="test")
    return version


def serve_model(folder: Path, model: Model | None = None, **about):
    """Publish a model and return an application that serves it."""
    model = model or make_model()
    store = ModelStore(str(folder / "store"))
    publish(store, model, folder)
    live = LiveModels(store, [model.name])
    live.refresh()
    return create_app(live, **about)


def ask(app, method: str, path: str, *, base_url: str = LOCAL, **about) -> httpx.Response:
    """Send one request to an application."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url=base_url) as client:
            return await client.request(method, path, **about)

    return asyncio.run(send())


@contextmanager
def listening(app) -> Iterator[str]:
    """Serve an application on a port of this machine, for clients that need one; give its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        ends = time.monotonic() + 30
        while not server.started and thread.is_alive() and time.monotonic() < ends:
            time.sleep(0.01)
        try:
            assert server.started
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def predict(app, texts: list[str], **about) -> httpx.Response:
    """Ask the native door."""
    return ask(app, "POST", "/v1/models/demo/predict", json={"text": texts}, **about)

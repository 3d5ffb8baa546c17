"""More requests than a server can answer, versions swapped under load, a server told to stop, and a long steady load.

Parts: `overload` (a minute at three times the capacity), `swaps` (50 in a minute), `stop` (ten times), `soak` (ten
minutes); by default all. `--sizes N` with one number below 10,000 shortens them: seconds of the first two, and of the
last ten times as many.
"""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from benchmarks.load import Answer, Client, Server, closed, gone, memory_mb, opened, post, share_ms
from benchmarks.models import complaints_model
from benchmarks.record import Figure, Goal, Outcome, say
from tamiz.model import Model
from tamiz.store import CHAMPION, ModelStore

__all__ = ["measure"]

_TEXTS = 1000
_CHARACTERS = 300
_TIMES = 3
_SWAPS = 50
_STOPS = 10
_CLIENTS = 4
_MINUTE_S = 60.0
_PARTS = ("overload", "swaps", "stop", "soak")


class _Set(NamedTuple):
    """What all parts use.

    Attributes:
        package: folder of the model.
        model: the model.
        texts: texts that it has not seen.
        seconds: of a part.
    """

    package: Path
    model: Model
    texts: list[str]
    seconds: float


def measure(options: dict[str, Any]) -> Outcome:
    """Run the parts one after another."""
    sizes = options["sizes"]
    seconds = float(sizes[0]) if len(sizes) == 1 and sizes[0] < 10_000 else _MINUTE_S
    fitted = complaints_model()
    texts = [text[:_CHARACTERS] for text in fitted.others[:_TEXTS]]
    figures: list[Figure] = []
    details: dict[str, Any] = {"seconds": seconds, "texts": len(texts)}
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package"
        fitted.model.save(package)
        given = _Set(package, fitted.model, texts, seconds)
        parts = {"overload": _overload, "swaps": _swaps, "stop": _stop, "soak": _soak}
        for part in options["parts"] or _PARTS:
            found, details[part] = parts[part](given)
            figures += found
    return Outcome(figures, details)


_Found = tuple[list[Figure], dict[str, Any]]


def _overload(given: _Set) -> _Found:
    """Send bodies of a thousand texts at three times the rate at which they can be answered."""
    request = _request(given.model.name, given.texts)
    with Server("native", str(given.package)) as server:
        server.wait(request)
        unloaded = asyncio.run(closed(server.port, [request], given.seconds / 3, clients=1, pause_s=0.05))
        capacity_s = given.seconds / 6
        most = asyncio.run(closed(server.port, [request], capacity_s, clients=2))
        capacity = max(1, sum(one.status == 200 for one in most)) / capacity_s
        say(f"unloaded p95 {share_ms(unloaded, 95):.0f} ms; {capacity:.1f} requests/s at most")
        load = opened(server.port, request, given.seconds, rate=_TIMES * capacity)
        answers, memory = asyncio.run(_watched(load, server.process.pid))
        again = asyncio.run(closed(server.port, [request], 3, clients=1, pause_s=0.5))
    statuses = Counter(answer.status for answer in answers)
    accepted, refused = ([one for one in answers if one.status == status] for status in (200, 429))
    others = len(answers) - len(accepted) - len(refused) + sum(one.status != 200 for one in again)
    say(f"statuses: {dict(statuses)}")
    peer = "the same request, one at a time"
    figures = [
        Figure(
            f"overload at {_TIMES} times capacity: accepted requests, p95",
            "ms",
            share_ms(accepted, 95),
            share_ms(unloaded, 95),
            peer,
            Goal("<=", 2, ratio=True),
        ),
        Figure("overload: refused with 429, p95", "ms", share_ms(refused, 95), goal=Goal("<=", 50)),
        Figure("overload: neither answered nor refused", "requests", others, goal=Goal("<=", 0)),
        Figure("overload: answered, of the most possible", "", len(accepted) / given.seconds / capacity),
        Figure("overload: growth of memory, last third to first", "MB", _growth(memory), goal=Goal("<=", 20)),
    ]
    return figures, {"capacity": capacity, "statuses": dict(statuses), "memory_mb": memory}


def _swaps(given: _Set) -> _Found:
    """Swap two versions with opposite orders of labels, while texts are classified one at a time and by tens."""
    with tempfile.TemporaryDirectory() as folder:
        store, expected = _two_versions(given, Path(folder))
        texts = given.texts[:10]
        requests = [_request(given.model.name, some) for some in ([texts[0]], texts)]
        with Server("store", store.place) as server:
            server.wait(requests[0])
            answers, swaps, memory = asyncio.run(_swapping(server, given, requests))
    failed = sum(answer.status != 200 for answer in (*answers, *swaps))
    mixed, versions = 0, Counter[str]()
    for body in (json.loads(answer.body) for answer in answers if answer.status == 200):
        versions[body["version"]] += 1
        labels, first = expected[body["version"]]
        same = body["labels"] == labels and all(list(one["probabilities"]) == labels for one in body["predictions"])
        close = all(
            abs(p - q) < 1e-9 for p, q in zip(body["predictions"][0]["probabilities"].values(), first, strict=True)
        )
        mixed += not (same and close)
    say(f"{len(answers)} answers, {dict(versions)}; {len(swaps)} swaps of {mean(one.seconds for one in swaps):.2f} s")
    figures = [
        Figure(f"{len(swaps)} swaps in {given.seconds:.0f} s: failed requests", "requests", failed, goal=Goal("<=", 0)),
        Figure("swaps: answers that mix versions", "answers", mixed, goal=Goal("<=", 0)),
        Figure("swaps: growth of memory, last third to first", "MB", _growth(memory), goal=Goal("<=", 20)),
    ]
    details = {"answers": len(answers), "versions": dict(versions), "swaps": len(swaps), "memory_mb": memory}
    return figures, details


def _two_versions(given: _Set, folder: Path) -> tuple[ModelStore, dict[str, tuple[list[str], list[float]]]]:
    """Publish the model, and another one whose labels stand the other way round; return what each answers."""
    store = ModelStore(str(folder / "store"))
    expected = {}
    for number, model in enumerate((given.model, _reversed(given.model))):
        model.save(folder / f"package-{number}")
        version = store.publish(model.name, folder / f"package-{number}")
        (first,) = model.predict(given.texts[:1])
        expected[version] = (list(model.labels), first.probabilities.tolist())
    store.set_alias(given.model.name, CHAMPION, "1", by="benchmark", reason="first")
    return store, expected


def _reversed(model: Model) -> Model:
    """Return a model that gives its labels each other's names."""
    from tamiz.classifiers import classifier_class

    with tempfile.TemporaryDirectory() as folder:
        model.classifier.save(Path(folder))
        classifier: Any = classifier_class(model.manifest.family).load(Path(folder))
    classifier.labels = classifier.labels[::-1]
    settings = {"labels": classifier.labels}
    return replace(model, classifier=classifier, manifest=model.manifest.model_copy(update=settings))


async def _swapping(
    server: Server, given: _Set, requests: Sequence[bytes]
) -> tuple[list[Answer], list[Answer], list[float]]:
    async def swap() -> list[Answer]:
        client, found = Client(server.port), list[Answer]()
        begun = time.monotonic()
        for number in range(_SWAPS):
            await asyncio.sleep(max(0.0, begun + number * given.seconds / _SWAPS - time.monotonic()))
            body = {"version": str(2 - number % 2)}
            found.append(await client.ask(post(f"/v1/models/{given.model.name}/deploy", body)))
        client.close()
        return found

    load = closed(server.port, requests, given.seconds, clients=_CLIENTS)
    swaps, (answers, memory) = await asyncio.gather(swap(), _watched(load, server.process.pid))
    return answers, swaps, memory


def _stop(given: _Set) -> _Found:
    """Tell a server under load to stop, several times, and count requests that got no answer."""
    request = _request(given.model.name, given.texts[:50])
    answers: list[Answer] = []
    codes: list[int] = []
    for _ in range(_STOPS):
        with Server("native", str(given.package)) as server:
            server.wait(request)
            answers += asyncio.run(_stopping(server, request))
            codes.append(gone(server.process))
    statuses = Counter(answer.status for answer in answers)
    say(f"stop: {dict(statuses)}, exit codes {set(codes)}")
    figures = [
        Figure(f"{_STOPS} times SIGTERM under load: dropped", "requests", statuses[0], goal=Goal("<=", 0)),
        Figure("SIGTERM: ends other than by itself", "", sum(code != 0 for code in codes), goal=Goal("<=", 0)),
    ]
    return figures, {"statuses": dict(statuses), "exit_codes": codes}


async def _stopping(server: Server, request: bytes) -> list[Answer]:
    """Ask on several connections until each is told to go, as a load balancer would, and say stop after a second."""
    found: list[Answer] = []

    async def keep_asking() -> None:
        client = Client(server.port)
        while True:
            try:
                found.append(await client.ask(request))
            except ConnectionRefusedError:
                return
            if found[-1].closes:
                return

    async def say_stop() -> None:
        await asyncio.sleep(1)
        server.process.send_signal(signal.SIGTERM)

    await asyncio.gather(say_stop(), *(keep_asking() for _ in range(_CLIENTS)))
    return found


def _soak(given: _Set) -> _Found:
    """Ask for long, single texts and some thousands among them, and see whether memory grows."""
    single = [_request(given.model.name, [text]) for text in given.texts[:99]]
    requests = [*single, _request(given.model.name, given.texts)]
    with Server("native", str(given.package)) as server:
        server.wait(requests[0])
        load = closed(server.port, requests, 10 * given.seconds, clients=2, pause_s=0.002)
        answers, memory = asyncio.run(_watched(load, server.process.pid))
    failed = sum(answer.status not in (200, 429) for answer in answers)
    figures = [
        Figure(f"soak of {10 * given.seconds:.0f} s: failed requests", "requests", failed, goal=Goal("<=", 0)),
        Figure("soak: growth of memory, last third to first", "MB", _growth(memory), goal=Goal("<=", 20)),
        Figure("soak: time of an answer, p99", "ms", share_ms(answers, 99)),
    ]
    return figures, {"answers": len(answers), "memory_mb": memory}


def _request(name: str, texts: list[str]) -> bytes:
    return post(f"/v1/models/{name}/predict", {"text": texts})


async def _watched(load: Coroutine[Any, Any, list[Answer]], pid: int) -> tuple[list[Answer], list[float]]:
    """Put load on a server and note its memory every second."""
    memory: list[float] = []

    async def watch() -> None:
        while True:
            memory.append(memory_mb(pid))
            await asyncio.sleep(1)

    watcher = asyncio.create_task(watch())
    try:
        return await load, memory
    finally:
        watcher.cancel()


def _growth(memory: Sequence[float]) -> float:
    """Return by how much the mean of the last third is above that of the first."""
    third = max(1, len(memory) // 3)
    return mean(memory[-third:]) - mean(memory[:third])

"""Requests a second of the native door, beside a bare FastAPI route and other servers of the same model."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.load import Answer, Server, closed, post, share_ms
from benchmarks.models import complaints_model
from benchmarks.record import Figure, Goal, Outcome, say

__all__ = ["measure"]

_NAMES = {
    "bare": "FastAPI route that reads no body and answers a constant, on uvicorn by itself (h11, asyncio)",
    "bare_fast": "the same route on httptools and uvloop, as Tamiz serves",
    "mlflow": "`mlflow models serve`, the same package as a pyfunc model, one worker",
    "litserve": "LitServe, the same package, one worker",
}
_GOALS = {"bare": 0.5, "bare_fast": None, "mlflow": 6, "litserve": 2}
_OURS = {"words": "words, the family's defaults", "characters": "words and characters, the example's parameters"}
_CONSTANT = ("bare", "bare_fast")  # the others serve the model that ours does
LITSERVE_PATH = "BENCHMARKS_LITSERVE"
"""Names a folder that LitServe is installed in (`pip install --target FOLDER litserve`): its own libraries would make
another, faster web server of uvicorn for all of them."""

_CONNECTIONS = 8
_ROUND_S = 4.0
_ROUNDS = 5
_CHARACTERS = 766


class _Peer(NamedTuple):
    server: Server
    request: bytes


def measure(options: dict[str, Any]) -> Outcome:
    """Start the servers and put load on them in turns."""
    fitted = complaints_model()
    text = next(text for text in fitted.others if len(text) >= _CHARACTERS)[:_CHARACTERS]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        packages = {ours: Path(folder) / ours for ours in _OURS}
        complaints_model(defaults=True).model.save(packages["words"])
        fitted.model.save(packages["characters"])
        peers = {
            who: peer for who, peer in _peers(packages, fitted.model.name, text).items() if _starts(who, peer, stack)
        }
        answers = _load(peers)
    figures = [
        figure
        for ours in _OURS
        for who in _NAMES
        if _rival(who, ours) in peers
        for figure in _figures(ours, who, answers)
    ]
    return Outcome(figures, {"rates": _rates(answers), "characters": len(text), "connections": _CONNECTIONS})


def _rival(who: str, ours: str) -> str:
    return who if who in _CONSTANT else f"{who} {ours}"


def _rates(answers: dict[str, list[list[Answer]]]) -> dict[str, list[float]]:
    return {who: [len(one) / _ROUND_S for one in rounds] for who, rounds in answers.items()}


def _figures(ours: str, who: str, answers: dict[str, list[list[Answer]]]) -> list[Figure]:
    least, rates, peer, rival = _GOALS[who], _rates(answers), _NAMES[who], _rival(who, ours)
    goal = None if least is None else Goal(">=", least, ratio=True)
    what = f"{_OURS[ours]}: one text a request, 8 connections"
    figures = [Figure(what, "requests/s", median(rates[ours]), median(rates[rival]), peer, goal)]
    for share in (50, 95, 99):
        times = [share_ms([one for found in answers[of] for one in found], share) for of in (ours, rival)]
        figures.append(Figure(f"{_OURS[ours]}: time of an answer, p{share}", "ms", times[0], times[1], peer))
    return figures


def _peers(packages: dict[str, Path], name: str, text: str) -> dict[str, _Peer]:
    body = {"text": [text]}
    native, constant = post(f"/v1/models/{name}/predict", body), post("/", body)
    place = os.environ.get(LITSERVE_PATH, "")
    peers = {who: _Peer(Server(who), constant) for who in _CONSTANT}
    for ours, package in packages.items():
        peers[ours] = _Peer(Server("native", str(package)), native)
        peers[f"litserve {ours}"] = _Peer(Server("litserve", str(package), path=place), post("/predict", body))
        if folder := _logged(package):
            table = {"dataframe_split": {"columns": ["text"], "data": [[text]]}}
            peers[f"mlflow {ours}"] = _Peer(Server("mlflow", str(folder)), post("/invocations", table))
    return peers


def _logged(package: Path) -> Path | None:
    """Write a package as a pyfunc model; tell why, and return None, where MLflow cannot."""
    folder, code = package.with_name(f"mlflow-{package.name}"), str(Path(__file__).with_name("serving_pyfunc.py"))
    try:
        import mlflow

        mlflow.pyfunc.save_model(folder, python_model=code, artifacts={"package": str(package)}, pip_requirements=[])
    except Exception as error:
        say(f"mlflow is left out: {type(error).__name__}: {error}")
        return None
    return folder


def _starts(who: str, peer: _Peer, stack: ExitStack) -> bool:
    """Start a server; tell whether it answers, which ours and the bare one must."""
    stack.enter_context(peer.server)
    try:
        peer.server.wait(peer.request)
    except RuntimeError as error:
        if not who.startswith(("mlflow", "litserve")):
            raise
        say(f"{who} is left out: {error}")
        return False
    return True


def _load(peers: dict[str, _Peer]) -> dict[str, list[list[Answer]]]:
    answers: dict[str, list[list[Answer]]] = {who: [] for who in peers}
    for round_ in range(_ROUNDS + 1):
        for who, peer in peers.items():
            found = asyncio.run(closed(peer.server.port, [peer.request], _ROUND_S, clients=_CONNECTIONS))
            wrong = {one.status for one in found} - {200}
            if wrong:
                raise RuntimeError(f"{who} answered {wrong}")
            if round_:  # the first one warms up
                answers[who].append(found)
                say(f"{who}: {len(found) / _ROUND_S:.0f} requests/s")
    return answers

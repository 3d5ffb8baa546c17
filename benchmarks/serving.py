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

_BARE = "FastAPI route that reads no body and answers a constant, same uvicorn settings"
_MLFLOW = "`mlflow models serve`, the same package as a pyfunc model, one worker"
_LITSERVE = "LitServe, the same package, one worker"
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
        package = Path(folder) / "package"
        fitted.model.save(package)
        peers = {
            who: peer for who, peer in _peers(package, fitted.model.name, text).items() if _starts(who, peer, stack)
        }
        answers = _load(peers)
    names = {"bare": _BARE, "mlflow": _MLFLOW, "litserve": _LITSERVE}
    rates = {who: [len(one) / _ROUND_S for one in rounds] for who, rounds in answers.items()}
    figures = [figure for who in names if who in peers for figure in _figures(who, names[who], answers, rates)]
    return Outcome(figures, {"rates": rates, "characters": len(text), "connections": _CONNECTIONS})


def _figures(
    who: str, name: str, answers: dict[str, list[list[Answer]]], rates: dict[str, list[float]]
) -> list[Figure]:
    goal = Goal(">=", 0.5, ratio=True) if who == "bare" else None
    what = "one text a request, 8 connections"
    figures = [Figure(what, "requests/s", median(rates["native"]), median(rates[who]), name, goal)]
    for share in (50, 95, 99):
        ours, theirs = (share_ms([one for found in answers[of] for one in found], share) for of in ("native", who))
        figures.append(Figure(f"time of an answer, p{share}", "ms", ours, theirs, name))
    return figures


def _peers(package: Path, name: str, text: str) -> dict[str, _Peer]:
    body = {"text": [text]}
    peers = {
        "native": _Peer(Server("native", str(package)), post(f"/v1/models/{name}/predict", body)),
        "bare": _Peer(Server("bare"), post("/", body)),
        "litserve": _Peer(
            Server("litserve", str(package), path=os.environ.get(LITSERVE_PATH, "")), post("/predict", body)
        ),
    }
    folder = package.with_name("mlflow")
    try:
        import mlflow

        code = str(Path(__file__).with_name("serving_pyfunc.py"))
        mlflow.pyfunc.save_model(folder, python_model=code, artifacts={"package": str(package)}, pip_requirements=[])
    except Exception as error:
        say(f"mlflow is left out: {type(error).__name__}: {error}")
    else:
        table = {"dataframe_split": {"columns": ["text"], "data": [[text]]}}
        peers["mlflow"] = _Peer(Server("mlflow", str(folder)), post("/invocations", table))
    return peers


def _starts(who: str, peer: _Peer, stack: ExitStack) -> bool:
    """Start a server; tell whether it answers, which ours and the bare one must."""
    stack.enter_context(peer.server)
    try:
        peer.server.wait(peer.request)
    except RuntimeError as error:
        if who in ("native", "bare"):
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

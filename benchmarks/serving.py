"""Requests a second of the native door, beside a bare FastAPI route that answers a constant."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.models import complaints_model
from benchmarks.record import Figure, Outcome, say

__all__ = ["measure"]

_PEER = "FastAPI route that reads no body and answers a constant, same uvicorn settings"
_CONNECTIONS = 8
_ROUND_S = 4.0
_ROUNDS = 5
_CHARACTERS = 766


def measure(options: dict[str, Any]) -> Outcome:
    """Start both servers and put load on them in turns."""
    fitted = complaints_model()
    text = next(text for text in fitted.others if len(text) >= _CHARACTERS)[:_CHARACTERS]
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package"
        fitted.model.save(package)
        paths = {"native": f"/v1/models/{fitted.model.name}/predict", "bare": "/"}
        ports = {who: _free_port() for who in paths}
        servers = [_start(who, ports[who], package) for who in paths]
        try:
            for who in paths:
                _wait(ports[who])
            rates, seconds = _load(paths, ports, text)
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.wait(60)
    pair = median(rates["native"]), median(rates["bare"])
    figures = [Figure("one text a request, 8 connections", "requests/s", *pair, _PEER)]
    for share in (50, 99):
        ours, theirs = (np.percentile(seconds[who], share).item() * 1000 for who in ("native", "bare"))
        figures.append(Figure(f"time of an answer, p{share}", "ms", ours, theirs, _PEER))
    return Outcome(figures, {"rates": rates, "characters": len(text), "connections": _CONNECTIONS})


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _start(who: str, port: int, package: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "benchmarks.serving_child", who, str(port), str(package)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait(port: int, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            time.sleep(2)  # the model is loaded and warmed up once the socket listens
            return
    raise RuntimeError(f"the server on port {port} did not start in {limit_s:.0f} s")


def _load(
    paths: dict[str, str], ports: dict[str, int], text: str
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    rates: dict[str, list[float]] = {who: [] for who in paths}
    seconds: dict[str, list[float]] = {who: [] for who in paths}
    body = json.dumps({"text": [text]}).encode()
    for round_ in range(_ROUNDS + 1):
        for who, path in paths.items():
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
            found = asyncio.run(_round(ports[who], request))
            if round_:  # the first one warms up
                rates[who].append(len(found) / _ROUND_S)
                seconds[who] += found
                say(f"{who}: {rates[who][-1]:.0f} requests/s")
    return rates, seconds


async def _round(port: int, request: bytes) -> list[float]:
    end = time.perf_counter() + _ROUND_S
    found = await asyncio.gather(*(_client(port, request, end) for _ in range(_CONNECTIONS)))
    return [seconds for one in found for seconds in one]


async def _client(port: int, request: bytes, end: float) -> list[float]:
    """Send one request after another over one connection; return the seconds of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    while (start := time.perf_counter()) < end:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server answered {head[:40]!r}")
        size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(size)
        found.append(time.perf_counter() - start)
    writer.close()
    return found

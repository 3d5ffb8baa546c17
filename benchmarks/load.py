"""Load on a server of this machine, over plain connections: one client's cost is small beside the server's."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Answer", "Client", "Server", "closed", "free_port", "gone", "memory_mb", "opened", "post", "share_ms"]

_HEADERS_END = b"\r\n\r\n"


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: HTTP status; 0 where the connection ended without an answer.
        seconds: from the first byte sent to the last received.
        body: the answer's body.
        closes: whether the server closes the connection.
    """

    status: int
    seconds: float
    body: bytes
    closes: bool


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def post(path: str, body: object) -> bytes:
    """Return a whole request."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


@dataclass
class Client:
    """One connection, opened again where it was closed."""

    port: int
    reader: asyncio.StreamReader | None = field(default=None, init=False)
    writer: asyncio.StreamWriter | None = field(default=None, init=False)

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read its answer.

        Raises:
            ConnectionRefusedError: nobody listens.
        """
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        begun = time.perf_counter()
        try:
            self.writer.write(request)
            status, closes, body = await self._read()
        except (OSError, asyncio.IncompleteReadError):
            status, closes, body = 0, True, b""
        seconds = time.perf_counter() - begun
        if closes:
            self.close()
        return Answer(status, seconds, body, closes)

    async def _read(self) -> tuple[int, bool, bytes]:
        assert self.reader is not None
        head = (await self.reader.readuntil(_HEADERS_END)).lower()
        size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = await self.reader.readexactly(size)
        return int(head.split(b" ", 2)[1]), b"connection: close" in head, body

    def close(self) -> None:
        """Close the connection."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


async def closed(
    port: int, requests: Sequence[bytes], seconds: float, *, clients: int, pause_s: float = 0.0
) -> list[Answer]:
    """Let clients ask one request after another, each as soon as it has its answer, and return all answers."""
    ends = time.monotonic() + seconds

    async def one(number: int) -> list[Answer]:
        client, found = Client(port), list[Answer]()
        while time.monotonic() < ends:
            found.append(await client.ask(requests[(number + len(found)) % len(requests)]))
            if pause_s:
                await asyncio.sleep(pause_s)
        client.close()
        return found

    return [answer for found in await asyncio.gather(*map(one, range(clients))) for answer in found]


async def opened(port: int, request: bytes, seconds: float, *, rate: float, seed: int = 0) -> list[Answer]:
    """Send requests at random moments, however long answers take, and return all answers."""
    rng, idle, tasks = random.Random(seed), list[Client](), list[asyncio.Task[Answer]]()

    async def one() -> Answer:
        client = idle.pop() if idle else Client(port)
        answer = await client.ask(request)
        idle.append(client)
        return answer

    ends = time.monotonic() + seconds
    due = time.monotonic()
    while due < ends:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(one()))
        due += rng.expovariate(rate)
    answers = await asyncio.gather(*tasks)
    for client in idle:
        client.close()
    return list(answers)


def share_ms(answers: Sequence[Answer], share: float) -> float:
    """Return a percentile of the seconds of answers, in milliseconds; not a number without any."""
    seconds = [answer.seconds for answer in answers]
    return float(np.percentile(seconds, share) * 1000) if seconds else float("nan")


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process, 10^6 bytes; needs Linux."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def gone(process: subprocess.Popen[bytes], limit_s: float = 60.0) -> int:
    """Wait for a process to end and return how it did; one that does not is killed."""
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return -9


class Server:
    """A server process of `benchmarks.serving_child`, ended with the `with` block.

    Args:
        who: which server.
        arguments: what it is told after its port.
        path: folders with libraries of its own.
    """

    def __init__(self, who: str, *arguments: str, path: str = "") -> None:
        self.port = free_port()
        self._command = [sys.executable, "-m", "benchmarks.serving_child", who, str(self.port), *arguments]
        places = [path, os.environ.get("PYTHONPATH", "")]
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}

    def __enter__(self) -> Server:
        """Start it; see `wait`."""
        nowhere: Any = subprocess.DEVNULL
        self.process = subprocess.Popen(
            self._command, env=self._environment, stdout=nowhere, stderr=nowhere, start_new_session=True
        )
        return self

    def __exit__(self, *about: object) -> None:
        """End it, and what it has started: LitServe leaves its workers behind."""
        if self.process.poll() is None:
            self.process.terminate()
        gone(self.process)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self, request: bytes, limit_s: float = 90.0) -> None:
        """Wait until it answers a request with 200.

        Raises:
            RuntimeError: it does not in time.
        """
        ends = time.monotonic() + limit_s
        while time.monotonic() < ends and self.process.poll() is None:
            try:
                if asyncio.run(Client(self.port).ask(request)).status == 200:
                    return
            except (OSError, LookupError):  # not there yet, or no answer of a known length
                pass
            time.sleep(0.2)
        raise RuntimeError(f"{self._command[2:4]} did not answer within {limit_s:.0f} s")

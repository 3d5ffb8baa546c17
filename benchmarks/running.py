"""Run things beside one another: interleaved repeats, and child processes with their peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

__all__ = ["Child", "child", "interleaved", "start_tamiz", "tamiz_run"]

_TAMIZ = "from tamiz.cli import main; main()"


class Child(NamedTuple):
    """A finished child process.

    Attributes:
        answer: the JSON document on its standard output.
        seconds: from start to end.
        peak_mb: most memory it held, 10^6 bytes.
    """

    answer: dict[str, Any]
    seconds: float
    peak_mb: float


def interleaved(measures: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Time each measure `repeats` times, taking turns, and return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            start = time.perf_counter()
            measure()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(found) for name, found in seconds.items()}


def child(arguments: list[str]) -> Child:
    """Run Python with arguments to its end.

    The peak is what the operating system says of the process. A process starts with the memory of the one that starts
    it, so the caller should hold little.

    Raises:
        RuntimeError: it failed.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=complaints)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0), complaints.seek(0)
        if process.returncode:
            raise RuntimeError(f"{arguments[:3]} ended with {process.returncode}: {complaints.read()[-2000:]}")
        answer = json.loads(output.read())
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return Child(answer, seconds, kilobytes * 1024 / 1e6)


def tamiz_run(project: Path) -> Child:
    """Run `tamiz run --json` on a project file."""
    return child(["-c", _TAMIZ, "run", "--project", str(project), "--json"])


def start_tamiz(project: Path) -> subprocess.Popen[bytes]:
    """Start `tamiz run` without waiting for its end."""
    arguments = [sys.executable, "-c", _TAMIZ, "run", "--project", str(project), "--quiet"]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

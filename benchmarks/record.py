"""What a benchmark gives: figures beside a peer's and a goal, shown as a table and kept as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

__all__ = ["RESULTS", "Board", "Figure", "Goal", "Outcome", "amount", "load", "save", "say", "show"]

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "tamiz")
_console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)


@dataclass(frozen=True)
class Goal:
    """What a figure should reach.

    Attributes:
        sign: `>=` or `<=`.
        bound: the least or the most that is wanted.
        ratio: whether the bound is for Tamiz's value divided by the peer's, not for the value itself.
    """

    sign: str
    bound: float
    ratio: bool = False

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g}" + (" x peer" if self.ratio else "")

    def met_by(self, value: float) -> bool:
        """Say whether a value is good enough."""
        return value >= self.bound if self.sign == ">=" else value <= self.bound


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        what: what was measured.
        unit: of the values; empty for scores.
        tamiz: Tamiz's value.
        peer: the peer's value in the same run.
        peer_name: what the peer is.
        goal: what should be reached.
    """

    what: str
    unit: str
    tamiz: float
    peer: float | None = None
    peer_name: str = ""
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """Tamiz's value divided by the peer's."""
        return self.tamiz / self.peer if self.peer else None

    @property
    def verdict(self) -> str:
        """`yes`, `no` or nothing: whether the goal was met."""
        judged = self.ratio if self.goal is not None and self.goal.ratio else self.tamiz
        if self.goal is None or judged is None:
            return ""
        return "yes" if self.goal.met_by(judged) else "no"

    def cells(self) -> list[str]:
        """Return the figure as a row of a table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        peer = "" if self.peer is None else amount(self.peer)
        goal = "" if self.goal is None else str(self.goal)
        return [self.what, self.unit, amount(self.tamiz), peer, ratio, goal, self.verdict]


HEADINGS = ("figure", "unit", "Tamiz", "peer", "Tamiz / peer", "goal", "met")


@dataclass(frozen=True)
class Board:
    """A leaderboard: one row each of what was compared, best first.

    Attributes:
        title: what it is about.
        headings: of the columns; the first one is text.
        rows: cells as shown.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Outcome:
    """What one benchmark found.

    Attributes:
        figures: the figures.
        details: whatever else is worth keeping, JSON-able.
        boards: leaderboards.
    """

    figures: Sequence[Figure]
    details: dict[str, Any] = field(default_factory=dict)
    boards: Sequence[Board] = ()


def say(text: str) -> None:
    """Tell how far a benchmark is, on standard error."""
    print(f"  {text}", file=sys.stderr, flush=True)


def amount(value: float) -> str:
    """Render a number with about four digits.

    Example:
        >>> amount(0.91234), amount(1234.5), amount(12.345)
        ('0.9123', '1,234', '12.35')
    """
    digits = 4 if abs(value) < 1 else 3 if abs(value) < 10 else 2 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def show(name: str, outcome: Outcome) -> None:
    """Print leaderboards and figures as tables."""
    for board in outcome.boards:
        _print(board, first_left=1)
    _print(Board(name, HEADINGS, [figure.cells() for figure in outcome.figures]), first_left=2)
    peers = {figure.peer_name: None for figure in outcome.figures if figure.peer_name}
    for peer in peers:
        _console.print(f"  peer: {peer}", markup=False)


def _print(board: Board, *, first_left: int) -> None:
    table = Table(title=board.title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1))
    for place, heading in enumerate(board.headings):
        table.add_column(heading, justify="left" if place < first_left else "right", no_wrap=place > 0)
    for row in board.rows:
        table.add_row(*row)
    _console.print(table)


def save(name: str, outcome: Outcome, folder: Path, *, part: str = "") -> Path:
    """Write figures, machine, versions, date and command line as JSON.

    Args:
        name: the benchmark.
        outcome: what it found.
        folder: where to.
        part: what was measured, where not all was; the file is then named after it, and leaves the whole one's alone.
    """
    from tamiz.pipeline.state import code_version

    record = {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(sys.argv[1:]),
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "code": code_version(),
        "figures": [{**asdict(figure), "ratio": figure.ratio, "met": figure.verdict} for figure in outcome.figures],
        "boards": [asdict(board) for board in outcome.boards],
        "details": outcome.details,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"{name}-{part}.json" if part else f"{name}.json")
    path.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def load(path: Path) -> tuple[dict[str, Any], list[Figure]]:
    """Read what `save` wrote: the record and its figures."""
    record = json.loads(path.read_text(encoding="utf-8"))
    figures = []
    for raw in record["figures"]:
        goal = None if raw["goal"] is None else Goal(**raw["goal"])
        known = {key: raw[key] for key in ("what", "unit", "tamiz", "peer", "peer_name")}
        figures.append(Figure(**known, goal=goal))
    return record, figures


def _command(arguments: list[str]) -> str:
    """Return the command line without `--results`, which tells of one machine's folders and changes no figure."""
    pairs = zip(["", *arguments], arguments, strict=False)
    shown = [word for before, word in pairs if "--results" not in (before, word)]
    return shlex.join(["python", "-m", "benchmarks", *shown])


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": platform.platform(),
        "load_1m": _load(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None

"""Seconds and peak memory as rows grow: the linear classifier alone, at its defaults, and a whole run with it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.datasets import project_copy
from benchmarks.record import Figure, Goal, Outcome, say
from benchmarks.running import Child, child, tamiz_run

__all__ = ["measure"]

_PEER_ROWS = 100_000  # beyond, scikit-learn's vocabulary alone would fill the memory that is the goal
_MOST_MB = 8_000
_PER_ROWS = 100_000


def measure(options: dict[str, Any]) -> Outcome:
    """Measure each size in processes of its own; parts `classifier` and `run`."""
    parts: dict[str, Callable[[Path, int], tuple[list[Figure], dict[str, Any]]]] = {
        "classifier": _classifier,
        "run": _run,
    }
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for rows in options["sizes"]:
            path = Path(name) / f"complaints-{rows}.parquet"
            made = child(["-m", "benchmarks.synthesis", str(path), str(rows)])
            say(f"made {rows:,} complaints in {made.seconds:.0f} s")
            for part in options["parts"] or parts:
                found, about = parts[part](path, rows)
                figures += found
                details[f"{part}, {rows}"] = about
            path.unlink()
    return Outcome(figures, details)


def _classifier(path: Path, rows: int) -> tuple[list[Figure], dict[str, Any]]:
    ours = child(["-m", "benchmarks.scaling_child", "linear", str(path)])
    theirs = child(["-m", "benchmarks.scaling_child", "peer", str(path)]) if rows <= _PEER_ROWS else None
    figures = []
    for step in ("fit", "predict"):
        each = [None if one is None else one.answer["seconds"][step] * _PER_ROWS / rows for one in (ours, theirs)]
        name = f"classifier, {rows:,} rows: {step}"
        figures.append(Figure(name, "s per 100,000 rows", each[0] or 0.0, each[1], peers.BIGRAMS if theirs else ""))
    figures.append(_memory(f"classifier, {rows:,} rows: peak memory", ours, theirs))
    say(f"classifier, {rows:,} rows: {_told(ours)}" + (f"; peer: {_told(theirs)}" if theirs else ""))
    return figures, {"tamiz": ours._asdict(), "peer": theirs._asdict() if theirs else None}


def _told(one: Child) -> str:
    answer = one.answer
    return (
        f"fit {answer['seconds']['fit']:.1f} s, predict {answer['seconds']['predict']:.1f} s, "
        f"{answer['features']:,} features, {answer['loaded_mb']:.0f} MB with the texts, {one.peak_mb:.0f} MB at most"
    )


def _memory(name: str, ours: Child, theirs: Child | None) -> Figure:
    peer = theirs.peak_mb if theirs else None
    return Figure(name, "MB", ours.peak_mb, peer, peers.BIGRAMS if theirs else "", Goal("<=", _MOST_MB))


def _run(path: Path, rows: int) -> tuple[list[Figure], dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        # What the made complaints lack: when and where they were written.
        lacking: dict[str, Any] = {"time": None, "partition_by": []}
        project = project_copy(
            "complaints", Path(folder), candidates=[{"family": "linear"}], source=str(path), **lacking
        )
        run = tamiz_run(project)
    say(f"run, {rows:,} rows: {run.seconds:.1f} s, {run.peak_mb:.0f} MB at most")
    figures = [
        Figure(f"whole run, {rows:,} rows", "s per 100,000 rows", run.seconds * _PER_ROWS / rows),
        _memory(f"whole run, {rows:,} rows: peak memory", run, None),
    ]
    return figures, {"seconds": run.seconds, "peak_mb": run.peak_mb, "metrics": run.answer["metrics"]}

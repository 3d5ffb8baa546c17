"""A second run does nothing, and a run that was killed is finished by the next with the same figures."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.datasets import project_copy, project_of
from benchmarks.record import Figure, Goal, Outcome, say
from benchmarks.running import Child, start_tamiz, tamiz_run

__all__ = ["measure"]

_ROWS = 5_000
_KILLS = 10
_SPEED = ("latency", "texts_per_s", "fit_seconds")  # of the machine, not of the model


def measure(options: dict[str, Any]) -> Outcome:
    """Run twice, then kill runs at random moments and run again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = folder / "complaints.parquet"
        pl.read_parquet(project_of("complaints").data.source).sample(_ROWS, seed=0).write_parquet(sample)
        project = project_copy("complaints", folder / "unbroken", source=str(sample))
        first, second = tamiz_run(project), tamiz_run(project)
        skipped = sum(state == "skipped" for state in second.answer["steps"].values())
        say(f"first run {first.seconds:.1f} s, second {second.seconds:.1f} s, {skipped} steps skipped")
        wanted = _figures(first)
        kills = [_killed(folder / f"killed-{kill}", sample, first.seconds, kill, wanted) for kill in range(_KILLS)]
    same = sum(kill["same"] for kill in kills)
    return Outcome(
        [
            Figure("first run, 5,000 complaints", "s", first.seconds),
            Figure("second run", "s", second.seconds, goal=Goal("<=", 15)),
            Figure("steps skipped by the second run", "of 5", skipped, goal=Goal(">=", 5)),
            Figure("killed runs finished with the same figures", f"of {_KILLS}", same, goal=Goal(">=", _KILLS)),
        ],
        {"unbroken": wanted, "kills": kills, "second_run_same": _figures(second) == wanted},
    )


def _figures(run: Child) -> dict[str, Any]:
    answer = run.answer
    metrics = {name: value for name, value in answer["metrics"].items() if not name.startswith(_SPEED)}
    return {"chosen": answer["chosen"], "version": answer["version"], "champion": answer["champion"], **metrics}


def _killed(folder: Path, sample: Path, duration_s: float, seed: int, wanted: dict[str, Any]) -> dict[str, Any]:
    """Kill a run after a share of its duration, run again, and compare."""
    project = project_copy("complaints", folder, source=str(sample))
    # One moment in each tenth of the run, so that all steps are hit.
    delay_s = duration_s * (seed + random.Random(seed).random()) / _KILLS
    process = start_tamiz(project)
    time.sleep(delay_s)
    process.kill()
    process.wait()
    about = {"delay_s": delay_s, "exit": process.returncode}
    try:
        again = tamiz_run(project)
    except RuntimeError as error:
        say(f"killed after {delay_s:.1f} s; the next run failed: {error}")
        return {**about, "same": False, "error": str(error)}
    found = _figures(again)
    differing = {name: (found.get(name), value) for name, value in wanted.items() if found.get(name) != value}
    say(
        f"killed after {delay_s:.1f} s, finished in {again.seconds:.1f} s; "
        f"test macro F1 {found['test_f1_macro']:.6f} beside {wanted['test_f1_macro']:.6f}; "
        + (f"different: {differing}" if differing else "all figures are the same")
    )
    return {
        **about,
        "same": not differing,
        "seconds": again.seconds,
        "steps": again.answer["steps"],
        "test_f1_macro": found["test_f1_macro"],
        "differing": differing,
    }

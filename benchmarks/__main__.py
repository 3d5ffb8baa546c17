"""`python -m benchmarks [NAMES]`: run all benchmarks or those named; `report` rewrites the table of the README."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded: timings of one core can be compared

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import record, report
from benchmarks.datasets import NoDataError, root

BENCHMARKS = (
    "accuracy",
    "families",
    "few_shot",
    "fine_tuning",
    "recipe",
    "label_noise",
    "scaling",
    "vectorising",
    "latency",
    "reruns",
    "serving",
    "overload",
    "tuning",
    "exports",
    "zero_shot",
    "entailment",
    "distilling",
    "laddering",
)
_IN_PARTS = (
    "accuracy",
    "families",
    "few_shot",
    "scaling",
    "tuning",
    "overload",
    "zero_shot",
    "entailment",
    "laddering",
)
_IN_SIZES = ("scaling", "zero_shot", "entailment", "distilling")
SIZES = "10000 100000 1000000"


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"{', '.join(BENCHMARKS)} or report; by default all.")
    ] = None,
    sizes: Annotated[
        str, typer.Option(help="Rows for `scaling`; most rows for `zero_shot`, `entailment` and `distilling`.")
    ] = SIZES,
    parts: Annotated[str, typer.Option(help="Parts of a benchmark that has some to run.")] = "",
    models: Annotated[
        str, typer.Option(help="For `zero_shot`: names of `tamiz models`, those alone; FOLDER=SET,SET, it too.")
    ] = "",
    trials: Annotated[int, typer.Option(help="Trials a family for `tuning`.")] = 25,
    results: Annotated[Path, typer.Option(help="Folder for the JSON files.")] = record.RESULTS,
) -> None:
    """Measure Tamiz beside its peers. Slow figures fail nothing."""
    wanted = list(names or BENCHMARKS)
    unknown = set(wanted) - {*BENCHMARKS, "report"}
    if unknown:
        _give_up(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}, report")
    try:
        if wanted != ["report"]:
            root()
    except NoDataError as error:
        _give_up(str(error))
    for name in wanted:
        if name == "report":
            report.rewrite(results)
            continue
        options = {"sizes": [int(size) for size in sizes.split()], "parts": parts.split(), "trials": trials}
        options["models"] = models.split()
        outcome = import_module(f"benchmarks.{name}").measure(options)
        record.show(name, outcome)
        record.say(f"kept in {record.save(name, outcome, results, part=_part(name, sizes, parts))}")


def _part(name: str, sizes: str, parts: str) -> str:
    """Return what is measured of a benchmark, nothing where it is all."""
    chosen = parts.split() if name in _IN_PARTS else []
    return "-".join([*chosen, *(sizes.split() if name in _IN_SIZES and sizes != SIZES else [])])


def _give_up(why: str) -> None:
    print(why, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    typer.run(main)

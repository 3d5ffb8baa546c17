"""Entry point of the command line: one app, errors as one sentence, exit codes 0 (ok), 1 (failed) and 2 (wrong use)."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from tamiz import __version__
from tamiz._files import explain
from tamiz.cli import (
    checking,
    distilling,
    encoders,
    fetching,
    laddering,
    models,
    predicting,
    projects,
    running,
    serving,
    thresholds,
    tuning,
    versions,
)
from tamiz.cli.console import errors, short
from tamiz.errors import ConfigError, RequestError, TamizError

__all__ = ["app", "main", "run_command"]

app = typer.Typer(
    name="tamiz",
    help="From raw texts to a monitored text classifier in production.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

_SHOWN = 300  # characters of an error that nobody expected

_COMMANDS: dict[str, Callable[..., None]] = {
    "init": projects.init,
    "schema": projects.schema,
    "check": checking.check,
    "run": running.run,
    **running.single_steps(),
    "compare": running.compare,
    "versions": versions.versions,
    "promote": models.promote,
    "rollback": models.rollback,
    "reproduce": models.reproduce,
    "tune": tuning.tune,
    "thresholds": thresholds.thresholds,
    "predict": predicting.predict,
    "explain": predicting.explain,
    "distill": distilling.distill,
    "ladder": laddering.ladder,
    "serve": serving.serve,
    "fetch": fetching.fetch,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)
app.add_typer(serving.keys_app, name="keys")
app.add_typer(encoders.models_app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tamiz {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Sort texts into labels: train, compare, serve."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: words after `tamiz`; by default those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # other encodings lack letters that labels and texts have
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    sys.exit(run_command(arguments))


def run_command(arguments: list[str]) -> int:
    """Run the command line and return its exit code: 0 (ok), 1 (failed) or 2 (wrong use)."""
    try:
        app(arguments, prog_name="tamiz")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        if "--debug" in arguments:
            raise
        errors.print("error ", style="red", end="")
        errors.print(_said(error))
        return 2 if isinstance(error, ConfigError | RequestError) else 1
    return 0


def _said(error: Exception) -> str:
    """Return what a person is told of an error."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {explain(error)}"
    if isinstance(error, TamizError | OSError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):  # training imports its libraries at the heads of its modules
        lacking = f"{error.name!r} is needed for this command and not installed"
        return f"{lacking}. Install it with: pip install 'tamiz[train]'"
    return f"{short(f'{type(error).__name__}: {error}', _SHOWN)} (unexpected; tamiz --debug shows where)"

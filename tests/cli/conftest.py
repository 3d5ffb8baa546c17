"""A command line in this process, and a small project that has been run once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tamiz.cli.main import run_command
from tamiz.types import Task
from tests.projects import write_project


@dataclass(frozen=True)
class Answer:
    """What a command came to.

    Attributes:
        code: its exit code.
        out: what it wrote to standard output.
        err: what it wrote to standard error.
    """

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document without NaN."""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


Command = Callable[..., Answer]


@pytest.fixture
def tamiz(capsys) -> Command:
    """Run a command; nothing it says may be a traceback, or an error that nobody expected."""

    def command(*arguments: object) -> Answer:
        capsys.readouterr()
        code = run_command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        assert "(unexpected; " not in captured.err
        return Answer(code, captured.out, captured.err)

    return command


@pytest.fixture
def refused(tamiz) -> Callable[..., str]:
    """Run a command that must fail with a code; return the one line it says."""

    def command(code: int, *arguments: object) -> str:
        answer = tamiz(*arguments)
        assert answer.code == code, answer
        assert answer.out == ""
        (line,) = answer.err.strip().splitlines()
        return line

    return command


@pytest.fixture(scope="session")
def finished(tmp_path_factory, mlflow_template) -> Path:
    """A project of three labels with version 1 (prior) and the champion, version 2 (linear); to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    for family in ("prior", "linear"):
        write_project(folder, candidates=[{"family": family}])
        assert run_command(["run", "-p", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, mlflow_template) -> Path:
    """An empty folder to work in, with the tables of an MLflow database."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def project(finished, tmp_path, monkeypatch) -> Path:
    """A copy of the finished project, as the present folder."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def several(tmp_path_factory, mlflow_template) -> Path:
    """A finished project of several labels a text; not to be changed."""
    folder = tmp_path_factory.mktemp("several")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    write_project(folder, Task.MULTI_LABEL)
    assert run_command(["run", "-p", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch) -> None:
    """No colours and no other store than those the test names."""
    monkeypatch.setenv("NO_COLOR", "1")
    for name in [name for name in os.environ if name.startswith("TAMIZ_") and name != "TAMIZ_DATA"]:
        monkeypatch.delenv(name)

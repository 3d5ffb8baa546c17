"""What holds for every command: an answer for machines, a dry run where it changes something, refusals as one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tamiz.pipeline import STEPS
from tests.projects import rows, write_csv, write_project
from tests.test_meta import COMMANDS, is_group

ALL = {" ".join(names): command for names, command in COMMANDS.items() if not is_group(command)}
ALL["models"] = COMMANDS["models",]  # a group that lists models by itself

WITHOUT_JSON = {
    "schema": "what it prints is JSON already",
    "serve": "a server answers over HTTP",
}
WITHOUT_DRY_RUN = {
    "schema": "it writes at most the file that --to names",
    "check": "it looks: it brings up to date what the next run would, and writes at most the files that are named",
    "compare": "it reads, and writes at most the file that --report names",
    "reproduce": "it keeps nothing of what it trains",
    "predict": "it writes at most the file that --output names",
    "explain": "it reads",
    "distill": "it writes the folder that --output names, which must be new",
    "models package": "it writes the folder that --output names, which must be new",
    "serve": "a server",
    "models": "it reads",
    "keys list": "it reads",
}

# What each command is asked for as a dry run, in a finished project with a key `KEY`.
DRY_RUNS = {
    "init": ["other.csv", "--to", "other.yaml"],
    "run": ["other.csv", "--save", "other.yaml"],
    **{step: ["--set", "split.seed=7"] for step in STEPS},
    "tune": [],
    "promote": ["1", "--force", "--reason", "a trial"],
    "rollback": [],
    "versions": ["delete", "1"],
    "thresholds": ["--abstain-below", "0.4", "--promote"],
    "keys create": ["--days", "9"],
    "keys rotate": ["KEY"],
    "keys revoke": ["KEY"],
    "fetch": ["imdb", "--to", "data"],
    "models install": ["minilm"],
}
ELSEWHERE = {"ladder": "needs an encoder: test_ladder.py"}
# Those whose real answer has other keys, since it is about what was done, or which need the network.
PLANS = {"run", *STEPS, "tune", "fetch", "models install"}


def has(command: str, option: str) -> bool:
    return any(option in parameter.opts for parameter in ALL[command].params)


def files(folder: Path) -> dict[str, bytes | None]:
    """Return what stands in a folder, byte for byte."""
    found = ((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*"))
    return {name: path.read_bytes() if path.is_file() else None for name, path in found}


@pytest.fixture
def words(project, tamiz, monkeypatch) -> Callable[[str], Iterator[str]]:
    """Give what a command is asked for, in a finished project with one key and a file that is none of its sources."""
    monkeypatch.setenv("TAMIZ_CACHE", str(project / "cache"))
    write_csv(project / "other.csv", rows(90))
    key = tamiz("keys", "create", "--json").json["id"]
    return lambda command: (*command.split(), *(key if word == "KEY" else word for word in DRY_RUNS[command]))


@pytest.mark.parametrize(("option", "without"), [("--json", WITHOUT_JSON), ("--dry-run", WITHOUT_DRY_RUN)])
def test_every_command_has_it_but_those_with_a_reason(option, without):
    assert {command for command in ALL if not has(command, option)} == set(without)


def test_every_dry_run_is_tried():
    assert {command for command in ALL if has(command, "--dry-run")} == {*DRY_RUNS, *ELSEWHERE}


@pytest.mark.parametrize("command", DRY_RUNS)
def test_a_dry_run_leaves_every_byte_as_it_was(project, tamiz, words, command):
    before = files(project)
    shown = tamiz(*words(command), "--dry-run")
    assert shown.code == 0, shown.err
    assert shown.out.strip()
    found = tamiz(*words(command), "--dry-run", "--json")
    assert (found.code, found.json["changed"]) == (0, False)
    assert files(project) == before


@pytest.mark.parametrize("command", [command for command in DRY_RUNS if command not in PLANS])
def test_a_dry_run_answers_as_the_change_does(project, tamiz, words, command):
    tried = tamiz(*words(command), "--dry-run", "--json").json
    before = files(project)
    done = tamiz(*words(command), "--json")
    assert done.code == 0, done.err
    assert list(done.json) == list(tried)
    assert done.json["changed"] is True
    assert files(project) != before


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, ("init", "texts.csv")),
        (2, ("init", "texts.csv", "--to", "nosuch/tamiz.yaml")),
        (2, ("init", "texts.csv", "--json")),
        *((2, (step, "--quiet", "--set", "select.metric=val_f1_marco")) for step in ("run", "clean", "tune")),
        *((2, (step, "--quiet", "--set", "select.slices=[nosuch]")) for step in ("run", "evaluate", "tune")),
        (1, ("promote", "9", "--json")),
        (1, ("promote", "1", "--alias", "a b")),
        (1, ("versions", "delete", "2", "--json")),
        (2, ("thresholds", "--set", "nosuch=0.4")),
        (2, ("keys", "rotate", "abcdef01")),
        (2, ("keys", "revoke", "abcdef01", "--json")),
        (2, ("fetch", "nosuch", "--json")),
        (2, ("models", "install", "nosuch")),
    ],
)
def test_a_dry_run_refuses_what_the_change_refuses(project, refused, code, arguments):
    write_csv(project / "other.csv", rows(90))
    before = files(project)
    line = refused(code, *arguments, "--dry-run")
    assert files(project) == before
    assert refused(code, *arguments) == line


def test_a_dry_run_of_a_rollback_refuses_where_there_is_no_way_back(project, tamiz, refused):
    assert tamiz("rollback").code == 0
    assert refused(1, "rollback", "--dry-run") == refused(1, "rollback")


def test_a_dry_run_does_not_save_over_a_project_file(project, tamiz):
    answer = tamiz("run", "texts.csv", "--save", "tamiz.yaml", "--dry-run")
    assert (answer.code, answer.out) == (2, "")
    assert "tamiz.yaml exists and is never overwritten" in answer.err


def test_a_damaged_key_file_is_found_by_a_dry_run(place, refused):
    write_project(place)
    (place / "keys.json").write_text("{")
    assert "keys.json is damaged" in refused(2, "keys", "create", "--dry-run")


# Where a folder has nothing of use, in addition to what `--json` gets.
NOTHING = {
    "init": ["nosuch.csv"],
    "explain": ["words"],
    "distill": ["-i", "nosuch.csv", "-o", "student", "--labels", "a"],
    "predict": ["words"],
    "promote": ["1"],
    "reproduce": ["1"],
    "fetch": ["nosuch"],
    "keys rotate": ["abcdef01"],
    "keys revoke": ["abcdef01"],
    "models install": ["nosuch"],
    "models package": ["nosuch", "-o", "made", "--labels", "a"],
    "models": ["--json", "install", "nosuch"],
    "ladder": ["nosuch.csv", "--labels", "a,b"],
}


@pytest.mark.parametrize("command", [command for command in ALL if command not in WITHOUT_JSON])
def test_a_refusal_leaves_nothing_half_said(tmp_path, tmp_path_factory, monkeypatch, tamiz, command):
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path)
    answer = tamiz(*command.split(), *NOTHING.get(command, ()), *(() if command == "models" else ("--json",)))
    assert answer.code in (1, 2)
    assert answer.out == ""
    assert len(answer.err.strip().splitlines()) == 1
    assert files(tmp_path) == {}

"""What goes to standard output, and how far a step is where standard error is no terminal."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tamiz.cli.console import Terminal, errors, note, output, table
from tests.projects import write_csv


def test_json_is_utf_8_whatever_the_place_it_goes_to(tmp_path):
    write_csv(tmp_path / "texts.csv", [{"text": f"文 {n}", "label": ("良い", "悪い")[n % 2]} for n in range(20)])
    command = [sys.executable, "-m", "tamiz", "init", "texts.csv", "--dry-run", "--json"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "良い" in done.stdout.decode("utf-8")


def test_a_short_step_says_nothing_before_it_ends(capsys):
    terminal = Terminal()
    terminal.started("train")
    terminal.progress("fitting", 1, 2)
    terminal.finished("train", "1 of 1 candidates")
    assert capsys.readouterr().err.split() == ["done", "train", "1", "of", "1", "candidates"]


def test_a_long_step_says_how_far_it_is(capsys):
    terminal = Terminal(first_line_s=0, next_line_s=0)
    terminal.progress("before any step")
    terminal.started("train")
    terminal.progress("small: fine-tuning: loss 0.5 [x]", 1_000, 2_000)
    terminal.progress("small: exporting")
    terminal.close()
    terminal.progress("after it")
    lines = [" ".join(line.split()) for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "now train small: fine-tuning: loss 0.5 [x] (1,000 of 2,000)",
        "now train small: exporting",
    ]


def test_lines_keep_their_distance(capsys):
    terminal = Terminal(first_line_s=0, next_line_s=1_000)
    terminal.started("train")
    for done in range(5):
        terminal.progress("fitting", done, 5)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_step_that_goes_on_from_an_earlier_run_says_so_at_once(capsys):
    terminal = Terminal()
    terminal.started("train")
    terminal.progress("small: goes on from step 5 of 12 (checkpoint of an earlier run)", 5, 12)
    terminal.progress("small: fine-tuning: loss 0.5", 6, 12)
    shown = " ".join(capsys.readouterr().err.split())
    assert shown == "note small: goes on from step 5 of 12 (checkpoint of an earlier run)"


def test_a_quiet_one_says_nothing(capsys):
    terminal = Terminal(quiet=True, first_line_s=0, next_line_s=0)
    terminal.started("train")
    terminal.progress("fitting", 1, 2)
    terminal.progress("goes on from step 5 of 12")
    assert not capsys.readouterr().err


STRANGE = r"[red] [/x] [1] :heart: C:\data\[new]"


def test_texts_labels_and_paths_are_shown_as_they_are(capsys):
    terminal = Terminal(first_line_s=0, next_line_s=0)
    terminal.started(STRANGE)
    terminal.progress(STRANGE, 1, 2)
    terminal.finished("train", STRANGE)
    note(STRANGE)
    errors.print(STRANGE)
    output.print(STRANGE)
    output.print(table(STRANGE, [STRANGE], [[STRANGE]]))
    shown = capsys.readouterr()
    assert shown.err.count(STRANGE) == 5
    assert shown.out.count(STRANGE) == 4


def test_a_bar_shows_what_is_done_as_it_is(monkeypatch, capsys):
    monkeypatch.setattr(errors, "_force_terminal", True)
    with Terminal() as terminal:
        terminal.started("fetch")
        terminal.progress(f"write {STRANGE}", 1, 2)
        assert terminal._bar is not None
        output.print(terminal._bar.get_renderable(), width=200)
    assert f"write {STRANGE}" in capsys.readouterr().out
    assert terminal._bar is None


def test_a_path_with_brackets_is_named_as_it_is(tamiz, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(Path("texts.csv"), [{"text": f"a text {n}", "label": "yn"[n % 2]} for n in range(20)])
    shown = tamiz("init", "texts.csv", "--to", "old[draft].yaml")
    assert shown.code == 0, shown.err
    assert "tamiz run -p old[draft].yaml" in shown.out


def test_steps_alone_take_changes(tamiz, project):
    shown = tamiz("train", "--set", "candidates.0.name=again", "--json")
    assert [one["candidate"] for one in shown.json["leaderboard"]] == ["again"]
    assert re.search(r"split\.sed", tamiz("clean", "--set", "split.sed=1").err)


NUMBERS = ["F1 macro", "accuracy", "AUC", "ECE", "fit s", "p50 ms", "texts/s", "MB"]


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_table_tells_names_and_all_numbers_at_any_width(width):
    rows = [[name, "1", "8592a5ab", *[f"{n}.123" for n in range(len(NUMBERS))]] for name in ("linear", "prior")]
    console = Console(width=width, soft_wrap=True, file=io.StringIO())
    console.print(table("Runs", ["candidate", "version", "run", *NUMBERS], rows, first_left=3))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    told = [line.split() for line in lines if line.split()[:1] in (["linear"], ["prior"])]
    assert all(line[1:3] == ["1", "8592a5ab"] for line in told)
    for name in ("linear", "prior"):
        assert [cell for line in told if line[0] == name for cell in line[3:]] == rows[0][3:]
    assert [" ".join(line.split()[3:]) for line in lines if "candidate" in line] == {
        60: ["F1 macro accuracy", "AUC ECE fit s", "p50 ms texts/s", "MB"],
        80: ["F1 macro accuracy AUC ECE fit s", "p50 ms texts/s MB"],
        160: [" ".join(NUMBERS)],
    }[width]


def test_a_long_name_is_folded_and_not_cut():
    console = Console(width=40, file=io.StringIO())
    console.print(table("Sizes", ["model", "MB"], [["x" * 60, "0.123"]]))
    assert console.file.getvalue().count("x") == 60


def test_a_table_may_have_fewer_columns_than_may_be_text(capsys):
    output.print(table("keys", ["name", "role"], [["a", "admin"]], first_left=9))
    assert capsys.readouterr().out.split() == ["keys", "name", "role", "─" * 14, "a", "admin"]

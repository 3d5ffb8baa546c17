"""`tamiz predict` and `tamiz explain`."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys

import polars as pl
import pytest

from tamiz.api import load
from tamiz.package import pack
from tests.projects import rows, write_csv

FOOD, MONEY = "bread soup cheese butter", "bank loan credit interest"


def feed(monkeypatch, content: str | bytes) -> None:
    """Put bytes on standard input, as a pipe would."""
    data = content.encode() if isinstance(content, str) else content
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


# --- texts


def test_texts_are_answered_by_the_champion_of_the_project(project, tamiz):
    answer = tamiz("predict", FOOD, MONEY)
    assert (answer.code, answer.err) == (0, "")
    first, second = answer.out.splitlines()
    assert first.startswith("food 0.")
    assert first.endswith(FOOD)
    assert second.startswith("money 0.")


def test_json_has_all_probabilities(project, tamiz):
    (found,) = tamiz("predict", FOOD, "--json").json
    expected = load("topics", store="models").predict([FOOD])[0]
    assert found["label"] == expected.label == "food"
    assert found["probability"] == expected.probability
    assert list(found["probabilities"].values()) == expected.probabilities.tolist()
    assert list(found["probabilities"]) == ["food", "money", "sport"]


def test_a_long_text_is_shown_cut(project, tamiz):
    line = tamiz("predict", "bread " * 100).out.splitlines()[0]
    assert line.endswith("…")
    assert len(line) < 110


def test_a_text_that_looks_like_markup_is_shown_as_it_is(project, tamiz):
    text = "[bold]bread[/bold] [/] soup"
    assert tamiz("predict", text).out.rstrip().endswith(text)


def test_a_text_that_looks_like_an_option_follows_two_dashes(project, tamiz):
    assert tamiz("predict", "--", "--bread").code == 0


def test_any_model_may_be_named(project, tamiz, tmp_path):
    archive = pack(project / "models" / "topics" / "1", tmp_path / "old.tar.gz")
    answers = {}
    for ref in ("models/topics", "models/topics@champion", "models/topics@1", "models/topics/1", str(archive)):
        (found,) = tamiz("predict", FOOD, "--json", "--model", ref).json
        answers[ref] = round(found["probabilities"]["food"], 6)
    new, old = answers["models/topics"], answers["models/topics@1"]
    assert new > old
    assert list(answers.values()) == [new, new, old, old, old]


def test_several_labels_are_shown_with_their_probabilities(several, tamiz):
    text = f"{FOOD} {MONEY}"
    answer = tamiz("predict", text, "zzz", "-p", several)
    assert answer.code == 0
    assert "food 0." in answer.out.splitlines()[0]
    assert "money 0." in answer.out.splitlines()[0]
    found, _ = tamiz("predict", text, "zzz", "-p", several, "--json").json
    assert {"food", "money"} <= set(found["label"])
    assert len(found["label"]) == len(found["probability"])


def test_an_abstention_is_shown(place, tamiz):
    from tests.projects import write_project

    write_project(place, n=60, candidates=[{"family": "linear", "abstain_below": 1.0}])
    assert tamiz("run", "-q").code == 0
    assert tamiz("predict", "zzz").out.startswith("no answer: too unsure")
    assert tamiz("predict", "zzz", "--json").json[0]["label"] is None


# --- lines of standard input


def test_lines_are_answered_one_by_one(project, tamiz, monkeypatch):
    feed(monkeypatch, f"{FOOD}\r\n\n{MONEY}")
    answer = tamiz("predict")
    assert answer.code == 0
    found = [json.loads(line) for line in answer.out.splitlines()]
    assert [row["label"] for row in found[::2]] == ["food", "money"]
    assert len(found) == 3
    assert found[0]["probabilities"] == tamiz("predict", FOOD, "--json").json[0]["probabilities"]


def test_many_lines_are_answered_in_order(project, tamiz, monkeypatch):
    feed(monkeypatch, "".join(f"{FOOD if i % 3 else MONEY}\n" for i in range(700)))
    found = [json.loads(line)["label"] for line in tamiz("predict").out.splitlines()]
    assert found == ["food" if i % 3 else "money" for i in range(700)]


def test_a_line_is_answered_before_the_next_is_written(project):
    command = [sys.executable, "-m", "tamiz", "predict"]
    with subprocess.Popen(command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asked:
        for text, label in ((FOOD, "food"), (MONEY, "money")):
            asked.stdin.write(f"{text}\n")
            asked.stdin.flush()
            assert json.loads(asked.stdout.readline())["label"] == label
        asked.stdin.close()
        assert asked.wait(60) == 0


def test_no_line_is_no_answer(project, tamiz, monkeypatch):
    feed(monkeypatch, "")
    assert tamiz("predict").out == ""


def test_lines_that_are_not_utf8_are_refused(project, tamiz, monkeypatch):
    feed(monkeypatch, b"bread\ncaf\xe9\n")
    answer = tamiz("predict")
    assert answer.code == 2
    assert "standard input: the byte 0xe9 is not utf-8 text" in answer.err


def test_they_are_refused_where_the_locale_lets_such_bytes_through(project):
    command, locale = [sys.executable, "-m", "tamiz", "predict"], {**os.environ, "LC_ALL": "C.UTF-8"}
    asked = subprocess.run(
        command, cwd=project, env=locale, input=b"bread\ncaf\xe9\n", capture_output=True, check=False
    )
    assert asked.returncode == 2
    assert b"standard input: the byte 0xe9 is not utf-8 text" in asked.stderr


# --- files


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_file_is_answered_into_a_file(project, tamiz, suffix):
    write_csv(project / "new.csv", rows(30, start=500))
    answer = tamiz("predict", "--input", "new.csv", "--output", f"answers{suffix}")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err.strip() == f"30 rows answered in answers{suffix}"
    path = project / f"answers{suffix}"
    if suffix == ".parquet":
        found = pl.read_parquet(path).to_dicts()
    elif suffix == ".jsonl":
        found = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        with path.open(newline="") as file:
            found = list(csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ","))
    assert [row["id"] for row in found] == [f"r{i}" for i in range(500, 530)]
    right = [row["predicted_label"] == row["label"] for row in found]
    assert sum(right) > 18


def test_json_about_a_file(project, tamiz):
    found = tamiz("predict", "-i", "texts.csv", "-o", "answers.csv", "--json").json
    assert found == {"rows": 120, "output": "answers.csv", "model": "topics", "version": "2"}


def test_json_is_one_document_of_lines_and_needs_a_file_for_those_of_a_file(project, tamiz, refused, monkeypatch):
    feed(monkeypatch, f"{FOOD}\n{MONEY}\n")
    assert tamiz("predict", "--json").json == tamiz("predict", FOOD, MONEY, "--json").json
    feed(monkeypatch, "")
    assert tamiz("predict", "--json").json == []
    for source in ("--input", "--requests"):
        assert "--json needs --output" in refused(2, "predict", source, "texts.csv", "--json")


def test_a_file_without_output_gives_json_lines(project, tamiz):
    answer = tamiz("predict", "--input", "texts.csv")
    assert (answer.code, answer.err) == (0, "")
    assert [json.loads(line)["id"] for line in answer.out.splitlines()] == [f"r{i}" for i in range(120)]


def test_several_labels_are_json_in_a_csv_cell(several, tamiz, tmp_path):
    target = tmp_path / "answers.csv"
    assert tamiz("predict", "-p", several, "-i", several / "texts.csv", "-o", target).code == 0
    with target.open(newline="") as file:
        found = [json.loads(row["predicted_label"]) for row in csv.DictReader(file)]
    assert all(set(labels) <= {"food", "money", "sport"} for labels in found)
    assert any(len(labels) > 1 for labels in found)


def test_another_column_and_encoding(project, tamiz):
    (project / "new.csv").write_bytes("body;x\nbread soup café;1\n".encode("cp1252"))
    asked = ("predict", "-i", "new.csv", "-o", "answers.jsonl", "--text-column", "body", "--encoding", "cp1252")
    assert tamiz(*asked).code == 0
    (found,) = [json.loads(line) for line in (project / "answers.jsonl").read_text().splitlines()]
    assert (found["body"], found["predicted_label"]) == ("bread soup café", "food")


@pytest.mark.parametrize("output", ["answers.csv", "answers.jsonl", "answers.parquet"])
def test_a_broken_input_leaves_no_output(project, refused, output):
    lines = [json.dumps({"text": FOOD})] * 60_000 + ['{"text": ']
    (project / "new.jsonl").write_text("\n".join(lines))
    before = sorted(project.iterdir())
    assert "new.jsonl" in refused(1, "predict", "-i", "new.jsonl", "-o", output)
    assert sorted(project.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("text", "--input", "texts.csv"), 2, "give texts or --input, not both"),
        (("text", "--output", "x.csv"), 2, "--output goes with --input"),
        (("text", "--text-column", "plot"), 2, "--text-column goes with --input"),
        (("--requests", "in.jsonl", "--encoding", "utf-8"), 2, "--encoding goes with --input"),
        (("-i", "texts.csv", "-o", "x.doc"), 2, "unknown ending '.doc'"),
        (("-i", "texts.csv", "-o", "nosuch/x.csv"), 1, "error nosuch: there is no such folder"),
        (("--requests", "requests.jsonl", "-o", "nosuch/x.jsonl"), 1, "error nosuch: there is no such folder"),
        (("-i", "nosuch.csv", "-o", "x.csv"), 1, "nosuch.csv"),
        (("-i", "texts.csv", "-o", "x.csv", "--text-column", "txet"), 1, "did you mean 'text'?"),
        (("-i", "texts.csv", "-o", "x.csv", "--encoding", "utf-99"), 2, "'utf-99' is not a text encoding"),
        (("text", "--model", "models/topcis"), 1, "did you mean 'topics'?"),
        (("text", "--model", "models/topics@9"), 1, "no version '9'"),
        (("text", "--project", "nosuch"), 2, "say which model with --model"),
    ],
)
def test_what_cannot_be_answered_is_refused(project, refused, arguments, code, said):
    before = sorted(project.iterdir())
    assert said in refused(code, "predict", *arguments)
    assert sorted(project.iterdir()) == before


def test_no_project_and_no_model(place, refused):
    assert "say which model with --model" in refused(2, "predict", "text")


def test_a_project_that_was_not_run_has_no_champion(place, refused):
    from tests.projects import write_project

    write_project(place)
    assert "no model 'topics'" in refused(1, "predict", "text")


# --- explain


def test_the_help_names_options_of_this_command_alone(tamiz):
    said = tamiz("explain", "--help").out
    assert "--labels" in said
    assert not [option for option in ("--adapt", "--prior", "--input", "--requests") if option in said]


def test_an_explanation_shows_the_words(project, tamiz):
    answer = tamiz("explain", "Fresh BREAD &amp; soup, no loan")
    assert answer.code == 0
    head, text, *parts = answer.out.splitlines()
    assert head.startswith("food: score ")
    assert text == "Fresh BREAD &amp; soup, no loan"
    assert any(part.split() == [part.split()[0], "BREAD"] and part.split()[0].startswith("+") for part in parts)


def test_an_explanation_as_json_adds_up(project, tamiz):
    text = "<b>BREAD</b> and soup"
    found = tamiz("explain", text, "--json", "--label", "money").json
    assert found["label"] == "money"
    assert found["base"] + sum(c["value"] for c in found["contributions"]) == pytest.approx(found["score"])
    assert all(text[c["start"] : c["end"]] == c["text"] for c in found["contributions"])
    assert "BREAD" in [c["text"] for c in found["contributions"]]


def test_an_unknown_label_is_refused(project, refused):
    assert "did you mean 'money'?" in refused(2, "explain", "bread", "--label", "mony")

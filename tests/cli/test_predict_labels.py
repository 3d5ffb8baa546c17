"""`tamiz predict` with labels that nothing was trained for."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tamiz.encoders import catalogue, known
from tests.projects import write_csv

for module in ("onnx", "onnxruntime", "tokenizers", "safetensors"):
    pytest.importorskip(module)

TEXTS = ["the goal of the team", "bread and butter, very good"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder without a project, and a cache of its own."""
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    from tests.tiny_bert import tiny_bert

    return str(tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny"))


def ask(encoder, *more):
    return ("predict", "--model", encoder, "--labels", "sport, food", *more)


def test_texts(tamiz, encoder):
    answer = tamiz(*ask(encoder, *TEXTS))
    assert (answer.code, answer.err) == (0, "")
    assert [line.split()[0] in ("sport", "food") for line in answer.out.splitlines()] == [True, True]
    first, second = tamiz(*ask(encoder, "--json", *TEXTS)).json
    assert first["sequence"] == TEXTS[0]
    assert set(second["labels"]) == {"sport", "food"}
    assert abs(sum(second["scores"]) - 1) < 1e-9


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_a_pretrained_model_without_labels_says_that_they_are_missing(tamiz, encoder, command):
    for ref in ("minilm", encoder):
        answer = tamiz(command, "--model", ref, TEXTS[0])
        assert (answer.code, answer.out) == (2, "")
        assert "has no labels of its own; give it some, such as --labels a,b,c" in answer.err


def test_the_words_that_made_the_score_of_a_label_are_shown(tamiz, encoder):
    asked = ("explain", "--model", encoder, "--labels", "sport, food", "--label", "food", TEXTS[1])
    found = tamiz(*asked, "--json").json
    assert found["label"] == "food"
    words = [TEXTS[1][part["start"] : part["end"]] for part in found["contributions"]]
    assert words == TEXTS[1].replace(",", " ,").split()
    others = tamiz(*asked, "--describe", "sport=oil and butter", "--json").json
    assert others["score"] != found["score"]
    assert tamiz(*asked).out.startswith("food: score")


def test_an_explanation_without_a_word_says_so(tamiz, encoder):
    asked = ("explain", "--model", encoder, "--labels", "sport,food")
    assert "more --budget-ms may find some" in tamiz(*asked, "--budget-ms", "0", TEXTS[1]).err
    assert tamiz(*asked, TEXTS[1]).err == ""


def test_wrong_use_of_an_explanation(refused, encoder):
    assert "--template goes with --labels" in refused(2, "explain", "--model", encoder, "--template", "{}", "x")
    asked = ("explain", "--model", encoder, "--labels", "sport,food")
    assert "--project does not go with --labels" in refused(2, *asked, "-p", "other.yaml", "x")
    said = refused(2, *asked, "--label", "fod", "x")
    assert "did you mean 'food'" in said


def test_options_change_the_answer(tamiz, encoder):
    def scores(*more):
        (found,) = tamiz(*ask(encoder, "--json", *more, TEXTS[0])).json
        return found["labels"], found["scores"]

    plain = scores()
    for more in (
        ["--multi-label"],
        ["--template", "a {}"],
        ["--language", "es"],
        ["--describe", "food=bread and soup"],
    ):
        assert scores(*more) != plain
    assert scores("--template", "This text is about {}.") == plain
    assert scores("--describe", "food=food") == plain


@pytest.mark.parametrize(("languages", "said"), [(["en"], False), (["es"], True), (["en", "es"], True)])
def test_labels_in_a_language_that_the_model_does_not_know_are_answered_with_a_note(
    tamiz, encoder, languages, said, monkeypatch
):
    folder = Path(encoder)
    parts = tuple(
        catalogue.Part(f"tinyenc/model/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest(), 0)
        for path in (folder / name for name in ("config.json", "tokenizer.json", "model.safetensors"))
    )
    tiny = replace(catalogue.CATALOGUE["minilm"], name="tiny", parts=parts)
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", tiny)
    monkeypatch.setattr(known, "_installed", lambda _: [folder / part.name for part in parts])
    Path("tiny").mkdir()  # a folder of that name is no reason to look elsewhere
    asked = [word for language in languages for word in ("--language", language)]
    answer = tamiz(*ask("tiny", *asked, "el pan"))
    assert (answer.code, answer.err != "") == (0, said)
    if said:
        assert "note  tiny was not trained on" in answer.err
        assert "--model e5-small" in answer.err
        assert "--model minilm" not in answer.err


def test_a_folder_above_the_models_says_which_one_is_meant(refused, encoder):
    above = Path(encoder).parent
    assert f"Did you mean {encoder}?" in "".join(refused(1, *ask(above, "x")).splitlines())


def test_lines_of_standard_input(tamiz, encoder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(TEXTS).encode()), encoding="utf-8"))
    lines = [json.loads(line) for line in tamiz(*ask(encoder)).out.splitlines()]
    assert [line["sequence"] for line in lines] == TEXTS
    assert lines == tamiz(*ask(encoder, "--json", *TEXTS)).json


def test_a_file(tamiz, encoder, place):
    write_csv(place / "in.csv", [{"id": str(n), "text": f"{TEXTS[n % 2]} {n}"} for n in range(30)])
    assert tamiz(*ask(encoder, "--input", "in.csv", "--output", "out.csv")).code == 0
    with (place / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "text", "predicted_label", "predicted_probability", "p_sport", "p_food"]
    assert tamiz(*ask(encoder, "--input", "in.csv", "--output", "even.csv", "--prior")).code == 0
    with (place / "even.csv").open(newline="", encoding="utf-8") as file:
        even = list(csv.DictReader(file))

    def share(table):
        return abs(sum(float(row["p_food"]) for row in table) / 30 - 0.5)

    assert share(even) < share(rows)
    assert tamiz(*ask(encoder, "--input", "in.csv", "--output", "moved.csv", "--adapt")).code == 0
    assert (place / "moved.csv").read_bytes() not in {(place / f"{name}.csv").read_bytes() for name in ("out", "even")}


def test_the_prior_is_that_of_the_whole_file(tamiz, encoder, place):
    """The file goes by topic, and its beginning has one alone."""
    write_csv(
        place / "in.csv", [{"text": f"{'bread' if n < 5000 else 'bank loan credit'} {n % 90}"} for n in range(10_000)]
    )
    more = ("--prior", "--share", "food=0.5", "--share", "sport=0.5")
    assert tamiz(*ask(encoder, "--input", "in.csv", "--output", "out.csv", *more)).code == 0
    with (place / "out.csv").open(newline="", encoding="utf-8") as file:
        found = [float(row["p_food"]) for row in csv.DictReader(file)]
    assert abs(sum(found[:5000]) / 5000 - 0.5) > 0.03
    assert abs(sum(found) / 10_000 - 0.5) < 0.015


def test_requests_with_labels_of_their_own(tamiz, encoder, place):
    lines = [
        {"inputs": TEXTS[0], "parameters": {"candidate_labels": ["sport", "food"]}},
        {"inputs": TEXTS[1]},
    ]
    (place / "in.jsonl").write_text("\n".join([*map(json.dumps, lines), "{"]), encoding="utf-8")
    answer = tamiz("predict", "--model", encoder, "--requests", "in.jsonl", "--output", "out.jsonl", "--json")
    assert answer.json == {"lines": 3, "failed": 2, "output": "out.jsonl"}
    asked, without, bad = map(json.loads, (place / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert asked == tamiz(*ask(encoder, "--json", TEXTS[0])).json[0]
    assert "labels: none is given" in without["error"]
    assert bad["line"] == 3
    out = tamiz("predict", "--model", encoder, "--requests", "in.jsonl", "--labels", "sport,food").out
    piped = subprocess.run(
        [sys.executable, "-m", "tamiz", "predict", "--model", encoder, "--requests", "-", "--labels", "sport,food"],
        input=(place / "in.jsonl").read_bytes(),
        capture_output=True,
        check=True,
    )
    assert piped.stdout.decode() == out
    assert [json.loads(line).get("line") for line in out.splitlines()] == [None, None, 3]
    assert "3 lines answered, 1 of them with an error" in piped.stderr.decode()


def test_requests_none_of_which_can_be_answered_are_a_failure(tamiz, encoder, place):
    (place / "in.jsonl").write_text("{\n[]", encoding="utf-8")
    answer = tamiz("predict", "--model", encoder, "--requests", "in.jsonl")
    assert answer.code == 1
    assert [json.loads(line)["line"] for line in answer.out.splitlines()] == [1, 2]
    (place / "in.jsonl").write_text("", encoding="utf-8")
    assert tamiz("predict", "--model", encoder, "--requests", "in.jsonl").code == 0


def test_a_package_answers_for_other_labels(tamiz, encoder, place):
    from tamiz.prompting import prompted_model

    prompted_model(("oven", "ball"), model=encoder, num_threads=1).save(place / "package")
    given = ["--model", "package", "--labels", "sport,food"]
    found = tamiz("predict", *given, "--json", TEXTS[0]).json
    assert found[0]["labels"] == tamiz(*ask(encoder, "--json", TEXTS[0])).json[0]["labels"]
    (place / "in.jsonl").write_text(json.dumps({"inputs": TEXTS[0]}), encoding="utf-8")
    out = tamiz("predict", "--model", "package", "--requests", "in.jsonl").out
    assert set(json.loads(out)["labels"]) == {"oven", "ball"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--labels", "a,a", "x"], "stands twice"),
        (["--labels", " , ", "x"], "--labels: none is given; give one or more, such as --labels sport,politics"),
        (["--labels", "a,b", "--template", "none", "x"], "{}"),
        (["--labels", "a,b", "--language", "de", "x"], "language"),
        (["--labels", "a,b", "--describe", "a", "x"], "LABEL=WORDS"),
        (["--labels", "a,b", "--describe", "c=d", "x"], "is no label"),
        (["--labels", "a,b", "--prior", "x"], "--prior goes with --input"),
        (["--labels", "a,b", "--share", "a=0.3", "x"], "--share goes with --prior"),
        (["--labels", "a,b", "--prior", "--share", "a", "--input", "in.csv"], "--share: LABEL=NUMBER is expected"),
        (["--describe", "a=b", "--requests", "in.jsonl"], "--describe goes with --labels"),
        (["--labels", "a,b", "--adapt", "x"], "--adapt goes with --input"),
        (["--labels", "a", "--adapt", "--input", "in.csv"], "--adapt needs two labels"),
        (["--labels", "a,b", "--adapt", "--requests", "in.jsonl"], "--adapt goes with --input"),
        (["--adapt", "--requests", "in.jsonl"], "--adapt goes with --labels and --input"),
        (["--multi-label", "x"], "--multi-label goes with --labels"),
        (["--labels", "a,b", "-p", "other.yaml", "x"], "--project does not go with --labels"),
        (["--labels", "a,b", "--requests", "in.jsonl", "x"], "without texts"),
    ],
)
def test_wrong_use(refused, encoder, more, said):
    assert said in refused(2, "predict", "--model", encoder, *more)


def test_a_model_with_fixed_labels_says_so(refused, place):
    from tests.models import linear_model

    linear_model().save(place / "fixed")
    assert "labels are fixed" in refused(2, "predict", "--model", "fixed", "--labels", "a,b", "x")


def test_an_unknown_model_is_refused(refused):
    said = refused(1, "predict", "--model", "minlm", "--labels", "a,b", "x")
    assert "no model 'minlm'" in said
    assert "did you mean 'minilm'" in said


def test_a_package_of_a_pretrained_model_needs_no_data_and_takes_other_labels(tamiz, encoder, place):
    made = tamiz("models", "package", encoder, "--labels", "sport, food", "--output", "made")
    assert (made.code, made.out) == (0, "model 'zero-shot' in made\n"), made.err
    assert "tamiz serve --package made" in made.err
    want = tamiz(*ask(encoder, "--json", *TEXTS)).json
    found = tamiz("predict", "--model", "made", "--json", *TEXTS).json
    assert [one["probabilities"] for one in found] == [
        pytest.approx(dict(zip(one["labels"], one["scores"], strict=True))) for one in want
    ]
    others = tamiz("predict", "--model", "made", "--labels", "money,war", "--json", TEXTS[0]).json
    assert set(others[0]["labels"]) == {"money", "war"}
    again = tamiz("models", "package", encoder, "--labels", "a,b", "--output", "made")
    assert (again.code, again.out) == (2, "")
    assert "made exists already" in again.err
    assert "--labels is needed" in tamiz("models", "package", encoder, "--output", "other").err

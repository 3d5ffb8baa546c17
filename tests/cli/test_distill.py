"""`tamiz distill`: texts in, a student's package and its figures out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tamiz.classifiers.checks import examples
from tamiz.model import Model
from tamiz.prompting import prompted_model
from tamiz.types import Task
from tests.projects import write_csv

for module in ("onnx", "onnxruntime", "tokenizers", "safetensors"):
    pytest.importorskip(module)

LABELS = "food,money,sport"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    texts, targets, labels = examples(Task.MULTI_CLASS, n=150, seed=4)
    rows = [{"body": text, "topic": labels[target]} for text, target in zip(texts, targets, strict=True)]
    write_csv(tmp_path / "texts.csv", [{"body": row["body"]} for row in rows[:90]])
    write_csv(tmp_path / "sample.csv", rows[90:])
    return tmp_path


@pytest.fixture
def given(place):
    from tests.tiny_bert import tiny_bert

    encoder = tiny_bert(place / "encoder")
    return ["--model", encoder, "--input", "texts.csv", "--text-column", "body", "--output", "student"]


def test_a_student_and_what_it_is_worth(tamiz, given, place):
    more = ["--labels", LABELS, "--prior", "--sample", "sample.csv", "--label-column", "topic"]
    found = tamiz("distill", *given, *more, "--json").json
    assert (found["texts"], found["held_out"], found["sample"]) == (72, 18, 60)
    assert set(found["quality"]["student"]) >= {"accuracy", "f1_macro"}
    student = Model.load(place / "student")
    assert student.labels == ("food", "money", "sport")
    assert student.manifest.facts["distilled"]["agreement"] == found["agreement"]
    card = (place / "student" / "model.md").read_text(encoding="utf-8")
    accuracy = {who: found["quality"][who]["accuracy"]["value"] for who in ("student", "teacher")}
    assert f"answers to 72 texts; the same answer as its teacher's to {found['agreement']:.1%} of 18 others" in card
    assert f"accuracy {accuracy['student']:.3f}, its teacher {accuracy['teacher']:.3f}" in card
    answer = tamiz("predict", "--model", "student", "bread and soup")
    assert answer.code == 0


def test_people_get_a_table(tamiz, given):
    answer = tamiz("distill", *given, "--labels", "food,money", "--prior", "--adapt")
    assert answer.code == 0, answer.err
    assert "texts/s" in answer.out
    assert "held out" in answer.out
    assert "tamiz predict --model student" in answer.err


@pytest.mark.parametrize(("agreement", "said"), [(0.79, True), (0.8, False)])
def test_a_student_that_differs_much_is_told_of(tamiz, given, monkeypatch, agreement, said):
    from tamiz.pipeline import distill as pipeline

    real = pipeline.distill

    def distilled(*args, **kwargs):
        done = real(*args, **kwargs)
        return done._replace(report=replace(done.report, agreement=agreement))

    monkeypatch.setattr(pipeline, "distill", distilled)
    answer = tamiz("distill", *given, "--labels", "food,money", "--prior")
    assert answer.code == 0
    assert ("more texts help, and so may --family few_shot" in " ".join(answer.err.split())) == said


def test_several_labels(tamiz, given, place):
    topics = {"bread goal": "food, sport", "bank": "money", "rain": "[]", "snow": "-", "unlabelled": ""}
    write_csv(place / "sample.csv", [{"body": text, "topic": topic} for text, topic in topics.items()])
    texts = examples(Task.MULTI_CLASS, n=90)[0]
    about = {"multi_label": True, "texts": texts, "temperature": 0.001, "num_threads": 1}
    about |= {"prior": "unlabelled", "prior_strength": 1}
    prompted_model(LABELS.split(","), model=str(given[1]), **about).save(place / "teacher")
    more = ["--labels", LABELS, "--multi-label", "--sample", "sample.csv", "--label-column", "topic"]
    found = tamiz("distill", "--model", "teacher", *given[2:], *more, "--json").json
    assert found["sample"] == 4
    assert Model.load(place / "student").task is Task.MULTI_LABEL


@pytest.mark.parametrize(
    ("code", "more", "said"),
    [
        (2, [], "--labels is needed"),
        (2, ["--labels", "a"], "--labels: two or more are needed"),
        (2, ["--labels", "a", "--multi-label"], "--labels: two or more are needed"),
        (1, ["--labels", "a,b", "--sample", "sample.csv", "--label-column", "topic"], "unknown label"),
        (
            1,
            ["--labels", LABELS, "--sample", "sample.csv"],
            "no column 'label'; allowed: body, topic. Name it with --label-column",
        ),
        (2, ["--labels", LABELS, "--family", "liner"], "did you mean 'linear'"),
    ],
)
def test_wrong_use(refused, given, code, more, said):
    assert said in refused(code, "distill", *given, *more)


def test_nothing_is_overwritten(refused, given, place):
    (place / "student").mkdir()
    assert "exists already" in refused(2, "distill", *given, "--labels", LABELS)

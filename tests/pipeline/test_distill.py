"""A student of a zero-shot teacher: an ordinary package, with figures that are true."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tamiz.classifiers.checks import examples
from tamiz.encoders.runtime import OnnxModel
from tamiz.errors import ConfigError, LabelError, MissingExtraError
from tamiz.model import Model
from tamiz.pipeline.distill import Sample, _copies, distill
from tamiz.prompting import prompted_model
from tamiz.types import Task
from tests.models import linear_model

for module in ("onnx", "onnxruntime", "tokenizers", "safetensors"):
    pytest.importorskip(module)


@pytest.fixture(scope="module")
def zero_shot(tmp_path_factory):
    """Return a zero-shot teacher of a task, its prior settled on texts of three topics."""
    from tests.tiny_bert import tiny_bert

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAMIZ_CACHE", str(tmp_path_factory.mktemp("cache")))
        encoder = str(tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny"))

        def teacher(multi_label=False) -> Model:
            about = {
                "texts": examples(Task.MULTI_CLASS)[0],
                "prior": "unlabelled",
                "prior_strength": 1,
                "num_threads": 1,
            }
            about["temperature"] = 0.001  # a random encoder finds all texts much alike
            return prompted_model(("food", "money", "sport"), model=encoder, multi_label=multi_label, **about)

        yield teacher


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_zero_shot_teacher_makes_an_ordinary_package(zero_shot, tmp_path, multi_label):
    teacher = zero_shot(multi_label)
    texts, *_ = examples(Task.MULTI_CLASS, n=300, seed=5)
    student, report = distill(teacher, texts, name="small")
    student.save(tmp_path / "student")
    loaded = Model.load(tmp_path / "student")
    assert loaded.labels == teacher.labels
    assert loaded.task is teacher.task
    assert loaded.manifest.family == "linear"
    assert loaded.manifest.facts["distilled"]["agreement"] == report.agreement
    np.testing.assert_array_equal(loaded.predict_proba(texts), student.predict_proba(texts))
    assert (report.texts, report.held_out) == (240, 60)
    assert report.speed["student"]["size_mb"] > 0
    assert report.quality == {}


def test_a_text_is_read_once_but_where_the_teachers_speed_is_measured(zero_shot, monkeypatch):
    teacher = zero_shot()
    texts, *_ = examples(Task.MULTI_CLASS, n=300, seed=6)
    first = distill(teacher, texts)
    read, answer = [0], OnnxModel._answer

    def counting(self, feed):
        read[0] += len(feed["input_ids"])
        return answer(self, feed)

    monkeypatch.setattr(OnnxModel, "_answer", counting)
    again = distill(teacher, texts)
    held_out, others = again.report.held_out, 10
    assert 2 * held_out <= read[0] <= 2 * held_out + others  # one by one, and all together
    np.testing.assert_array_equal(again.student.predict_proba(texts), first.student.predict_proba(texts))


def test_the_student_of_a_good_teacher_is_good():
    teacher = linear_model(Task.MULTI_CLASS)
    texts, *_ = examples(Task.MULTI_CLASS, n=300, seed=5)
    labelled = Sample(*examples(Task.MULTI_CLASS, n=90, seed=6)[:2])
    student, report = distill(teacher, [*texts, *labelled.texts], sample=labelled)
    assert report.agreement > 0.95
    assert report.sample == 90
    assert report.texts + report.held_out == 300  # what is measured by is not learnt from
    for who, model in (("teacher", teacher), ("student", student)):
        right = (model.predict_proba(labelled.texts).argmax(1) == labelled.targets).mean()
        assert report.quality[who]["accuracy"]["value"] == pytest.approx(right)
    assert report.quality["student"]["accuracy"]["value"] > 0.95


def test_agreement_is_measured_on_texts_held_out():
    """Random words cannot be generalised: the student agrees with what it learnt and by chance with the rest."""
    teacher = linear_model(Task.BINARY)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["bread", "bank", f"w{n}", f"v{n}", f"u{n}"], 5)) for n in range(200)]
    student, report = distill(teacher, texts)
    everything = (student.predict_proba(texts).argmax(1) == teacher.predict_proba(texts).argmax(1)).mean()
    assert report.agreement <= everything
    assert report.held_out == len(dict.fromkeys(texts)) // 5


def test_sure_answers_weigh_more():
    p = np.array([[0.5 + n / 20, 0.5 - n / 20] for n in range(8)] + [[0.1, 0.9]])
    copies = _copies(p, p.argmax(1), Task.MULTI_CLASS)
    assert copies.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 1]
    several = _copies(
        np.array([[0.5, 0.5], [0.9, 0.1], [0.6, 0.1], [1.0, 0.0]]), np.zeros((4, 2), bool), Task.MULTI_LABEL
    )
    assert several.tolist() == [1, 3, 2, 4]


def test_repeated_and_blank_texts_are_left_out():
    texts, *_ = examples(Task.BINARY, n=100, seed=5)
    once = distill(linear_model(), texts).report
    again = distill(linear_model(), [*texts, *texts, "", "  ", *(f" {text.upper()}\r\n" for text in texts)]).report
    assert (again.texts, again.held_out) == (once.texts, once.held_out) == (80, 20)


def test_texts_of_the_sample_are_not_learnt_from_in_another_spelling():
    texts, targets, _ = examples(Task.BINARY, n=100, seed=5)
    labelled = Sample([f"{text.upper()} \r\n" for text in texts[:40]], targets[:40])
    report = distill(linear_model(), texts, sample=labelled).report
    assert report.texts + report.held_out == 60


def test_too_few_texts_are_refused():
    with pytest.raises(LabelError, match="20 different texts are too few"):
        distill(linear_model(), examples(Task.BINARY, n=20)[0] * 10)


def test_a_label_that_no_text_got_is_refused():
    texts = [f"bread soup cheese {n}" for n in range(60)]
    with pytest.raises(LabelError, match="none of the texts the label 'money'"):
        distill(linear_model(), texts)


def test_wrong_parameters_are_refused_before_the_teacher_is_asked():
    with pytest.raises(ConfigError, match="did you mean 'min_df'"):
        distill(linear_model(), [], params={"mindf": 3})


def test_a_student_that_cannot_be_fitted_here_is_refused_before_the_teacher_is_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MissingExtraError, match=r"tamiz\[train\]"):
        distill(linear_model(), [], family="boosting")

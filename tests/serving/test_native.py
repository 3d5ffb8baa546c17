from dataclasses import replace

import numpy as np
import pytest

from tamiz.decision.conformal import Conformal
from tamiz.types import Task
from tests.serving.helpers import LABELS, TEXTS, ask, make_model, predict, serve_model

URL = "/v1/models/demo"


def test_predict_answers_what_the_model_answers(shared_app):
    answer = predict(shared_app, TEXTS).json()
    expected = make_model().predict(TEXTS)
    assert (answer["model"], answer["version"], answer["labels"]) == ("demo", "1", list(LABELS))
    assert [one["label"] for one in answer["predictions"]] == ["card", "loan", "account"]
    for got, want in zip(answer["predictions"], expected, strict=True):
        assert list(got["probabilities"]) == list(LABELS)
        np.testing.assert_allclose(list(got["probabilities"].values()), want.probabilities, atol=1e-12)
        assert got["probability"] == pytest.approx(want.probability)


def test_a_batch_answers_like_its_texts_alone(shared_app):
    together = predict(shared_app, TEXTS).json()["predictions"]
    alone = [predict(shared_app, [text]).json()["predictions"][0] for text in TEXTS]
    assert together == alone


def test_no_texts_give_no_predictions(shared_app):
    assert predict(shared_app, []).json()["predictions"] == []


def test_get_takes_the_text_from_the_query(shared_app):
    got = ask(shared_app, "GET", f"{URL}/predict", params={"text": TEXTS[1]})
    assert got.json() == predict(shared_app, [TEXTS[1]]).json()


def test_get_without_text_names_the_parameter(shared_app):
    got = ask(shared_app, "GET", f"{URL}/predict")
    assert got.status_code == 422
    assert got.json()["errors"][0]["location"] == "query.text"


def test_multi_label_answers_parallel_lists(tmp_path):
    app = serve_model(tmp_path, make_model(task=Task.MULTI_LABEL))
    known, unknown = predict(app, ["my card charge chip card", "zzz"]).json()["predictions"]
    assert known["label"] == ["card"]
    assert known["probability"] == [known["probabilities"]["card"]]
    assert unknown["label"] == unknown["probability"] == []


def test_abstention_answers_null(tmp_path):
    app = serve_model(tmp_path, make_model("prior", abstain_below=0.9))
    (one,) = predict(app, ["anything"]).json()["predictions"]
    assert one["label"] is None
    assert one["probability"] is None
    assert sum(one["probabilities"].values()) == pytest.approx(1)


def test_a_conformal_rule_answers_the_labels_that_may_be_true(tmp_path):
    model = make_model()
    model = replace(model, rule=replace(model.rule, conformal=Conformal(0.9, (0.6,), abstain=False)))
    app = serve_model(tmp_path, model)
    for one in predict(app, TEXTS).json()["predictions"]:
        assert one["prediction_set"] == [label for label, p in one["probabilities"].items() if p >= 0.4]


def test_long_batches_are_answered_in_a_thread_with_the_same_numbers(tmp_path):
    app = serve_model(tmp_path)
    texts = [TEXTS[0] + " word" * 2000] * 10
    got = predict(app, texts).json()["predictions"]
    np.testing.assert_allclose(
        [list(one["probabilities"].values()) for one in got], make_model().predict_proba(texts), atol=1e-12
    )


def test_explain_sums_to_the_score_and_quotes_the_text(shared_app):
    text = "My <b>card</b> was charged"
    got = ask(shared_app, "POST", f"{URL}/explain", json={"text": text}).json()
    assert got["label"] == "card"
    assert got["base"] + sum(one["value"] for one in got["contributions"]) == pytest.approx(got["score"])
    assert got["contributions"]
    assert all(one["text"] == text[one["start"] : one["end"]] for one in got["contributions"])


def test_explain_takes_a_label(shared_app):
    got = ask(shared_app, "POST", f"{URL}/explain", json={"text": TEXTS[0], "label": "loan"})
    assert got.json()["label"] == "loan"


def test_explain_refuses_an_unknown_label_with_the_known_ones(shared_app):
    got = ask(shared_app, "POST", f"{URL}/explain", json={"text": "x", "label": "laon"})
    assert got.status_code == 422
    assert "'loan'" in got.json()["errors"][0]["message"]


def test_models_are_listed_with_versions_and_aliases(shared_app):
    (one,) = ask(shared_app, "GET", "/v1/models").json()["models"]
    assert one == {
        "name": "demo",
        "version": "1",
        "task": "multi-class",
        "labels": list(LABELS),
        "aliases": {"champion": "1"},
        "versions": ["1"],
    }
    assert ask(shared_app, "GET", URL).json() == one


@pytest.mark.parametrize("path", ["/v1/models/other", "/v1/models/other/predict?text=x", "/v1/models/.."])
def test_other_models_are_not_found(shared_app, path):
    assert ask(shared_app, "GET", path).status_code == 404

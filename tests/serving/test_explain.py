"""Explanations over HTTP: of every family, by spans of the text that was sent, within a time."""

import pytest

from tamiz.config import ServeConfig
from tamiz.types import Task
from tests.models import model_of
from tests.serving.helpers import ask, serve_model

URL = "/v1/models/topics/explain"
TEXT = "<p>Fresh&nbsp;<b>BREAD</b> &amp; Cheese</p>, no LOAN \U0001f600"
FAMILIES = {
    "linear": {},
    "nb_stack": {},
    "prior": {},
    "boosting": {"rounds": 10, "num_threads": 1},
    "ensemble": {},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_explains(tmp_path, family):
    app = serve_model(tmp_path, model_of(family, Task.MULTI_CLASS, **FAMILIES[family]))
    got = ask(app, "POST", URL, json={"text": TEXT, "label": "food"})
    assert got.status_code == 200
    found = got.json()
    parts = found["contributions"]
    assert found["base"] + sum(part["value"] for part in parts) == pytest.approx(found["score"], abs=1e-9)
    assert all(part["text"] == TEXT[part["start"] : part["end"]] for part in parts)
    assert not any("<" in part["text"] for part in parts)
    if family != "prior":
        assert {part["text"]: part["value"] for part in parts}["BREAD"] > 0


def test_time_is_limited_by_a_setting(tmp_path):
    app = serve_model(tmp_path, model_of("ensemble", Task.MULTI_CLASS), limits=ServeConfig(explain_budget_ms=0))
    found = ask(app, "POST", URL, json={"text": TEXT}).json()
    assert found["contributions"] == []
    assert found["base"] == found["score"]

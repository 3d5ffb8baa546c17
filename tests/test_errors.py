"""What people are told of wrong values: Tamiz' own words, without the validating library's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from tamiz.classifiers import check_params
from tamiz.config import parse_project
from tamiz.errors import ConfigError
from tamiz.serving.problems import explain_validation
from tamiz.serving.schemas import FeedbackBody
from tests.projects import raw_project

SOURCES = Path(__file__).parents[1] / "src" / "tamiz"
TEMPLATE = "it has no {}, where the label goes"


@pytest.mark.parametrize(
    ("family", "params", "said"),
    [
        ("zero_shot", {"templates": ["about it"]}, rf"^zero_shot: templates: got .*; template: {TEMPLATE}"),
        ("linear", {"words": [2, 1]}, r"^linear: n-gram lengths go from shortest to longest$"),
        ("linear", {"words": None, "characters": None}, r"^linear: words and characters are both null; "),
        ("ensemble", {"weights": [1]}, r"^ensemble: 1 weights for 2 members; give one for each$"),
        (
            "ensemble",
            {"members": [{"family": "linear"}, {"family": "zero_shot", "params": {"templates": ["about it"]}}]},
            rf"^ensemble: members: got .*; zero_shot: templates: got .*; template: {TEMPLATE}",
        ),
        ("linear", {"C": -1}, r"^linear: C: got -1; Input should be greater than 0$"),
    ],
)
def test_wrong_parameters_are_said_in_plain_words(family, params, said):
    with pytest.raises(ConfigError, match=said) as caught:
        check_params(family, params)
    assert "Value error" not in str(caught.value)


@pytest.mark.parametrize(
    "section",
    [{"split": {"validation": 0.6, "test": 0.6}}, {"clean": ["nosuch"]}, {"tune": {"space": {"C": {"low": 1}}}}],
)
def test_a_wrong_project_is_said_in_plain_words(section):
    with pytest.raises(ConfigError) as caught:
        parse_project(raw_project(**section))
    assert "Value error" not in str(caught.value)


def test_a_wrong_request_is_said_in_plain_words():
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(FeedbackBody).validate_python({"label": "food"})
    said = explain_validation(caught.value)
    assert str(said) == "One field is missing or wrong: body: exactly one of request_id and sha256 is needed"
    assert said.errors[0].message == "exactly one of request_id and sha256 is needed"


def test_nothing_passes_on_the_library_s_words_as_they_are():
    found = {path.name for path in SOURCES.rglob("*.py") if re.search(r"""\[['"]msg['"]\]""", path.read_text("utf-8"))}
    assert found == {"errors.py", "problems.py"}  # in the latter of a body that is no JSON

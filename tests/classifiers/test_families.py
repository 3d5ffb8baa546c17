"""Every family keeps the contract."""

import pytest

from tamiz.classifiers import CLASSIFIERS, check_params, classifier_class, params_schema
from tamiz.classifiers.checks import CHECKS, _Case, check_classifier
from tamiz.errors import ConfigError, LabelError
from tamiz.types import Task

# Cheap settings for the checks, and settings that reach other branches of a family.
VARIANTS = {
    "linear": [
        {},
        {"characters": (2, 4), "nb_weighting": True},
        {"words": None, "characters": (3, 4), "tf": "count", "idf": False, "norm": False},
        {"tokens": "words_and_marks", "tf": "binary", "class_weight": "balanced", "max_features": 20},
    ],
    "boosting": [
        {"rounds": 20, "num_threads": 1},
        {"rounds": 5, "num_threads": 1, "characters": (2, 3), "class_weight": "balanced", "feature_share": 1},
    ],
    "ensemble": [
        {},
        {
            "members": [
                {"family": "linear", "prepare": [{"stem": "english"}]},
                {"family": "prior"},
                {"family": "nb_stack"},
            ],
            "weights": [3, 0, 1],
        },
    ],
    "nb_stack": [
        {},
        {"tf": "count", "scale": "joined", "alpha": 1, "stack": "probabilities", "stack_labels": "own", "C": 1},
        {"words": (1, 3), "count_features": 10, "tfidf_features": None, "surface": False, "complement_norm": True},
    ],
}
NEED_AN_ENCODER = {"few_shot", "transformer", "zero_shot"}  # these keep the contract in tests of their own
CASES = [
    pytest.param(family, params, task, id=f"{family}-{number}-{task}")
    for family in sorted(CLASSIFIERS.keys() - NEED_AN_ENCODER)
    for number, params in enumerate(VARIANTS.get(family, [{}]))
    for task in Task
]


@pytest.mark.parametrize(("family", "params", "task"), CASES)
def test_contract(family, params, task):
    cls = classifier_class(family)
    case = _Case(lambda labels, task, seed: cls(labels, task, seed=seed, **params), task)
    for check in CHECKS:
        check(case)


def test_the_public_runner_names_what_passed():
    cls = classifier_class("prior")
    passed = list(check_classifier(lambda labels, task, seed: cls(labels, task, seed=seed), [Task.BINARY]))
    assert len(passed) == len(CHECKS)
    assert "check_save_and_load[binary]" in passed


class Broken:
    """Breaks the contract: a row depends on the texts beside it."""

    def __init__(self, labels, task, seed=0):
        self.labels, self.task = tuple(labels), task

    def fit(self, texts, targets, *, validation=None, progress=None):
        return self

    def predict_proba(self, texts):
        import numpy as np

        p = np.full((len(texts), len(self.labels)), 1 / len(self.labels))
        if len(texts) > 1:
            p[:, 0] += 0.1
            p[:, 1] -= 0.1
        return p


def test_a_broken_family_is_found_out():
    with pytest.raises(AssertionError, match="beside"):
        list(check_classifier(Broken, [Task.MULTI_CLASS]))


class Rough(Broken):
    """Breaks it as much as it declares."""

    tolerance = 0.2


def test_a_family_may_declare_how_exactly_it_repeats():
    from tamiz.classifiers.checks import check_batch_equals_single

    check_batch_equals_single(_Case(Rough, Task.MULTI_CLASS))
    Rough.tolerance = 0.05
    with pytest.raises(AssertionError, match="beside"):
        check_batch_equals_single(_Case(Rough, Task.MULTI_CLASS))


def test_unknown_family_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'linear'"):
        classifier_class("liner")


def test_unknown_parameter_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'min_df'"):
        check_params("linear", {"mindf": 3})


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"C": 0}, "C"),
        ({"words": None}, "must be given"),
        ({"words": [3, 1]}, "shortest to longest"),
        ({"characters": [1, 3]}, "at least 2"),
    ],
)
def test_bad_parameters_are_refused(params, said):
    with pytest.raises(ConfigError, match=said):
        check_params("linear", params)


def test_parameters_have_a_schema_with_descriptions():
    for family in CLASSIFIERS:
        for about in params_schema(family)["properties"].values() if family != "prior" else ():
            assert about["description"]


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_labels_that_do_not_fit_the_task_are_refused(family):
    cls = classifier_class(family)
    with pytest.raises(ConfigError, match="cannot have"):
        cls(("a", "b", "c"), Task.BINARY)
    with pytest.raises(ConfigError, match="twice"):
        cls(("a", "a"), Task.MULTI_CLASS)


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_targets_of_the_wrong_shape_are_refused(family):
    import numpy as np

    cls = classifier_class(family)
    with pytest.raises(LabelError, match="shape"):
        cls(("a", "b"), Task.BINARY).fit(["x", "y"], np.zeros((2, 2), bool))
    with pytest.raises(LabelError, match="from 0 to 1"):
        cls(("a", "b"), Task.BINARY).fit(["x", "y"], np.array([0, 2]))
    with pytest.raises(LabelError, match="no example"):
        cls(("a", "b"), Task.BINARY).fit([], np.zeros(0, np.int64))

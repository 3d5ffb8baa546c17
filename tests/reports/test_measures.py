"""The numbers behind the charts, against values worked out by hand and by scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import (
    auc,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from tamiz.metrics import score
from tamiz.reports import measures
from tamiz.reports.measures import (
    Bin,
    Confusion,
    precision_recall_curves,
    reliability,
    roc_curves,
    threshold_curve,
    threshold_curves,
    top_confusions,
)
from tamiz.reports.sample import Sample
from tamiz.types import Task
from tests.reports.pages import sample_of


def binary(targets, positive, **about):
    p = np.array(positive)
    both = np.column_stack([1 - p, p])
    n = len(p)
    made = Sample(["a"] * n, ["r"] * n, np.array(targets), both, both, (p >= 0.5).astype(int), Task.BINARY, ("a", "b"))
    return replace(made, **about)


def test_reliability_by_hand():
    # Confidences .9, .9, .6, .6: of the first two both are right, of the others one.
    found = reliability(binary([1, 0, 1, 0], [0.9, 0.1, 0.6, 0.6]), bins=10)
    assert [(part.low, part.high, part.examples) for part in found.bins] == [(0.5, 0.6, 2), (0.8, 0.9, 2)]
    assert [(part.confidence, part.frequency) for part in found.bins] == [
        (pytest.approx(0.6), 0.5),
        (pytest.approx(0.9), 1.0),
    ]
    assert found.ece == pytest.approx((0.1 + 0.1) / 2)


def test_reliability_before_calibration_is_of_the_raw_probabilities():
    sure = np.array([[0.0, 1.0]] * 4)
    sample = binary([1, 1, 1, 0], [0.75] * 4, raw=sure)
    assert reliability(sample).ece == pytest.approx(0)
    assert reliability(sample, calibrated=False) == measures.Reliability((Bin(14 / 15, 1.0, 4, 1.0, 0.75),), 0.25)


@pytest.mark.parametrize("task", list(Task))
def test_the_error_is_that_of_the_table_of_figures(task):
    sample = sample_of(task)
    figures = score(sample.targets, sample.probabilities, sample.decided, task=task, labels=sample.labels)
    found = reliability(sample)
    assert found.ece == figures["ece"]
    assert sum(part.examples for part in found.bins) == (sample.targets.size if task is Task.MULTI_LABEL else 300)


def test_threshold_curve_by_hand():
    curve = threshold_curve("x", np.array([False, True, False, True]), np.array([0.1, 0.4, 0.4, 0.8]))
    assert curve.thresholds[[0, 40, 41, 80, 81]].tolist() == [0, 0.4, 0.41, 0.8, 0.81]
    assert curve.precision[[0, 40, 41, 80]].tolist() == [0.5, pytest.approx(2 / 3), 1, 1]
    assert np.isnan(curve.precision[81])
    assert curve.recall[[0, 40, 41, 80, 81]].tolist() == [1, 1, 0.5, 0.5, 0]
    assert curve.f1[[0, 40, 41, 81]].tolist() == pytest.approx([2 / 3, 0.8, 2 / 3, 0])


def test_threshold_curve_agrees_with_scikit_learn():
    sample = sample_of(Task.BINARY)
    (curve,) = threshold_curves(sample)
    assert curve.name == "label 1"
    for at in (0, 13, 50, 77):
        decided = sample.probabilities[:, 1] >= at / 100
        assert curve.precision[at] == pytest.approx(precision_score(sample.targets, decided))
        assert curve.recall[at] == pytest.approx(recall_score(sample.targets, decided))
        assert curve.f1[at] == pytest.approx(f1_score(sample.targets, decided))


def test_threshold_curves_are_of_what_has_thresholds():
    assert threshold_curves(sample_of(Task.MULTI_CLASS)) == []
    names = [curve.name for curve in threshold_curves(sample_of(Task.MULTI_LABEL))]
    assert names == ["all labels together", "label 0", "label 1", "label 2"]
    assert len(threshold_curves(sample_of(Task.MULTI_LABEL, 13))) == 1


def test_the_positive_label_may_be_the_first():
    sample = replace(sample_of(Task.BINARY), positive=0)
    (curve,) = threshold_curves(sample)
    assert curve.name == "label 0"
    assert roc_curves(sample)[0].area == pytest.approx(roc_auc_score(sample.targets == 0, sample.probabilities[:, 0]))


@pytest.mark.parametrize("task", [Task.MULTI_CLASS, Task.MULTI_LABEL])
def test_areas_agree_with_scikit_learn(task):
    sample = sample_of(task)
    outcomes, p = sample.outcomes, sample.probabilities
    for j, (roc, pr) in enumerate(zip(roc_curves(sample), precision_recall_curves(sample), strict=True)):
        assert roc.name == pr.name == sample.labels[j]
        assert roc.area == pytest.approx(roc_auc_score(outcomes[:, j], p[:, j]))
        assert pr.area == pytest.approx(average_precision_score(outcomes[:, j], p[:, j]))
        assert (np.diff(roc.x) >= 0).all()
        assert (np.diff(pr.x) >= 0).all()


def test_many_labels_share_two_curves(monkeypatch):
    sample = sample_of(Task.MULTI_LABEL, 40)
    micro, macro = roc_curves(sample)
    assert (micro.name, macro.name) == ("micro", "macro")
    assert macro.area == pytest.approx(roc_auc_score(sample.targets, sample.probabilities, average="macro"))
    assert len(micro.x) <= 200
    monkeypatch.setattr(measures, "_MOST_PAIRS", 4000)
    part, _ = roc_curves(sample)
    assert part.name == "micro (100 examples)"
    assert part.area == pytest.approx(micro.area, abs=0.05)


def test_the_macro_curve_is_the_mean_at_equal_false_positive_rate():
    sample = sample_of(Task.MULTI_LABEL, 13)
    _, macro = roc_curves(sample)
    rates = [roc_curve(sample.targets[:, j], sample.probabilities[:, j])[:2] for j in range(13)]
    for at in (0.1, 0.37, 0.8):
        wanted = np.mean([np.interp(at, false, true) for false, true in rates])
        assert np.interp(at, macro.x, macro.y) == pytest.approx(wanted)


def test_a_thinned_curve_keeps_both_ends_and_its_area():
    sample = sample_of(Task.MULTI_LABEL, 40)
    (micro, _), (precision, _) = roc_curves(sample), precision_recall_curves(sample)
    for curve in (micro, precision):
        assert (len(curve.x) <= 200, curve.x[0], curve.x[-1]) == (True, 0, 1)
    assert auc(micro.x, micro.y) == pytest.approx(micro.area, abs=1e-3)


def test_a_label_without_both_outcomes_has_no_curve():
    sample = binary([1, 1, 1], [0.2, 0.7, 0.9])
    assert roc_curves(sample) == precision_recall_curves(sample) == []


def test_confusions_by_hand():
    p = np.eye(3)[[0, 1, 1, 2, 2, 2]]
    decided = np.array([0, 1, 1, 2, -1, 2])
    targets = np.array([0, 0, 0, 1, 1, 2])
    sample = Sample(["a"] * 6, ["r"] * 6, targets, p, p, decided, Task.MULTI_CLASS, ("x", "y", "z"))
    assert top_confusions(sample) == [Confusion("x", "y", 2, 2 / 3), Confusion("y", "z", 1, 1 / 2)]
    assert top_confusions(sample, 1) == [Confusion("x", "y", 2, 2 / 3)]

"""Which version a metric chooses."""

from __future__ import annotations

import math

import pytest

from tamiz.errors import ConfigError, ModelNotFoundError
from tamiz.metrics.choice import best_version, mode_of

FIGURES = {
    "9": {"val_f1_macro": 0.8, "val_log_loss": 0.3, "eval_loss": 0.3},
    "10": {"val_f1_macro": 0.8, "val_log_loss": 0.4},
    "2": {"val_f1_macro": math.nan, "eval_loss": 0.2, "best_epoch": 3.0},
}


@pytest.mark.parametrize(
    ("metric", "mode", "version", "way"),
    [
        ("val_f1_macro", None, "10", "max"),
        ("val_f1_macro", "min", "10", "min"),
        ("val_log_loss", None, "9", "min"),
        ("val_log_loss", "max", "10", "max"),
        ("eval_loss", None, "2", "min"),
        ("best_epoch", None, "2", "max"),
    ],
)
def test_the_best_is_chosen_and_of_equal_ones_the_newest(metric, mode, version, way):
    best = best_version(FIGURES, metric, mode)
    assert (best.version, best.mode, best.value) == (version, way, FIGURES[version][metric])


def test_what_was_chosen_is_said():
    assert best_version(FIGURES, "val_log_loss").reason == "best by val_log_loss (lowest): 0.3, version 10 has 0.4"
    assert best_version(FIGURES, "best_epoch").reason == "best by best_epoch (highest): 3"


def test_only_guesses_are_not_known():
    assert best_version(FIGURES, "val_log_loss").known
    assert not best_version(FIGURES, "eval_loss").known
    assert best_version(FIGURES, "eval_loss", "min").known


@pytest.mark.parametrize(
    "metric", ["val_log_loss", "test_ece", "val_brier", "latency_p99_ms", "size_mb", "train_loss", "peak_memory_mb"]
)
def test_less_is_better(metric):
    assert mode_of(metric)[0] == "min"


@pytest.mark.parametrize("metric", ["best_val_f1", "texts_per_s", "val_roc_auc_macro", "glossary_hits", "precise"])
def test_more_is_better(metric):
    assert mode_of(metric)[0] == "max"


def test_what_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"is unknown; allowed: .*; did you mean 'eval_loss'"):
        best_version(FIGURES, "eval_lass")
    with pytest.raises(ModelNotFoundError, match="no version has the metric 'test_ece'; allowed: "):
        best_version(FIGURES, "test_ece")
    figures = {"1": {"val_f1_macro": 0.8, "val_f1_macro_low": 0.7, "val_f1_macro_high": 0.9}}
    with pytest.raises(ConfigError, match=r"allowed: val_f1_macro$"):  # bounds of intervals only make the list longer
        best_version(figures, "nonsense")
    with pytest.raises(ConfigError, match="allowed: none"):
        best_version({}, "eval_lass")

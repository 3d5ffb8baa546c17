"""How a candidate is chosen: by validation, inside limits, in a stable order."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from tamiz.config import SelectConfig
from tamiz.errors import ConfigError
from tamiz.pipeline.run import SilentListener
from tamiz.pipeline.select import check_select, leaderboard, no_gain, prefers_higher, select
from tamiz.pipeline.train import Trained
from tamiz.registry import MemoryRegistry
from tests.projects import make_project, run


def candidate(name: str, **metrics: float) -> Trained:
    return Trained(name, "linear", f"key-{name}", metrics, {}, f"run-{name}")


FAST = candidate("fast", val_f1_macro=0.80, val_log_loss=0.5, latency_p99_ms=1.0, texts_per_s=9000.0)
GOOD = candidate("good", val_f1_macro=0.90, val_log_loss=0.7, latency_p99_ms=8.0, texts_per_s=100.0)
ALIKE = candidate("alike", val_f1_macro=0.90, val_log_loss=0.3, latency_p99_ms=2.0, texts_per_s=500.0)
ALL = (FAST, GOOD, ALIKE)


def names(found) -> list[str]:
    return [c.candidate for c in found]


def test_the_best_is_first_and_ties_keep_the_order_of_the_file():
    assert names(leaderboard(ALL, SelectConfig())) == ["good", "alike", "fast"]
    assert names(leaderboard((ALIKE, GOOD, FAST), SelectConfig())) == ["alike", "good", "fast"]
    assert select(ALL, SelectConfig()).chosen is GOOD


@pytest.mark.parametrize(
    ("metric", "mode", "order"),
    [
        ("val_log_loss", None, ["alike", "fast", "good"]),
        ("val_log_loss", "max", ["good", "fast", "alike"]),
        ("val_f1_macro", "min", ["fast", "good", "alike"]),
        ("latency_p99_ms", None, ["fast", "alike", "good"]),
        ("texts_per_s", None, ["fast", "alike", "good"]),
    ],
)
def test_the_metric_knows_its_direction_unless_told(metric, mode, order):
    config = SelectConfig(metric=metric, mode=mode)
    assert names(leaderboard(ALL, config)) == order
    assert prefers_higher(config) == (order[0] == max(ALL, key=lambda c: c.metrics[metric]).candidate)


def test_a_candidate_without_the_metric_is_last():
    none = candidate("none", val_accuracy=1.0)
    for mode in ("max", "min"):
        assert names(leaderboard((none, *ALL), SelectConfig(mode=mode)))[-1] == "none"


def test_limits_keep_candidates_out_and_say_why():
    choice = select(ALL, SelectConfig(limits={"latency_p99_ms": 2.0, "texts_per_s": 200.0}))
    assert choice.chosen is ALIKE
    assert names(choice.ranking) == ["alike", "fast", "good"]
    assert choice.refused == {"good": "latency_p99_ms is 8, the limit is 2"}


def test_a_limit_is_the_least_of_what_is_better_when_more():
    choice = select(ALL, SelectConfig(limits={"val_f1_macro": 0.9}))
    assert choice.refused == {"fast": "val_f1_macro is 0.8, the limit is 0.9"}
    assert choice.chosen is GOOD


def test_a_limit_on_what_was_not_measured_is_not_kept():
    choice = select((*ALL, candidate("none", val_f1_macro=0.99)), SelectConfig(limits={"latency_p99_ms": 100}))
    assert choice.refused == {"none": "latency_p99_ms was not measured"}


def test_who_always_answers_has_a_coverage_of_one():
    sure = candidate("sure", val_accuracy=0.8)
    unsure = candidate("unsure", val_accuracy=0.7, val_coverage=0.75, val_selective_accuracy=0.9)
    assert select((sure, unsure), SelectConfig(metric="val_accuracy", limits={"val_coverage": 0.8})).refused == {
        "unsure": "val_coverage is 0.75, the limit is 0.8"
    }
    config = SelectConfig(metric="val_selective_accuracy", limits={"val_selective_accuracy": 0.85})
    assert (names(leaderboard((sure, unsure), config)), set(select((sure, unsure), config).refused)) == (
        ["unsure", "sure"],
        {"sure"},
    )


def test_no_candidate_inside_the_limits_is_an_error_that_names_all():
    with pytest.raises(ConfigError, match="no candidate keeps them") as caught:
        select(ALL, SelectConfig(limits={"latency_p99_ms": 0.5}))
    for name in ("fast", "good", "alike"):
        assert f"{name}: latency_p99_ms is " in str(caught.value)


def test_test_figures_may_not_choose():
    with pytest.raises(ConfigError, match=r"select\.metric: choosing by test figures"):
        check_select(SelectConfig(metric="test_f1_macro"))


def test_test_figures_may_not_limit_the_choice():
    with pytest.raises(ConfigError, match=r"select\.limits: choosing by test figures"):
        check_select(SelectConfig(limits={"test_f1_macro": 0.5}))


@pytest.mark.parametrize("config", [{"metric": "val_f1_marco"}, {"limits": {"val_f1_marco": 0.5}}])
def test_an_unknown_metric_gets_the_nearest(config):
    with pytest.raises(ConfigError, match="did you mean 'val_f1_macro'"):
        check_select(SelectConfig(**config))


def test_a_metric_that_nobody_has_lists_those_there_are():
    with pytest.raises(ConfigError, match=r"no candidate has 'val_subset_accuracy'; allowed: .*val_f1_macro"):
        leaderboard(ALL, SelectConfig(metric="val_subset_accuracy"))


def test_a_candidate_survives_its_record():
    trained = Trained("a", "linear", "k", {"val_ece": 0.1}, {"val_ece": (0.05, 0.2)}, "r")
    record = asdict(trained)
    record["intervals"] = {"val_ece": [0.05, 0.2]}  # as JSON gives it
    assert Trained.from_dict(record) == trained


# --- against the most frequent label

COUNTS = {"train": {"food": 10, "money": 70, "sport": 20}, "validation": {"food": 5, "money": 12, "sport": 3}}


def test_candidates_that_gain_nothing_are_called_so():
    poor, worse = candidate("poor", val_accuracy=0.6), candidate("worse", val_accuracy=0.41)
    said = no_gain((worse, poor), COUNTS)
    assert said is not None
    assert said.startswith(
        "no candidate is right more often on validation than always answering 'money': accuracy 0.600 of poor, "
        "0.600 without looking at the text"
    )
    assert "tamiz check" in said
    assert no_gain((worse, poor, candidate("better", val_accuracy=0.61)), COUNTS) is None


def test_what_is_not_comparable_is_not_judged():
    abstains = candidate("abstains", val_accuracy=0.3, val_selective_accuracy=0.9)
    assert no_gain((abstains,), COUNTS) is None
    assert "0.500 of abstains" in no_gain(
        (candidate("abstains", val_accuracy=0.3, val_selective_accuracy=0.5),), COUNTS
    )
    assert no_gain((candidate("several", val_subset_accuracy=0.1),), COUNTS) is None
    assert no_gain((Trained("usual", "prior", "k", {"val_accuracy": 0.6}, {}, "r"),), COUNTS) is None
    empty = {"train": COUNTS["train"], "validation": dict.fromkeys(COUNTS["train"], 0)}
    assert no_gain((candidate("poor", val_accuracy=0.6),), empty) is None


class Notices(SilentListener):
    def __init__(self) -> None:
        self.told: list[str] = []

    def notice(self, text: str) -> None:
        self.told.append(text)


@pytest.mark.parametrize("informative", [False, True])
def test_a_run_warns_where_texts_say_nothing_of_their_labels(tmp_path, informative):
    project = make_project(tmp_path, n=120)
    if not informative:
        path = tmp_path / "texts.csv"
        first, *lines = path.read_text().splitlines()
        cells = [line.split(",") for line in lines]
        swapped = [[name, cells[i - 1][1], label] for i, (name, _, label) in enumerate(cells)]
        swapped = [[name, text, "sport" if i % 5 else label] for i, (name, text, label) in enumerate(swapped)]
        path.write_text("\n".join([first, *(",".join(row) for row in swapped)]) + "\n")
    listener = Notices()
    run(project, MemoryRegistry(), listener=listener, until="train")
    assert any("always answering 'sport'" in text for text in listener.told) != informative
    run(project, MemoryRegistry(), listener=(again := Notices()), until="train")
    assert again.told == []  # the step was skipped

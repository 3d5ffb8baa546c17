"""The part of a candidate's configuration that says how calibrated probabilities become answers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tamiz.errors import ConfigError, one_of
from tamiz.types import Task

__all__ = [
    "RULE_KEYS",
    "THRESHOLD_METRICS",
    "AbstainConfig",
    "ConformalConfig",
    "CostsConfig",
    "LabelCosts",
    "ThresholdsConfig",
    "beta_of",
    "check_rule_settings",
    "check_threshold_metric",
    "named_metric",
]

RULE_KEYS = ("calibrate", "thresholds", "costs", "abstain_below", "abstain", "conformal")
"""Keys of a candidate that say how scores become answers."""

THRESHOLD_METRICS = (
    "default", "f1", "f2", "accuracy", "balanced_accuracy", "youden", "precision", "recall", "specificity",
)  # fmt: skip
"""What thresholds may be tuned for; `f0.5` and others of that form too."""

_CONSTRAINED = ("precision", "recall", "specificity")
_LARGEST_BETA = 10
_F_BETA = re.compile(r"f(\d{1,2}(?:\.\d{1,6})?)")

Probability = Annotated[float, Field(ge=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveCost = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def beta_of(metric: str) -> float | None:
    """Return beta of an F metric such as `f2`, `None` for another metric.

    Example:
        >>> beta_of("f0.5"), beta_of("accuracy")
        (0.5, None)
    """
    found = _F_BETA.fullmatch(metric)
    return float(found[1]) if found and 0 < float(found[1]) <= _LARGEST_BETA else None


def check_threshold_metric(metric: str) -> str:
    """Return the metric if thresholds can be tuned for it.

    Raises:
        ConfigError: they cannot.
    """
    if metric not in THRESHOLD_METRICS and beta_of(metric) is None:
        allowed = one_of(metric, (*THRESHOLD_METRICS, "f0.5"))
        raise ConfigError(f"thresholds: got {metric[:80]!r}; {allowed} (f takes any beta up to {_LARGEST_BETA})")
    return metric


def named_metric(value: object) -> object:
    """Read `thresholds: f1` as `thresholds: {metric: f1}`; anything else stays as it is."""
    return {"metric": value} if isinstance(value, str) else value


class ThresholdsConfig(_Section):
    """Thresholds of binary and multi-label tasks; `thresholds: f1` is short for `thresholds: {metric: f1}`."""

    metric: str = "default"
    """What they are tuned for on validation data: `default` (.5), `f1`, `f2` (recall counts more) or another beta
    (`f0.5`), `accuracy`, `balanced_accuracy` (`youden` is the same), or, with `at_least`, `precision`, `recall`,
    `specificity`."""
    at_least: dict[Literal["precision", "recall", "specificity"], Probability] = {}
    """What must be kept: `{metric: recall, at_least: {precision: 0.9}}` finds the most at a precision of 90 %."""
    values: dict[str, Probability] = {}
    """Thresholds set by hand, by label (binary: of the positive label)."""

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        return check_threshold_metric(metric)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.metric == "default" and self.at_least:
            raise ValueError("at_least: say which metric to tune for, such as metric: recall")
        if self.metric in _CONSTRAINED and not set(self.at_least) - {self.metric}:
            others = [name for name in _CONSTRAINED if name != self.metric]
            raise ValueError(
                f"metric {self.metric!r} alone is best where all or nothing is answered; add at_least with "
                f"{' or '.join(others)}, or take f1"
            )
        return self


class LabelCosts(_Section):
    """Costs of the two mistakes about one label."""

    false_positive: PositiveCost = 1.0
    """Cost of answering the label where it is not true."""
    false_negative: PositiveCost = 1.0
    """Cost of not answering the label where it is true."""


class CostsConfig(LabelCosts):
    """What mistakes cost; the answer with the least expected cost is given."""

    labels: dict[str, LabelCosts] = {}
    """Multi-label: costs of single labels; the others have the costs above."""
    matrix: dict[str, dict[str, Cost]] = {}
    """Multi-class: cost by true label and decided label; by default 0 for the right label, 1 for another."""
    abstain: Cost | None = None
    """Binary and multi-class: cost of no answer; none is given where every answer is expected to cost more."""


class AbstainConfig(_Section):
    """When to answer nothing, as a confidence found on validation data (binary and multi-class)."""

    coverage: Annotated[float, Field(gt=0, le=1)] | None = None
    """Answer this share of texts, the surest."""
    error: Inside | None = None
    """Answer as many texts as can be with at most this share of wrong answers."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.coverage is None) == (self.error is None):
            raise ValueError("give coverage or error, one of the two")
        return self


class ConformalConfig(_Section):
    """Sets of labels that hold the true one with a stated probability."""

    coverage: Inside
    """How often the set must hold the true label (multi-label: each true label)."""
    score: Literal["lac", "aps"] = "lac"
    """`lac`: smallest sets on average; `aps`: sets that adapt to how hard the text is (not multi-label)."""
    abstain: bool = True
    """Answer nothing where the set does not hold exactly the decided label (binary and multi-class)."""


def check_rule_settings(task: Task, settings: Any) -> None:
    """Refuse settings of a candidate that do not fit the task or each other.

    Args:
        task: what kind of answer is given.
        settings: anything with the attributes `RULE_KEYS`.

    Raises:
        ConfigError: two of them say different things, or the task has no such thing.
    """
    costs = settings.costs
    if settings.abstain is not None and settings.abstain_below is not None:
        raise ConfigError("abstain and abstain_below: give one of the two")
    if costs is not None and settings.thresholds.metric != "default":
        raise ConfigError("costs and thresholds: costs give the thresholds; leave `thresholds` at default")
    if costs is not None:
        _check_costs(task, costs)
    if task is Task.MULTI_CLASS and (given := list(settings.thresholds.model_dump(exclude_defaults=True))):
        raise ConfigError(
            f"thresholds.{given[0]}: a multi-class task takes the label with the highest probability; what mistakes "
            "cost (`costs`) changes that"
        )
    if task is Task.MULTI_LABEL:
        for name in ("abstain", "abstain_below"):
            if getattr(settings, name) is not None:
                raise ConfigError(f"{name}: a multi-label task cannot abstain; it may answer no label")
        if settings.conformal is not None and settings.conformal.score == "aps":
            raise ConfigError("conformal.score: 'aps' is for tasks with one label a text; use lac")


def _check_costs(task: Task, costs: CostsConfig) -> None:
    own = {Task.MULTI_CLASS: "matrix", Task.MULTI_LABEL: "false_positive, false_negative, labels"}
    foreign = {
        Task.BINARY: ("labels", "matrix"),
        Task.MULTI_CLASS: ("labels", "false_positive", "false_negative"),
        Task.MULTI_LABEL: ("matrix", "abstain"),
    }[task]
    wrong = [name for name in foreign if name in costs.model_fields_set]
    if wrong:
        allowed = own.get(task, "false_positive, false_negative")
        raise ConfigError(
            f"costs.{wrong[0]}: does not fit a {task} task; allowed: {allowed}"
            + ("" if task is Task.MULTI_LABEL else ", abstain")
        )

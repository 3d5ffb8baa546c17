"""Choose a candidate by its validation figures, inside declared limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tamiz.config import SelectConfig
from tamiz.errors import ConfigError, one_of
from tamiz.metrics import higher_is_better
from tamiz.metrics.names import figure_of
from tamiz.pipeline.train import Trained

__all__ = ["Choice", "beyond", "check_select", "leaderboard", "no_gain", "prefers_higher", "select"]


@dataclass(frozen=True)
class Choice:
    """The chosen candidate and why the others were not.

    Attributes:
        chosen: the winner.
        ranking: all candidates, best first; those outside the limits last.
        refused: which limit each candidate outside them breaks.
    """

    chosen: Trained
    ranking: tuple[Trained, ...]
    refused: dict[str, str]


def prefers_higher(config: SelectConfig) -> bool:
    """Say whether a higher value of the chosen metric is better."""
    return higher_is_better(config.metric) if config.mode is None else config.mode == "max"


def check_select(config: SelectConfig) -> None:
    """Refuse a choice by test figures or by unknown metrics.

    Raises:
        ConfigError: a metric starts with `test_`, or is unknown.
    """
    for key, names in (("metric", (config.metric,)), ("limits", tuple(config.limits))):
        for name in names:
            if name.startswith("test_"):
                raise ConfigError(f"select.{key}: choosing by test figures would spoil them; use a val_ metric")
            higher_is_better(name)


def leaderboard(trained: Sequence[Trained], config: SelectConfig) -> tuple[Trained, ...]:
    """Return candidates from best to worst by the chosen metric; ties keep their order in the project file.

    Raises:
        ConfigError: no candidate has the metric.
    """
    sign = -1.0 if prefers_higher(config) else 1.0
    known = {name for candidate in trained for name in candidate.metrics}
    values = {candidate.candidate: figure_of(candidate.metrics, config.metric) for candidate in trained}
    if not any(value is not None for value in values.values()):
        raise ConfigError(f"select.metric: no candidate has {config.metric!r}; {one_of(config.metric, known)}")
    worst = float("inf")
    return tuple(sorted(trained, key=lambda c: worst if (value := values[c.candidate]) is None else sign * value))


def select(trained: Sequence[Trained], config: SelectConfig, *, strict: bool = True) -> Choice:
    """Take the best candidate that keeps all limits.

    Args:
        trained: the candidates.
        config: metric and limits.
        strict: fail where no candidate keeps the limits; otherwise take the best of them, for a gate to refuse it.

    Raises:
        ConfigError: no candidate keeps the limits.
    """
    ranking = leaderboard(trained, config)
    refused = {c.candidate: why for c in ranking if (why := _broken_limit(c, config))}
    inside = [c for c in ranking if c.candidate not in refused]
    if not inside and strict:
        raise ConfigError(
            "select.limits: no candidate keeps them: " + "; ".join(f"{c}: {w}" for c, w in refused.items())
        )
    order = (*inside, *(c for c in ranking if c.candidate in refused))
    return Choice(order[0], order, refused)


def _broken_limit(candidate: Trained, config: SelectConfig) -> str | None:
    for name, limit in config.limits.items():
        if why := beyond(name, figure_of(candidate.metrics, name), limit):
            return why
    return None


def beyond(name: str, value: float | None, limit: float) -> str | None:
    """Say how a figure breaks a limit, `None` where it keeps it.

    Args:
        name: the metric, which decides on which side of the limit a value must be.
        value: the figure; one that was not measured keeps no limit.
        limit: the least or the most that is allowed.
    """
    if value is None:
        return f"{name} was not measured"
    if value >= limit if higher_is_better(name) else value <= limit:
        return None
    return f"{name} is {value:.4g}, the limit is {limit:g}"


def no_gain(trained: Sequence[Trained], counts: Mapping[str, Mapping[str, int]]) -> str | None:
    """Say that no candidate is right more often on validation than one that always gives the most frequent label.

    Where a candidate abstains, it is judged by what it answers. Nothing is said of multi-label tasks, in which no set
    of labels need be frequent, nor where all candidates are such a baseline themselves.

    Args:
        trained: the candidates.
        counts: examples by side and label.
    """
    held = counts["validation"]
    right = {c.candidate: figure_of(c.metrics, "val_selective_accuracy") for c in trained}
    found = {name: value for name, value in right.items() if value is not None}
    if not found or not sum(held.values()) or {c.family for c in trained} == {"prior"}:
        return None
    usual = max(counts["train"], key=lambda label: counts["train"][label])
    share, best = held[usual] / sum(held.values()), max(found, key=lambda name: found[name])
    if found[best] > share:
        return None
    return (
        f"no candidate is right more often on validation than always answering {usual!r}: accuracy {found[best]:.3f} "
        f"of {best}, {share:.3f} without looking at the text. If that label is not just far more frequent than the "
        "others (then compare F1 and AUC), see with `tamiz check` whether labels are wrong or texts say nothing of them"
    )

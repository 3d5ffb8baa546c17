"""Choose the best of several versions by one figure, and know which way is up."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tamiz.errors import ConfigError, ModelNotFoundError, one_of
from tamiz.metrics.names import base_name, higher_is_better

__all__ = ["Best", "Mode", "best_version", "metrics_of", "mode_of"]

Mode = Literal["max", "min"]

# Figures that are not Tamiz' own, such as those that a training loop logs: words of which less is better.
_LESS = re.compile(
    r"(?:^|_)(?:loss|error|errors|latency|seconds|ms|size|mb|bytes|ece|brier|perplexity|memory|cost)(?:_|$)"
)


@dataclass(frozen=True, slots=True)
class Best:
    """The version that a metric chooses.

    Attributes:
        version: its number.
        metric: the metric.
        value: its figure.
        mode: `max` or `min`.
        known: whether which way is better was stated or is known of the metric; else it was guessed from its name.
        ahead_of: the next version and its figure, if any other has the metric.
    """

    version: str
    metric: str
    value: float
    mode: Mode
    known: bool
    ahead_of: tuple[str, float] | None

    @property
    def reason(self) -> str:
        """Say in words why it was chosen."""
        text = f"best by {self.metric} ({'highest' if self.mode == 'max' else 'lowest'}): {self.value:.4g}"
        return text + (f", version {self.ahead_of[0]} has {self.ahead_of[1]:.4g}" if self.ahead_of else "")


def mode_of(metric: str) -> tuple[Mode, bool]:
    """Return which way is better and whether that is known; of metrics that are not known it is guessed by name.

    Example:
        >>> mode_of("val_f1_macro"), mode_of("test_log_loss"), mode_of("eval_loss"), mode_of("eval_gain")
        (('max', True), ('min', True), ('min', False), ('max', False))
    """
    try:
        return ("max" if higher_is_better(metric) else "min"), True
    except ConfigError:
        return ("min" if _LESS.search(base_name(metric)) else "max"), False


def metrics_of(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the names of all metrics that any version has, sorted."""
    return sorted({name for found in figures.values() for name in found})


def best_version(figures: Mapping[str, Mapping[str, float]], metric: str, mode: Mode | None = None) -> Best:
    """Return the version with the best figure; of equal ones, the newest. Figures that are no numbers do not count.

    Args:
        figures: metrics by version number.
        metric: which to compare.
        mode: which way is better; by default known from the metric, or guessed from its name.

    Raises:
        ConfigError: the metric is unknown, and no version has it; names the nearest spelling and what there is.
        ModelNotFoundError: the metric is known, but no version has it.
    """
    found = {v: float(named[metric]) for v, named in figures.items() if math.isfinite(named.get(metric, math.nan))}
    guessed, known = mode_of(metric)
    if not found:
        bounds = ("_low", "_high")  # of intervals, by which nobody chooses
        there = one_of(metric, (name for name in metrics_of(figures) if not name.endswith(bounds)), limit=40)
        if known:
            raise ModelNotFoundError(f"no version has the metric {metric!r}; {there}")
        raise ConfigError(f"metric {metric!r} is unknown; {there}")
    chosen: Mode = mode or guessed
    sign = 1 if chosen == "max" else -1
    order = sorted(found, key=lambda version: (sign * found[version], int(version)), reverse=True)
    ahead_of = (order[1], found[order[1]]) if len(order) > 1 else None
    return Best(order[0], metric, found[order[0]], chosen, known or mode is not None, ahead_of)

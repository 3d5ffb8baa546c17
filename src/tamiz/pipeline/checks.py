"""What is refused before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tamiz.config import Project
from tamiz.data.gold import Examples
from tamiz.errors import ConfigError, LabelError, one_of
from tamiz.types import Task

__all__ = ["check_positive", "check_sides"]


def check_positive(project: Project, labels: Sequence[str]) -> None:
    """Refuse a positive label that the data do not have.

    Raises:
        ConfigError: `labels.positive` is not among the labels.
    """
    positive = project.labels.positive
    if project.task is Task.BINARY and positive is not None and positive not in labels:
        raise ConfigError(f"labels.positive: {positive!r} is no label of the data; {one_of(positive, labels)}")


def check_sides(project: Project, counts: Mapping[str, Mapping[str, int]], validation: Examples) -> None:
    """Refuse sides from which nothing can be learned.

    Args:
        project: its task.
        counts: examples by side and label.
        validation: the examples of that side.

    Raises:
        LabelError: training or validation is empty, or training has examples of one label alone.
    """
    present = sum(count > 0 for count in counts.get("train", {}).values())
    for side, empty in (("train", not present), ("validation", not validation.texts)):
        if empty:
            raise LabelError(f"the {side} side of the split is empty; give more labelled texts or change `split`")
    if present < 2 and project.task is not Task.MULTI_LABEL:
        raise LabelError("the training side has examples of too few labels; give more labelled texts")

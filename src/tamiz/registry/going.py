"""A run whose training still goes on: which figures it has already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tamiz.types import Point

__all__ = ["Going"]


@dataclass
class Going:
    """A run that is not finished.

    Attributes:
        run_id: the registry's own identifier.
        last: step of the last value that the run has, by name.
    """

    run_id: str
    last: dict[str, int] = field(default_factory=dict)

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """Return the values, in order, that the run does not have yet: they come in order of their steps."""
        return [point for point in points if point.step > self.last.get(point.name, -1)]

    def took(self, points: Sequence[Point]) -> None:
        """Note that the run has these values now."""
        for point in points:
            self.last[point.name] = max(point.step, self.last.get(point.name, -1))

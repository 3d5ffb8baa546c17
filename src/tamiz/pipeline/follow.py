"""Figures of a fit that goes on, handed to the registry from time to time, so that people see them grow."""

from __future__ import annotations

import time
from collections.abc import Callable

from tamiz.errors import RegistryError
from tamiz.types import Progress, Registry, Traces

__all__ = ["EVERY_S", "Follower"]

EVERY_S = 10.0  # least seconds between two times
_SHARE = 20  # times as long as the registry needed is waited too: a slow one costs a twentieth of the time at most


class Follower:
    """Hand the figures of one candidate's fit to the registry; one that fails is said once and ends no training.

    Args:
        registry: where the candidate will be recorded.
        key: what its run is made from.
        candidate: its name.
        family: name of its classifier family.
        notice: told once if the registry fails.
        clock: gives seconds.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        key: str,
        candidate: str,
        family: str,
        notice: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._about = registry, {"key": key, "candidate": candidate, "family": family}
        self._notice, self._clock = notice, clock
        self._due = clock() + EVERY_S
        self._handed: int | None = None

    def beside(self, classifier: Traces, progress: Progress | None) -> Progress:
        """Return a progress that looks, whenever it is told, whether it is time to hand over new figures."""

        def tell(message: str, done: int = 0, total: int = 0) -> None:
            if progress:
                progress(message, done, total)
            if self._clock() >= self._due:
                self._hand_over(classifier)

        return tell

    def _hand_over(self, classifier: Traces) -> None:
        began, points = self._clock(), classifier.history()
        if len(points) != self._handed:
            try:
                self._registry.follow(**self._about, points=points)
                self._handed = len(points)
            except RegistryError as error:
                self._say(error)
        ended = self._clock()
        self._due = ended + max(EVERY_S, _SHARE * (ended - began))

    def _say(self, error: RegistryError) -> None:
        if self._notice:
            self._notice(
                f"{self._about['candidate']}: its figures cannot be recorded now ({error}); the training goes on, and "
                "they are recorded when the registry answers again"
            )
        self._notice = None

"""What is served: one loaded version, how it is tried, and what the doors ask of all that is served."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from tamiz.errors import ModelNotFoundError, PackageError, TamizError
from tamiz.metrics.choice import Best, Mode
from tamiz.model import Model

__all__ = ["Listener", "ModelCard", "Models", "Served", "cost_of", "load_package", "unknown_name", "warm_up"]

INLINE_BUDGET_S = 0.005
INLINE_MOST = 20_000
TEXT_COST = 100  # characters that a text costs besides its own: a thousand empty texts are work too
WARM_UP_TEXT = "A text to warm up with, of the length of a short paragraph, so that its time tells something. " * 10


@dataclass(frozen=True, slots=True)
class Served:
    """One loaded version.

    Attributes:
        name: name under which it is served.
        version: its version in the store, if it has one.
        model: the model itself.
        inline_cost: the most that `cost_of` may be for an answer on the event loop, which it holds up meanwhile.
    """

    name: str
    version: str | None
    model: Model
    inline_cost: int


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a served model besides what it answers."""

    name: str
    served: Served | None
    aliases: dict[str, str]
    versions: list[str]


Listener = Callable[[Sequence[Served]], None]


class Models(Protocol):
    """The models behind the doors."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names that are, or will be, served; the default model first."""

    @property
    def default(self) -> str:
        """Name that doors without a model in their path use."""

    @property
    def ready(self) -> bool:
        """Whether every model has been loaded and the server is not about to stop."""

    def get(self, name: str | None = None) -> Served:
        """Return what is served under `name` now (`None`: the default model)."""

    def served(self) -> tuple[Served, ...]:
        """Return all that is served now."""

    def card(self, name: str) -> ModelCard:
        """Describe a model; may read the store."""

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with all that is served, now and after each swap."""

    def start(self) -> None:
        """Load, and follow changes, in the background."""

    def stop(self) -> None:
        """End what `start` began."""

    def drain(self) -> None:
        """Report not ready from now on, and go on answering."""

    def best(self, name: str, metric: str, mode: Mode | None) -> Best:
        """Return the version with the best figure in the store."""

    def deploy(self, name: str, *, version: str | None, alias: str | None, by: str, best: Best | None = None) -> Served:
        """Make a version the champion and serve it; returns once it is served."""

    def rollback(self, name: str, *, by: str) -> Served:
        """Go back to the previous champion; returns once it is served."""


def cost_of(texts: Sequence[str]) -> int:
    """Return about how much work the texts are, in characters."""
    return sum(map(len, texts)) + TEXT_COST * len(texts)


def warm_up(model: Model) -> int:
    """Try a model and return the cost up to which it answers within the event loop's budget.

    Raises:
        PackageError: it does not answer as it must.
    """
    times_s: list[float] = []
    for _ in range(3):
        begun = time.perf_counter()
        predictions = model.predict([WARM_UP_TEXT])
        times_s.append(time.perf_counter() - begun)
    shape = (len(model.labels),)
    if len(predictions) != 1 or predictions[0].probabilities.shape != shape:
        raise PackageError(f"the model does not give one row of {shape[0]} probabilities for one text")
    if not np.isfinite(predictions[0].probabilities).all():
        raise PackageError("the model gives probabilities that are not numbers")
    affordable = INLINE_BUDGET_S / max(min(times_s), 1e-9) * cost_of([WARM_UP_TEXT])
    return int(min(affordable, INLINE_MOST))


def unknown_name(names: Sequence[str]) -> ModelNotFoundError:
    """Return the error for a name that is not among `names`; it does not repeat the name, which is the caller's."""
    return ModelNotFoundError(f"No model of this name is served here; allowed: {', '.join(names) or 'none'}.")


def load_package(folder: Path) -> Model:
    """Load a package and ask it once, whatever goes wrong in that being the package's fault.

    Raises:
        PackageError: it cannot be loaded, or does not answer.
    """
    try:
        model = Model.load(folder)
        model.predict([""])  # weights of a wrong shape show when they are first used
        return model
    except TamizError:
        raise
    except Exception as error:
        raise PackageError(f"the model package cannot be loaded: {type(error).__name__}") from error

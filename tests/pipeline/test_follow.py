"""Figures of a fit, handed over from time to time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tamiz.pipeline.follow import Follower
from tamiz.registry import MemoryRegistry, MlflowRegistry
from tamiz.types import Point

ABOUT = {"key": "k", "candidate": "mine", "family": "transformer"}


class Fit:
    """Record one value a step."""

    def __init__(self) -> None:
        self.points: list[Point] = []

    def history(self) -> Sequence[Point]:
        return self.points

    def figures(self) -> Mapping[str, float]:
        return {}

    def step(self) -> None:
        self.points.append(Point(len(self.points) + 1, "train_loss", 0.5))


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_figures_are_handed_over_every_ten_seconds():
    fit, clock, registry, told = Fit(), Clock(), MemoryRegistry(), []
    tell = Follower(registry, **ABOUT, clock=clock).beside(fit, lambda *about: told.append(about))
    sizes = []
    for second in range(25):
        clock.now = float(second)
        fit.step()
        tell("fine-tuning", second, 25)
        sizes.append(sum(len(points) for points in registry.histories.values()))
    assert sizes == [0] * 10 + [11] * 10 + [21] * 5
    assert told == [("fine-tuning", second, 25) for second in range(25)]
    assert list(registry.runs()) == []


def test_a_run_begins_before_there_is_a_figure_and_nobody_need_listen():
    clock, registry = Clock(), MemoryRegistry()
    tell = Follower(registry, **ABOUT, clock=clock).beside(Fit(), None)
    clock.now = 11.0
    tell("tokenising")
    assert registry.histories == {"run-1": []}


def test_a_slow_registry_is_asked_less_often():
    fit, clock = Fit(), Clock()

    class Slow(MemoryRegistry):
        def follow(self, **about):
            clock.now += 3.0
            return super().follow(**about)

    registry = Slow()
    tell = Follower(registry, **ABOUT, clock=clock).beside(fit, None)
    for second, has in ((10, 1), (72, 1), (73, 3)):  # 60 seconds after it has answered
        clock.now = float(second)
        fit.step()
        tell("fine-tuning")
        assert len(registry.histories["run-1"]) == has


def test_a_registry_that_fails_is_said_once(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    fit, clock, notices, told = Fit(), Clock(), [], []
    follower = Follower(MlflowRegistry("x", "http://127.0.0.1:9"), **ABOUT, notice=notices.append, clock=clock)
    tell = follower.beside(fit, lambda *about: told.append(about))
    for second in (11.0, 22.0, 33.0):
        clock.now = second
        fit.step()
        tell("fine-tuning")
    assert len(told) == 3
    (notice,) = notices
    assert notice.startswith("mine: its figures cannot be recorded now (MLflow: follow failed: ")
    assert "the training goes on" in notice

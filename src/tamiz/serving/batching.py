"""The line of work that is too long for the event loop: bounded, worked off beside the loop in pieces and in batches.

A long request is worked off a piece at a time and lets those that need less than it still does go first after each, so
that it holds up a short one by a piece only, and so that its thread is free again soon after its client has gone or its
time is up. Those that need as long or longer wait: requests of like length that took turns would all be late. Where
texts are faster together, short requests of like length for the same version are answered together: the first to wait
opens a window, and whoever comes within it joins.

How long a request would wait is estimated from what stands before it. As long as there is room, bursts may wait for
`max_wait_ms`. Once a request has been refused, and until none has been for a second, only those are let in that hardly
wait, so that a standing line does not make everybody late.

Source: Maurer (2015), "Fail at scale", ACM Queue 13(8): short waits while overloaded, long ones otherwise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tamiz.config import ServeConfig
from tamiz.errors import OverloadedError
from tamiz.serving.current import CURRENT
from tamiz.serving.metrics import Metrics
from tamiz.serving.problems import ClientGoneError, DeadlineError
from tamiz.serving.served import Served

if TYPE_CHECKING:
    from tamiz.model import Prediction

__all__ = ["WorkLine"]

T = TypeVar("T")

PIECE_S = 0.05
OVERLOAD_S = 1.0  # without a refusal, after which bursts may wait again
OVERLOAD_SHARE = 0.25  # of its own time, that a request may wait while there is more work than time
SMOOTHING = 0.2
SLOWNESS = (0.02, 50.0)
EARLY_BYTES = 32_768  # bodies of less are read before they are refused: they may need no turn at all

Group = tuple[int, int]


@dataclass(eq=False, slots=True)
class _Job:
    """A request in the line, or other work for a thread.

    Attributes:
        served: the version that answers all of it.
        texts: what to answer.
        cost: of the texts, as `cost_of` counts.
        future: told the answers.
        entered_s: when it came.
        group: jobs of one group may be answered together; `None`: alone.
        work: what to do in place of answering texts.
        found: answers to the first texts.
    """

    served: Served
    texts: Sequence[str]
    cost: int
    future: asyncio.Future[Any]
    entered_s: float
    group: Group | None = None
    work: Callable[[], Any] | None = None
    found: list[Prediction] = field(default_factory=list)
    begun: bool = False

    @property
    def rest_s(self) -> float:
        """Seconds that it still needs, as the warm-up would have it."""
        left = 1 - len(self.found) / len(self.texts) if self.texts else 1.0
        return self.cost * left * self.served.pace_s


@dataclass(eq=False, slots=True)
class _Turn:
    """What one thread does at a time: a piece of one job, or several jobs together."""

    jobs: list[_Job]
    texts: list[str]
    expected_s: float
    begun_s: float


class WorkLine:
    """The line of one process.

    Args:
        limits: how much may wait, for how long, and how it is put together.
        metrics: where to count.
    """

    def __init__(self, limits: ServeConfig, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        # Numpy code holds the interpreter most of the time, and networks take all cores by themselves.
        self._threads = limits.threads or 1
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: list[_Job] = []
        self._turns: list[_Turn] = []
        self._timer: asyncio.TimerHandle | None = None
        self._slowness: dict[str, float] = {}  # by model: how much slower than its warm-up it is
        self._company: dict[str, int] = {}  # by model: how many requests its last batch had
        self._usual_s = 0.0
        self._refused_s = float("-inf")
        self._large = 0  # requests with large bodies, from their last byte to the first of their answer

    def close(self) -> None:
        """Let the threads end; new work makes new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    @property
    def overloaded(self) -> bool:
        """Whether a request has been refused within the last second."""
        return time.monotonic() - self._refused_s < OVERLOAD_S

    def refuses(self, size_bytes: int) -> bool:
        """Tell, before a body is read, that it is refused; only of large ones, and only while there is too much work.

        Reading bodies and writing answers takes from the same processor as the models' work, so that then no more
        large requests are let in than are worked off at once.
        """
        if size_bytes <= EARLY_BYTES or not self.overloaded:
            return False
        if self._large < self._threads and self._wait_s(self._usual_s) <= self._allowed_s(0.0):
            return False
        self._refused_s = time.monotonic()
        return True

    def enter(self, size_bytes: int) -> Callable[[], None] | None:
        """Note that a large body has come, and return what notes that its answer is there; `None` for a small one."""
        if size_bytes <= EARLY_BYTES:
            return None
        self._large += 1
        ends = iter((True,))

        def leave() -> None:
            self._large -= next(ends, False)

        return leave

    def takes(self, served: Served, cost: int) -> bool:
        """Tell whether texts of this cost belong in the line, rather than to be answered on the event loop."""
        return cost > served.inline_cost or self._is_batched(served)

    async def predict(self, served: Served, texts: Sequence[str], cost: int) -> list[Prediction]:
        """Answer texts when it is their turn.

        Raises:
            OverloadedError: the wait would be too long.
            DeadlineError: the time is up.
            ClientGoneError: nobody waits for the answer any more.
        """
        job = self._job(served, texts, cost)
        if self._is_batched(served) and 2 * len(texts) <= self._limits.batch_texts and 2 * self._s(job) <= PIECE_S:
            job.group = (id(served), max(map(len, texts), default=0).bit_length() // 2)
        found: list[Prediction] = await self._through(job)
        return found

    async def call(self, served: Served, work: Callable[[], T], cost: int) -> T:
        """Do other work with a model when it is its turn.

        Raises:
            OverloadedError: the wait would be too long.
            DeadlineError: the time is up.
            ClientGoneError: nobody waits for the answer any more.
        """
        job = self._job(served, (), cost)
        job.work = work
        found: T = await self._through(job)
        return found

    def _is_batched(self, served: Served) -> bool:
        return self._limits.batching == "on" or (self._limits.batching == "auto" and served.batched)

    def _job(self, served: Served, texts: Sequence[str], cost: int) -> _Job:
        return _Job(served, texts, cost, asyncio.get_running_loop().create_future(), time.monotonic())

    async def _through(self, job: _Job) -> Any:
        """Let a job in, and wait until it is done, its time is up or its client gone."""
        self._admit(job)
        self._waiting.append(job)
        self._go_on()
        current = CURRENT.get()
        watch = asyncio.ensure_future(current.gone()) if current is not None else None
        both = {job.future} if watch is None else {job.future, watch}
        try:
            allowed_s = self._limits.deadline_s
            left_s = allowed_s if current is None else current.left_s(allowed_s)
            await asyncio.wait(both, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if job.future.done():
                return job.future.result()
            if watch is not None and watch.done():
                raise ClientGoneError
            raise DeadlineError(f"The answer took more than {allowed_s:g} s; send fewer texts at once.")
        finally:
            if watch is not None:
                watch.cancel()
            job.future.cancel()  # nothing more is done for it; without effect where it is done
            if job in self._waiting:
                self._waiting.remove(job)

    def _admit(self, job: _Job) -> None:
        own_s = self._s(job)
        wait_s = self._wait_s(own_s)
        if wait_s > self._allowed_s(own_s):
            self._refused_s = time.monotonic()
            raise OverloadedError("There is more work than this server can do in time; try again in a moment.")
        self._usual_s += SMOOTHING * (own_s - self._usual_s)

    def _allowed_s(self, own_s: float) -> float:
        if self.overloaded:
            return OVERLOAD_SHARE * max(own_s, self._usual_s)
        return self._limits.max_wait_ms / 1000

    def _s(self, job: _Job) -> float:
        return job.rest_s * self._slowness.get(job.served.name, 1.0)

    def _wait_s(self, own_s: float) -> float:
        """Estimate how long a job that needs `own_s` would be held up: by each other at most as long as it runs."""
        if len(self._turns) < self._threads and not self._waiting:
            return 0.0
        now_s, most_s = time.monotonic(), max(own_s, PIECE_S)
        ahead_s = sum(min(self._s(job), most_s) for job in self._waiting)
        for turn in self._turns:
            ahead_s += max(0.0, turn.expected_s - (now_s - turn.begun_s))
            rest_s = sum(self._s(job) for job in turn.jobs) - turn.expected_s
            ahead_s += min(max(0.0, rest_s), most_s)
        return ahead_s / self._threads

    def _go_on(self) -> None:
        """Give free threads something to do."""
        while len(self._turns) < self._threads:
            jobs = self._next()
            if not jobs:
                return
            self._start(jobs)

    def _next(self) -> list[_Job]:
        """Return the first jobs of the line whose turn it is, or look again when the next window ends."""
        now_s, soonest_s, seen = time.monotonic(), float("inf"), set[Group]()
        for job in self._waiting:
            if job.group is None:
                return [job]
            if job.group in seen:
                continue
            seen.add(job.group)
            mates, full = self._mates(job.group)
            ends_s = job.entered_s + self._limits.batch_window_ms / 1000
            if full or now_s >= ends_s or self._is_alone(job):
                return mates
            soonest_s = min(soonest_s, ends_s)
        if seen:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, soonest_s - now_s), self._go_on)
        return []

    def _is_alone(self, job: _Job) -> bool:
        """Tell whether there is no company to expect: it had none the last time, and nothing is at work."""
        return not self._turns and len(self._waiting) == 1 and self._company.get(job.served.name, 1) == 1

    def _mates(self, group: Group) -> tuple[list[_Job], bool]:
        """Return the first jobs of a group that fit into a batch, and whether another one would not."""
        mates: list[_Job] = []
        texts, lasts_s = 0, 0.0
        for job in self._waiting:
            if job.group != group:
                continue
            texts += len(job.texts)
            lasts_s += self._s(job)
            if mates and (texts > self._limits.batch_texts or lasts_s > PIECE_S):
                return mates, True
            mates.append(job)
        return mates, texts >= self._limits.batch_texts

    def _start(self, jobs: list[_Job]) -> None:
        now_s = time.monotonic()
        for job in jobs:
            self._waiting.remove(job)
            if not job.begun:
                job.begun = True
                self._metrics.observe_queue(job.served.name, now_s - job.entered_s)
        turn = self._turn(jobs, now_s)
        self._turns.append(turn)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tamiz-work")
        self._pool.submit(self._work, turn, asyncio.get_running_loop())

    def _turn(self, jobs: list[_Job], now_s: float) -> _Turn:
        """Return what is done now: all of several jobs, or the next piece of one."""
        if len(jobs) > 1 or jobs[0].work is not None:
            texts = [text for job in jobs for text in job.texts[len(job.found) :]]
            return _Turn(jobs, texts, sum(self._s(job) for job in jobs), now_s)
        (job,) = jobs
        all_s, left = self._s(job), job.texts[len(job.found) :]
        pieces = max(1, round(all_s / PIECE_S))
        size = -(-len(left) // pieces)
        return _Turn(jobs, list(left[:size]), all_s / pieces, now_s)

    def _work(self, turn: _Turn, loop: asyncio.AbstractEventLoop) -> None:
        """Run in a thread; never raises."""
        found: Any = None
        error: BaseException | None = None
        first = turn.jobs[0]
        try:
            found = first.work() if first.work is not None else first.served.model.predict(turn.texts)
        except BaseException as raised:
            error = raised
        took_s = time.monotonic() - turn.begun_s
        try:
            loop.call_soon_threadsafe(self._done, turn, found, error, took_s)
        except RuntimeError:  # the loop has ended, and with it all who wait
            self._turns.remove(turn)

    def _done(self, turn: _Turn, found: Any, error: BaseException | None, took_s: float) -> None:
        self._turns.remove(turn)
        first = turn.jobs[0]
        if error is None and turn.texts:
            self._learn(turn, took_s)
        if first.work is not None or error is not None:
            self._hand_back(turn, found, error)
        else:
            self._share_out(turn, found)
        self._go_on()

    def _learn(self, turn: _Turn, took_s: float) -> None:
        name = turn.jobs[0].served.name
        before = self._slowness.get(name, 1.0)
        now = before * took_s / max(turn.expected_s, 1e-6)
        self._slowness[name] = min(max(before + SMOOTHING * (now - before), SLOWNESS[0]), SLOWNESS[1])
        self._metrics.observe_batch(name, len(turn.texts))
        if turn.jobs[0].group is not None:
            self._company[name] = len(turn.jobs)

    def _hand_back(self, turn: _Turn, found: Any, error: BaseException | None) -> None:
        """Tell one job what came of it; several that failed are tried again one by one, for one may be to blame."""
        if len(turn.jobs) > 1:
            for job in turn.jobs:
                job.group = None
            self._waiting[:0] = [job for job in turn.jobs if not job.future.done()]
            return
        (job,) = turn.jobs
        if job.future.done():
            return
        if error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(found)

    def _share_out(self, turn: _Turn, found: Sequence[Prediction]) -> None:
        """Give each job its answers; one that is not through goes back into the line."""
        if len(found) != len(turn.texts):
            wrong = RuntimeError(f"the model gave {len(found)} answers to {len(turn.texts)} texts")
            for job in turn.jobs:
                if not job.future.done():
                    job.future.set_exception(wrong)
            return
        start = 0
        for job in turn.jobs:
            end = start + min(len(job.texts) - len(job.found), len(turn.texts))
            job.found += found[start:end]
            start = end
            if job.future.done():
                continue
            if len(job.found) >= len(job.texts):
                job.future.set_result(job.found)
            else:
                self._put_back(job)

    def _put_back(self, job: _Job) -> None:
        """Let those that need less, and all before them, go first; newcomers come after, so nobody starves."""
        rest_s = self._s(job)
        shorter = [place for place, other in enumerate(self._waiting) if self._s(other) < rest_s]
        self._waiting.insert(shorter[-1] + 1 if shorter else 0, job)

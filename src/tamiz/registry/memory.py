"""A registry in memory, for tests and for runs that want none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tamiz.errors import NotRegisteredError, RegistryError
from tamiz.registry.going import Going
from tamiz.types import Point, RunRecord, RunState

__all__ = ["MemoryRegistry"]


class MemoryRegistry:
    """Keep runs, versions and aliases in this process.

    Attributes:
        aliases: version of each alias.
        searches: runs of searches, by key.
        histories: figures by step of each run.
    """

    def __init__(self) -> None:
        self._runs: dict[str, RunRecord] = {}
        self._going: dict[str, Going] = {}
        self.aliases: dict[str, str] = {}
        self.searches: dict[str, dict[str, Any]] = {}
        self.histories: dict[str, list[Point]] = {}

    def record(
        self,
        *,
        key: str,
        candidate: str,
        family: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Path | None = None,
        history: Sequence[Point] = (),
    ) -> str:
        """Record a finished candidate."""
        for run in self._runs.values():
            if run.key == key:
                return run.run_id
        run_id = self._grown(key, history)
        del self._going[key]
        texts = {name: str(value) for name, value in params.items()}
        self._runs[run_id] = RunRecord(run_id, key, candidate, family, dict(metrics), texts)
        return run_id

    def follow(self, *, key: str, candidate: str, family: str, points: Sequence[Point]) -> str:
        """Add figures to a run that is not finished."""
        for run in self._runs.values():
            if run.key == key:
                return run.run_id
        return self._grown(key, points)

    def _grown(self, key: str, points: Sequence[Point]) -> str:
        going = self._going.setdefault(key, Going(f"run-{len(self.histories) + 1}"))
        missing = going.missing(points)
        self.histories.setdefault(going.run_id, []).extend(missing)
        going.took(missing)
        return going.run_id

    def register(self, run_id: str, *, version: str, metrics: Mapping[str, float], artifacts: Path) -> None:
        """Make a recorded run a version."""
        run = self._run(run_id)
        for other in self._runs.values():  # a store that is made anew counts from 1 again
            if other.version == version and other.run_id != run_id:
                self._runs[other.run_id] = replace(other, version=None)
        self._runs[run_id] = replace(run, version=version, metrics={**run.metrics, **metrics})

    def alias(self, name: str, version: str | None) -> None:
        """Point an alias at a version or remove it."""
        if version is None:
            self.aliases.pop(name, None)
        elif version in {run.version for run in self._runs.values()}:
            self.aliases[name] = version
        else:
            raise NotRegisteredError(f"version {version} is not registered; register its run first")

    def runs(self) -> Sequence[RunRecord]:
        """Return the recorded runs, newest first."""
        return list(reversed(self._runs.values()))

    def nested(
        self,
        *,
        key: str,
        name: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        parent: str | None = None,
        state: RunState = "FINISHED",
        times: tuple[float, float] | None = None,
        artifacts: Path | None = None,
    ) -> str:
        """Record a run of a search."""
        known = self.searches.get(key, {"run_id": f"search-{len(self.searches) + 1}", "metrics": {}})
        about = {"name": name, "params": dict(params), "tags": dict(tags), "parent": parent, "state": state}
        self.searches[key] = {**known, **about, "metrics": {**known["metrics"], **metrics}}
        return str(known["run_id"])

    def _run(self, run_id: str) -> RunRecord:
        try:
            return self._runs[run_id]
        except KeyError as error:
            raise RegistryError(f"no run {run_id!r} was recorded") from error

"""MLflow as the record of experiments and the registry of versions that people browse.

The model store is what is served; here stand the same versions with all that led to them. Every failure of MLflow is
translated into `RegistryError` at this boundary.
"""

from __future__ import annotations

import contextlib
import functools
import math
import secrets
import sqlite3
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tamiz._files import holding
from tamiz.errors import NotRegisteredError, RegistryError
from tamiz.extras import require
from tamiz.registry.going import Going
from tamiz.registry.pyfunc import save_pyfunc
from tamiz.types import Point, RunRecord, RunState

__all__ = ["MlflowRegistry"]

_KEY, _CANDIDATE, _FAMILY, _VERSION = "tamiz.key", "tamiz.candidate", "tamiz.family", "tamiz.version"
_PARENT = "mlflow.parentRunId"  # MLflow's own
_PACKAGE, _MODEL = "package", "model"  # folders: of a version's artifacts, and of its run's, a model for each version
_MAX_PARAM = 500  # characters, the limit of older servers
_MAX_RUNS = 1000
_MAX_BATCH = 1000  # metrics in one call
# Where MLflow's tables hold places of artifacts.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)

P = ParamSpec("P")
R = TypeVar("R")


def _translated(call: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(call)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except RegistryError:
            raise
        except Exception as error:  # MLflow lets through what SQLAlchemy, requests and boto3 raise
            first = str(error).strip().split("\n", 1)[0][:300]
            raise RegistryError(f"MLflow: {call.__name__} failed: {first or type(error).__name__}") from error

    return guarded


def _at(metrics: Mapping[str, float], step: int) -> list[Point]:
    return [Point(step, name, value) for name, value in metrics.items()]


def _prepare_database(uri: str, artifacts: str) -> None:
    """Make a local database that is not there yet, whole or not at all, and open one that is.

    MLflow makes its tables in many steps, and can neither use nor complete a database whose making was cut off. One
    that cannot be opened, it would try for minutes.

    Raises:
        RegistryError: it is no database, or cannot be read or made.
    """
    path = _database_of(uri)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_empty(path):
            with holding(path.with_name(f".{path.name}.lock"), poll_s=0.05):
                if _is_empty(path):  # else another process has made it meanwhile
                    _make_database(path, artifacts)
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA schema_version")
    except (sqlite3.Error, OSError) as error:
        raise RegistryError(f"MLflow: the database {path} cannot be opened: {error}") from error


def _database_of(uri: str) -> Path | None:
    """Return the file of a local database, `None` for a server or what is no plain file."""
    place = uri.removeprefix("sqlite:///")
    return None if place == uri or "?" in place or place == ":memory:" else Path(place)


def _is_empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _make_database(path: Path, artifacts: str) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    store_class = require("mlflow.store.tracking.sqlalchemy_store", extra="train").SqlAlchemyStore
    store_class(f"sqlite:///{unfinished}", artifacts).engine.dispose()
    unfinished.replace(path)


def _follow_folder(uri: str, old: str, new: Path) -> None:
    """Let the artifacts of a project that was moved be where they are now: MLflow keeps absolute places.

    Args:
        uri: of a local database.
        old: where the database has them.
        new: where they belong.
    """
    former = Path(url2pathname(urlsplit(old).path))
    if not old.startswith("file:") or (former.exists() and not new.exists()):  # the project has named another folder
        return
    given = {"old": old, "new": new.as_uri(), "end": len(old) + 1}
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database, database:
        for table, column in _PLACES:
            database.execute(
                f"UPDATE {table} SET {column} = :new || substr({column}, :end) "  # noqa: S608 (names of ours)
                f"WHERE {column} = :old OR substr({column}, 1, :end) = :old || '/'",
                given,
            )


class MlflowRegistry:
    """Record runs in an MLflow experiment and versions in its model registry, both named after the project.

    Args:
        name: name of the project.
        tracking_uri: `sqlite:///...` or the address of a server.
        artifacts: folder for artifacts, used for a new experiment of a local database only.
    """

    def __init__(self, name: str, tracking_uri: str, *, artifacts: str | None = None) -> None:
        self._name = name
        self._uri = tracking_uri
        self._artifacts = artifacts
        self._going: dict[str, Going] = {}

    @functools.cached_property
    def _client(self) -> Any:
        client_class = require("mlflow.tracking", extra="train").MlflowClient
        _prepare_database(self._uri, self._artifacts or "mlartifacts")
        return client_class(tracking_uri=self._uri, registry_uri=self._uri)

    @functools.cached_property
    def _experiment(self) -> str:
        return self._experiment_of(self._name)

    @functools.cached_property
    def _searches(self) -> str:
        """An experiment of their own: hundreds of trials would hide the candidates."""
        return self._experiment_of(f"{self._name}-tuning")

    def _experiment_of(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        folder = Path(self._artifacts).absolute() if self._artifacts and self._uri.startswith("sqlite:") else None
        if found is None:
            location = None if folder is None else folder.as_uri()
            return str(self._client.create_experiment(name, artifact_location=location))
        if folder is not None and found.artifact_location != folder.as_uri():
            _follow_folder(self._uri, found.artifact_location, folder)
        if found.lifecycle_stage == "deleted":
            raise RegistryError(
                f"the MLflow experiment {name!r} was deleted; restore it with: "
                f"mlflow experiments restore --experiment-id {found.experiment_id}"
            )
        return str(found.experiment_id)

    @_translated
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
        """Record a finished candidate as a run, the one that was begun by `follow` if there is one."""
        known = self._run_of(key)
        if known is not None and known.info.status == "FINISHED":
            return str(known.info.run_id)
        self._going.pop(key, None)
        going = self._begun(key, candidate, family) if known is None else self._taken_up(known)
        entities = require("mlflow.entities", extra="train")
        has = {} if known is None else known.data.params  # a value cannot be changed, and is the same for the same key
        self._client.log_batch(
            going.run_id,
            params=[entities.Param(n, str(value)[:_MAX_PARAM]) for n, value in params.items() if n not in has],
            tags=[entities.RunTag(name, value) for name, value in tags.items()],
        )
        # The last step counts as a metric's value, and that is the final figure.
        last = max([*going.last.values(), *(point.step for point in history)], default=-1)
        self._log(going.run_id, [*going.missing(history), *_at(metrics, last + 1)])
        if artifacts is not None:
            self._client.log_artifacts(going.run_id, str(artifacts))
        self._client.set_terminated(going.run_id)
        return going.run_id

    @_translated
    def follow(self, *, key: str, candidate: str, family: str, points: Sequence[Point]) -> str:
        """Add figures to a run that is not finished, as people see it grow."""
        going = self._going.pop(key, None)  # it comes back when all is logged: after a failure, MLflow is asked again
        if going is None:
            known = self._run_of(key)
            if known is not None and known.info.status == "FINISHED":
                return str(known.info.run_id)
            going = self._begun(key, candidate, family) if known is None else self._taken_up(known)
        missing = going.missing(points)
        self._log(going.run_id, missing)
        going.took(missing)
        self._going[key] = going
        return going.run_id

    def _run_of(self, key: str) -> Any | None:
        """Return the finished run of a key, else the newest that was not ended."""
        found = self._search(f"tags.`{_KEY}` = '{key}'")
        of_state = [run for state in ("FINISHED", "RUNNING") for run in found if run.info.status == state]
        return of_state[0] if of_state else None

    def _begun(self, key: str, candidate: str, family: str) -> Going:
        tags = {_KEY: key, _CANDIDATE: candidate, _FAMILY: family}
        return Going(str(self._client.create_run(self._experiment, run_name=candidate, tags=tags).info.run_id))

    def _taken_up(self, run: Any) -> Going:
        """Read which figures the run of an earlier process has."""
        run_id = str(run.info.run_id)
        histories = {name: self._client.get_metric_history(run_id, name) for name in run.data.metrics}
        return Going(run_id, {name: max(metric.step for metric in found) for name, found in histories.items()})

    def _log(self, run_id: str, points: Sequence[Point]) -> None:
        entities = require("mlflow.entities", extra="train")
        now = require("mlflow.utils.time", extra="train").get_current_time_millis()
        found = [
            entities.Metric(point.name, float(point.value), now, point.step)
            for point in points
            if math.isfinite(point.value)
        ]
        for start in range(0, len(found), _MAX_BATCH):
            self._client.log_batch(run_id, metrics=found[start : start + _MAX_BATCH])

    @_translated
    def register(self, run_id: str, *, version: str, metrics: Mapping[str, float], artifacts: Path) -> None:
        """Make a run a version of the registered model, in the form that MLflow's own tools serve."""
        self._log(run_id, _at(metrics, 0))
        for path in sorted(artifacts.iterdir()):
            if path.name != _PACKAGE:  # it is part of the model
                self._client.log_artifact(run_id, str(path))
        known, place = False, f"{_MODEL}/{version}"
        for found in self._numbered(version):
            known = known or found.run_id == run_id
            if found.run_id != run_id:  # a store that is made anew counts from 1 again
                self._client.delete_model_version_tag(self._name, found.version, _VERSION)
                self._client.delete_tag(found.run_id, _VERSION)
        if not known or (artifacts / _PACKAGE).exists():
            with tempfile.TemporaryDirectory() as name:
                model = Path(name) / _MODEL
                save_pyfunc(artifacts / _PACKAGE, model)
                self._client.log_artifacts(run_id, str(model), place)
        if not known:
            if not self._has_model():
                self._client.create_registered_model(self._name)
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{place}"
            self._client.create_model_version(self._name, source, run_id=run_id, tags={_VERSION: version})
        self._client.set_tag(run_id, _VERSION, version)

    def _has_model(self) -> bool:
        return bool(self._client.search_registered_models(f"name = '{self._name}'"))

    def _numbered(self, version: str) -> list[Any]:
        """Return what MLflow has under the number of a version of the model store."""
        return list(self._client.search_model_versions(f"name = '{self._name}' and tags.`{_VERSION}` = '{version}'"))

    @_translated
    def alias(self, name: str, version: str | None) -> None:
        """Point an alias at a version or remove it."""
        if version is None:
            if self._has_model():
                self._client.delete_registered_model_alias(self._name, name)
            return
        found = self._numbered(version)
        if not found:
            raise NotRegisteredError(
                f"version {version} is not registered in MLflow, whose database is another one than when it was made"
            )
        self._client.set_registered_model_alias(self._name, name, found[0].version)

    @_translated
    def runs(self) -> Sequence[RunRecord]:
        """Return the finished runs of the project, newest first; makes neither database nor experiment."""
        path = _database_of(self._uri)
        if path is not None and not path.exists() and not path.parent.is_file():
            return []
        if self._client.get_experiment_by_name(self._name) is None:
            return []
        return [
            RunRecord(
                run_id=run.info.run_id,
                key=run.data.tags.get(_KEY, ""),
                candidate=run.data.tags.get(_CANDIDATE, run.info.run_name),
                family=run.data.tags.get(_FAMILY, ""),
                metrics=dict(run.data.metrics),
                params=dict(run.data.params),
                version=run.data.tags.get(_VERSION),
            )
            for run in self._search("attributes.status = 'FINISHED'")
        ]

    @_translated
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
        """Record a run of a search, in the experiment `NAME-tuning`."""
        began, ended = (None, None) if times is None else (int(1000 * seconds) for seconds in times)
        known = self._search(f"tags.`{_KEY}` = '{key}'", self._searches)
        if known:
            run_id = str(known[0].info.run_id)
        else:
            all_tags = {**tags, _KEY: key, **({_PARENT: parent} if parent else {})}
            made = self._client.create_run(self._searches, start_time=began, run_name=name, tags=all_tags)
            run_id = str(made.info.run_id)
        entities = require("mlflow.entities", extra="train")
        self._client.log_batch(
            run_id,
            params=[entities.Param(n, str(value)[:_MAX_PARAM]) for n, value in params.items()],
        )
        self._log(run_id, _at(metrics, 0))
        if artifacts is not None:
            self._client.log_artifacts(run_id, str(artifacts))
        if state == "RUNNING":
            self._client.update_run(run_id, status=state)
        else:
            self._client.set_terminated(run_id, status=state, end_time=ended)
        return run_id

    def _search(self, query: str, experiment: str | None = None) -> list[Any]:
        return list(
            self._client.search_runs(
                [experiment or self._experiment], query, max_results=_MAX_RUNS, order_by=["attributes.start_time DESC"]
            )
        )

"""The models that a process serves: loaded beside the old ones, tried, then swapped in one step.

A request takes one `Served` and keeps it until it has answered, so that no answer mixes two versions. During a swap
both versions are in memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tamiz.errors import ConfigError, ConflictError, ModelNotFoundError, PackageError, StoreError, one_of
from tamiz.metrics.choice import Best, Mode, best_version, metrics_of
from tamiz.serving.decisions import decision_by_metric
from tamiz.serving.problems import FieldError, InvalidFieldsError, NotReadyError, log_error
from tamiz.serving.served import Listener, ModelCard, Served, load_package, tried, unknown_name
from tamiz.store import CHAMPION, ModelStore

__all__ = ["LiveModels"]

log = logging.getLogger("tamiz.serving")

RETRY_MOST_S = 60.0


@dataclass(slots=True)
class _Retry:
    """When to try a version again that would not load."""

    fingerprint: str
    at_s: float
    delay_s: float


@dataclass(slots=True)
class _Watched:
    """What the watcher remembers of a name."""

    fingerprint: str | None = None
    retry: _Retry | None = None


class LiveModels:
    """The champions of a store, followed as they change.

    Args:
        store: where the champions are.
        names: what to serve, the default model first; `None`: all that the store has a champion of.
        poll_s: seconds between looks at the store.
        shadow: alias of the versions that see copies of requests, if any.
        clock: monotonic seconds, for the delays between attempts.
    """

    def __init__(
        self,
        store: ModelStore,
        names: Sequence[str] | None = None,
        *,
        poll_s: float = 1.0,
        shadow: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.poll_s = poll_s
        self.shadow = shadow
        self._clock = clock
        self._wanted = tuple(names) if names is not None else None
        self._served: dict[str, Served] = {}
        self._challengers: dict[str, Served] = {}
        self._said_missing: set[str] = set()
        self._watched: dict[tuple[str, str], _Watched] = {}  # by name and alias
        self._lock = threading.RLock()  # one change at a time; `get` needs none
        self._listeners: list[Listener] = []
        self._looked = False
        self._draining = False
        self._halt = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names that are, or will be, served; the default model first."""
        return self._wanted if self._wanted is not None else tuple(sorted(self._served))

    @property
    def default(self) -> str:
        """Name that doors without a model in their path use.

        Raises:
            NotReadyError: no model is known yet.
        """
        names = self.names
        if not names:
            raise NotReadyError("No model is served yet: the store has no champion, or it is still being loaded.")
        return names[0]

    @property
    def ready(self) -> bool:
        """Whether every model has been loaded and the server is not about to stop."""
        served = self._served
        return self._looked and not self._draining and bool(served) and all(name in served for name in self.names)

    def get(self, name: str | None = None) -> Served:
        """Return what is served under `name` now (`None`: the default model).

        Raises:
            ModelNotFoundError: no such name.
            NotReadyError: the model is not loaded yet.
        """
        found = self._served.get(name if name is not None else self.default)
        if found is not None:
            return found
        if not self._looked or name is None or name in self.names:
            raise NotReadyError("The model is not loaded yet; the log says if it cannot be.")
        raise unknown_name(self.names)

    def served(self) -> tuple[Served, ...]:
        """Return all that is served now."""
        served = self._served
        return tuple(served[name] for name in self.names if name in served)

    def challenger(self, name: str) -> Served | None:
        """Return the version that sees copies of the requests to `name`, if there is one."""
        return self._challengers.get(name)

    def card(self, name: str) -> ModelCard:
        """Describe a model; reads the store.

        Raises:
            ModelNotFoundError: no such name.
        """
        self._check_name(name)
        try:
            index = self.store.index(name)
        except ModelNotFoundError:  # wanted, and nothing is published yet
            return ModelCard(name, self._served.get(name), {}, [])
        versions = sorted(index.versions, key=lambda version: (len(version), version))
        return ModelCard(name, self._served.get(name), dict(index.aliases), versions)

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with all that is served, now and after each swap."""
        with self._lock:
            self._listeners.append(listener)
            listener(self.served())

    def start(self) -> None:
        """Load, and follow changes, in the background."""
        if self._watcher is None:
            self._halt.clear()
            self._draining = False
            self._watcher = threading.Thread(target=self._watch, name="tamiz-watcher", daemon=True)
            self._watcher.start()

    def stop(self) -> None:
        """End the watcher; what is loaded stays."""
        self.drain()
        self._halt.set()
        if self._watcher is not None:
            self._watcher.join(timeout=self.poll_s + 5)
            self._watcher = None

    def drain(self) -> None:
        """Report not ready from now on, and go on answering."""
        self._draining = True

    def refresh(self) -> None:
        """Look at the store once, and load and swap in what has changed; failures are logged."""
        with self._lock:
            try:
                names = self._wanted if self._wanted is not None else self.store.names()
            except Exception as error:
                log_error("the model store cannot be read", error)
                return
            for name in names:
                self._follow(name, CHAMPION)
                if self.shadow is not None:
                    self._follow(name, self.shadow)
            self._looked = True

    def best(self, name: str, metric: str, mode: Mode | None) -> Best:
        """Return the version of `name` with the best figure in the store.

        Raises:
            ModelNotFoundError: no such name.
            InvalidFieldsError: no version has the metric.
        """
        self._check_name(name)
        with self._discreetly():
            figures = {version: info.metrics for version, info in self.store.index(name).versions.items()}
        try:
            return best_version(figures, metric, mode)
        except (ConfigError, ModelNotFoundError):
            # Said anew, without repeating what the caller sent.
            error = FieldError("body.by", f"No version has it; {one_of(metric, metrics_of(figures))}", "unknown_metric")
            raise InvalidFieldsError(f"One field is wrong: body.by: {error.message}", [error]) from None

    def deploy(self, name: str, *, version: str | None, alias: str | None, by: str, best: Best | None = None) -> Served:
        """Make a version the champion and serve it; returns once this process serves it.

        The version is loaded and tried before the store is told: one that does not work changes nothing. A decision by
        metric is recorded.

        Raises:
            ModelNotFoundError: no such name, version or alias.
            PackageError: the version cannot be loaded.
        """
        with self._lock, self._discreetly():
            self._check_name(name)
            number = self._number(name, best.version if best else version or alias or CHAMPION)
            candidate = self._load(name, number)
            index = self.store.index(name)
            if best is not None and index.aliases.get(CHAMPION) != number:
                self.store.record_decision(name, number, decision_by_metric(name, index, best, by=by))
            reason = f"deployed over HTTP: {best.reason}" if best else "deployed over HTTP"
            self.store.set_alias(name, CHAMPION, number, by=by, reason=reason)
            self._swap(candidate)
            return candidate

    def rollback(self, name: str, *, by: str) -> Served:
        """Go back to the previous champion; returns once it is served.

        It is loaded and tried before the store is told: one that does not work changes nothing.

        Raises:
            ModelNotFoundError: no such name.
            ConflictError: there is no previous champion.
            PackageError: the previous champion cannot be loaded any more.
        """
        with self._lock, self._discreetly():
            self._check_name(name)
            expected = self.store.index(name).previous_champion()
            previous = self._load(name, expected) if expected is not None else None
            version = self._previous(name, by)
            if previous is None or previous.version != version:  # somebody else changed it meanwhile
                previous = self._load(name, version)
            self._swap(previous)
            return previous

    @contextmanager
    def _discreetly(self) -> Iterator[None]:
        """Let errors tell callers what is wrong, and the log alone where it lies."""
        try:
            yield
        except (PackageError, ModelNotFoundError, ConflictError) as error:
            said = self.store.without_places(str(error))
            if said == str(error):
                raise
            log_error("a version cannot be deployed", error)
            raise type(error)(said) from None

    def _check_name(self, name: str) -> None:
        if name not in self.names:
            raise unknown_name(self.names)

    def _number(self, name: str, which: str) -> str:
        index = self.store.index(name)
        try:
            return self.store.resolve(f"{name}@{which}")[1]
        except ModelNotFoundError:
            # Said anew, without repeating what the caller sent, or telling where the store is.
            aliases = ", ".join(sorted(index.aliases)) or "none"
            raise ModelNotFoundError(
                f"The model has no such version or alias; versions: {index.listed()}; aliases: {aliases}."
            ) from None

    def _previous(self, name: str, by: str) -> str:
        self.store.index(name)  # a store that is out of order fails here
        try:
            return self.store.rollback(name, by=by, reason="rolled back over HTTP")
        except (ModelNotFoundError, ConflictError):
            raise
        except StoreError as error:
            raise ConflictError("There is no earlier champion to go back to; deploy a version instead.") from error

    def _watch(self) -> None:
        while not self._halt.is_set():
            self.refresh()
            self._halt.wait(self.poll_s)

    def _follow(self, name: str, alias: str) -> None:
        """Serve the present champion of `name`, or let its challenger see copies, if that is not so already."""
        watched = self._watched.setdefault((name, alias), _Watched())
        fingerprint = ""
        try:
            fingerprint = self.store.fingerprint(name)
            if fingerprint == watched.fingerprint or self._must_wait(watched, fingerprint):
                return
            aliases = None if alias == CHAMPION else self.store.index(name).aliases
            if aliases is not None and alias not in aliases:
                self._challenge(name, None)
                self._say_missing(name, alias, sorted(aliases))
            else:
                self._take(name, alias)
        except ModelNotFoundError as error:
            if self._wanted is not None:
                self._put_off(name, alias, fingerprint, error)
        except Exception as error:
            self._put_off(name, alias, fingerprint, error)
        else:
            # Read before the champion was: a change in between is seen at the next look.
            watched.fingerprint, watched.retry = fingerprint, None

    def _take(self, name: str, alias: str) -> None:
        """Load what an alias points at, and put it where it belongs."""
        _, version = self.store.resolve(f"{name}@{alias}")
        if alias != CHAMPION:
            if not self._is_loaded(self._challengers.get(name), name, version):
                self._challenge(name, None)  # the one before is no longer the challenger, whether or not this one loads
                self._challenge(name, self._load(name, version))
        elif not self._is_loaded(self._served.get(name), name, version):
            self._swap(self._load(name, version))

    def _is_loaded(self, now: Served | None, name: str, version: str) -> bool:
        """Tell whether a loaded model is that version; a store that is made anew counts from 1 again."""
        if now is None or now.version != version:
            return False
        info = self.store.index(name).versions.get(version)
        return info is not None and info.created_at == now.model.manifest.created_at

    def _challenge(self, name: str, challenger: Served | None) -> None:
        others = {other: served for other, served in self._challengers.items() if other != name}
        self._challengers = others if challenger is None else {**others, name: challenger}

    def _say_missing(self, name: str, alias: str, aliases: list[str]) -> None:
        """Warn, once a model, that no version sees copies of its requests: the alias may be misspelt."""
        if name not in self._said_missing:
            self._said_missing.add(name)
            said = "no version has the shadow's alias (--shadow, serve.shadow); one that gets it is taken"
            log.warning(said, extra={"fields": {"model": name, "alias": alias, "aliases": aliases}})

    def _must_wait(self, watched: _Watched, fingerprint: str) -> bool:
        retry = watched.retry
        return retry is not None and retry.fingerprint == fingerprint and self._clock() < retry.at_s

    def _put_off(self, name: str, alias: str, fingerprint: str, error: Exception) -> None:
        """Keep what is served, say why, and try again later, each time after twice the wait."""
        watched = self._watched[name, alias]
        last = watched.retry
        same = last is not None and last.fingerprint == fingerprint
        if last is not None and same and self._clock() < last.at_s:
            return
        delay_s = min(last.delay_s * 2, RETRY_MOST_S) if last is not None and same else self.poll_s
        watched.retry = _Retry(fingerprint, self._clock() + delay_s, delay_s)
        kept = self._served.get(name)
        version = kept.version if kept else None
        what = "the champion cannot be served" if alias == CHAMPION else "the challenger cannot be shown requests"
        log_error(what, error, model=name, still_served=version, retry_s=delay_s)

    def _load(self, name: str, version: str) -> Served:
        for current in (self._served.get(name), self._challengers.get(name)):
            if current is not None and self._is_loaded(current, name, version):
                return current
        begun = time.perf_counter()
        model = load_package(self.store.fetch(f"{name}@{version}"))
        served = tried(name, version, model)
        took_ms = round((time.perf_counter() - begun) * 1000)
        about = {"model": name, "version": version, "took_ms": took_ms, "batched": served.batched}
        log.info("model loaded", extra={"fields": about})
        return served

    def _swap(self, candidate: Served) -> None:
        with self._lock:
            self._served = {**self._served, candidate.name: candidate}
            for listener in self._listeners:
                listener(self.served())

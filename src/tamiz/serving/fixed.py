"""One package as the only thing that is served."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tamiz.errors import ConflictError
from tamiz.metrics.choice import Best, Mode
from tamiz.serving.problems import NotReadyError
from tamiz.serving.served import Listener, ModelCard, Served, load_package, tried, unknown_name

__all__ = ["FixedModel"]


@dataclass
class FixedModel:
    """One package, served as it is; for images that hold their model.

    Args:
        folder: the model package, or a packed one (`.tar.gz`).
        name: name to serve it under; by default the package's own.
    """

    folder: Path
    name: str | None = None
    _one: Served | None = field(default=None, init=False)
    _draining: bool = field(default=False, init=False)
    _listeners: list[Listener] = field(default_factory=list, init=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The one name."""
        return (self.default,)

    @property
    def default(self) -> str:
        """Name of the package.

        Raises:
            NotReadyError: it has not been loaded yet.
        """
        return self.get().name

    @property
    def ready(self) -> bool:
        """Whether the package has been loaded and the server is not about to stop."""
        return self._one is not None and not self._draining

    def get(self, name: str | None = None) -> Served:
        """Return the model.

        Raises:
            ModelNotFoundError: `name` is another one.
            NotReadyError: it has not been loaded yet.
        """
        one = self._one
        if one is None:
            raise NotReadyError("The model is not loaded yet.")
        if name is not None and name != one.name:
            raise unknown_name([one.name])
        return one

    def served(self) -> tuple[Served, ...]:
        """Return the model, once loaded."""
        return (self._one,) if self._one else ()

    def challenger(self, name: str) -> Served | None:
        """Return nothing: a package has no challenger."""
        return None

    def card(self, name: str) -> ModelCard:
        """Describe the model; a package has no aliases and no other versions."""
        one = self.get(name)
        return ModelCard(one.name, one, {}, [one.version] if one.version else [])

    def refresh(self) -> None:
        """Load the package if it has not been.

        Raises:
            PackageError: it cannot be loaded.
        """
        if self._one is None:
            model = load_package(self.folder)
            self._one = tried(self.name or model.name, model.version, model)
            for listener in self._listeners:
                listener(self.served())

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with all that is served, now and after each swap."""
        self._listeners.append(listener)
        listener(self.served())

    def start(self) -> None:
        """Load the package, at once: a server without it is of no use."""
        self._draining = False
        self.refresh()

    def stop(self) -> None:
        """Report not ready."""
        self.drain()

    def drain(self) -> None:
        """Report not ready from now on, and go on answering."""
        self._draining = True

    def best(self, name: str, metric: str, mode: Mode | None) -> Best:
        """Refuse: there is no store.

        Raises:
            ConflictError: always.
        """
        raise ConflictError("This server serves one package and has no model store to deploy from.")

    def deploy(self, name: str, *, version: str | None, alias: str | None, by: str, best: Best | None = None) -> Served:
        """Refuse: there is no store.

        Raises:
            ConflictError: always.
        """
        raise ConflictError("This server serves one package and has no model store to deploy from.")

    def rollback(self, name: str, *, by: str) -> Served:
        """Refuse: there is no store.

        Raises:
            ConflictError: always.
        """
        raise ConflictError("This server serves one package and has no model store to roll back in.")

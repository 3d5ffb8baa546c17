"""What the environment says, read here and in no other place but the entry points themselves.

| variable | meaning | default |
| --- | --- | --- |
| `TAMIZ_STORE` | model store for `tamiz.load("name@alias")` and for commands outside a project | `models` |
| `TAMIZ_CACHE` | folder for downloads and prepared encoders | the user's cache folder |
| `TAMIZ_USER` | who is recorded as having promoted or rolled back | the system's user name |
| `${NAME}` in a project file | any variable | none: a missing one is an error |
"""

from __future__ import annotations

import getpass
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tamiz.config import Project, load_project
from tamiz.types import Registry

__all__ = ["Settings", "new_registry", "read_project"]


@dataclass(frozen=True)
class Settings:
    """The environment's settings.

    Attributes:
        store: model store used where no project names one.
        cache: folder for downloads and prepared encoders.
        user: who acts, for records.
    """

    store: str
    cache: Path
    user: str

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the settings."""
        cache = os.environ.get("TAMIZ_CACHE")
        return cls(
            store=os.environ.get("TAMIZ_STORE", "models"),
            cache=Path(cache) if cache else _user_cache(),
            user=os.environ.get("TAMIZ_USER") or _user(),
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a user database
        return "unknown"


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or _home()) / "tamiz" / "cache"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "tamiz"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "tamiz"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a container without a user database; most commands never touch the cache
        return Path("/")


def read_project(path: Path | str, *, notice: Callable[[str], None] | None = None) -> Project:
    """Read a project file with `${NAME}` taken from the environment.

    Raises:
        ConfigError: there is no such file, a variable is not set, or a key or value is wrong.
    """
    return load_project(path, variables=os.environ, notice=notice)


def new_registry(project: Project) -> Registry:
    """Return the project's MLflow registry."""
    from tamiz.registry import MlflowRegistry

    # Models are never read from pickles, by MLflow either; its start-up chatter is not ours to show.
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri = project.registry.mlflow
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        uri = f"sqlite:///{project.resolve(uri.removeprefix('sqlite:///'))}"
    return MlflowRegistry(project.name, uri, artifacts=project.resolve(project.registry.artifacts))

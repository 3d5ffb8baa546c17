"""The Python interface: `tamiz.load` and `tamiz.run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tamiz.config import Project
from tamiz.extras import missing
from tamiz.model import Model
from tamiz.package import MANIFEST_NAME
from tamiz.settings import Settings, new_registry, read_project
from tamiz.store import ModelStore

if TYPE_CHECKING:
    from tamiz.pipeline import Listener, RunResult

__all__ = ["load", "run"]


def load(ref: str | Path, *, store: str | None = None) -> Model:
    """Load a model.

    Args:
        ref: a package folder, a packed package (`.tar.gz`), or a model of a store: `name`, `name@champion`, `name@3`,
            each with the store before it if `store` does not name it, as in `models/reviews@champion`.
        store: folder or `s3://` address of the model store; by default what stands before the name, else `TAMIZ_STORE`,
            else `models`.

    Raises:
        PackageError: the package is damaged, foreign or of a future format.
        ModelNotFoundError: the store has no such model, version or alias.

    Example::

        tamiz.load("models/reviews@champion").predict(["A film to fall asleep in."])
    """
    text = str(ref)
    if store is None and "://" not in text:
        path = Path(text)
        if path.is_file() or (path / MANIFEST_NAME).is_file():
            return Model.load(path)
    head, _, name = text.rpartition("/")
    settings = Settings.from_environment()
    found = ModelStore(store or head or settings.store, cache=settings.cache / "models")
    # The store has compared every file with its recorded hash.
    return Model.load(found.fetch(text if store else name), verify=False)


def run(project: Project | str | Path = "tamiz.yaml", *, listener: Listener | None = None) -> RunResult:
    """Run a project's whole pipeline: ingest, clean, split, train, choose, publish, promote.

    Args:
        project: a project, or the path of its file or folder.
        listener: told what happens; by default nobody is.

    Raises:
        TamizError: whatever goes wrong; what was finished before stays and is not done again.
    """
    found = project if isinstance(project, Project) else read_project(project)
    try:
        from tamiz import pipeline

        return pipeline.run(found, new_registry(found), listener=listener)
    except ModuleNotFoundError as error:  # training imports its libraries at the heads of its modules
        raise missing(error.name or str(error), extra="train") from error

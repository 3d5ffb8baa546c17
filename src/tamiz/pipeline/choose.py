"""The figures of all versions, from the store and, where it lacks them, from the registry's runs."""

from __future__ import annotations

from collections.abc import Callable

from tamiz.errors import RegistryError
from tamiz.store import ModelStore
from tamiz.types import Registry

__all__ = ["figures_of"]


def figures_of(
    store: ModelStore,
    registry: Registry | None,
    name: str,
    metric: str,
    *,
    notice: Callable[[str], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Return metrics by version number; the store's figures count before those of the version's run.

    The registry is asked only if a version in the store lacks `metric`.

    Args:
        store: where the versions are.
        registry: which may know more figures of them.
        name: name of the model.
        metric: the one that is wanted.
        notice: told when the registry does not answer.

    Raises:
        ModelNotFoundError: no such model.
    """
    figures = {version: dict(info.metrics) for version, info in store.index(name).versions.items()}
    if registry is None or all(metric in found for found in figures.values()):
        return figures
    try:
        for run in registry.runs():
            if run.version in figures:
                figures[run.version] = {**run.metrics, **figures[run.version]}
    except RegistryError as error:
        if notice is not None:
            notice(f"only figures in the store are compared, for the registry did not answer: {error}")
    return figures

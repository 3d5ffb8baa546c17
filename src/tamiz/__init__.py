"""Tamiz: from raw texts to a monitored text classifier in production.

Example::

    import tamiz

    model = tamiz.load("models/reviews@champion")
    model.predict(["A film to fall asleep in."])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tamiz.api import load, run
    from tamiz.config import Project
    from tamiz.errors import TamizError
    from tamiz.model import Model, Prediction

__version__ = "0.1.0"
__all__ = ["Model", "Prediction", "Project", "TamizError", "__version__", "load", "run"]

_HOMES = {
    "Model": "tamiz.model",
    "Prediction": "tamiz.model",
    "Project": "tamiz.config",
    "TamizError": "tamiz.errors",
    "load": "tamiz.api",
    "run": "tamiz.api",
}


def __getattr__(name: str) -> Any:
    """Load public names when first used, so that `import tamiz` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tamiz' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

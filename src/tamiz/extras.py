"""Load optional dependencies when first needed, with an error that says what to install."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from tamiz.errors import MissingExtraError

__all__ = ["check", "missing", "require"]


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module` or say which extra of Tamiz brings it.

    Args:
        module: dotted name of the module, such as `"boto3"`.
        extra: name of the extra in Tamiz's package metadata.

    Raises:
        MissingExtraError: the top-level package of `module` is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise missing(module, extra=extra) from error


def check(module: str, *, extra: str) -> None:
    """Refuse where `require` would for want of a top-level module, without the seconds that an import may take.

    Args:
        module: name of the module, such as `"torch"`.
        extra: name of the extra in Tamiz's package metadata.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec(module) is None:
        raise missing(module, extra=extra)


def missing(module: str, *, extra: str) -> MissingExtraError:
    """Return the error that says which extra of Tamiz brings a module.

    Example:
        >>> print(missing("boto3.session", extra="aws"))
        'boto3' is needed here and not installed. Install it with: pip install 'tamiz[aws]'
    """
    return MissingExtraError(
        f"{module.split('.')[0]!r} is needed here and not installed. Install it with: pip install 'tamiz[{extra}]'"
    )

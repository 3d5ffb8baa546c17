"""Every error Tamiz raises on purpose.

The tree (the second base is the builtin that callers already expect)::

    TamizError
    ├── ConfigError (ValueError)        the project file or an argument is wrong
    ├── DataError (ValueError)          the data cannot be used as asked
    │   ├── SourceError                 a file or folder cannot be read
    │   │   └── EncodingError           bytes that are not text in the stated encoding
    │   ├── ColumnError (KeyError)      a named column is not there
    │   ├── LabelError                  too few labels, or examples of one
    │   ├── RefusedShareError           too many rows went to quarantine
    │   └── SplitError                  the rows cannot be divided as asked
    ├── PackageError (ValueError)       a model package is damaged, foreign or too new
    │   └── LaterFormatError            only later releases know its format
    ├── StoreError (RuntimeError)       the model store cannot do what was asked
    │   ├── ModelNotFoundError (KeyError)
    │   └── ConflictError               somebody else changed the same thing first
    ├── RegistryError (RuntimeError)    the experiment registry failed
    │   └── NotRegisteredError          it has no such version
    ├── BusyError (RuntimeError)        another run holds the project
    ├── MissingExtraError (ImportError) an optional dependency is not installed
    └── RequestError (ValueError)       a request to a server is wrong
        ├── TooLargeError               the body, a text or the batch is over its limit
        ├── UnauthorizedError           no key, or an unknown one
        ├── ForbiddenError              a key whose role does not allow the call
        └── OverloadedError             no room for the request now

Messages name what failed, the value received, the values allowed and the next step. They never hold a user's text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

__all__ = [
    "BusyError",
    "ColumnError",
    "ConfigError",
    "ConflictError",
    "DataError",
    "EncodingError",
    "ForbiddenError",
    "LabelError",
    "LaterFormatError",
    "MissingExtraError",
    "ModelNotFoundError",
    "OverloadedError",
    "PackageError",
    "RefusedShareError",
    "NotRegisteredError",
    "RegistryError",
    "RequestError",
    "SourceError",
    "SplitError",
    "StoreError",
    "TamizError",
    "TooLargeError",
    "UnauthorizedError",
    "counted",
    "one_of",
    "reason_of",
]


class TamizError(Exception):
    """Root of all errors that Tamiz raises on purpose."""

    def __str__(self) -> str:
        """Return the message itself (`KeyError` would quote it)."""
        return str(self.args[0]) if self.args else self.__class__.__name__


class ConfigError(TamizError, ValueError):
    """The project file, or an argument standing for a part of it, is wrong."""


class DataError(TamizError, ValueError):
    """The data cannot be used as asked."""


class SourceError(DataError):
    """A file or folder of texts cannot be read."""


class EncodingError(SourceError):
    """The bytes of a file are not text in the stated or detected encoding."""


class ColumnError(DataError, KeyError):
    """A column named in the project is not in the data."""


class LabelError(DataError):
    """The labels do not allow a classifier: too few of them, or of examples."""


class RefusedShareError(DataError):
    """More rows went to quarantine than the project allows."""


class SplitError(DataError):
    """The rows cannot be divided as the project asks."""


class PackageError(TamizError, ValueError):
    """A model package is damaged, truncated, foreign or of a future format."""


class LaterFormatError(PackageError):
    """A model package is of a format that only later releases know."""


class StoreError(TamizError, RuntimeError):
    """The model store cannot do what was asked."""


class ModelNotFoundError(StoreError, KeyError):
    """No such model, version or alias in the store."""


class ConflictError(StoreError):
    """Somebody else changed the same object first; read again and retry."""


class RegistryError(TamizError, RuntimeError):
    """The experiment registry (MLflow) failed."""


class NotRegisteredError(RegistryError):
    """The registry has no such version: it is another one than when the version was made."""


class BusyError(TamizError, RuntimeError):
    """Another run holds the project's lock."""


class MissingExtraError(TamizError, ImportError):
    """An optional dependency is not installed; the message says how to get it."""


class RequestError(TamizError, ValueError):
    """A request to a server is wrong; the caller must change it."""


class TooLargeError(RequestError):
    """The body, a text or the batch is larger than the server allows."""


class UnauthorizedError(RequestError):
    """The request carries no API key, or one that the server does not know."""


class ForbiddenError(RequestError):
    """The API key is known but its role does not allow the call."""


class OverloadedError(RequestError):
    """The server has no room for the request now; try again later."""


def counted(n: int, one: str, verbs: tuple[str, str] | None = None) -> str:
    """Return a number with what it counts and, where they are given, the verb for one and that for several.

    Example:
        >>> counted(1, "row", ("has", "have")), counted(2000, "row")
        ('1 row has', '2,000 rows')
    """
    verb = f" {verbs[n != 1]}" if verbs else ""
    return f"{n:,} {one}{'s' * (n != 1)}{verb}"


def one_of(given: str, allowed: Iterable[str], *, limit: int = 20) -> str:
    """Return the part of a message that lists what is allowed and the nearest spelling.

    Example:
        >>> one_of("lable", ["text", "label"])
        "allowed: label, text; did you mean 'label'?"
    """
    names = sorted(allowed)
    shown = ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
    near = get_close_matches(given, names, n=1)
    return f"allowed: {shown or 'none'}" + (f"; did you mean {near[0]!r}?" if near else "")


def reason_of(finding: Mapping[str, object]) -> str:
    """Return what one of pydantic's findings says, without the prefix that pydantic gives to a validator's own words.

    Example:
        >>> reason_of({"msg": "Value error, the sum must be below 1"})
        'the sum must be below 1'
    """
    return str(finding["msg"]).removeprefix("Value error, ")

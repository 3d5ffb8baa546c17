"""API keys: created once, stored hashed, looked up at each request, rotated without a restart.

A key reads `tz_<id>_<secret>`. The file keeps the id, the role and the SHA-256 of the secret. A fast hash is right
here, unlike for passwords: the secret is 256 bits from the operating system's random source, so that whoever steals the
file cannot try candidates however fast each try is, and a slow hash would only make each request slow.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError

from tamiz._files import holding
from tamiz.errors import BusyError, ConfigError, one_of, reason_of

__all__ = ["ApiKey", "KeyRing", "Role", "create_key", "list_keys", "revoke_key", "rotate_key"]

log = logging.getLogger("tamiz.serving")

Role = Literal["predict", "admin"]
SECRET_BYTES = 32
NO_HASH = "0" * 64
WAIT_S = 10.0


class ApiKey(BaseModel):
    """What the file keeps of a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,32}$")]
    role: Role
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime | None = None
    note: str = ""
    replaced_by: str | None = None

    def expired(self, now: datetime) -> bool:
        """Tell whether the key is past its time."""
        return self.expires is not None and now >= self.expires


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    keys: list[ApiKey] = []


class _Stamp(NamedTuple):
    """What changes when a file does."""

    inode: int
    modified_ns: int
    size_bytes: int


def create_key(
    path: Path,
    role: Role,
    *,
    lasts: timedelta | None = None,
    note: str = "",
    now: datetime | None = None,
    dry_run: bool = False,
) -> tuple[str, ApiKey]:
    """Add a key to the file, which is made if need be, and return it in full: it cannot be shown again.

    Args:
        path: the key file.
        role: `predict` or `admin`.
        lasts: time until the key expires; by default never.
        note: what the key is for.
        now: the time of creation; by default the present.
        dry_run: see whether it could be done; the key that is returned is known nowhere.

    Raises:
        ConfigError: the file is there and cannot be read.
    """
    shown, key = _new_key(role, lasts, note, now or datetime.now(UTC))
    with _changing(path, dry_run=dry_run) as write:
        write([*(_read(path) if path.exists() else []), key])
    return shown, key


def _new_key(role: Role, lasts: timedelta | None, note: str, now: datetime) -> tuple[str, ApiKey]:
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(SECRET_BYTES)
    expires = now + lasts if lasts is not None else None
    key = ApiKey(id=key_id, role=role, sha256=_hash(secret), created=now, expires=expires, note=note)
    return f"tz_{key_id}_{secret}", key


def rotate_key(
    path: Path, key_id: str, *, grace: timedelta, now: datetime | None = None, dry_run: bool = False
) -> tuple[str, ApiKey]:
    """Add a key with the role, the note and the lifetime of another, which expires after a time of grace.

    Args:
        path: the key file.
        key_id: the key to replace.
        grace: time in which both are known.
        now: the time of the change; by default the present.
        dry_run: as for `create_key`.

    Returns:
        The new key in full, which cannot be shown again, and its record.

    Raises:
        ConfigError: the file cannot be read, or holds no such key, or one that expired or was replaced before.
    """
    now = now or datetime.now(UTC)
    with _changing(path, dry_run=dry_run) as write:
        keys = {key.id: key for key in _read(path)}
        old = _find(keys, path, key_id)
        if old.expired(now):
            raise ConfigError(f"{path}: the key {key_id!r} has expired; make a new one: tamiz keys create")
        if old.replaced_by is not None:  # its end is that of the grace, and not its own
            raise ConfigError(
                f"{path}: the key {key_id!r} was replaced by {old.replaced_by!r}; rotate that one, or make a new one: "
                "tamiz keys create"
            )
        lasts = None if old.expires is None else old.expires - old.created
        shown, key = _new_key(old.role, lasts, old.note, now)
        ends = now + grace if old.expires is None else min(now + grace, old.expires)
        keys[key_id] = old.model_copy(update={"expires": ends, "replaced_by": key.id})
        write([*keys.values(), key])
    return shown, key


def revoke_key(path: Path, key_id: str, *, dry_run: bool = False) -> ApiKey:
    """Take a key out of the file; servers refuse it from their next request on. A dry run only looks for it.

    Raises:
        ConfigError: the file cannot be read, or holds no such key.
    """
    with _changing(path, dry_run=dry_run) as write:
        keys = {key.id: key for key in _read(path)}
        revoked = _find(keys, path, key_id)
        del keys[key_id]
        write(list(keys.values()))
    return revoked


def list_keys(path: Path) -> list[ApiKey]:
    """Return the keys of the file, oldest first.

    Raises:
        ConfigError: the file cannot be read.
    """
    return sorted(_read(path), key=lambda key: key.created)


class KeyRing:
    """The keys of a file, read again whenever it changes.

    A file that has become unreadable lets nobody in: somebody may just have tried to take a key out.

    Raises:
        ConfigError: at construction, the file cannot be read or holds no key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = _stamp(path)
        self._keys = {key.id: key for key in _read(path)}
        self._fault = ""
        if not self._keys:
            raise ConfigError(f"{path} holds no API key. Create one with: tamiz keys create")

    def check(self, shown: str, *, now: datetime | None = None) -> ApiKey | None:
        """Return the key that `shown` is, or `None` where it is unknown, revoked or expired."""
        self._follow()
        prefix, _, rest = shown.partition("_")
        key_id, _, secret = rest.partition("_")
        key = self._keys.get(key_id)
        # An unknown id costs the same comparison as a known one.
        same = hmac.compare_digest(_hash(secret), key.sha256 if key else NO_HASH)
        if key is None or not same or prefix != "tz" or key.expired(now or datetime.now(UTC)):
            return None
        return key

    def _follow(self) -> None:
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        try:
            self._keys = {key.id: key for key in _read(self.path)}
        except ConfigError as error:  # it is read again at the next request: what ails it may pass
            self._keys, self._stamp = {}, None
            if str(error) != self._fault:
                self._fault = str(error)
                log.error("API keys unreadable: nobody is let in", extra={"fields": {"error_message": self._fault}})
        else:
            self._stamp, self._fault = stamp, ""
            log.info("API keys read again", extra={"fields": {"keys": len(self._keys)}})


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return _Stamp(found.st_ino, found.st_mtime_ns, found.st_size)


def _read(path: Path) -> list[ApiKey]:
    try:
        return _KeyFile.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError as error:
        raise ConfigError(f"no key file at {path}. Create a key with: tamiz keys create") from error
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        count = error.error_count()
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"the key file {path} is damaged ({count} errors; {place}: {reason_of(first)})") from None


def _find(keys: Mapping[str, ApiKey], path: Path, key_id: str) -> ApiKey:
    if key_id not in keys:
        raise ConfigError(f"{path}: no key {key_id!r}; {one_of(key_id, keys)}")
    return keys[key_id]


@contextmanager
def _changing(path: Path, *, dry_run: bool) -> Iterator[Callable[[list[ApiKey]], None]]:
    """Keep other processes from changing the file, and give what writes it: each reads all keys and writes all."""
    if dry_run:
        yield lambda keys: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    ends_s = time.monotonic() + WAIT_S

    def waiting() -> None:
        if time.monotonic() > ends_s:
            raise BusyError(f"{path} is being changed by another process; try again")

    with holding(path.with_name(f".{path.name}.lock"), poll_s=0.02, mode=0o600, waiting=waiting):
        yield partial(_write, path)


def _write(path: Path, keys: list[ApiKey]) -> None:
    """Replace the file in one step, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_KeyFile(keys=keys).model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

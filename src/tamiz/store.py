"""The model store: published packages by name and version, and the aliases that say which one is served.

A store is a folder or an `s3://` address with one folder for each model::

    <name>/index.json     versions, aliases and their history; replaced atomically
    <name>/<version>/     one package
    <name>/decisions/     why versions became champion or not, one JSON document a decision; never changed

A package is complete before the index names it, so a reader of the index never meets half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any

from pydantic import ValidationError

from tamiz._files import building, explain
from tamiz._index import CHAMPION, AliasChange, Index, VersionInfo
from tamiz.blobs import Blobs, open_blobs
from tamiz.errors import ConflictError, ModelNotFoundError, PackageError, StoreError, one_of, reason_of
from tamiz.package import MANIFEST_NAME, Manifest, verify_package

__all__ = ["CHAMPION", "AliasChange", "Index", "ModelStore", "VersionInfo"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_INDEX_NAME = "index.json"
_DECISIONS = "decisions"
_ATTEMPTS = 100
_LONGEST_WAIT_MS = 500

# Packages whose every file this process has compared with its hash: (folder, hash of model.json).
_verified: set[tuple[str, str]] = set()
_verifying = threading.Lock()


class ModelStore:
    """Published models in a folder or below an `s3://` address.

    Args:
        place: the folder or address; made by the first `publish`.
        cache: folder for packages fetched from S3; by default `.cache/tamiz/models` in the user's home.
    """

    def __init__(self, place: str, *, cache: Path | None = None) -> None:
        self._blobs: Blobs = open_blobs(place)
        self._cache = cache
        self.place = self._blobs.place

    def names(self) -> list[str]:
        """Return the names of all models ever published here, sorted."""
        folders = self._blobs.folders()
        return [name for name in folders if _NAME.fullmatch(name) and self._blobs.exists(f"{name}/{_INDEX_NAME}")]

    def index(self, name: str, *, missing_ok: bool = False) -> Index:
        """Return versions, aliases and history of a model.

        Args:
            name: which model.
            missing_ok: whether a model of which no version was published has an empty index.

        Raises:
            ModelNotFoundError: no version of it was published; lists the models there are.
            StoreError: `index.json` is damaged or of a later format.
        """
        try:
            return self._read_index(name)[0]
        except ModelNotFoundError:
            if missing_ok:
                return Index()
            raise

    def fingerprint(self, name: str) -> str:
        """Return a short text that changes when `index.json` does; costs one small request.

        Raises:
            ModelNotFoundError: no version of the model was published.
        """
        key = _index_key(name)
        try:
            return self._blobs.etag(key)
        except KeyError as error:
            raise self._no_model(name) from error

    def resolve(self, ref: str) -> tuple[str, str]:
        """Return name and version that `"name"` (its champion), `"name@alias"` or `"name@3"` stands for.

        Raises:
            ModelNotFoundError: no such model, alias or version; lists what there is.
        """
        name, version, _ = self._find(ref)
        return name, version

    def publish(self, name: str, folder: Path) -> str:
        """Copy a package into the store under the next free version and return that version.

        The copy's `model.json` gets `name` and the version; `folder` stays as it is.

        Raises:
            PackageError: the package in `folder` is not whole.
            StoreError: the storage refused.
        """
        _check("a model", name, _NAME)
        manifest = verify_package(folder)
        version, stamped, data = self._reserve(name, manifest)
        try:
            self._blobs.upload(folder, f"{name}/{version}", skip={MANIFEST_NAME})
        except BaseException:
            with contextlib.suppress(StoreError):
                self._remove(name, version)
            raise
        info = VersionInfo(
            created_at=stamped.created_at,
            family=stamped.family,
            candidate=stamped.candidate or stamped.family,
            metrics=stamped.metrics,
            size_bytes=stamped.size_bytes + len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            key=str(stamped.data["key"]) if "key" in stamped.data else None,
        )

        self._update(name, lambda index: index.with_version(version, info), create=True)
        return version

    def fetch(self, ref: str) -> Path:
        """Return the local folder of a package whose every byte was verified.

        Packages of a local store are used where they are and verified once in a process; those on S3 are copied into
        the cache, under their hash.

        Raises:
            ModelNotFoundError: as `resolve`.
            PackageError: the package is damaged, or not the one that was published.
            StoreError: the storage refused, or the cache cannot be written.
        """
        name, version, index = self._find(ref)
        sha256 = index.versions[version].sha256
        local = self._blobs.local(f"{name}/{version}")
        if local is not None:
            _verify_once(local, sha256)
            return local
        return self._fetch_remote(name, version, sha256)

    def set_alias(
        self,
        name: str,
        alias: str,
        version: str | None,
        *,
        by: str,
        reason: str,
        instead_of: str | EllipsisType | None = ...,
        dry_run: bool = False,
    ) -> None:
        """Point an alias at a version, or remove it with None; the same again changes nothing.

        Args:
            name: which model.
            alias: `champion` is served; `challenger` and others as you like.
            version: a published version.
            by: who does it.
            reason: why; kept in the history.
            instead_of: the version that it must be at now, `None` for at none; by default that does not matter.
            dry_run: see whether it could be done; change nothing.

        Raises:
            ModelNotFoundError: no such model or version.
            ConflictError: it is at another version than `instead_of`.
        """
        _check("an alias", alias, _ALIAS)

        def point(index: Index) -> Index:
            if version is not None:
                self._check_version(name, version, index)
            now = index.aliases.get(alias)
            if instead_of is not ... and now not in (instead_of, version):
                raise ConflictError(f"{alias} of {name!r} is at version {now} now, not at {instead_of}; look again")
            return index.with_alias(alias, version, by=by, reason=reason)

        self._update(name, point, dry_run=dry_run)

    def rollback(self, name: str, *, by: str, reason: str, dry_run: bool = False) -> str:
        """Point `champion` back at the champion before it and return that version; in a dry run, return it alone.

        Going back twice reaches the one before that; versions deleted since are passed over.

        Raises:
            ModelNotFoundError: no such model.
            StoreError: no earlier champion is left.
        """

        def back(index: Index) -> Index:
            target = index.previous_champion()
            if target is None:
                now = index.aliases.get(CHAMPION)
                raise StoreError(
                    f"model {name!r} in {self.place} has no earlier champion to go back to (champion now: "
                    f"{now or 'none'}); set one of the versions: {index.listed()}"
                )
            return index.with_alias(CHAMPION, target, by=by, reason=reason, rollback=True)

        return self._update(name, back, dry_run=dry_run).aliases[CHAMPION]

    def record_decision(self, name: str, version: str, record: Mapping[str, Any]) -> int:
        """Keep a decision about a version and return its number, from 1 on.

        Args:
            name: which model.
            version: a published version.
            record: JSON-able, without NaN.

        Raises:
            ModelNotFoundError: no such model or version.
            ConflictError: others record decisions about it all the time.
        """
        self._check_version(name, version, self.index(name))
        data = (json.dumps(record, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()
        first = len(self._decision_numbers(name, version)) + 1
        for number in range(first, first + _ATTEMPTS):
            with contextlib.suppress(ConflictError):
                self._blobs.write(f"{name}/{_DECISIONS}/{version}-{number}.json", data, if_absent=True)
                return number
        raise ConflictError(f"a decision about version {version} of {name!r} could not be recorded; try again later")

    def decisions(self, name: str, version: str) -> dict[int, dict[str, Any]]:
        """Return what was decided about a version, by number, oldest first; also of a version deleted since.

        Raises:
            ModelNotFoundError: no such model.
            StoreError: a record is damaged.
        """
        self.index(name)
        found = {}
        for number in self._decision_numbers(name, version):
            key = f"{name}/{_DECISIONS}/{version}-{number}.json"
            try:
                found[number] = dict(json.loads(self._blobs.read(key).data))
            except (ValueError, TypeError) as error:
                raise StoreError(f"{key} in {self.place} is damaged: it is no JSON object. Restore it") from error
        return found

    def _decision_numbers(self, name: str, version: str) -> list[int]:
        pattern = re.compile(rf"{name}/{_DECISIONS}/{re.escape(version)}-([1-9][0-9]*)\.json")
        matches = (pattern.fullmatch(key) for key in self._blobs.list(f"{name}/{_DECISIONS}"))
        return sorted(int(match.group(1)) for match in matches if match)

    def delete(self, name: str, version: str, *, dry_run: bool = False) -> None:
        """Delete a version for good, or, in a dry run, see whether it could be; the decisions about it stay.

        Raises:
            ModelNotFoundError: no such model or version.
            StoreError: an alias names it.
        """

        def drop(index: Index) -> Index:
            self._check_version(name, version, index)
            using = sorted(alias for alias, named in index.aliases.items() if named == version)
            if using:
                raise StoreError(
                    f"version {version} of {name!r} is its {' and '.join(using)} and stays; point "
                    f"{'them' if len(using) > 1 else 'that alias'} elsewhere first"
                )
            return index.without_version(version)

        self._update(name, drop, dry_run=dry_run)
        if not dry_run:
            self._remove(name, version)

    def without_places(self, message: str) -> str:
        """Return a message, such as an error's, without where store and cache are: not all who read it may know."""
        if self._blobs.local(_INDEX_NAME) is None:
            message = message.replace(str(self._cache_folder()), "the cache")
        return message.replace(self.place, "the store")

    def _cache_folder(self) -> Path:
        return self._cache or Path.home() / ".cache" / "tamiz" / "models"

    def _read_index(self, name: str) -> tuple[Index, str]:
        key = _index_key(name)
        try:
            blob = self._blobs.read(key)
        except KeyError as error:
            raise self._no_model(name) from error
        try:
            return Index.model_validate_json(blob.data), blob.etag
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)[0]
            at = ".".join(str(part) for part in found["loc"])
            raise StoreError(
                f"{key} in {self.place} is damaged or of a later format ({at or 'content'}: {reason_of(found)}). "
                "Restore it from a backup or install a newer release of Tamiz"
            ) from error

    def _update(
        self, name: str, change: Callable[[Index], Index], *, create: bool = False, dry_run: bool = False
    ) -> Index:
        """Apply `change` to the index; when somebody else was faster, read again and apply it to theirs."""
        for attempt in range(_ATTEMPTS):
            try:
                before, etag = self._read_index(name)
            except ModelNotFoundError:
                if not create:
                    raise
                before, etag = Index(), None
            after = change(before)
            if dry_run or (after == before and etag is not None):
                return after
            data = (after.model_dump_json(indent=2) + "\n").encode()
            try:
                self._blobs.write(_index_key(name), data, if_match=etag, if_absent=etag is None)
            except ConflictError:
                # Wait a random while, so that the others do not meet again.
                time.sleep(secrets.randbelow(min(_LONGEST_WAIT_MS, 4 << min(attempt, 10))) / 1000)
            else:
                return after
        raise ConflictError(
            f"the index of {name!r} in {self.place} was changed by others {_ATTEMPTS} times in a row; try again later"
        )

    def _reserve(self, name: str, manifest: Manifest) -> tuple[str, Manifest, bytes]:
        """Take the next number that no package, whole or not, has: writing its `model.json` first claims it."""
        last = self.index(name, missing_ok=True).last_version
        taken = [int(v) for v in self._blobs.folders(name) if _VERSION.fullmatch(v)]
        number = max([last, *taken]) + 1
        while True:
            stamped = manifest.model_copy(update={"name": name, "version": str(number)})
            data = stamped.to_bytes()
            try:
                self._blobs.write(f"{name}/{number}/{MANIFEST_NAME}", data, if_absent=True)
            except ConflictError:
                number += 1
            else:
                return str(number), stamped, data

    def _remove(self, name: str, version: str) -> None:
        """Delete the files of a version, `model.json` last: while it is there, nobody takes the number."""
        claim = f"{name}/{version}/{MANIFEST_NAME}"
        for key in self._blobs.list(f"{name}/{version}"):
            if key != claim:
                self._blobs.delete(key)
        self._blobs.delete(claim)

    def _find(self, ref: str) -> tuple[str, str, Index]:
        name, _, which = ref.partition("@")
        index = self.index(name)
        which = which or CHAMPION
        if which[0].isdigit():
            self._check_version(name, which, index)
            return name, which, index
        _check("an alias", which, _ALIAS, ModelNotFoundError)
        version = index.aliases.get(which)
        if version is None or version not in index.versions:
            raise ModelNotFoundError(
                f"model {name!r} in {self.place} has no alias {which!r}; {one_of(which, index.aliases)}. "
                f"Versions: {index.listed()}"
            )
        return name, version, index

    def _check_version(self, name: str, version: str, index: Index) -> None:
        if version not in index.versions:
            raise ModelNotFoundError(
                f"model {name!r} in {self.place} has no version {version[:20]!r}; allowed: {index.listed()}"
            )

    def _no_model(self, name: str) -> ModelNotFoundError:
        names = self.names()
        there = one_of(name, names) if names else "nothing was published there yet; `tamiz run` trains and publishes"
        return ModelNotFoundError(f"no model {name!r} in {self.place}; {there}")

    def _fetch_remote(self, name: str, version: str, sha256: str) -> Path:
        cache = self._cache_folder()
        folder = cache / sha256
        try:
            if folder.is_dir():
                try:
                    _verify_once(folder, sha256)
                    return folder
                except PackageError:
                    _discard(folder)
            self._download(name, version, sha256, folder)
        except OSError as error:
            raise StoreError(
                f"the cache {cache} for models cannot be used: {explain(error)}; or give another folder as `cache`"
            ) from error
        return folder

    def _download(self, name: str, version: str, sha256: str, folder: Path) -> None:
        try:
            with building(folder) as temporary:
                self._blobs.download(f"{name}/{version}", temporary)
                _verify(temporary, sha256)
        except KeyError as error:
            raise ModelNotFoundError(f"version {version} of {name!r} was deleted while it was fetched") from error
        except OSError:
            if not folder.is_dir():
                raise
            # Another process was faster; what it put there has the same hash.
            _verify_once(folder, sha256)
        _verified.add((str(folder), sha256))


def _index_key(name: str) -> str:
    _check("a model", name, _NAME, ModelNotFoundError)
    return f"{name}/{_INDEX_NAME}"


def _check(what: str, value: str, pattern: re.Pattern[str], kind: type[StoreError] = StoreError) -> None:
    """Refuse a name before it becomes part of a path."""
    if not pattern.fullmatch(value):
        first = "letter" if pattern is _ALIAS else "letter or digit"
        raise kind(
            f"{value[:80]!r} cannot be the name of {what}; allowed: letters, digits, - and _ "
            f"(at most 64, the first a {first})"
        )


def _discard(folder: Path) -> None:
    """Move a folder away in one step, for others may be looking at it, then delete it."""
    away = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.tmp")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def _verify(folder: Path, sha256: str) -> None:
    """Compare `model.json` with the index and every other file with `model.json`."""
    manifest = folder / MANIFEST_NAME
    try:
        found = hashlib.sha256(manifest.read_bytes()).hexdigest()
    except OSError as error:
        raise PackageError(
            f"{manifest} cannot be read: {explain(error)}. The published package is damaged; publish it again"
        ) from error
    if found != sha256:
        raise PackageError(f"{manifest} is not the one that was published (SHA-256 differs); publish the package again")
    verify_package(folder, unfinished=True)


def _verify_once(folder: Path, sha256: str) -> None:
    with _verifying:
        if (str(folder), sha256) in _verified and folder.is_dir():
            return
        _verify(folder, sha256)
        _verified.add((str(folder), sha256))

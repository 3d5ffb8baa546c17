"""Objects on Amazon S3, or what speaks its protocol, with conditional writes for compare-and-swap and for locks.

Address, region and credentials come from boto3's own configuration.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamiz._files import RESERVED, Blob, check_key, explain, local_files
from tamiz.blobs.locks import LockRecord, busy
from tamiz.errors import BusyError, ConflictError, StoreError
from tamiz.extras import require

if TYPE_CHECKING:
    from tamiz.blobs import Lease

__all__ = ["S3Blobs"]

_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_CONFLICT = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_HINTS = {
    "NoSuchBucket": "Create the bucket or correct its name",
    "AccessDenied": "Check that the credentials allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket",
    "403": "Check that the credentials allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket",
    "InvalidAccessKeyId": "Check the AWS credentials",
    "SignatureDoesNotMatch": "Check the AWS credentials",
    "ExpiredToken": "Renew the AWS credentials",
}


class S3Blobs:
    """Objects of a bucket under a prefix.

    Args:
        bucket: name of the bucket.
        prefix: put before every key, without a slash at its end.
        lease_s: how long a lock lasts that its holder does not renew. The clocks of all machines must agree to
            within two thirds of it.
    """

    def __init__(self, bucket: str, prefix: str = "", *, lease_s: float = 60.0) -> None:
        require("boto3", extra="aws")
        self._bucket, self._prefix, self._lease_s = bucket, prefix, lease_s
        self.place = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client_lock = threading.Lock()
        self._client_of: tuple[int, Any] | None = None

    def read(self, key: str) -> Blob:
        """See `Blobs.read`."""
        check_key(key, self.place)
        return self._get(key)

    def etag(self, key: str) -> str:
        """See `Blobs.etag`."""
        check_key(key, self.place)
        with self._errors(key):
            return str(self._client.head_object(Bucket=self._bucket, Key=self._full(key))["ETag"])

    def write(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        """See `Blobs.write`."""
        check_key(key, self.place)
        return self._put(key, data, if_match=if_match, if_absent=if_absent)

    def exists(self, key: str) -> bool:
        """See `Blobs.exists`."""
        try:
            self.etag(key)
        except KeyError:
            return False
        return True

    def folders(self, prefix: str = "") -> list[str]:
        """See `Blobs.folders`."""
        start = len(self._full_folder(prefix))
        pages = self._pages(prefix, Delimiter="/")
        names = [item["Prefix"][start:-1] for page in pages for item in page.get("CommonPrefixes", [])]
        return sorted(name for name in names if prefix or name != RESERVED)

    def list(self, prefix: str = "") -> list[str]:
        """See `Blobs.list`."""
        start = len(self._full_folder(""))
        keys = [item["Key"][start:] for page in self._pages(prefix) for item in page.get("Contents", [])]
        # Other tools mark folders by empty objects whose key ends in a slash.
        return sorted(key for key in keys if not key.endswith("/") and not key.startswith(f"{RESERVED}/"))

    def delete(self, key: str) -> None:
        """See `Blobs.delete`."""
        check_key(key, self.place)
        with contextlib.suppress(KeyError), self._errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._full(key))

    def upload(self, folder: Path, prefix: str, *, skip: Collection[str] = ()) -> None:
        """See `Blobs.upload`."""
        for name, source in local_files(folder):
            key = f"{prefix}/{name}"
            check_key(key, self.place)
            if name not in skip:
                with self._errors(key):
                    self._client.upload_file(str(source), self._bucket, self._full(key))

    def download(self, prefix: str, folder: Path) -> None:
        """See `Blobs.download`."""
        for key in self.list(prefix):
            check_key(key, self.place)  # a bucket may hold keys that no file system should follow
            target = folder / key.removeprefix(prefix.rstrip("/") + "/")
            with self._errors(key):
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._client.download_file(self._bucket, self._full(key), str(target))
                except OSError as error:
                    raise StoreError(f"{target} could not be written: {explain(error)}") from error

    def local(self, prefix: str) -> Path | None:
        """See `Blobs.local`: there is none."""
        return None

    @contextlib.contextmanager
    def lock(self, key: str, *, wait_s: float, owner: str) -> Iterator[Lease]:
        """See `Blobs.lock`; the lock of a killed process is free after `lease_s`.

        A released lock stays as an expired object. To write that under the condition that the lock is still ours
        needs nothing but conditional writes; to delete it so is not possible everywhere.
        """
        check_key(key, self.place)
        held = _HeldLease(self, key, owner, self._lease_s)
        held.acquire(wait_s)
        heart = threading.Thread(target=held.beat, name=f"lock {key}", daemon=True)
        heart.start()
        try:
            yield held
        finally:
            held.stop.set()
            heart.join()
            still_ours = held.release()
        if not still_ours:
            raise held.lost()

    @property
    def _client(self) -> Any:
        """One client for each process: a forked one must not share connections with its parent."""
        with self._client_lock:
            if self._client_of is None or self._client_of[0] != os.getpid():
                with self._errors(""):
                    self._client_of = (os.getpid(), _new_client())
            return self._client_of[1]

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _full_folder(self, prefix: str) -> str:
        prefix = prefix.rstrip("/")
        if prefix:
            check_key(prefix, self.place)
        full = self._full(prefix).rstrip("/")
        return f"{full}/" if full else ""

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._full_folder(prefix), **options
            )
            yield from pages

    def _get(self, key: str) -> Blob:
        with self._errors(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._full(key))
            return Blob(answer["Body"].read(), answer["ETag"])

    def _put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        conditions = {"IfNoneMatch": "*"} if if_absent else {} if if_match is None else {"IfMatch": if_match}
        try:
            with self._errors(key):
                answer = self._client.put_object(Bucket=self._bucket, Key=self._full(key), Body=data, **conditions)
                return str(answer["ETag"])
        except KeyError as error:  # S3 answers so where the object to match is gone
            raise ConflictError(f"{self.place}/{key} was deleted by somebody else meanwhile") from error
        except ConflictError as error:
            mine = _was_retried(error.__cause__) and self._tag_if_equal(key, data)
            if mine:
                return mine
            raise

    def _tag_if_equal(self, key: str, data: bytes) -> str | None:
        """Return the tag of the object if it has these bytes.

        When the answer to a write is lost on the way, boto3 writes again, and the second attempt fails on the first.
        """
        try:
            blob = self._get(key)
        except KeyError:
            return None
        return blob.etag if blob.data == data else None

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Translate what boto3 raises."""
        botocore = require("botocore.exceptions", extra="aws")
        boto3 = require("boto3.exceptions", extra="aws")
        try:
            yield
        except botocore.ClientError as error:
            raise self._translate(error, error, key) from error
        except boto3.Boto3Error as error:
            # The transfer manager wraps the server's refusal.
            inner = error.__context__ if isinstance(error.__context__, botocore.ClientError) else None
            raise self._translate(inner, error, key) from error
        except (botocore.BotoCoreError, ValueError) as error:
            raise StoreError(
                f"{self._where(key)}: {error}. Check the AWS credentials, the region and the network"
            ) from error

    def _where(self, key: str) -> str:
        return f"bucket {self._bucket!r}, key {self._full(key)!r}"

    def _translate(self, refusal: Any, error: Exception, key: str) -> Exception:
        if refusal is None:
            return StoreError(f"{self._where(key)}: {error}")
        code = str(refusal.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            return KeyError(f"{self._where(key)} does not exist")
        if code in _CONFLICT:
            return ConflictError(f"{self._where(key)} was changed by somebody else meanwhile; read it again and retry")
        message = str(refusal.response.get("Error", {}).get("Message", ""))
        return StoreError(f"{self._where(key)}: S3 refused with {code}: {message.rstrip('.')}. {_HINTS.get(code, '')}")


@functools.cache
def _descriptions() -> Any:
    """Return boto3's loader of the service descriptions, whose megabytes of JSON are parsed once in a process."""
    return require("botocore.session", extra="aws").get_session().get_component("data_loader")


def _new_client() -> Any:
    session = require("botocore.session", extra="aws").get_session()
    session.register_component("data_loader", _descriptions())
    return require("boto3.session", extra="aws").Session(botocore_session=session).client("s3")


def _was_retried(error: BaseException | None) -> bool:
    response = getattr(error, "response", None) or {}
    return bool(response.get("ResponseMetadata", {}).get("RetryAttempts", 0))


class _HeldLease:
    """A lock object with an expiry that a thread moves on while the lock is held."""

    def __init__(self, blobs: S3Blobs, key: str, owner: str, lease_s: float) -> None:
        self._blobs, self._lease_s = blobs, lease_s
        self._key = f"{RESERVED}/locks/{key}"
        self._what = f"the lock {key!r} of {blobs.place}"
        self._record = LockRecord.new(owner)
        self._etag = ""
        self._lost = False
        self._renewing = threading.Lock()
        self.stop = threading.Event()

    def acquire(self, wait_s: float) -> None:
        """Take the lock when it is free or expired.

        Raises:
            BusyError: it was held for all of `wait_s`.
        """
        deadline = time.monotonic() + wait_s
        poll_s = 0.05
        while (refusal := self._try()) is not None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise refusal
            time.sleep(min(poll_s, left_s))
            poll_s = min(2 * poll_s, 2.0)

    def check(self) -> None:
        """See `Lease.check`; of a machine that slept the lock is lost only if somebody took it."""
        self._renew()
        if self._lost:
            raise self.lost()

    def lost(self) -> ConflictError:
        """Build the error for a lock that somebody else may hold now."""
        return ConflictError(
            f"{self._what} could not be renewed in time and may be held by another process now; "
            "what was done meanwhile may clash with its work. Run again"
        )

    def beat(self) -> None:
        """Renew until told to stop; runs in a thread."""
        while not self._lost and not self.stop.wait(self._lease_s / 3):
            with contextlib.suppress(StoreError):  # the network may come back before somebody takes the lock
                self._renew()

    def release(self) -> bool:
        """Let the lock expire now, unless somebody else has it; tell whether it was ours all the time."""
        if self._lost:
            return False
        try:
            # Only over the object that we wrote last: when this succeeds, nobody held the lock in between.
            self._write(expires_at=0.0, if_match=self._etag)
        except ConflictError:
            return False
        except StoreError:
            return not self._expired()  # others wait until it expires by itself
        return True

    def _renew(self) -> None:
        with self._renewing:
            if not self._lost:
                try:
                    self._write(expires_at=time.time() + self._lease_s, if_match=self._etag)
                except ConflictError:
                    self._lost = True

    def _expired(self) -> bool:
        return time.time() > self._record.expires_at

    def _try(self) -> BusyError | None:
        try:
            current = self._blobs._get(self._key)
        except KeyError:
            current = None
        if current is not None:
            holder = LockRecord.parse(current.data)
            if holder is None:
                raise StoreError(f"{self._what} is damaged; delete the object {self._key!r} when no run is at work")
            if holder.expires_at > time.time():
                return busy(self._what, holder, expires=True)
        try:
            expires_at = time.time() + self._lease_s
            self._write(expires_at=expires_at, if_match=current.etag if current else None, if_absent=current is None)
        except ConflictError:
            return busy(self._what, None)
        return None

    def _write(self, *, expires_at: float, if_match: str | None = None, if_absent: bool = False) -> None:
        record = replace(self._record, expires_at=expires_at)
        self._etag = self._blobs._put(self._key, record.to_bytes(), if_match=if_match, if_absent=if_absent)
        self._record = record

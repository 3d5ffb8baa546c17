"""The server inside a SageMaker container: `python -m tamiz.apps.sagemaker serve`.

SageMaker runs the image with the one word `serve`, puts the unpacked `model.tar.gz` into `/opt/ml/model`, asks `/ping`
on port 8080 until it is answered, and lets callers in itself. When it stops the container it sends SIGTERM and waits
half a minute.

| variable | meaning | default |
| --- | --- | --- |
| `SM_MODEL_DIR` | folder of the model package, or of one folder that is it | `/opt/ml/model` |
| `SAGEMAKER_BIND_TO_PORT` | port to listen on | 8080 |
| `SAGEMAKER_BATCH` | `true`, as batch transform sets it: its limits, and bad lines are marked, not refused | |
| `TAMIZ_WORKERS` | worker processes; each loads the model | 1 |
| `TAMIZ_LOG_LEVEL` | least severity that is logged: debug, info, warning, error | info |
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tamiz.config import ServeConfig
from tamiz.errors import ConfigError, PackageError, TamizError, reason_of
from tamiz.package import MANIFEST_NAME

if TYPE_CHECKING:
    from tamiz.apps.http import HttpSettings

__all__ = ["main", "settings_of"]

MODEL_DIR = "/opt/ml/model"
PORT = 8080
# SageMaker's own limits, of an endpoint and of batch transform: bytes of a body, and seconds for an answer.
ENDPOINT = {"max_body_bytes": 25 * 2**20, "deadline_s": 60}
BATCH = {"max_body_bytes": 100 * 2**20, "deadline_s": 3600}
MOST_TEXTS = 2**18  # as many as fit into a megabyte of lines, the least that batch transform sends together
GRACE_S = 25  # after 30 s SageMaker ends the container without asking


def settings_of(environment: Mapping[str, str]) -> HttpSettings:
    """Return the settings of a container.

    Args:
        environment: its environment variables.

    Raises:
        PackageError: there is no package, or more than one.
        ConfigError: a variable has a value that is not allowed.
        MissingExtraError: the extra `serve` is not installed.
    """
    from tamiz.apps.http import HttpSettings

    is_batch = environment.get("SAGEMAKER_BATCH") == "true"
    most = BATCH if is_batch else ENDPOINT
    try:
        return HttpSettings.model_validate(
            {
                "package": _package(Path(environment.get("SM_MODEL_DIR") or MODEL_DIR)),
                "auth": "platform",
                "limits": ServeConfig.model_validate(
                    {
                        "host": "0.0.0.0",  # noqa: S104 - the platform alone reaches the container
                        "port": environment.get("SAGEMAKER_BIND_TO_PORT") or PORT,
                        **most,
                        "max_texts": MOST_TEXTS,
                        "max_wait_ms": 1000 * most["deadline_s"],  # a batch transform may wait its turn for as long
                        "unanswerable": "mark" if is_batch else "refuse",
                    }
                ),
                "workers": environment.get("TAMIZ_WORKERS") or 1,
                "log_level": environment.get("TAMIZ_LOG_LEVEL") or "info",
                "grace_s": GRACE_S,
            }
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = {"port": "SAGEMAKER_BIND_TO_PORT", "workers": "TAMIZ_WORKERS"}.get(
            str(first["loc"][-1]), "TAMIZ_LOG_LEVEL"
        )
        raise ConfigError(f"{name}: got {first['input']!r}; {reason_of(first)}") from error


def _package(folder: Path) -> Path:
    """Return the package in a folder: the folder itself, or the only one in it that is a package."""
    if (folder / MANIFEST_NAME).is_file():
        return folder
    found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST_NAME}"))
    if len(found) != 1:
        raise PackageError(
            f"{folder}: {len(found)} model packages; exactly one is needed. "
            f"Give SageMaker a model.tar.gz of one package, with {MANIFEST_NAME} at its top"
        )
    return found[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SageMaker stops the container; return 0, 1 (failed) or 2 (wrong use).

    Args:
        arguments: words after the module's name; by default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words not in ([], ["serve"]):
        sys.stderr.write(f"this image serves a model; got {' '.join(words)!r}, allowed: serve\n")
        return 2
    try:
        from tamiz.apps.http import serve

        serve(settings_of(os.environ))
    except TamizError as error:
        sys.stderr.write(f"error {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

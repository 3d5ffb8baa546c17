"""The servers of `serving` and `overload`, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["bare", "bare_fast", "litserve", "mlflow", "native", "store"]


def native(port: int, package: str) -> None:
    """Serve a package as `tamiz serve` does."""
    from tamiz.apps.http import HttpSettings, serve
    from tamiz.config import ServeConfig

    serve(HttpSettings(package=Path(package), limits=ServeConfig(port=port), log_level="warning"))


def store(port: int, place: str) -> None:
    """Serve the champions of a store as `tamiz serve` does."""
    from tamiz.apps.http import HttpSettings, serve
    from tamiz.config import ServeConfig

    serve(HttpSettings(store=place, limits=ServeConfig(port=port), log_level="warning", poll_s=0.2))


def bare(port: int) -> None:
    """Serve one route that answers a constant, on uvicorn without further libraries."""
    _constant(port, http="h11", loop="asyncio")


def bare_fast(port: int) -> None:
    """Serve one route that answers a constant, on the libraries that Tamiz serves with."""
    _constant(port, http="httptools", loop="uvloop")


def _constant(port: int, **about: Any) -> None:
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/")
    async def constant() -> dict[str, str]:
        return {"label": "a"}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, server_header=False, **about)


def mlflow(port: int, folder: str) -> None:
    """Serve an MLflow model as `mlflow models serve` does."""
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", folder, "--env-manager", "local"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # where it finds uvicorn
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], env={**os.environ, "PATH": path}
    )
    try:
        server.wait()
    finally:
        server.terminate()
        server.wait()


def litserve(port: int, package: str) -> None:
    """Serve a package with LitServe, one text a request."""
    from benchmarks.serving_litserve import PACKAGE, serve

    os.environ[PACKAGE] = package
    serve(port)


if __name__ == "__main__":
    import signal

    if sys.argv[1] == "mlflow":  # so that its own process is ended too
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    servers = {function.__name__: function for function in (bare, bare_fast, litserve, mlflow, native, store)}
    servers[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])

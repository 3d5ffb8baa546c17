"""The two servers of `serving`, each in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["bare", "native"]


def native(port: int, package: Path) -> None:
    """Serve a package as `tamiz serve` does."""
    from tamiz.apps.http import HttpSettings, serve
    from tamiz.config import ServeConfig

    serve(HttpSettings(package=package, limits=ServeConfig(port=port), log_level="warning"))


def bare(port: int) -> None:
    """Serve one route that answers a constant."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/")
    async def constant() -> dict[str, str]:
        return {"label": "a"}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, server_header=False)


if __name__ == "__main__":
    if sys.argv[1] == "native":
        native(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        bare(int(sys.argv[2]))

"""A package behind LitServe, one text a request; a module of its own, since its worker processes import it.

Annotations are real here: LitServe reads them.
"""

import os
from pathlib import Path
from typing import Any

from litserve import LitAPI, LitServer

from tamiz.model import Model

__all__ = ["PACKAGE", "serve"]

PACKAGE = "BENCHMARKS_LITSERVE_PACKAGE"
"""Variable that names the package's folder."""


class Classify(LitAPI):  # type: ignore[misc]
    """One text in, one answer out, in the native door's form."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.model = Model.load(Path(os.environ[PACKAGE]))

    def decode_request(self, request: dict[str, Any]) -> list[str]:
        """Return the texts."""
        return list(request["text"])

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Answer the texts."""
        labels = self.model.labels
        return [
            {"label": one.label, "probabilities": dict(zip(labels, one.probabilities.tolist(), strict=True))}
            for one in self.model.predict(texts)
        ]

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the document."""
        return {"predictions": output}


def serve(port: int) -> None:
    """Serve until the process is ended."""
    LitServer(Classify(), accelerator="cpu").run(
        host="127.0.0.1", port=port, log_level="warning", access_log=False, generate_client_file=False
    )

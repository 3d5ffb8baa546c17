"""A model package as an MLflow model from code, for `mlflow models serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

__all__ = ["Package"]


class Package(PythonModel):
    """Answers a column of texts with a label and probabilities each."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the package."""
        from tamiz.model import Model

        self.model = Model.load(Path(context.artifacts["package"]))

    def predict(
        self, context: PythonModelContext, model_input: Any, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Answer the texts of the column `text`."""
        labels = self.model.labels
        found = self.model.predict(model_input["text"].tolist())
        return [
            {"label": one.label, "probabilities": dict(zip(labels, one.probabilities.tolist(), strict=True))}
            for one in found
        ]


set_model(Package())

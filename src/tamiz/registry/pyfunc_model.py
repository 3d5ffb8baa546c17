"""The code that MLflow keeps beside a version and runs to load it: the package answers, nothing is unpickled.

MLflow copies this file, so it uses only what Tamiz promises to keep: `tamiz.load` and the methods of `Model`.
"""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

import tamiz

__all__ = ["PackagedModel"]


class PackagedModel(PythonModel):
    """A Tamiz package as MLflow's generic kind of model: a table of texts in, a row of answers a text out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the package."""
        self._model = tamiz.load(context.artifacts["package"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return `predicted_label`, `predicted_probability` and a `p_<label>` for each label.

        Args:
            context: MLflow's, of no use here.
            model_input: a table with the text's column; a missing text is answered like an empty one.
            params: taken, and of no effect.
        """
        column = model_input[self._model.text_column]
        texts = ["" if missing else str(text) for text, missing in zip(column, column.isna(), strict=True)]
        rows = [self._model.record(prediction) for prediction in self._model.predict(texts)]
        return pd.DataFrame({name: _column([row[name] for row in rows]) for name in self._model.answer_columns})


def _column(values: list[Any]) -> pd.Series:
    """Return a column in which a missing value stays `None`: pandas' own, NaN, is no JSON."""
    numbers = all(isinstance(value, float) for value in values)
    return pd.Series(values, dtype="float64" if numbers else object)


set_model(PackagedModel())

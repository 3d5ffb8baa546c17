"""A model package in the form that MLflow's own tools serve: a pyfunc made from code."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from tamiz.classifiers import needs_openvino
from tamiz.extras import require
from tamiz.package import Manifest, read_manifest
from tamiz.types import Task

__all__ = ["save_pyfunc"]

CODE = Path(__file__).with_name("pyfunc_model.py")
EXAMPLE = "The bank charged me twice and nobody answers."
# What families need to answer, beyond Tamiz itself.
EXTRAS = {
    "boosting": "train",
    "ensemble": "train,onnx",
    "few_shot": "onnx",
    "transformer": "onnx",
    "zero_shot": "onnx",
}


def save_pyfunc(package: Path, folder: Path) -> None:
    """Write a package as an MLflow model, with its signature and without pickle.

    Args:
        package: folder of the package; it is copied.
        folder: where the model shall stand; must not exist.

    Raises:
        PackageError: there is no package.
    """
    mlflow_pyfunc = require("mlflow.pyfunc", extra="train")
    pandas = require("pandas", extra="train")
    manifest = read_manifest(package)
    with _warnings_only():
        mlflow_pyfunc.save_model(
            str(folder),
            python_model=str(CODE),
            artifacts={"package": str(package)},
            signature=_signature(manifest),
            input_example=pandas.DataFrame({manifest.text_column: [EXAMPLE]}),
            pip_requirements=_requirements(manifest),
            metadata={"tamiz_family": manifest.family, "tamiz_task": str(manifest.task)},
        )


@contextmanager
def _warnings_only() -> Iterator[None]:
    """Keep MLflow from telling what it does: that is not for people who train."""
    logger = logging.getLogger("mlflow.pyfunc")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _signature(manifest: Manifest) -> Any:
    """Return what the model takes and gives; with several labels a text, the answers are lists."""
    models, types = require("mlflow.models", extra="train"), require("mlflow.types", extra="train")
    schema = require("mlflow.types.schema", extra="train")
    label, number = types.DataType.string, types.DataType.double
    several = manifest.task is Task.MULTI_LABEL
    outputs = [
        types.ColSpec(schema.Array(label) if several else label, "predicted_label", required=False),
        types.ColSpec(schema.Array(number) if several else number, "predicted_probability", required=False),
        *(types.ColSpec(number, f"p_{name}") for name in manifest.labels),
    ]
    inputs = [types.ColSpec(label, manifest.text_column)]
    return models.ModelSignature(inputs=types.Schema(inputs), outputs=types.Schema(outputs))


def _requirements(manifest: Manifest) -> list[str]:
    extra = EXTRAS.get(manifest.family)
    if needs_openvino({**manifest.params, **manifest.facts}):  # what was settled stands above what was asked
        extra = f"{extra},openvino"
    name = f"tamiz[{extra}]" if extra else "tamiz"
    return [f"mlflow=={metadata.version('mlflow')}", f"{name}=={metadata.version('tamiz')}"]

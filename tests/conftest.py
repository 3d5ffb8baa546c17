"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

pytest_plugins = ["tests.s3"]


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database to copy; making its tables takes seconds."""
    from tamiz.registry import MlflowRegistry

    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert list(MlflowRegistry("template", f"sqlite:///{path}").runs()) == []
    return path

"""Registries: where experiments and versions are recorded for people to browse."""

from tamiz.registry.memory import MemoryRegistry
from tamiz.registry.mlflow_registry import MlflowRegistry

__all__ = ["MemoryRegistry", "MlflowRegistry"]

"""The workflow from source files to a champion, as plain functions."""

from tamiz.pipeline.run import STEPS, Listener, RunResult, SilentListener, run

__all__ = ["STEPS", "Listener", "RunResult", "SilentListener", "run"]

"""The command line, `tamiz`: commands import what trains when they are called, so that all others start without it."""

from tamiz.cli.main import main

__all__ = ["main"]

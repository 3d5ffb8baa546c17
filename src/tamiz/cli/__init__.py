"""The command line, `tamiz`."""

from tamiz.cli.main import main

__all__ = ["main"]

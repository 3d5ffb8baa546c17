"""Logs as one JSON object a line."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TextIO

from pydantic_core import to_json

from tamiz.errors import TamizError
from tamiz.serving.current import CURRENT

__all__ = ["JsonLines", "configure_logs"]


class JsonLines(logging.Formatter):
    """Format a record and its `fields` as one line of JSON.

    An exception of ours has its message, which says what to do; any other has its stack, and its message is withheld,
    for it may quote a text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (current := CURRENT.get()) is not None:
            line["request_id"] = current.request_id
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["error"] = type(error).__name__
            if isinstance(error, TamizError):
                line["error_message"] = str(error)
            else:
                line["traceback"] = "".join(traceback.format_tb(error.__traceback__))
        return to_json(line, fallback=str).decode("utf-8")


def configure_logs(level: str = "info", stream: TextIO | None = None) -> None:
    """Send the logs of Tamiz and of the web server to standard error, or to `stream`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("tamiz", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False

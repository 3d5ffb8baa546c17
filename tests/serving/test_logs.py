"""What the log says of a request that failed."""

import json
import logging

import pytest

from tamiz.serving.doors.base import Door, route
from tamiz.serving.logs import JsonLines
from tests.serving.helpers import ask, serve_model

SECRET = "Zitronenfalter"


@pytest.fixture
def lines():
    """Collect what is logged as it would be written, with what is known while it is."""
    written: list[dict] = []

    class Collect(logging.Handler):
        def emit(self, record):
            written.append(json.loads(self.format(record)))

    logger, handler = logging.getLogger("tamiz"), Collect()
    handler.setFormatter(JsonLines())
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield written
    logger.removeHandler(handler)
    logger.setLevel(before)


def broken_door(context):
    async def fail(request):
        """Fail."""
        await context.explain(context.models.get(), SECRET, None)
        raise ZeroDivisionError(SECRET)

    return Door("broken", [route("GET", "/fail", fail, door="broken", summary="Fail")])


def test_a_traceback_and_the_access_line_name_the_same_request_and_no_text(tmp_path, lines):
    app = serve_model(tmp_path, doors=[broken_door])
    got = ask(app, "GET", f"/fail?text={SECRET}")
    assert got.status_code == 500
    failed, asked = (line for line in lines if line["message"] in ("request failed", "request"))
    assert failed["request_id"] == asked["request_id"] == got.headers["x-request-id"]
    assert got.json()["instance"].endswith(failed["request_id"])
    assert failed["error"] == "ZeroDivisionError"
    assert "test_logs" in failed["traceback"]
    assert SECRET not in json.dumps(lines)
    assert SECRET not in got.text


def test_lines_outside_of_a_request_name_none(lines):
    logging.getLogger("tamiz.serving").info("started")
    assert "request_id" not in lines[-1]

import logging

import pytest

from tests.serving.helpers import listening, serve_model


@pytest.fixture(scope="session")
def shared_app(tmp_path_factory):
    """Give an application for tests that change nothing."""
    return serve_model(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """Give the address of a server for clients that change nothing."""
    with listening(serve_model(tmp_path_factory.mktemp("listening"))) as found:
        yield found


@pytest.fixture
def log_lines():
    """Collect the records of Tamiz' loggers."""
    records: list[logging.LogRecord] = []

    class Collect(logging.Handler):
        def emit(self, record):
            records.append(record)

    logger, handler = logging.getLogger("tamiz"), Collect()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(before)

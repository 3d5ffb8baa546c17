"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

pytest_plugins = ["tests.s3", "tests.stacks"]


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database to copy; making its tables takes seconds."""
    from tamiz.registry import MlflowRegistry

    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert MlflowRegistry("template", f"sqlite:///{path}")._client is not None
    return path


def pytest_collection_modifyitems(items):
    """Measure no coverage in slow tests: with it, Python 3.11 takes more than half as long again."""
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.no_cover)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn skips into failures under `TAMIZ_REQUIRE_ALL=1`, but for those that lack a data set."""
    report = (yield).get_result()
    needed = report.skipped and not hasattr(report, "wasxfail") and "TAMIZ_DATA" not in str(report.longrepr)
    if needed and os.environ.get("TAMIZ_REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped and TAMIZ_REQUIRE_ALL is set: {report.longrepr}"


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    """Do the same for files that are skipped whole."""
    report = (yield).get_result()
    if report.skipped and "TAMIZ_DATA" not in str(report.longrepr) and os.environ.get("TAMIZ_REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped and TAMIZ_REQUIRE_ALL is set: {report.longrepr}"

"""A test that crashes or hangs says where, in every thread, and in its own report.

pytest alone writes that to the standard error of a worker process, far from the failure it explains.
"""

from __future__ import annotations

import faulthandler
import os
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from uuid import uuid4

import pytest

_HANG_S = 600  # no test takes a quarter of that
_FILE: pytest.StashKey[Any] = pytest.StashKey()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Name the file of a worker process."""
    node.workerinput["stacks"] = str(Path(gettempdir()) / f"stacks-{uuid4().hex}")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Open it; without worker processes, the standard error as it is before pytest catches what tests write."""
    path = getattr(config, "workerinput", {}).get("stacks")
    config.stash[_FILE] = Path(path).open("w") if path else os.fdopen(os.dup(2), "w")  # noqa: SIM115 (open to the end)
    faulthandler.enable(config.stash[_FILE])


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """End the process of a test that hangs, instead of the run."""
    faulthandler.dump_traceback_later(_HANG_S, exit=True, file=item.config.stash[_FILE])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(report: Any) -> None:
    """Add what the process wrote to the report of the test that ended it."""
    written = Path(report.node.workerinput["stacks"])
    report.longrepr = f"{report.longrepr}\n{written.read_text()}"
    written.unlink()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take the file of a process that ended well away."""
    if not error:
        Path(node.workerinput["stacks"]).unlink(missing_ok=True)

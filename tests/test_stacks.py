import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENDS = """
import faulthandler
import time

import tests.stacks

tests.stacks._HANG_S = 0.2


def test_before():
    pass


def test_crashes():
    faulthandler._sigsegv()


def test_hangs():
    time.sleep(60)


def test_after():
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_test_that_ends_its_process_says_where(tmp_path, workers):
    (tmp_path / "test_ends.py").write_text(ENDS)
    (tmp_path / "pytest.ini").write_text("[pytest]")
    command = [sys.executable, "-m", "pytest", "-p", "tests.stacks", "-p", "no:cacheprovider", "-n", str(workers)]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    if workers == 0:  # the process that writes the report is the one that ended
        assert "in test_crashes" in done.stderr
        return
    assert "2 failed, 2 passed" in done.stdout
    _, crash, hang = done.stdout.split("crashed while running")[:3]
    assert "Fatal Python error: Segmentation fault" in crash
    assert "in test_crashes" in crash
    assert "Timeout" in hang
    assert "in test_hangs" in hang
    assert not list(tmp_path.glob("stacks-*"))

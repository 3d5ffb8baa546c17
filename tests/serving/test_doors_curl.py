"""The curl commands of the pages work as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serving.helpers import listening, make_model, serve_model

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.1:8000"
# Needs a file, a pipe, a second version or a folder to keep things in.
OTHER = re.compile(r"@|\||/deploy|/rollback|/feedback")


def commands() -> list[str]:
    found: list[str] = []
    for page in ("README.md", "docs/doors.md"):
        text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
        found += re.findall(rf"^\$ (curl .*{ADDRESS}.*)$", text, re.MULTILINE)
    return [one for one in dict.fromkeys(found) if not OTHER.search(one)]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with listening(serve_model(tmp_path_factory.mktemp("curl"), make_model(name="reviews"))) as found:
        yield found


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_pages_is_answered(address, command):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    words = shlex.split(command.replace(ADDRESS, address.removeprefix("http://")))
    found = subprocess.run([*words, "--fail-with-body"], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout
    if "text/csv" in command:
        assert found.stdout.startswith(("account,", "card,", "loan,"))
    else:
        assert json.loads(found.stdout)


def test_every_door_stands_on_the_pages():
    text = " ".join(commands())
    for path in ("/v1/", "/predict", "/inference", "/invocations", "/endpoints/", "/models/reviews ", "/v2/"):
        assert path in text

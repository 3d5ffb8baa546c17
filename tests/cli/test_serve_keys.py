"""`tamiz serve`, up to where it listens, and `tamiz keys`."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

import tamiz as package
from tamiz.apps.http import settings_of
from tamiz.cli.serving import asked_project
from tamiz.serving.keys import KeyRing
from tests.projects import write_project

PROGRAM = "from tamiz.cli import main; main()"


def test_a_key_is_shown_once_and_stored_hashed(place, tamiz):
    write_project(place)
    answer = tamiz("keys", "create", "--role", "admin", "--note", "for Ana")
    assert answer.code == 0
    secret = answer.out.strip()
    assert "only its hash is stored" in answer.err
    key = KeyRing(place / "keys.json").check(secret)
    assert key is not None
    assert (key.role, key.note, key.expires) == ("admin", "for Ana", None)
    stored = (place / "keys.json").read_text()
    assert secret not in stored
    assert secret.split("_", 2)[2] not in stored  # what follows the key's id; it may have underlines of its own
    assert stat.S_IMODE((place / "keys.json").stat().st_mode) == 0o600


def test_a_key_may_expire(place, tamiz):
    write_project(place)
    found = tamiz("keys", "create", "--days", "90", "--json").json
    assert found["role"] == "predict"
    expires = datetime.fromisoformat(found["expires"])
    assert abs(expires - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=1)
    assert "sha256" not in found
    ring = KeyRing(place / "keys.json")
    assert ring.check(found["key"]) is not None
    assert ring.check(found["key"], now=expires) is None


def test_keys_are_listed_without_secrets_and_revoked(place, tamiz, refused):
    write_project(place)
    made = [tamiz("keys", "create", "--note", note, "--json").json for note in ("one", "two")]
    listed = tamiz("keys", "list", "--json").json
    assert [key["note"] for key in listed] == ["one", "two"]
    assert not any("key" in key or "sha256" in key for key in listed)
    shown = tamiz("keys", "list").out
    for key in made:
        assert key["id"] in shown
        assert key["key"] not in shown
    assert tamiz("keys", "revoke", made[0]["id"]).out == f"revoked {made[0]['id']}\n"
    ring = KeyRing(place / "keys.json")
    assert ring.check(made[0]["key"]) is None
    assert ring.check(made[1]["key"]) is not None
    assert f"no key {made[0]['id']!r}" in refused(2, "keys", "revoke", made[0]["id"])


def test_a_key_is_rotated(place, tamiz, refused):
    write_project(place)
    old = tamiz("keys", "create", "--role", "admin", "--json").json
    new = tamiz("keys", "rotate", old["id"], "--hours", "1", "--json").json
    ring, now = KeyRing(place / "keys.json"), datetime.now(UTC)
    assert ring.check(new["key"]).role == "admin"
    assert ring.check(old["key"]) is not None
    assert ring.check(old["key"], now=now + timedelta(hours=2)) is None
    assert "no key 'abc'" in refused(2, "keys", "rotate", "abc")


def test_a_package_is_served_by_the_settings_of_a_project_that_is_named(place):
    write_project(place, serve={"keys_file": "secret.json", "max_texts": 7, "shadow": "challenger"})
    found = settings_of(asked_project(place / "tamiz.yaml", place / "package"), package=place / "package", port=99)
    assert (found.limits.max_texts, found.limits.port, found.limits.shadow) == (7, 99, None)
    assert found.keys_file == place / "secret.json"
    named = settings_of(asked_project(Path("tamiz.yaml"), place / "package"), package=place / "package")
    assert named.limits.max_texts == 7
    unnamed = settings_of(asked_project(None, place / "package"), package=place / "package")
    assert unnamed.limits.max_texts != 7
    assert settings_of(asked_project(None, None)).limits.max_texts == 7


def test_the_key_file_stands_beside_the_project(place, tamiz, tmp_path_factory, monkeypatch):
    write_project(place, serve={"keys_file": "secret/keys.json"})
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert tamiz("keys", "create", "-p", place).code == 0
    assert (place / "secret" / "keys.json").exists()


@pytest.mark.parametrize("command", [("list",), ("revoke", "abcdef01")])
def test_no_key_file_says_how_to_make_one(place, refused, command):
    write_project(place)
    assert "Create a key with: tamiz keys create" in refused(2, "keys", *command)


def test_a_damaged_key_file_is_not_overwritten(place, refused):
    write_project(place)
    (place / "keys.json").write_text("{")
    assert "keys.json is damaged" in refused(2, "keys", "create")
    assert (place / "keys.json").read_text() == "{"


@pytest.mark.parametrize("arguments", [("--role", "root"), ("--days", "0"), ("--days", "3000000")])
def test_wrong_roles_and_days_are_wrong_use(place, tamiz, arguments):
    write_project(place)
    assert tamiz("keys", "create", *arguments).code == 2
    assert not (place / "keys.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--host", "0.0.0.0"), 2, "--auth keys"),
        (("--auth", "keys"), 2, "tamiz keys create"),
        (("--port", "70000"), 2, "65535"),
        (("--workers", "65"), 2, "serve: workers: got 65"),
        (("--package", "nosuch"), 1, "nosuch"),
        (("--package", "models/topics/1", "--host", "0.0.0.0"), 2, "--auth keys"),
        (("--package", "models/topics/1", "--shadow", "challenger"), 2, "--shadow needs a model store"),
        (("-p", "nosuch"), 2, "no project file"),
    ],
)
def test_what_cannot_be_served_is_refused(project, tamiz, arguments, code, said):
    answer = tamiz("serve", *arguments)
    assert answer.code == code, answer.err
    assert said in answer.err


def test_a_project_that_was_not_run_cannot_be_served(place, tamiz):
    write_project(place)
    answer = tamiz("serve")
    assert answer.code == 1
    assert "no model 'topics'" in answer.err


def asked(port: int) -> httpx.Response | None:
    """Return the server's answer, `None` while it is not ready."""
    try:
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", json={"text": ["bread soup cheese"]})
    except httpx.TransportError:
        return None
    return answer if answer.status_code == 200 else None


def test_the_champion_is_served(project):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, "serve", "--port", str(port), "--log-level", "warning"]
    with (
        (project / "log").open("w") as log,
        subprocess.Popen(command, env=environment, cwd=project, stdout=log, stderr=log) as process,
    ):
        try:
            ends = time.monotonic() + 60
            while (answer := asked(port)) is None:
                assert process.poll() is None, (project / "log").read_text()
                assert time.monotonic() < ends
                time.sleep(0.05)
            assert "food" in json.dumps(answer.json())
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert (
        (project / "log")
        .read_text()
        .startswith(f"starting at http://127.0.0.1:{port}; when it is up: http://127.0.0.1:{port}/docs")
    )

"""The SageMaker container's server, as the platform treats it."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import tamiz
from tamiz.apps.sagemaker import main, settings_of
from tamiz.errors import ConfigError, PackageError
from tamiz.package import pack
from tests.apps.test_http import PATIENCE_S, free_port, refuses, until
from tests.serving.helpers import LABELS, TEXTS, make_model

PING_S = 2.0  # SageMaker's own limit


@pytest.fixture
def folder(tmp_path):
    make_model().save(tmp_path / "model")
    return tmp_path / "model"


@contextmanager
def container(folder: Path, log: Path, **variables):
    """Start the server as the container does, and ping it until it answers."""
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(tamiz.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "SM_MODEL_DIR": str(folder),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        **variables,
    }
    with log.open("w") as stderr:
        command = [sys.executable, "-m", "tamiz.apps.sagemaker", "serve"]
        process = subprocess.Popen(command, env=environment, stderr=stderr)

    def pings() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return client.get("/ping", timeout=PING_S).status_code == 200
        except (httpx.ConnectError, httpx.ReadTimeout):  # workers that share a port listen before they answer
            return False

    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            until(pings, "the first ping")
            yield process, client, port
    finally:
        process.kill()
        process.wait()


def test_the_container_answers_and_drains_when_it_is_stopped(folder, tmp_path):
    with container(folder, tmp_path / "log") as (process, client, port):
        got = client.post("/invocations", json={"inputs": TEXTS}, headers={"host": "model.aws"})
        assert [one[0]["label"] for one in got.json()] == [one.label for one in make_model().predict(TEXTS)]
        assert client.post("/endpoints/demo/invocations", json={"text": ["x"]}).json()["labels"] == list(LABELS)
        limits = client.get("/execution-parameters").json()
        assert (limits["BatchStrategy"], limits["MaxPayloadInMB"]) == ("MULTI_RECORD", 1)
        assert client.post("/v1/models/demo/rollback").status_code == 403

        body = json.dumps({"inputs": "card"}).encode()
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as slow:
            slow.sendall(head + body[:5])
            assert client.get("/ping").status_code == 200  # by now the request above is under way
            process.send_signal(signal.SIGTERM)
            until(lambda: refuses(port), "the end of listening")
            slow.sendall(body[5:])
            assert slow.makefile("rb").read().startswith(b"HTTP/1.1 200")
        assert process.wait(PATIENCE_S) == 0


def test_pings_are_answered_while_texts_are_classified(folder, tmp_path):
    lines = b'"my card was charged by the bank"\n' * 20_000
    head = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/jsonlines\r\n"
    with (
        container(folder, tmp_path / "log") as (_, client, port),
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as busy,
    ):
        busy.sendall(f"{head}Content-Length: {len(lines)}\r\n\r\n".encode() + lines)
        assert client.get("/ping", timeout=PING_S).status_code == 200
        assert select.select([busy], [], [], 0)[0] == []  # it was answered first, although asked later
        assert busy.makefile("rb").readline().startswith(b"HTTP/1.1 200")


def test_several_workers_share_the_port(folder, tmp_path):
    with container(folder, tmp_path / "log", TAMIZ_WORKERS="2") as (process, client, _):
        assert client.post("/invocations", json={"inputs": "x"}).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_the_usual_settings(folder):
    settings = settings_of({"SM_MODEL_DIR": str(folder)})
    assert (settings.package, settings.auth, settings.workers) == (folder, "platform", 1)
    assert (settings.limits.host, settings.limits.port) == ("0.0.0.0", 8080)
    assert settings.limits.unanswerable == "refuse"
    assert settings_of({"SM_MODEL_DIR": str(folder), "SAGEMAKER_BATCH": "true"}).limits.unanswerable == "mark"
    assert (settings.limits.max_body_bytes, settings.limits.deadline_s) == (25 * 2**20, 60)
    assert settings.grace_s < 30  # after which SageMaker ends the container
    with pytest.raises(PackageError, match=r"^/opt/ml/model: 0 model packages"):
        settings_of({})


def test_batch_transform_may_send_more_and_wait_longer_than_callers_of_an_endpoint(folder):
    limits = settings_of({"SM_MODEL_DIR": str(folder), "SAGEMAKER_BATCH": "true"}).limits
    assert limits.max_body_bytes == 100 * 2**20  # the most that MaxPayloadInMB may be
    assert limits.deadline_s == 3600  # the most that InvocationsTimeoutInSeconds may be, 600 by default
    assert limits.max_wait_ms == 1000 * limits.deadline_s


def test_what_sagemaker_unpacks_is_a_package(folder, tmp_path):
    pack(folder, tmp_path / "model.tar.gz")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xzf", str(tmp_path / "model.tar.gz"), "-C", str(unpacked)], check=True)
    assert settings_of({"SM_MODEL_DIR": str(unpacked)}).package == unpacked


def test_the_package_may_stand_one_folder_lower(folder, tmp_path):
    assert settings_of({"SM_MODEL_DIR": str(tmp_path)}).package == folder
    make_model("prior").save(tmp_path / "other")
    with pytest.raises(PackageError, match="2 model packages"):
        settings_of({"SM_MODEL_DIR": str(tmp_path)})


@pytest.mark.parametrize("name", ["SAGEMAKER_BIND_TO_PORT", "TAMIZ_WORKERS", "TAMIZ_LOG_LEVEL"])
def test_a_wrong_variable_is_named(folder, name):
    with pytest.raises(ConfigError, match=f"^{name}: got 'many'"):
        settings_of({"SM_MODEL_DIR": str(folder), name: "many"})


def test_the_image_serves_and_does_nothing_else(tmp_path, monkeypatch, capsys):
    assert main(["train"]) == 2
    assert "allowed: serve" in capsys.readouterr().err
    monkeypatch.setenv("SM_MODEL_DIR", str(tmp_path))
    assert main(["serve"]) == 1
    assert "0 model packages" in capsys.readouterr().err


def test_without_the_extra_serve_it_says_what_to_install():
    code = "import sys; sys.modules['httptools'] = None; from tamiz.apps.sagemaker import main; sys.exit(main([]))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.returncode == 1
    assert said.stderr == (
        "error 'httptools' is needed here and not installed. Install it with: pip install 'tamiz[serve]'\n"
    )

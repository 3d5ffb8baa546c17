import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

import tamiz
from tamiz.apps.http import HUNG_S, HttpSettings, _listen, _load_first, build, models_of, place_of, serve, settings_of
from tamiz.config import RecordsConfig, ServeConfig, parse_project
from tamiz.errors import ConfigError, ModelNotFoundError, PackageError
from tamiz.package import pack
from tamiz.serving.fixed import FixedModel
from tamiz.serving.keys import create_key
from tamiz.store import ModelStore
from tests.serving.helpers import TEXTS, ask, make_model, predict, publish

URL = "/v1/models/demo"
PATIENCE_S = 30.0
PROGRAM = """
import sys
from tamiz.apps.http import HttpSettings, serve
serve(HttpSettings.model_validate_json(sys.argv[1]))
"""


@pytest.fixture
def store(tmp_path):
    store = ModelStore(str(tmp_path / "store"))
    publish(store, make_model(), tmp_path)
    return store


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def until(ask_once, about: str, *, patience_s: float = PATIENCE_S):
    """Repeat until the answer is true, or fail."""
    ends = time.monotonic() + patience_s
    while time.monotonic() < ends:
        found = ask_once()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {about}")


@contextmanager
def running(settings: HttpSettings, log: Path, program: str = PROGRAM, stdin: int | None = None):
    """Run a server process and give it with a client; what it logs is in `log`."""
    source = str(Path(tamiz.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    address = f"http://127.0.0.1:{settings.limits.port}"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", program, settings.model_dump_json()], env=environment, stdin=stdin, stderr=stderr
        )

    def is_ready():
        assert process.poll() is None, log.read_text()
        try:
            return client.get("/ping").status_code == 200
        except httpx.TransportError:
            return False

    try:
        with httpx.Client(base_url=address) as client:
            until(is_ready, "the server")
            yield process, client
    finally:
        process.kill()
        process.wait()


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def workers_of(log: Path) -> list[int]:
    return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", log.read_text())]


def test_a_server_swaps_its_model_and_drains_when_told_to_stop(store, tmp_path):
    port = free_port()
    settings = HttpSettings(store=store.place, names=["demo"], limits=ServeConfig(port=port), poll_s=0.05)
    log = tmp_path / "log"
    with running(settings, log) as (process, client):
        assert client.post(f"{URL}/predict", json={"text": ["card"]}).json()["version"] == "1"
        publish(store, make_model("prior"), tmp_path)
        until(lambda: client.get("/version").json()["models"] == {"demo": "2"}, "version 2")
        client.get("/inference", params={"text": "Zitronenfalter"})

        body = json.dumps({"text": ["card"]}).encode()
        head = f"POST {URL}/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as slow:
            slow.sendall(head + body[:5])
            assert client.get("/ping").status_code == 200  # by now the request above is under way
            process.send_signal(signal.SIGTERM)
            until(lambda: refuses(port), "the end of listening")
            slow.sendall(body[5:])
            answer = slow.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"version":"2"' in answer
        assert process.wait(PATIENCE_S) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"tamiz.access", "tamiz.serving", "uvicorn.error"} <= {line["logger"] for line in lines}
    assert "Zitronenfalter" not in log.read_text()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signal")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_closed_terminal_ends_a_server_as_being_told_to_stop_does(store, tmp_path, workers):
    limits = ServeConfig(port=free_port(), drain_s=0.3)
    settings = HttpSettings(store=store.place, names=["demo"], limits=limits, workers=workers)
    terminal = os.openpty()
    body = json.dumps({"text": ["card"]}).encode()
    head = f"POST {URL}/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    # The tests themselves may run under nohup, from which a server learns to overhear the signal.
    program = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n{PROGRAM}"
    with running(settings, tmp_path / "log", program, stdin=terminal[1]) as (process, client):
        with socket.create_connection(("127.0.0.1", limits.port), timeout=PATIENCE_S) as slow:
            slow.sendall(head + body[:5])
            until(lambda: "tamiz_requests_in_flight 2.0" in client.get("/metrics").text, "it to be under way")
            for pid in workers_of(tmp_path / "log") if workers > 1 else ():
                os.kill(pid, signal.SIGHUP)
            process.send_signal(signal.SIGHUP)
            until(lambda: refuses(limits.port), "the end of listening")
            slow.sendall(body[5:])
            assert slow.makefile("rb").read().startswith(b"HTTP/1.1 200")
        assert process.wait(PATIENCE_S) == 0
    for end in terminal:
        os.close(end)


def test_worker_processes_share_figures_and_follow_the_champion(store, tmp_path):
    settings = HttpSettings(
        store=store.place, names=["demo"], limits=ServeConfig(port=free_port()), poll_s=0.05, workers=2
    )
    with running(settings, tmp_path / "log") as (process, _):
        address = f"http://127.0.0.1:{settings.limits.port}"

        def figures() -> str:  # on a new connection each time, so that either worker may answer
            return httpx.get(f"{address}/metrics").text

        for _ in range(20):
            assert httpx.post(f"{address}/predict", json={"text": ["card"]}).status_code == 200
        assert 'tamiz_predictions_total{label="card",model="demo"} 20.0' in figures()
        until(lambda: 'model="demo",version="1"} 2.0' in figures(), "both workers to serve version 1")
        publish(store, make_model("prior"), tmp_path)
        until(lambda: 'family="prior",model="demo",version="2"} 2.0' in figures(), "both workers to serve version 2")
        assert 'family="linear",model="demo",version="1"} 0.0' in figures()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_a_taken_address_is_an_error_that_names_it(store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for workers in (1, 2):
            settings = HttpSettings(store=store.place, limits=ServeConfig(port=port), workers=workers)
            with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
                serve(settings)


def test_the_parent_of_workers_keeps_no_model_in_memory(tmp_path):
    folder = tmp_path / "package"
    make_model().save(folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        limits = ServeConfig(port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="in use"):
            serve(HttpSettings(package=folder, limits=limits, workers=2))
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is FixedModel and one.folder == folder and one.served()]


def test_an_address_of_no_machine_is_not_said_to_be_in_use(store):
    settings = HttpSettings(store=store.place, limits=ServeConfig(host="nowhere.invalid"), auth="platform")
    with pytest.raises(ConfigError, match=r"nowhere\.invalid:8000 .* --host"):
        serve(settings)


@pytest.mark.parametrize(("host", "place"), [("127.0.0.1", "127.0.0.1:8000"), ("::1", "[::1]:8000")])
def test_the_place_is_written_as_in_an_address(host, place):
    assert place_of(HttpSettings(store="x", limits=ServeConfig(host=host))) == place


def test_answers_are_sent_without_delay():
    """Answers leave in two packets; without this option the second waits for the first's acknowledgement."""
    with _listen(HttpSettings(store="x", limits=ServeConfig(port=free_port()))) as listening:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_nothing_to_serve_is_an_error_at_once(tmp_path, store):
    with pytest.raises(ModelNotFoundError):
        serve(HttpSettings(store=str(tmp_path / "empty"), names=["demo"]))
    publish(store, make_model(name="other"), tmp_path, champion=False)
    with pytest.raises(ModelNotFoundError):
        serve(HttpSettings(store=store.place, names=["other"]))
    with pytest.raises(PackageError):
        serve(HttpSettings(package=tmp_path / "nothing"))


def test_a_network_address_without_authentication_is_refused(store):
    settings = HttpSettings(store=store.place, limits=ServeConfig(host="0.0.0.0"))
    with pytest.raises(ConfigError, match="--auth keys"):
        build(settings)
    with pytest.raises(ConfigError, match="--auth keys"):
        serve(settings)


def test_a_folder_of_records_that_cannot_be_written_is_told_before_anything_is_served(store, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "records"):
        limits = ServeConfig(port=free_port(), records=RecordsConfig(folder=str(folder)))
        with pytest.raises(ConfigError, match=re.escape(f"serve.records.folder: {folder}")):
            serve(HttpSettings(store=store.place, names=["demo"], limits=limits))


def test_keys_need_a_key_file(store, tmp_path):
    settings = HttpSettings(store=store.place, auth="keys", keys_file=tmp_path / "keys.json")
    with pytest.raises(ConfigError, match="tamiz keys create"):
        build(settings)
    key, _ = create_key(tmp_path / "keys.json", "predict")
    models = models_of(settings)
    models.refresh()
    app = build(settings, models=models)
    assert predict(app, ["x"]).status_code == 401
    assert predict(app, ["x"], headers={"x-api-key": key}, base_url="http://any.example").status_code == 200


def test_a_platform_may_listen_anywhere(store):
    settings = HttpSettings(store=store.place, auth="platform", limits=ServeConfig(host="0.0.0.0"))
    assert ask(build(settings), "GET", "/health", base_url="http://any.example").status_code == 200


def test_a_package_folder_is_served_under_a_given_name(tmp_path):
    make_model().save(tmp_path / "package")
    models = models_of(HttpSettings(package=tmp_path / "package", names=["given"]))
    models.refresh()
    assert models.get("given").name == "given"


def test_a_packed_package_is_served_as_its_folder_is(tmp_path):
    make_model().save(tmp_path / "package")
    settings = HttpSettings(package=pack(tmp_path / "package", tmp_path / "model.tar.gz"))
    models = models_of(settings)
    models.refresh()
    got = predict(build(settings, models=models), TEXTS).json()["predictions"]
    assert [one["label"] for one in got] == [one.label for one in make_model().predict(TEXTS)]


def test_a_process_that_joins_others_waits_for_a_store_that_fails_for_a_moment(store):
    index = Path(store.place) / "demo" / "index.json"
    whole = index.read_bytes()
    index.write_bytes(whole[:20])
    models = models_of(HttpSettings(store=store.place, names=["demo"], poll_s=0.01))
    repair = threading.Timer(0.1, index.write_bytes, [whole])
    repair.start()
    _load_first(models, PATIENCE_S, 0.01)
    repair.join()
    assert models.ready
    assert models.get("demo").version == "1"


def test_a_process_that_joins_others_does_not_wait_for_ever(store):
    (Path(store.place) / "demo" / "index.json").write_bytes(b"{")
    models = models_of(HttpSettings(store=store.place, names=["demo"]))
    _load_first(models, 0.05, 0.01)
    assert not models.ready


def test_settings_name_one_place():
    for about in ({}, {"store": "x", "package": "y"}):
        with pytest.raises(ValueError, match="exactly one"):
            HttpSettings(**about)


def test_settings_survive_the_way_to_a_worker(store):
    settings = HttpSettings(store=store.place, names=["demo"], auth="platform", limits=ServeConfig(max_texts=7))
    assert HttpSettings.model_validate_json(settings.model_dump_json()) == settings


def test_settings_come_from_the_project(tmp_path):
    raw = {
        "name": "reviews",
        "task": "binary",
        "data": {"source": "a.csv"},
        "serve": {
            "port": 9000,
            "max_texts": 5,
            "keys_file": "secret/keys.json",
            "records": {"folder": "kept", "share": 0.5},
        },
    }
    settings = settings_of(parse_project(raw).at(tmp_path), auth="platform", host="0.0.0.0")
    assert settings.store == str(tmp_path / "models")
    assert settings.names == ["reviews"]
    assert (settings.limits.host, settings.limits.port, settings.limits.max_texts) == ("0.0.0.0", 9000, 5)
    assert settings.keys_file == tmp_path / "secret" / "keys.json"
    assert (settings.limits.records.folder, settings.limits.records.share) == (str(tmp_path / "kept"), 0.5)
    with pytest.raises(ConfigError, match="port"):
        settings_of(parse_project(raw), port=70000)


def test_serving_a_linear_model_loads_no_training_library(store):
    program = """
import sys
from tamiz.apps.http import HttpSettings, build, models_of
settings = HttpSettings(store=sys.argv[1])
models = models_of(settings)
models.refresh()
build(settings, models=models)
models.get().model.predict(["card"])
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    source = str(Path(tamiz.__file__).parents[1])
    loaded = subprocess.run(
        [sys.executable, "-c", program, store.place],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {"scipy", "sklearn", "pandas", "polars", "pyarrow", "deltalake", "mlflow", "boto3", "matplotlib"}
    assert "fastapi" in loaded
    assert not heavy & set(loaded)


@pytest.mark.parametrize("workers", [1, 2])
def test_deploying_by_metric_drops_no_request(tmp_path, workers):
    """Callers keep asking while the best version is chosen, loaded and swapped in."""
    store = ModelStore(str(tmp_path / "store"))
    for figure, family in ((0.7, "linear"), (0.9, "prior")):
        model = make_model(family).with_records(metrics={"best_val_f1": figure})
        publish(store, model, tmp_path, champion=family == "linear")
    settings = HttpSettings(
        store=store.place, names=["demo"], limits=ServeConfig(port=free_port()), poll_s=0.05, workers=workers
    )
    over, asked, seen, refused = threading.Event(), threading.Semaphore(0), [], []

    def keep_asking() -> None:
        with httpx.Client(base_url=str(client.base_url), timeout=PATIENCE_S) as own:
            while not over.is_set():
                got = own.post(f"{URL}/predict", json={"text": ["my card was charged", "a loan"]})
                if got.status_code != 200:
                    refused.append(got.text)
                seen.append((got.json().get("version"), len(got.json().get("predictions", ()))))
                asked.release()

    with running(settings, tmp_path / "log") as (_, client), ThreadPoolExecutor(4) as pool:
        info = 'model="demo",version="1"} '
        until(lambda: f"{info}{workers}.0" in httpx.get(f"{client.base_url}/metrics").text, "all workers")
        callers = [pool.submit(keep_asking) for _ in range(4)]
        try:
            for _ in range(40):
                assert asked.acquire(timeout=PATIENCE_S)
            got = client.post(f"{URL}/deploy", json={"by": "best_val_f1", "mode": "max"}, timeout=PATIENCE_S)
            answered = len(seen)
            for _ in range(answered + 40):
                assert asked.acquire(timeout=PATIENCE_S)
        finally:
            over.set()
        for caller in callers:
            caller.result()
    assert got.json() == {
        "model": "demo",
        "version": "2",
        "previous": "1",
        "workers": {"serving": workers, "all": workers},
        "by": {
            "metric": "best_val_f1",
            "mode": "max",
            "value": 0.9,
            "reason": "best by best_val_f1 (highest): 0.9, version 1 has 0.7",
        },
    }
    assert refused == []
    assert {count for _, count in seen} == {2}
    assert {version for version, _ in seen} == {"1", "2"}
    assert {version for version, _ in seen[answered + 4 :]} == {"2"}  # four may have been under way
    assert store.index("demo").aliases == {"champion": "2"}


def test_workers_end_with_the_process_that_watches_over_them(store, tmp_path):
    settings = HttpSettings(store=store.place, limits=ServeConfig(port=free_port(), drain_s=0.1), workers=2)
    with running(settings, tmp_path / "log") as (process, client):
        assert client.get("/ping").status_code == 200
        process.kill()
        process.wait()
        until(lambda: refuses(settings.limits.port), "the end of the workers")


def test_told_to_stop_under_load_it_drops_no_request(store, tmp_path):
    """Callers keep asking, each until it is told to go or finds nobody; none is left without an answer."""
    limits = ServeConfig(port=free_port(), drain_s=0.3)
    settings = HttpSettings(store=store.place, names=["demo"], limits=limits, poll_s=0.05)
    asked, answers, dropped = threading.Semaphore(0), [], []

    def keep_asking() -> None:
        """As a load balancer does: after an answer that closes the connection, see whether to go on."""
        with httpx.Client(base_url=f"http://127.0.0.1:{limits.port}", timeout=PATIENCE_S) as own:
            while True:
                try:
                    got = own.post(f"{URL}/predict", json={"text": ["my card was charged"] * 50})
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    dropped.append(error)
                    return
                answers.append((got.status_code, got.headers.get("connection")))
                asked.release()
                if got.headers.get("connection") == "close":
                    return

    with running(settings, tmp_path / "log") as (process, client), ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(keep_asking) for _ in range(4)]
        for _ in range(20):
            assert asked.acquire(timeout=PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/health/ready").status_code == 503, "the server not to be ready")
        late = client.post(f"{URL}/predict", json={"text": ["card"]})
        for caller in callers:
            caller.result()
        assert process.wait(PATIENCE_S) == 0
    assert dropped == []
    assert {status for status, _ in answers} == {200}
    assert [connection for _, connection in answers].count("close") == 4
    assert (late.status_code, late.headers["connection"]) == (200, "close")


def test_a_closed_gate_answers_newcomers_503(store):
    from tests.serving.test_limits import limiter

    settings = HttpSettings(store=store.place)
    models = models_of(settings)
    models.refresh()
    app = build(settings, models=models)
    assert predict(app, ["card"]).status_code == 200
    limiter(app).gate.closed = True
    got = predict(app, ["card"])
    assert (got.status_code, got.headers["retry-after"]) == (503, "1")
    assert ask(app, "GET", "/health/live").status_code == 200


def test_a_killed_worker_leaves_the_figures_right(store, tmp_path):
    settings = HttpSettings(
        store=store.place, names=["demo"], limits=ServeConfig(port=free_port(), drain_s=0), poll_s=0.05, workers=2
    )
    with running(settings, tmp_path / "log") as (process, _):
        address = f"http://127.0.0.1:{settings.limits.port}"

        def figures() -> str:
            try:
                return httpx.get(f"{address}/metrics").text
            except httpx.TransportError:
                return ""

        until(lambda: 'model="demo",version="1"} 2.0' in figures(), "both workers")
        for _ in range(10):
            assert httpx.post(f"{address}/predict", json={"text": ["card"]}).status_code == 200
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            pytest.skip("only Linux lists a process's children here")
        workers = [pid for pid in map(int, children.read_text().split()) if b"spawn_main" in _command(pid)]
        os.kill(workers[0], signal.SIGSTOP)
        time.sleep(1.5)  # so that it is asked how it is, and says nothing
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: str(workers[0]) not in children.read_text().split(), "its end", patience_s=HUNG_S / 2)
        until(lambda: 'model="demo",version="1"} 2.0' in figures(), "both workers once more")
        assert 'tamiz_predictions_total{label="card",model="demo"} 10.0' in figures()
        assert "tamiz_requests_in_flight 1.0" in figures()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_worker_that_cannot_start_says_so_and_is_tried_again(store, tmp_path):
    key_file = tmp_path / "keys.json"
    key, _ = create_key(key_file, "predict")
    limits = ServeConfig(port=free_port(), drain_s=0)
    settings = HttpSettings(store=store.place, limits=limits, auth="keys", keys_file=key_file, workers=2)
    log = tmp_path / "log"

    def serving(count: int) -> bool:
        found = httpx.get(f"http://127.0.0.1:{limits.port}/metrics", headers={"x-api-key": key}).text
        return f'model="demo",version="1"}} {count}.0' in found

    with running(settings, log) as (process, _):
        until(lambda: serving(2), "both workers")
        ring = key_file.read_bytes()
        key_file.write_text("{")
        os.kill(workers_of(log)[0], signal.SIGKILL)
        until(lambda: "a worker cannot start" in log.read_text(), "the next worker")
        key_file.write_bytes(ring)
        until(lambda: serving(2), "both workers once more")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["error_message"].partition(" is damaged")[0] for line in lines if line["level"] == "error"} == {
        f"the key file {key_file}"
    }


def test_when_no_worker_takes_connections_any_more_they_are_refused(store, tmp_path):
    limits = ServeConfig(port=free_port(), drain_s=0.1)
    settings = HttpSettings(store=store.place, names=["demo"], limits=limits, workers=2)
    body = json.dumps({"text": ["card"]}).encode()
    head = f"POST {URL}/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with running(settings, tmp_path / "log") as (process, client):
        with socket.create_connection(("127.0.0.1", limits.port), timeout=PATIENCE_S) as slow:
            slow.sendall(head + body[:5])
            until(lambda: "tamiz_requests_in_flight 2.0" in client.get("/metrics").text, "it to be under way")
            process.send_signal(signal.SIGTERM)
            until(lambda: refuses(limits.port), "the end of listening")
            slow.sendall(body[5:])
            assert slow.makefile("rb").read().startswith(b"HTTP/1.1 200")
        assert process.wait(PATIENCE_S) == 0


def test_workers_that_are_told_to_stop_with_their_parent_go_on_answering_for_their_time(store, tmp_path):
    """As by systemd, which tells all processes of a service; the parent then tells its workers once more."""
    limits = ServeConfig(port=free_port(), drain_s=PATIENCE_S)
    settings = HttpSettings(store=store.place, names=["demo"], limits=limits, workers=2)
    log = tmp_path / "log"
    with running(settings, log) as (process, client):
        until(lambda: log.read_text().count("Application startup complete") == 2, "both workers")
        for pid in (*workers_of(log), process.pid):
            os.kill(pid, signal.SIGTERM)
        until(lambda: log.read_text().count("Terminated child process") == 2, "the parent to tell them")
        time.sleep(0.5)
        got = client.post(f"{URL}/predict", json={"text": ["card"]})
        assert (got.status_code, got.headers["connection"]) == (200, "close")
        for pid in workers_of(log):
            os.kill(pid, signal.SIGINT)  # which ends them at once
        assert process.wait(PATIENCE_S) == 0


def test_a_worker_that_hangs_does_not_hold_up_the_end_for_ever(store, tmp_path):
    limits = ServeConfig(port=free_port(), drain_s=1)
    settings = HttpSettings(store=store.place, names=["demo"], limits=limits, workers=2, grace_s=1)
    log = tmp_path / "log"
    with running(settings, log, f"import tamiz.apps.http\ntamiz.apps.http.END_S = 0.5\n{PROGRAM}") as (process, _):
        until(lambda: log.read_text().count("Application startup complete") == 2, "both workers")
        process.send_signal(signal.SIGTERM)
        until(lambda: log.read_text().count("Terminated child process") == 2, "the parent to tell them")
        hung = workers_of(log)[0]
        os.kill(hung, signal.SIGSTOP)
        try:
            assert process.wait(PATIENCE_S) == 0
        finally:
            with suppress(ProcessLookupError):
                os.kill(hung, signal.SIGCONT)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["pid"] for line in lines if line["message"] == "a worker hangs and is killed"] == [hung]

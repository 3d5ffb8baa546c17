"""The HTTP server: from settings to an application, and from an application to a process that serves it."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tamiz._files import explain
from tamiz.config import Project, ServeConfig
from tamiz.errors import ConfigError, TamizError, reason_of
from tamiz.serving.app import Application, create_app
from tamiz.serving.auth import Auth, AuthName, KeyAuth, NoAuth, PlatformAuth, check_host
from tamiz.serving.fixed import FixedModel
from tamiz.serving.keys import KeyRing
from tamiz.serving.live import LiveModels
from tamiz.serving.logs import configure_logs
from tamiz.serving.metrics import Metrics
from tamiz.serving.served import Models
from tamiz.store import ModelStore

__all__ = ["HttpSettings", "build", "models_of", "place_of", "serve", "settings_of", "worker"]

log = logging.getLogger("tamiz.serving")

GRACE_S = 30
LOAD_S = 20.0  # after which a worker process without its models serves what it has, and answers 503 for the rest
HUNG_S = 30  # on a busy machine a healthy process may say nothing for uvicorn's own 5 s, and would be killed for it
END_S = 10.0  # that a worker process may take to end when the time for what is under way is over
BACKLOG = 2048
KEEP_ALIVE_S = 75  # longer than the 60 s of AWS load balancers, which would else meet closed connections
SETTINGS_VARIABLE = "TAMIZ_HTTP_SETTINGS"
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SWITCH_S = 0.001  # so that the event loop gets its turn soon while a thread computes; Python's own is five times that


class HttpSettings(BaseModel):
    """All that a server needs to know, as plain values that also travel to worker processes.

    Exactly one of `store` and `package` says what is served.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: str | None = None
    """Folder or `s3://` address of the model store."""
    package: Path | None = None
    """Folder of one model package, or a packed one (`.tar.gz`)."""
    names: list[str] | None = None
    """Models of the store to serve, the default one first; by default all that have a champion."""
    auth: AuthName = "none"
    """Who may call."""
    limits: ServeConfig = ServeConfig()
    """Address and limits."""
    keys_file: Path = Path("keys.json")
    """File of hashed API keys, for `auth: keys`."""
    cache: Path | None = None
    """Folder for packages fetched from S3."""
    poll_s: Annotated[float, Field(gt=0)] = 1.0
    """Seconds between looks at the store."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Worker processes."""
    grace_s: Annotated[int, Field(ge=1)] = GRACE_S
    """Seconds for what is under way when the server is told to stop."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged; the access log is `info`."""
    title: str = "Tamiz"
    """Title of the documentation."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.store is None) == (self.package is None):
            raise ValueError("exactly one of store and package says what is served")
        return self


def settings_of(
    project: Project | None,
    *,
    package: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    shadow: str | None = None,
    records: Path | None = None,
    **given: Any,
) -> HttpSettings:
    """Return the settings to serve a project's champion, or a package.

    Args:
        project: the project; beside a package there need be none.
        package: what to serve in place of the champion; it has no shadow.
        host: address to listen on, in place of the project's.
        port: port to listen on, in place of the project's.
        shadow: alias of the shadow, in place of the project's.
        records: folder of records, in place of the project's.
        given: further fields of `HttpSettings`.

    Raises:
        ConfigError: a value is not allowed.
    """
    limits = (project.serve if project is not None else ServeConfig()).model_dump()
    own = {"host": host, "port": port, "shadow": shadow}
    limits |= {name: value for name, value in own.items() if value is not None}
    served: dict[str, Any] = {"package": package}
    if project is not None:
        served["keys_file"] = project.resolve(project.serve.keys_file)
        if project.serve.records.folder is not None:
            limits["records"]["folder"] = project.resolve(project.serve.records.folder)
        if package is not None:
            limits["shadow"] = None
        else:
            served |= {"store": project.resolve(project.registry.store), "names": [project.name], "title": project.name}
    if records is not None:
        limits["records"]["folder"] = str(records)
    try:
        return HttpSettings.model_validate({**served, "limits": limits, **given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]).removeprefix("limits.")
        raise ConfigError(f"serve: {place}: got {first['input']!r}; {reason_of(first)}") from error


def models_of(settings: HttpSettings) -> LiveModels | FixedModel:
    """Return the models of the settings, not loaded yet."""
    if settings.package is not None:
        name = settings.names[0] if settings.names else None
        return FixedModel(settings.package, name)
    store = ModelStore(settings.store or "", cache=settings.cache)
    return LiveModels(store, settings.names, poll_s=settings.poll_s, shadow=settings.limits.shadow)


def build(settings: HttpSettings, *, models: Models | None = None, metrics_dir: Path | None = None) -> Application:
    """Build the application; it loads its models when it starts.

    Args:
        settings: what to serve, and to whom.
        models: what to serve, in place of what the settings name; for callers that have loaded it already.
        metrics_dir: folder in which worker processes share their figures and how often callers ask.

    Raises:
        ConfigError: auth is `none` on an address that others reach, or the key file cannot be used.
    """
    check_host(settings.auth, settings.limits.host)
    return create_app(
        models if models is not None else models_of(settings),
        limits=settings.limits,
        auth=_auth(settings),
        metrics=Metrics(metrics_dir),
        title=settings.title,
        shared=metrics_dir,
    )


def _auth(settings: HttpSettings) -> Auth:
    if settings.auth == "keys":
        return KeyAuth(KeyRing(settings.keys_file))
    return PlatformAuth() if settings.auth == "platform" else NoAuth()


def serve(settings: HttpSettings) -> None:
    """Serve until the process is told to stop; then answer what is under way, for at most `grace_s`, and return.

    Raises:
        ConfigError: see `build`; or the address is in use, or the folder of records cannot be written.
        ModelNotFoundError: the store has no champion to serve.
        PackageError: the package to serve is damaged.
    """
    models = models_of(settings)
    _check_models(settings, models)
    _check_records(settings)
    if settings.workers > 1:
        del models  # each worker loads its own
        build(settings)  # so that wrong settings fail here, once
        _serve_workers(settings)
    else:
        _serve_here(settings, models)


def _check_models(settings: HttpSettings, models: LiveModels | FixedModel) -> None:
    """Fail at once where there is nothing to serve, rather than answer 503 for ever."""
    if isinstance(models, FixedModel):
        models.refresh()
        return
    for name in settings.names or models.store.names():
        models.store.resolve(name)


def _check_records(settings: HttpSettings) -> None:
    """Fail at once where nothing can be kept, rather than at the first answer; a disk may be full later."""
    if settings.limits.records.folder is None:
        return
    folder = Path(settings.limits.records.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        hint = "or name another folder (--records)"
        raise ConfigError(f"serve.records.folder: {folder} cannot be written: {explain(error)}; {hint}") from error


def _serve_here(settings: HttpSettings, models: Models) -> None:
    import uvicorn

    app = build(settings, models=models)
    sys.setswitchinterval(SWITCH_S)
    _end_with_terminal()
    with _listen(settings) as listening, _plain_end():
        configure_logs(settings.log_level)  # not before all that is refused: a caller would be left with our logs
        uvicorn.Server(uvicorn.Config(app, **_options(settings))).run(sockets=[listening])


def _serve_workers(settings: HttpSettings) -> None:
    """Let uvicorn run several processes, which find settings and the metrics' folder in their environment."""
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    in_terminal = sys.stdin is not None and sys.stdin.isatty()

    class Supervisor(Multiprocess):
        def keep_subprocess_alive(self) -> None:
            for process in self.processes:
                # Held open here, a worker's end of the pipe outlives it, and one that dies as it is asked how it is
                # would be waited for as long as one that hangs.
                process.child_conn.close()
            super().keep_subprocess_alive()

        def handle_hup(self) -> None:
            """End with the terminal; without one, where somebody sends this to a service, replace the workers."""
            if in_terminal:
                self.handle_term()
            else:
                super().handle_hup()

        def terminate_all(self) -> None:
            for one in self.sockets:  # held open here, it would take in connections when no worker does any more
                one.close()
            super().terminate_all()

        def join_all(self) -> None:
            """Wait for the workers; one that is still there long after its time is up hangs, and is ended."""
            ends = time.monotonic() + settings.limits.drain_s + settings.grace_s + END_S
            for process in self.processes:
                process.process.join(max(0.0, ends - time.monotonic()))
                if process.exitcode is None:
                    log.error("a worker hangs and is killed", extra={"fields": {"pid": process.pid}})
                    process.kill()
            super().join_all()

    folder = tempfile.TemporaryDirectory(prefix="tamiz-metrics-")
    with _listen(settings) as listening, folder as metrics_dir, _plain_end():
        configure_logs(settings.log_level)
        os.environ[SETTINGS_VARIABLE] = settings.model_dump_json()
        os.environ[METRICS_VARIABLE] = metrics_dir
        config = uvicorn.Config("tamiz.apps.http:worker", factory=True, workers=settings.workers, **_options(settings))
        try:
            Supervisor(config, [listening]).run()
        finally:
            del os.environ[SETTINGS_VARIABLE], os.environ[METRICS_VARIABLE]


def worker() -> Application:
    """Build the application of one worker process, from what `serve` left in the environment.

    What it needs may have gone since the server was started. Then the log says so, and the next process tries again.
    """
    settings = HttpSettings.model_validate_json(os.environ[SETTINGS_VARIABLE])
    configure_logs(settings.log_level)
    sys.setswitchinterval(SWITCH_S)
    _end_with_parent()
    _end_with_terminal()
    models = models_of(settings)
    try:
        _load_first(models, LOAD_S, settings.poll_s)
        return build(settings, models=models, metrics_dir=Path(os.environ[METRICS_VARIABLE]))
    except TamizError as error:
        log.error("a worker cannot start", extra={"fields": {"error_message": str(error)}})
        sys.exit(1)


def _end_with_parent() -> None:
    """Let this process end once the one that watches over it is gone, rather than hold its port for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="tamiz-parent", daemon=True).start()


def _end_with_terminal() -> None:
    """Make a closed terminal an end as by SIGTERM, in which no request is lost; not where nohup has it overheard."""
    hang_up = getattr(signal, "SIGHUP", None)  # which Windows does not know
    if hang_up is not None and signal.getsignal(hang_up) is signal.SIG_DFL:
        signal.signal(hang_up, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))


def _load_first(models: LiveModels | FixedModel, patience_s: float, pause_s: float) -> None:
    """Load the models of a process that joins others, which takes no request before it can answer it.

    A store that fails for a moment is asked again: without models it would answer 503 where the others would not.
    """
    ends = time.monotonic() + patience_s
    models.refresh()
    while not models.ready and time.monotonic() < ends:
        time.sleep(pause_s)
        models.refresh()


def place_of(settings: HttpSettings) -> str:
    """Return host and port as they stand in an address."""
    host = settings.limits.host
    return f"{f'[{host}]' if ':' in host else host}:{settings.limits.port}"


def _listen(settings: HttpSettings) -> socket.socket:
    host, port = settings.limits.host, settings.limits.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
        hint = "Is it in use? Try another --port" if taken else "Is it an address of this machine? Try another --host"
        raise ConfigError(f"serve: {place_of(settings)} cannot be listened on: {error.strerror}. {hint}") from error
    # asyncio sets this only on sockets that it makes itself. Without it an answer's second packet waits 40 ms for the
    # acknowledgement of its first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _options(settings: HttpSettings) -> dict[str, Any]:
    return {
        "host": settings.limits.host,
        "port": settings.limits.port,
        "http": "tamiz.serving.connections:TimedProtocol",
        "ws": "none",
        "log_config": None,
        "log_level": settings.log_level,
        "access_log": False,  # ours has no query strings
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": settings.grace_s,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_worker_healthcheck": HUNG_S,
    }


@contextmanager
def _plain_end() -> Iterator[None]:
    """Make being told to stop an end like any other: uvicorn raises the signal once more when it has finished."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)

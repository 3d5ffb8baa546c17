"""`tamiz serve` and `tamiz keys`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tamiz.cli.console import errors, output, print_json, table
from tamiz.cli.options import AsJson, DryRun, ProjectPath
from tamiz.config import Project
from tamiz.errors import ConfigError
from tamiz.settings import Settings, read_project

if TYPE_CHECKING:
    from tamiz.serving.keys import ApiKey

__all__ = ["keys_app", "serve"]

Role = Literal["predict", "admin"]
_PROJECT = Path("tamiz.yaml")  # where none is named
_MOST_DAYS, _MOST_HOURS = 36_500, 876_000  # a hundred years


def serve(
    project: Annotated[
        Path | None,
        typer.Option(
            "--project", "-p", help="Project file, or the folder of its tamiz.yaml.", show_default=str(_PROJECT)
        ),
    ] = None,
    package: Annotated[
        Path | None, typer.Option("--package", help="Serve this package, a folder or an archive, without a store.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = None,
    auth: Annotated[
        Literal["none", "keys", "platform"],
        typer.Option("--auth", help="none (this machine only), keys (API keys), platform (checked in front of us)."),
    ] = "none",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Worker processes.")] = 1,
    shadow: Annotated[
        str | None, typer.Option("--shadow", help="Alias, such as challenger, of a version to show copies of requests.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option("--records", help="Folder to keep feedback in, and answers if the project says so.")
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option("--log-level", help="Least severity to log.")
    ] = "info",
) -> None:
    """Serve the champion over HTTP; a newly promoted version is taken over without a restart.

    Example: tamiz serve -p examples/reviews --port 8000
    """
    from tamiz.apps import http
    from tamiz.serving.auth import check_host

    if package is not None and shadow is not None:
        raise ConfigError("serve: --shadow needs a model store; --package serves one version, without aliases")
    settings = http.settings_of(
        asked_project(project, package),
        package=package,
        host=host,
        port=port,
        shadow=shadow,
        records=records,
        auth=auth,
        workers=workers,
        log_level=log_level,
        cache=Settings.from_environment().cache / "models",
    )
    check_host(settings.auth, settings.limits.host)
    address = f"http://{http.place_of(settings)}"
    errors.print(f"starting at {address}; when it is up: {address}/docs; end with Ctrl-C")
    http.serve(settings)


def asked_project(project: Path | None, package: Path | None) -> Project | None:
    """Return the project whose settings are asked for; beside a package, only one that was named."""
    return None if package is not None and project is None else read_project(project or _PROJECT)


keys_app = typer.Typer(help="Make, list, rotate and revoke API keys of `serve --auth keys`.", no_args_is_help=True)


def _keys_file(project: Path) -> Path:
    found = read_project(project)
    return Path(found.resolve(found.serve.keys_file))


@keys_app.command("create")
def create(
    role: Annotated[Role, typer.Option("--role", help="predict, or admin (also deploys).")] = "predict",
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=_MOST_DAYS, help="Days until it expires; by default never.")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="What the key is for.")] = "",
    project: ProjectPath = Path("tamiz.yaml"),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make an API key and show it, this once.

    Example: tamiz keys create --role admin --days 90
    """
    from tamiz.serving.keys import create_key

    lasts = None if days is None else timedelta(days=days)
    secret, key = create_key(_keys_file(project), role, lasts=lasts, note=note, dry_run=dry_run)
    _show_key(secret, key, dry_run=dry_run, as_json=as_json)


def _about(key: ApiKey) -> dict[str, Any]:
    """Return what may be shown of a key."""
    return key.model_dump(mode="json", exclude={"sha256"})


def _show_key(secret: str, key: ApiKey, *, dry_run: bool, as_json: bool) -> None:
    """Show a new key; of one that a dry run did not keep, neither the secret nor the id, which mean nothing."""
    if as_json:
        unknown = {"key": None, "id": None} if dry_run else {}
        print_json({"key": secret, **_about(key), **unknown, "changed": not dry_run})
        return
    if dry_run:
        ends = "never expires" if key.expires is None else f"expires {key.expires:%Y-%m-%d %H:%M} UTC"
        output.print(f"a key would be made: role {key.role}, {ends}")
        return
    output.print(secret)
    errors.print("Keep it: only its hash is stored. Send it as `Authorization: Bearer KEY`.")


@keys_app.command("list")
def list_(project: ProjectPath = Path("tamiz.yaml"), as_json: AsJson = False) -> None:
    """List the keys, without their secrets.

    Example: tamiz keys list
    """
    from tamiz.serving.keys import list_keys

    keys = [_about(key) for key in list_keys(_keys_file(project))]
    if as_json:
        print_json(keys)
        return
    columns = list(keys[0]) if keys else ["id"]
    output.print(
        table("API keys", columns, [[str(value or "-") for value in key.values()] for key in keys], first_left=9)
    )


@keys_app.command("rotate")
def rotate(
    key_id: Annotated[str, typer.Argument(help="The id, from `tamiz keys list`.")],
    hours: Annotated[
        float, typer.Option("--hours", min=0, max=_MOST_HOURS, help="Hours in which the old key is still known.")
    ] = 24,
    project: ProjectPath = Path("tamiz.yaml"),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a key in the place of another, which expires soon; running servers need no restart.

    Example: tamiz keys rotate 3f9a0c1d --hours 48
    """
    from tamiz.serving.keys import rotate_key

    secret, key = rotate_key(_keys_file(project), key_id, grace=timedelta(hours=hours), dry_run=dry_run)
    _show_key(secret, key, dry_run=dry_run, as_json=as_json)


@keys_app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id, from `tamiz keys list`.")],
    project: ProjectPath = Path("tamiz.yaml"),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Revoke a key; running servers refuse it from their next request on.

    Example: tamiz keys revoke 3f9a0c1d
    """
    from tamiz.serving.keys import revoke_key

    revoked = revoke_key(_keys_file(project), key_id, dry_run=dry_run)
    if as_json:
        print_json({**_about(revoked), "changed": not dry_run})
    else:
        output.print(f"{key_id} would be revoked" if dry_run else f"revoked {key_id}")

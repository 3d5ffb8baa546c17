"""The command line, `tamiz`."""

try:
    from tamiz.cli.main import main
except ModuleNotFoundError as error:  # commands that train import their libraries; say so before any traceback
    if (error.name or "tamiz").startswith("tamiz"):
        raise
    raise SystemExit(
        f"error  {error.name!r} is needed for the command line and not installed. "
        "Install it with: pip install 'tamiz[train,serve]'"
    ) from None

__all__ = ["main"]

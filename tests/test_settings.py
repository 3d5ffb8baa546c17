import os
from pathlib import Path

from tamiz.settings import Settings


def test_an_empty_cache_variable_counts_as_none(monkeypatch, tmp_path):
    monkeypatch.delenv("TAMIZ_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert Settings.from_environment().cache.is_relative_to(tmp_path)


def test_a_user_without_name_and_home_has_settings(monkeypatch):
    for name in ("HOME", "TAMIZ_CACHE", "TAMIZ_USER", "XDG_CACHE_HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 2)
    settings = Settings.from_environment()
    assert settings.user == "unknown"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/of-a-container")
    assert Settings.from_environment().cache == Path("/var/cache/of-a-container/tamiz")

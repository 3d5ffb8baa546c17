"""The record of a promotion over HTTP by metric, in the form that `tamiz versions VERSION` shows and replays."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tamiz import __version__
from tamiz.config import SelectConfig
from tamiz.metrics.choice import Best
from tamiz.store import CHAMPION, Index

__all__ = ["decision_by_metric"]

_SETTINGS = {"metric", "mode", "limits", "evidence", "confidence", "margin", "slices", "min_slice", "max_slice_drop"}
_SEED = 0  # of comparisons, of which there are none here


def decision_by_metric(name: str, index: Index, best: Best, *, by: str) -> dict[str, Any]:
    """Return the record of a decision by the figures in the store alone.

    A server has no test to compare on: the only gate is that of the limits, of which it is given none.

    Args:
        name: of the model.
        index: the store's, before the change.
        best: the version chosen.
        by: who asked.
    """
    champion = index.aliases.get(CHAMPION)
    settings = SelectConfig(metric=best.metric, mode=best.mode, evidence="none")
    gate = {"name": "limits", "passed": True, "reason": "0 limits are kept", "figures": {"limits": []}}
    named = [version for version in (best.version, champion) if version in index.versions]
    return {
        "format": "tamiz-decision",
        "format_version": 1,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "by": by,
        "asked": "http",
        "why": best.reason,
        "forced": False,
        "promoted": True,
        "code": __version__,
        "inputs": {
            "model": name,
            "version": best.version,
            "champion": champion,
            "sha256": {version: index.versions[version].sha256 for version in named},
            "settings": settings.model_dump(include=_SETTINGS),
            "seed": _SEED,
            "lake": "",
            "gold": None,
        },
        "gates": [gate] if champion else [],
        "outcome": "promote",
        "reason": "select.evidence is none" if champion else "there was no champion",
    }

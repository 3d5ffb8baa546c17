"""From a version to a champion: weigh the evidence, record the decision, act on it; and weigh it again later.

A decision is one JSON document: `inputs` (versions and their hashes, table version, hash of the test rows, settings),
`gates` (figures and answers of each), `outcome` and `reason` follow from one another and can be computed again; `by`,
`at`, `asked`, `code`, `forced` and `promoted` say what was done with them.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from tamiz.config import Project, SelectConfig
from tamiz.data.gold import Examples, load_examples
from tamiz.data.lake import Lake
from tamiz.data.refusals import text_key
from tamiz.errors import ConfigError, ConflictError, DataError, LaterFormatError, RegistryError, TamizError
from tamiz.metrics import METRICS
from tamiz.metrics.names import base_name
from tamiz.model import Model
from tamiz.package import Manifest
from tamiz.pipeline.evidence import BUILT_IN, SEED, Answers, Gate, answers, better, limits, slices
from tamiz.pipeline.publish import promote
from tamiz.pipeline.state import code_version
from tamiz.store import CHAMPION, ModelStore
from tamiz.types import Registry

__all__ = ["Decision", "decide", "replay", "weigh"]

_SETTINGS = (
    "metric",
    "mode",
    "limits",
    "evidence",
    "confidence",
    "margin",
    "slices",
    "min_slice",
    "max_slice_drop",
)
_GOLD = "gold/examples"
_TOLERANCE = 1e-9
_ATTEMPTS = 5
# What the evidence came to.
PROMOTE, REFUSE, GIVES_WAY, NO_EVIDENCE = "promote", "refuse", "gives way", "no evidence"


@dataclass(frozen=True)
class Decision:
    """What was decided about a version.

    Attributes:
        promoted: whether it became champion, or, in a dry run, would become it.
        outcome: `promote`, `refuse`, `gives way` (the champion cannot answer this test), `no evidence` or `champion`.
        reason: why.
        number: of the record in the store; `None` where nothing was decided or recorded.
    """

    promoted: bool
    outcome: str
    reason: str
    number: int | None = None


def decide(
    project: Project,
    store: ModelStore,
    lake: Lake,
    registry: Registry | None,
    version: str,
    *,
    by: str,
    asked: str,
    gold: int | None = None,
    why: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    notice: Callable[[str], None] | None = None,
) -> Decision:
    """Weigh a version against the champion, record the decision and act on it.

    Without evidence either way (no test, no lake, a metric that examples do not decide) a run promotes nothing, whereas
    a person may.

    Args:
        project: settings of the gates, places.
        store: where versions and decisions are.
        lake: where the test is.
        registry: told about the champion and given the record.
        version: number of the version.
        by: who decides.
        asked: `run` or `hand`.
        gold: version of the gold table; by default the newest.
        why: reason in words for the history; by default what the gates say.
        force: promote against the evidence.
        dry_run: change and record nothing.
        notice: told what went wrong after the decision, in the registry.

    Raises:
        ModelNotFoundError: no such version.
        ConflictError: others promote all the time.
        StoreError: the store refused.
    """
    for _ in range(_ATTEMPTS):
        champion = store.index(project.name).aliases.get(CHAMPION)
        if champion == version:
            if not dry_run:  # tells the registry again, which may have missed it
                again: dict[str, Any] = {"by": by, "reason": why or "again", "notice": notice}
                try:
                    promote(store, registry, project.name, version, instead_of=champion, **again)
                except ConflictError:
                    continue
            return Decision(True, CHAMPION, "it is the champion already")
        weighed = weigh(
            store,
            lake,
            project.name,
            version,
            champion=champion,
            settings=project.select,
            lake_name=project.lake,
            gold=gold,
        )
        outcome, reason = weighed["outcome"], weighed["reason"]
        passes = outcome in (PROMOTE, GIVES_WAY) or (outcome == NO_EVIDENCE and asked == "hand")
        promoted = passes or force
        if dry_run:
            return Decision(promoted, outcome, reason)
        record = {
            "format": "tamiz-decision",
            "format_version": 1,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "by": by,
            "asked": asked,
            "why": why,
            "forced": force and not passes,
            "promoted": promoted,
            "code": code_version(),
            **weighed,
        }
        if store.index(project.name).aliases.get(CHAMPION) != champion:
            continue  # weighing takes a while, and another was promoted meanwhile: it is compared with that one
        number = store.record_decision(project.name, version, record)
        if promoted:
            about: dict[str, Any] = {"by": by, "reason": why or reason, "notice": notice}
            try:
                promote(store, registry, project.name, version, instead_of=champion, **about)
            except ConflictError:
                continue  # in the moment between; of several records the last one counts
        elif outcome == NO_EVIDENCE:
            reason += f"; a person may promote it: tamiz promote {version}"
        _tell_registry(registry, version, number, record, notice)
        return Decision(promoted, outcome, reason, number)
    raise ConflictError(f"other versions of {project.name!r} became champion all the time; try again later")


def _tell_registry(
    registry: Registry | None,
    version: str,
    number: int,
    record: Mapping[str, Any],
    notice: Callable[[str], None] | None,
) -> None:
    """Put a copy of the record beside the version's run; the store's own is the one that counts."""
    if registry is None:
        return
    try:
        run_id = next((run.run_id for run in registry.runs() if run.version == version), None)
        if run_id is None:
            return
        with tempfile.TemporaryDirectory() as name:
            text = json.dumps(record, ensure_ascii=False, indent=1)
            (Path(name) / f"decision-{number}.json").write_text(text, encoding="utf-8")
            registry.register(run_id, version=version, metrics={}, artifacts=Path(name))
    except RegistryError as error:
        if notice is not None:
            notice(f"the decision is recorded in the store but not in the registry: {error}")


def weigh(
    store: ModelStore,
    lake: Lake,
    name: str,
    version: str,
    *,
    champion: str | None,
    settings: SelectConfig,
    lake_name: str,
    gold: int | None = None,
) -> dict[str, Any]:
    """Compute `inputs`, `gates`, `outcome` and `reason` of a decision; the same inputs give the same.

    Args:
        store: where both versions are.
        lake: where the test is.
        name: name of the model.
        version: the version in question.
        champion: the version that it would replace.
        settings: what the gates ask.
        lake_name: how the project calls the lake; a model trained from another lake shares no table versions with it.
        gold: version of the gold table; by default the newest.

    Raises:
        ModelNotFoundError: a version is not there (any more).
        StoreError: the storage refused.
    """
    index = store.index(name)
    for named in (version, champion):
        if named is not None:
            store.resolve(f"{name}@{named}")
    inputs: dict[str, Any] = {
        "model": name,
        "version": version,
        "champion": champion,
        "sha256": {v: index.versions[v].sha256 for v in (version, champion) if v is not None},
        "settings": settings.model_dump(include=set(_SETTINGS)),
        "seed": SEED,
        "lake": lake_name,
        "gold": gold,
    }
    if champion is None:
        return {"inputs": inputs, "gates": [], "outcome": PROMOTE, "reason": "there was no champion"}
    gates = [limits(settings, index.versions[version].metrics)]
    outcome, why = _compare(store, lake, inputs, settings, gates)
    failed = [gate.reason for gate in gates if not gate.passed]
    if failed:
        outcome = REFUSE
    passed = [gate.reason for gate in gates if gate.name != "limits"] or [gate.reason for gate in gates]
    reason = "; ".join(failed) or why or "; ".join(passed)
    return {"inputs": inputs, "gates": [gate.to_dict() for gate in gates], "outcome": outcome, "reason": reason}


def _compare(
    store: ModelStore, lake: Lake, inputs: dict[str, Any], settings: SelectConfig, gates: list[Gate]
) -> tuple[str, str | None]:
    """Add the gates that compare two models on the test; return the outcome if all pass, and why where it is known."""
    name, champion = inputs["model"], inputs["champion"]
    metric = base_name(settings.metric)
    if settings.evidence == "none":
        return PROMOTE, "select.evidence is none"
    if metric not in METRICS:
        return NO_EVIDENCE, f"there is no test_{metric} to compare it by"
    new = Model.load(store.fetch(f"{name}@{inputs['version']}"))
    old = _comparable(store, name, champion, new)
    if not isinstance(old, Model):
        return old
    inputs["gold"] = lake.version(_GOLD) if inputs["gold"] is None else inputs["gold"]
    if inputs["gold"] is None:
        return NO_EVIDENCE, f"there is no test_{metric} to compare it by: the lake has no gold table"
    columns = [column for column in settings.slices if column not in BUILT_IN]
    about: dict[str, Any] = {"labels": new.labels, "task": new.task, "version": inputs["gold"]}
    try:
        test = load_examples(lake, side="test", **about, columns=["text_key", *columns])
    except DataError as error:  # other labels or columns since
        return NO_EVIDENCE, f"there is no test_{metric} to compare it by: {error}"
    test = _unseen(test, lake, inputs, {"version": new.manifest, "champion": old.manifest})
    if not test.texts_raw:
        seen = any(found["rows"] for found in inputs["test"]["seen"].values())
        why = "no test example is new to both versions" if seen else "the test is empty"
        return NO_EVIDENCE, f"there is no test_{metric} to compare it by: {why}"
    given, before = answers(new, test.texts_raw), _ordered(answers(old, test.texts_raw), old.labels, new.labels)
    try:
        gates.append(better(settings, test.targets, given, before, model=new, champion=champion))
    except DataError as error:
        return NO_EVIDENCE, f"there is no test_{metric} to compare it by: {error}"
    if settings.slices:
        sliced: dict[str, Any] = {"labels": new.labels, "texts": test.texts_raw, "columns": test.columns}
        gates.append(slices(settings, test.targets, given, before, **sliced))
    return PROMOTE, None


def _comparable(store: ModelStore, name: str, champion: str, new: Model) -> Model | tuple[str, str]:
    """Load the champion, or return outcome and reason where it cannot be compared with."""
    try:
        old = Model.load(store.fetch(f"{name}@{champion}"))
    except LaterFormatError as error:  # whole, and better perhaps
        return NO_EVIDENCE, f"the champion, version {champion}, cannot be compared with: {error}"
    except ValueError as error:  # damaged; a storage that cannot be reached is no reason to replace it
        return GIVES_WAY, f"the champion, version {champion}, cannot be scored on this test ({error})"
    if (old.task, set(old.labels)) != (new.task, set(new.labels)):
        return GIVES_WAY, f"the champion, version {champion}, has other labels"
    return old


def _ordered(given: Answers, labels: Sequence[str], wanted: Sequence[str]) -> Answers:
    """Return answers about `labels` as answers about the same labels in the order `wanted`."""
    if tuple(labels) == tuple(wanted):
        return given
    order = [labels.index(label) for label in wanted]
    if given.decided.ndim == 2:
        return Answers(given.probabilities[:, order], given.decided[:, order])
    places = np.array([*(wanted.index(label) for label in labels), -1])  # the last for no answer, -1
    return Answers(given.probabilities[:, order], places[given.decided])


def _unseen(test: Examples, lake: Lake, inputs: dict[str, Any], manifests: Mapping[str, Manifest]) -> Examples:
    """Leave out what either model learnt from or was chosen by; note how much that was, and which rows are left."""
    keep = np.ones(len(test.row_ids), dtype=np.bool_)
    overlap: dict[str, Any] = {}
    known = list(zip(test.columns["text_key"], map(text_key, test.texts_raw), strict=True))
    for who, manifest in manifests.items():
        seen, unknown = _seen(lake, manifest, inputs)
        own = np.array([not seen.isdisjoint(keys) for keys in known], dtype=np.bool_)
        overlap[who] = {"rows": None if unknown else int(own.sum()), "unknown": unknown}
        keep &= ~own
    kept = test.take(np.flatnonzero(keep))
    digest = hashlib.sha256("\n".join(sorted(kept.row_ids)).encode("utf-8", "surrogatepass")).hexdigest()
    inputs["test"] = {"rows": len(kept.row_ids), "row_ids_sha256": digest, "seen": overlap}
    return kept


def _seen(lake: Lake, manifest: Manifest, inputs: Mapping[str, Any]) -> tuple[set[str], str | None]:
    """Return keys of the texts that a model was made from, or why they are not known.

    Each is there under two keys, as it was cleaned and as it came: it may have been cleaned in another way then.
    """
    gold, recorded, table = manifest.data.get("gold"), manifest.data.get("gold_table"), lake.identity(_GOLD)
    here = manifest.data.get("lake") == inputs["lake"] if recorded is None else recorded == table
    if not isinstance(gold, int) or not here:
        anew = recorded is not None and manifest.data.get("lake") == inputs["lake"]
        return set(), "the lake was made anew since" if anew else "it was not made from this lake"
    if gold == inputs["gold"]:
        return set(), None  # sides of one division share no text
    try:
        rows = lake.scan(_GOLD, version=gold, columns=["text_key", "text_raw"], filters=ds.field("side") != "test")
        keys: set[str] = set()
        for batch in rows:
            keys.update(batch.column("text_key").to_pylist())
            keys.update(map(text_key, batch.column("text_raw").to_pylist()))
    except TamizError:
        return set(), f"version {gold} of the gold table cannot be read any more"
    return keys, None


def replay(store: ModelStore, lake: Lake, record: Mapping[str, Any]) -> list[str]:
    """Compute a recorded decision again from its inputs and return what differs, nothing if it is the same.

    Args:
        store: where both versions still are.
        lake: where the table version of the test still is.
        record: what `ModelStore.decisions` gave.

    Raises:
        ConfigError: the record is of another format.
        ModelNotFoundError: a version was deleted.
    """
    if (record.get("format"), record.get("format_version")) != ("tamiz-decision", 1):
        raise ConfigError("this record is of a format that this Tamiz does not replay; allowed: tamiz-decision 1")
    inputs = record["inputs"]
    again = weigh(
        store,
        lake,
        inputs["model"],
        inputs["version"],
        champion=inputs["champion"],
        settings=SelectConfig.model_validate(inputs["settings"]),
        lake_name=inputs["lake"],
        gold=inputs["gold"],
    )
    # Through JSON, as the record went: tuples become lists.
    return list(_differences({key: record[key] for key in again}, json.loads(json.dumps(again)), ""))


def _differences(old: Any, new: Any, at: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{at}.{key}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, pair in enumerate(zip(old, new, strict=True)) for line in _differences(*pair, f"{at}[{i}]")]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new))
    if old == new or (numbers and isclose(old, new, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)):
        return []
    return [f"{at}: recorded {json.dumps(old, ensure_ascii=False)}, now {json.dumps(new, ensure_ascii=False)}"]

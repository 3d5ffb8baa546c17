"""Who becomes champion: versions that are better, worse on a part, lucky or slow, each with its record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tamiz.blobs import open_blobs
from tamiz.config import CandidateConfig, Project, SelectConfig, parse_project
from tamiz.data.gold import Examples, load_examples
from tamiz.data.lake import Lake
from tamiz.errors import ConfigError, ConflictError, ModelNotFoundError, RegistryError, StoreError
from tamiz.metrics import difference_interval, intervals
from tamiz.model import Model
from tamiz.pipeline import promotion
from tamiz.pipeline.evaluate import evaluate
from tamiz.pipeline.evidence import Answers, better, limits, slices
from tamiz.pipeline.promotion import Decision, _ordered, decide, replay, weigh
from tamiz.pipeline.publish import promote, rollback
from tamiz.pipeline.train import assemble, candidate_package, fit_classifier
from tamiz.registry import MemoryRegistry
from tamiz.store import ModelStore
from tests.projects import make_project, raw_project, run, side, write_csv

PRIOR = [{"family": "prior"}]
WORDS = {
    ("mail", "yes"): "apple bread soup", ("mail", "no"): "loan bank debt",
    ("web", "yes"): "goal match team", ("web", "no"): "rain wind snow",
}  # fmt: skip


@dataclass
class Place:
    """A project whose lake is filled, and models trained on chosen parts of it."""

    project: Project
    lake: Lake
    store: ModelStore
    sides: dict[str, Examples]

    def publish(self, chosen: Any, *, labels: tuple[str, str] = ("no", "yes"), **data: Any) -> str:
        """Train on the chosen places of the training side and publish."""
        if labels == ("yes", "no"):
            turned = {name: replace(side, targets=1 - side.targets) for name, side in self.sides.items()}
            return replace(self, sides=turned)._publish(chosen, labels, data)
        return self._publish(chosen, labels, data)

    def _publish(self, chosen: Any, labels: tuple[str, str], data: dict[str, Any]) -> str:
        train = self.sides["train"]
        part = Examples(
            [], [train.texts[i] for i in chosen], train.targets[chosen], [train.row_ids[i] for i in chosen], {}
        )
        config = CandidateConfig(family="linear")
        classifier, _ = fit_classifier(config, labels, self.project.task, part, None, seed=0)
        made_from = {"gold": self.lake.version("gold/examples"), "lake": self.project.lake, **data}
        model = assemble(self.project, config, classifier, self.sides["validation"], made_from)
        figures = evaluate(model, self.sides["test"].texts_raw, self.sides["test"].targets, prefix="test_").metrics
        model = model.with_records(metrics={**figures, "latency_p99_ms": 1.5})
        folder = Path(self.project.folder) / f"package-{len(list(Path(self.project.folder).iterdir()))}"
        model.save(folder)
        return self.store.publish(self.project.name, folder)

    def decide(
        self, version: str, *, asked: str = "run", registry: MemoryRegistry | None = None, **select: Any
    ) -> Decision:
        project = self.project.model_copy(update={"select": self.project.select.model_copy(update=select)})
        return decide(project, self.store, self.lake, registry, version, by="ana", asked=asked)

    def record(self, version: str) -> dict[str, Any]:
        return list(self.store.decisions("mail", version).values())[-1]

    @property
    def champion(self) -> str:
        return self.store.index("mail").aliases["champion"]

    def crown(self, version: str) -> None:
        self.store.set_alias("mail", "champion", version, by="ana", reason="to begin with")


def fill(folder: Path, *, n: int, noise: float, per_text: int) -> Place:
    """Write texts whose words depend on channel and label, four of five from `mail`, and run up to the split."""
    rng = np.random.default_rng(1)
    table = []
    for i in range(n):
        channel, label = "mail" if rng.random() < 0.8 else "web", ("yes", "no")[int(rng.integers(2))]
        words = [*rng.choice(WORDS[channel, label].split(), per_text), *(f"w{rng.integers(900)}" for _ in range(6))]
        given = {"yes": "no", "no": "yes"}[label] if rng.random() < noise else label
        table.append({"id": f"r{i}", "text": " ".join(words), "label": given, "channel": channel})
    write_csv(folder / "texts.csv", table)
    raw = raw_project(data={"partition_by": ["channel"]}, split={"validation": 0.1, "test": 0.4})
    project = parse_project({**raw, "name": "mail", "task": "binary", "labels": ["no", "yes"]}).at(folder)
    run(project, until="split")
    lake = Lake(project.resolve(project.lake))
    sides = {
        side: load_examples(lake, side=side, labels=("no", "yes"), task=project.task, columns=["channel"])
        for side in ("train", "validation", "test")
    }
    return Place(project, lake, ModelStore(project.resolve(project.registry.store)), sides)


@pytest.fixture
def place(tmp_path) -> Place:
    return fill(tmp_path, n=600, noise=0.05, per_text=2)


def of_channel(place: Place, channel: str) -> list[int]:
    return [i for i, own in enumerate(place.sides["train"].columns["channel"]) if own == channel]


def everything(place: Place) -> list[int]:
    return list(range(len(place.sides["train"].texts)))


# --- each gate on real models


def test_better_on_the_whole_and_worse_on_one_slice_is_refused(place):
    """The champion knows the web alone, a fifth of the test; its challenger knows mail alone."""
    web, mail = (place.publish(of_channel(place, channel)) for channel in ("web", "mail"))
    place.crown(web)
    found = place.decide(mail, slices=["channel", "label", "length"])
    assert (found.promoted, found.outcome, place.champion) == (False, "refuse", web)
    assert found.reason.startswith("worse on channel=web ")
    gates = {gate["name"]: gate for gate in place.record(mail)["gates"]}
    assert {name: gate["passed"] for name, gate in gates.items()} == {"limits": True, "better": True, "slices": False}
    by_slice = {row["slice"]: row for row in gates["slices"]["figures"]["slices"]}
    quarters = {name for name in by_slice if name.startswith("length=")}
    assert quarters
    assert {"channel=mail", "channel=web", "label=no", "label=yes"} == set(by_slice) - quarters
    assert [name for name, row in by_slice.items() if row["worse"]] == ["channel=web"]
    # Without slices nobody would have seen it.
    assert place.decide(mail).promoted
    assert place.champion == mail


def test_better_by_luck_is_refused_by_default(tmp_path):
    """Models of equal quality, each from another half of the training side: the luckiest against the unluckiest."""
    place = fill(tmp_path, n=500, noise=0.15, per_text=1)
    rng = np.random.default_rng(0)
    half = len(place.sides["train"].texts) // 2
    versions = [place.publish(rng.permutation(half * 2)[:half]) for _ in range(6)]
    metrics = place.store.index("mail").versions
    ranked = sorted(versions, key=lambda v: metrics[v].metrics["test_f1_macro"])
    worst, middle = (
        ranked[0],
        next(v for v in ranked if metrics[v].metrics["test_f1_macro"] > metrics[ranked[0]].metrics["test_f1_macro"]),
    )
    place.crown(worst)
    found = place.decide(middle)
    assert (found.promoted, found.outcome, place.champion) == (False, "refuse", worst)
    assert "perhaps by luck, select.evidence asks for P(better) of 0.95 or more" in found.reason
    figures = place.record(middle)["gates"][1]["figures"]
    assert figures["difference"] > 0
    assert 0.5 < figures["p_better"] < 0.95
    assert figures["low"] < 0 < figures["high"]
    assert not place.decide(middle, evidence="not_worse", margin=0.0).promoted
    assert place.decide(middle, evidence="not_worse", margin=0.5).promoted
    place.crown(worst)
    assert place.decide(middle, evidence="better").promoted


def test_too_slow_is_refused_and_the_run_goes_on(tmp_path):
    registry = MemoryRegistry()
    run(make_project(tmp_path, candidates=PRIOR), registry)
    select = {"limits": {"latency_p99_ms": 1e-9, "size_mb": 100}}
    result = run(make_project(tmp_path, select=select), registry)
    assert (result.version, result.champion) == ("2", "1")
    assert result.verdict.startswith("outside select.limits: latency_p99_ms is ")
    assert "linear" in result.refused
    store = ModelStore(str(tmp_path / "models"))
    record = store.decisions("topics", "2")[1]
    assert (record["promoted"], record["outcome"], record["asked"]) == (False, "refuse", "run")
    gates = {gate["name"]: gate for gate in record["gates"]}
    assert (gates["limits"]["passed"], gates["better"]["passed"]) == (False, True)
    assert [limit["kept"] for limit in gates["limits"]["figures"]["limits"]] == [False, True]
    assert registry.aliases == {"champion": "1"}


def test_without_a_champion_the_limits_still_end_a_run(tmp_path):
    with pytest.raises(ConfigError, match="no candidate keeps them"):
        run(make_project(tmp_path, select={"limits": {"size_mb": 1e-9}}))


def test_surely_better_is_promoted_with_a_record_that_replays(place):
    web, all_ = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(web)
    found = place.decide(all_, slices=["channel"], limits={"latency_p99_ms": 2.0})
    assert (found.promoted, found.outcome, found.number, place.champion) == (True, "promote", 1, all_)
    record = place.record(all_)
    json.dumps(record, allow_nan=False)
    assert (record["by"], record["asked"], record["forced"], record["promoted"]) == ("ana", "run", False, True)
    assert record["inputs"]["sha256"] == {v: place.store.index("mail").versions[v].sha256 for v in (web, all_)}
    assert record["inputs"]["test"]["rows"] == len(place.sides["test"].texts)
    assert replay(place.store, place.lake, record) == []
    assert place.store.index("mail").history[-1].reason == found.reason


def test_a_replay_reads_the_test_as_it_was(place):
    web, all_ = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(web)
    place.decide(all_)
    table = place.lake.read("gold/examples")
    place.lake.replace("gold/examples", table.schema, table.slice(0, 50).to_batches(), partition_by=["side"])
    assert replay(place.store, place.lake, place.record(all_)) == []


def test_a_replay_says_what_differs(place):
    web, all_ = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(web)
    place.decide(all_)
    record = json.loads(json.dumps(place.record(all_)))
    record["inputs"]["test"]["row_ids_sha256"] = "0"
    record["outcome"] = "refuse"
    said = replay(place.store, place.lake, record)
    assert [line.partition(":")[0] for line in said] == ["inputs.test.row_ids_sha256", "outcome"]
    with pytest.raises(ConfigError, match="format"):
        replay(place.store, place.lake, {**record, "format_version": 2})
    place.store.delete("mail", web)
    with pytest.raises(ModelNotFoundError, match=f"no version '{web}'"):
        replay(place.store, place.lake, record)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "f1_positive", "recall_positive", "precision_weighted"])
def test_one_lucky_answer_on_a_small_test_does_not_show_that_a_version_is_not_worse(place, metric):
    """Of 30 examples none speaks against it, so that no resample does; 1 in 10 others may."""
    model = Model.load(place.store.fetch(f"mail@{place.publish(everything(place))}"))
    targets, even = np.ones(30, np.int64), np.full((30, 2), 0.5)
    old, new = (Answers(even, np.repeat([0, 1], [wrong, 30 - wrong])) for wrong in (4, 3))
    targets[0] = new.decided[0] = old.decided[0] = 0
    settings = SelectConfig(metric=f"val_{metric}", evidence="not_worse", margin=0.02)
    gate = better(settings, targets, new, old, model=model, champion="1")
    assert not gate.passed
    assert "it may be worse by more than select.margin, 0.02" in gate.reason
    assert gate.figures["low"] < -0.02


@pytest.mark.parametrize(("metric", "among"), [("recall", [0, 1, 2, 4]), ("precision", [0, 1, 3, 4]), ("f1", range(5))])
def test_the_interval_of_one_labels_figure_reaches_as_far_as_that_of_its_examples(place, metric, among):
    model = Model.load(place.store.fetch(f"mail@{place.publish(everything(place))}"))
    kinds = [(1, 1, 1), (1, 1, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1), (0, 0, 0)]  # the truth and both answers
    targets, new, old = np.array([kinds[i] for i in np.repeat(range(6), [5, 2, 2, 1, 1, 80])]).T
    settings = SelectConfig(metric=f"val_{metric}_positive")
    given = [Answers(np.full((91, 2), 0.5), decided) for decided in (new, old)]
    found = better(settings, targets, *given, model=model, champion="1").figures
    rows = np.isin(np.repeat(range(6), [5, 2, 2, 1, 1, 80]), list(among))
    first, second = (new == targets)[rows], (old == targets)[rows]
    low, high = difference_interval(first, second)
    below, above = first.mean() - second.mean() - low, high - (first.mean() - second.mean())
    assert found["difference"] - found["low"] >= below - 1e-12
    assert found["high"] - found["difference"] >= min(above, 1 - found["difference"]) - 1e-12


@pytest.mark.parametrize("metric", ["val_f1_macro", "val_roc_auc_macro"])
def test_every_confidence_that_may_be_asked_for_can_be_reached(place, metric, monkeypatch):
    model = Model.load(place.store.fetch(f"mail@{place.publish(everything(place))}"))
    monkeypatch.setattr(intervals, "_RANKING_CELLS", 0)  # as if the test were so large that few resamples are drawn
    targets = np.arange(60) % 2
    new, old = (Answers(np.eye(2)[decided], decided) for decided in (targets, np.arange(60) % 3 % 2))
    gate = better(SelectConfig(metric=metric, confidence=0.9999), targets, new, old, model=model, champion="1")
    assert gate.passed, gate.reason
    with pytest.raises(ValueError, match="confidence"):
        SelectConfig(confidence=0.99995)


def test_the_same_answers_gain_nothing(place):
    first, second = (place.publish(everything(place)) for _ in range(2))
    place.crown(first)
    for evidence in ("significant", "not_worse", "better"):
        found = place.decide(second, evidence=evidence)
        assert not found.promoted
        assert "both give the same answers" in found.reason
    found = place.decide(second, evidence="none")
    assert (found.promoted, found.reason) == (True, "select.evidence is none")
    assert place.decide(second) == Decision(True, "champion", "it is the champion already")


@pytest.mark.parametrize("metric", ["val_log_loss", "val_accuracy", "val_roc_auc_macro", "val_f1_positive"])
def test_every_kind_of_metric_decides_in_its_direction(place, metric):
    web, all_ = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(web)
    found = place.decide(all_, metric=metric)
    assert (found.promoted, place.record(all_)["gates"][1]["figures"]["p_better"] > 0.95) == (True, True)
    back = place.decide(web, metric=metric)
    assert (back.promoted, back.outcome) == (False, "refuse")
    assert ("mcnemar" in place.record(web)["gates"][1]["figures"]) == (metric == "val_accuracy")


def test_a_metric_that_examples_do_not_decide_is_no_evidence(place):
    one, two = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(one)
    found = place.decide(two, metric="size_mb")
    assert (found.promoted, found.outcome) == (False, "no evidence")
    assert found.reason == f"there is no test_size_mb to compare it by; a person may promote it: tamiz promote {two}"
    assert place.decide(two, metric="size_mb", asked="hand").promoted


# --- what a model has seen before


def move_to_test(place: Place, was: str, rows: int) -> None:
    table = place.lake.read("gold/examples")
    side = np.array(table.column("side").to_pylist(), dtype=object)
    side[np.flatnonzero(side == was)[:rows]] = "test"
    at = table.schema.get_field_index("side")
    changed = table.set_column(at, table.schema.field("side"), pa.array(side.tolist(), pa.string()))
    place.lake.replace("gold/examples", table.schema, changed.to_batches(), partition_by=["side"])


@pytest.mark.parametrize(("was", "rows"), [("train", 100), ("validation", 30)])
def test_examples_that_a_model_learnt_from_or_was_chosen_by_are_left_out(place, was, rows):
    """The division was made anew: a part of what is the test now was another side when the champion was made."""
    web, all_ = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(web)
    move_to_test(place, was, rows)
    place.decide(all_)
    test = place.record(all_)["inputs"]["test"]
    assert test["seen"]["champion"] == {"rows": rows, "unknown": None}
    assert test["rows"] == len(place.sides["test"].texts)
    assert replay(place.store, place.lake, place.record(all_)) == []


def test_examples_that_the_new_version_alone_learnt_from_are_left_out(place):
    all_ = place.publish(everything(place))
    move_to_test(place, "train", 100)
    place.crown(place.publish(of_channel(place, "web")))
    place.decide(all_)
    test = place.record(all_)["inputs"]["test"]
    assert test["seen"] == {"version": {"rows": 100, "unknown": None}, "champion": {"rows": 0, "unknown": None}}
    assert test["rows"] == len(place.sides["test"].texts)


def test_what_a_model_learnt_from_is_known_however_it_was_cleaned(place):
    """All texts have other keys now, and a third of the test was training when the champion was made."""
    web, all_ = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(web)
    table = place.lake.read("gold/examples")
    side = np.array(table.column("side").to_pylist(), dtype=object)
    side[np.flatnonzero(side == "train")[:100]] = "test"
    for name, cells in (("side", side.tolist()), ("text_key", [f"other{i}" for i in range(len(side))])):
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), pa.array(cells))
    place.lake.replace("gold/examples", table.schema, table.to_batches(), partition_by=["side"])
    place.decide(all_)
    assert place.record(all_)["inputs"]["test"]["seen"]["champion"] == {"rows": 100, "unknown": None}


def test_what_a_model_learnt_from_is_known_if_it_was_cleaned_in_another_way_then(place):
    table = place.lake.read("gold/examples")
    at, keys = table.schema.get_field_index("text_key"), pa.array([f"other{i}" for i in range(len(table))])
    other = table.set_column(at, table.schema.field("text_key"), keys)
    place.lake.replace("gold/examples", table.schema, other.to_batches(), partition_by=["side"])
    web, all_ = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(web)
    place.lake.replace("gold/examples", table.schema, table.to_batches(), partition_by=["side"])
    move_to_test(place, "train", 100)
    place.decide(all_)
    assert place.record(all_)["inputs"]["test"]["seen"]["champion"] == {"rows": 100, "unknown": None}


def test_force_that_the_evidence_did_not_need_is_not_recorded_as_such(place):
    web, all_ = place.publish(of_channel(place, "web")), place.publish(everything(place))
    about = {"by": "ana", "asked": "hand", "force": True}
    for champion, version, forced in ((web, all_, False), (all_, web, True)):
        place.crown(champion)
        assert decide(place.project, place.store, place.lake, None, version, **about).promoted
        assert place.record(version)["forced"] is forced


def test_a_champion_from_another_lake_is_compared_and_the_doubt_recorded(place):
    web, all_ = place.publish(of_channel(place, "web"), lake="s3://elsewhere/lake"), place.publish(everything(place))
    place.crown(web)
    assert place.decide(all_).promoted
    seen = place.record(all_)["inputs"]["test"]["seen"]
    assert seen["champion"] == {"rows": None, "unknown": "it was not made from this lake"}
    assert seen["version"] == {"rows": 0, "unknown": None}


# --- champions that are hard to compare with


def test_labels_in_another_order_are_the_same_labels(place):
    all_, web = place.publish(everything(place)), place.publish(of_channel(place, "web"), labels=("yes", "no"))
    place.crown(all_)
    found = place.decide(web)
    assert (found.promoted, found.outcome, place.champion) == (False, "refuse", all_)
    figures = place.record(web)["gates"][1]["figures"]
    metrics = place.store.index("mail").versions
    assert figures["second"] == pytest.approx(metrics[all_].metrics["test_f1_macro"])
    assert figures["first"] == pytest.approx(metrics[web].metrics["test_f1_macro"])


@pytest.mark.parametrize("decided", [[0, 2, -1], [[True, False, False], [False, True, True]]])
def test_answers_are_put_in_another_order_of_labels(decided):
    given = Answers(np.array([[0.1, 0.2, 0.7]] * len(decided)), np.array(decided))
    found = _ordered(given, ("a", "b", "c"), ("c", "a", "b"))
    assert found.probabilities.tolist() == [[0.7, 0.1, 0.2]] * len(decided)
    assert found.decided.tolist() == (
        [1, 0, -1] if given.decided.ndim == 1 else [[False, True, False], [True, False, True]]
    )
    back = _ordered(found, ("c", "a", "b"), ("a", "b", "c"))
    assert all(np.array_equal(a, b) for a, b in zip(back, given, strict=True))


def test_a_champion_of_a_later_format_does_not_give_way(place):
    one, two = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(one)
    manifest, index = (Path(place.store.place) / "mail" / name for name in (f"{one}/model.json", "index.json"))
    later = manifest.read_bytes().replace(b'"format_version": 1', b'"format_version": 9')
    manifest.write_bytes(later)
    before = place.store.index("mail").versions[one].sha256
    index.write_text(index.read_text().replace(before, hashlib.sha256(later).hexdigest()))
    found = place.decide(two)
    assert (found.promoted, found.outcome, place.champion) == (False, "no evidence", one)
    assert "Install a newer release" in found.reason
    assert place.decide(two, asked="hand").promoted


def test_who_became_champion_during_the_weighing_is_compared_with(place, monkeypatch):
    web, mail, all_ = (
        place.publish(rows) for rows in (of_channel(place, "web"), of_channel(place, "mail"), everything(place))
    )
    place.crown(mail)
    weighed = []

    def weigh_slowly(*given, **about):
        if not weighed:
            place.crown(all_)
        weighed.append(about["champion"])
        return weigh(*given, **about)

    monkeypatch.setattr(promotion, "weigh", weigh_slowly)
    found = place.decide(web, evidence="none")
    assert (found.promoted, weighed) == (True, [mail, all_])
    assert place.record(web)["inputs"]["champion"] == all_
    assert place.store.index("mail").history[-1].previous == all_
    with pytest.raises(ConflictError, match=f"champion of 'mail' is at version {web} now, not at {mail}"):
        place.store.set_alias("mail", "champion", all_, by="ana", reason="late", instead_of=mail)


def test_the_champion_that_is_asked_for_again_does_not_take_the_place_of_who_came_meanwhile(place, monkeypatch):
    web, all_ = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(web)

    def promote_slowly(*given, **about):
        if place.champion == web:
            place.crown(all_)
        promote(*given, **about)

    monkeypatch.setattr(promotion, "promote", promote_slowly)
    found = place.decide(web)
    assert (found.promoted, found.outcome, place.champion) == (False, "refuse", all_)
    assert place.record(web)["inputs"]["champion"] == all_


def test_what_the_test_lacks_does_not_stop_a_forced_promotion(place):
    one, two = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(two)
    found = place.decide(one, slices=["country"])
    assert (found.promoted, found.outcome) == (False, "no evidence")
    assert "gold/examples has no column 'country'" in found.reason
    project = place.project.model_copy(
        update={"select": place.project.select.model_copy(update={"slices": ["country"]})}
    )
    forced = decide(project, place.store, place.lake, None, one, by="ana", asked="hand", why="the law", force=True)
    assert (forced.promoted, place.champion) == (True, one)


# --- gates on made-up answers


def several(n: int = 200) -> tuple[Any, Answers, Answers]:
    rng = np.random.default_rng(2)
    targets = rng.random((n, 2)) < 0.5
    new, old = targets.copy(), targets.copy()
    new[:, 1] &= rng.random(n) < 0.5  # misses the second label
    old[:, 0] ^= rng.random(n) < 0.3
    return targets, Answers(new.astype(float), new), Answers(old.astype(float), old)


def test_a_label_that_is_found_less_often_is_a_worse_slice():
    targets, new, old = several()
    settings = SelectConfig(slices=["label"])
    gate = slices(settings, targets, new, old, labels=("a", "b"), texts=["x"] * 200, columns={})
    assert not gate.passed
    assert [row["worse"] for row in gate.figures["slices"]] == [False, True]
    assert gate.reason.startswith("worse on label=b ")


def test_small_slices_are_not_judged_and_drops_may_be_bounded():
    targets, new, old = several()
    about = {"labels": ("a", "b"), "texts": ["x"] * 150 + ["x" * 3000] * 50, "columns": {}}
    gate = slices(SelectConfig(slices=["length"], min_slice=51), targets, new, old, **about)
    assert [row["slice"] for row in gate.figures["slices"]] == ["length=1 to 1 characters"]
    assert gate.reason.endswith("; 1 with fewer than 51 examples were not judged")
    few = [each[:12] for each in (targets, *new, *old)]
    short = few[0], Answers(few[1], few[2]), Answers(few[3], few[4])
    about = {"labels": ("a", "b"), "texts": ["x"] * 12, "columns": {}}
    settings = {"slices": ["label"], "min_slice": 1}
    free = slices(SelectConfig(**settings), *short, **about).figures["slices"]
    drop = -min(row["difference"] for row in free)
    assert drop > 0
    assert not slices(SelectConfig(**settings, max_slice_drop=drop / 2), *short, **about).passed


def test_equals_seldom_fail_on_some_slice():
    """At 5 % over ten slices together, six failures of thirty would be rare."""
    rng = np.random.default_rng(4)
    cells = [str(i % 10) for i in range(300)]
    failed = 0
    for _ in range(30):
        targets = rng.integers(0, 2, 300)
        models = [np.where(rng.random(300) < 0.8, targets, 1 - targets) for _ in range(2)]
        given = [Answers(np.eye(2)[decided], decided) for decided in models]
        about = {"labels": ("a", "b"), "texts": cells, "columns": {"place": cells}}
        failed += not slices(SelectConfig(slices=["place"], min_slice=30), targets, *given, **about).passed
    assert failed <= 5


def test_among_many_slices_a_clear_loss_is_seen():
    """Sixty labels; a quarter of the texts by length loses a third of its right decisions."""
    rng = np.random.default_rng(5)
    targets = rng.random((400, 60)) < 0.5
    old, new = targets.copy(), targets.copy()
    old ^= rng.random(targets.shape) < 0.02
    new ^= rng.random(targets.shape) < 0.02
    lengths = np.repeat([1, 2, 3, 4], 100)
    new[lengths == 4] ^= rng.random((100, 60)) < 0.35
    about = {"labels": [str(j) for j in range(60)], "texts": ["x" * n for n in lengths], "columns": {}}
    given = [Answers(model.astype(float), model) for model in (new, old)]
    gate = slices(SelectConfig(slices=["label", "length"], min_slice=30), targets, *given, **about)
    worse = {row["slice"]: row["worse"] for row in gate.figures["slices"] if row["slice"].startswith("length")}
    assert list(worse.values()) == [False, False, False, True]


def test_every_value_of_a_column_with_enough_examples_is_judged():
    """Sixty values alike for sixty characters, one of them wrong throughout; and as many as there are other rows."""
    cells = [f"{'x' * 60}{i % 60:02}" for i in range(2400)] + [f"alone {i}" for i in range(500)]
    targets = np.zeros(len(cells), np.int64)
    old = targets.copy()
    new = np.where([cell.endswith("x07") for cell in cells], 1, 0)
    given = [Answers(np.eye(2)[decided], decided) for decided in (new, old)]
    about = {"labels": ("a", "b"), "texts": cells, "columns": {"place": cells}}
    gate = slices(SelectConfig(slices=["place"], min_slice=30), targets, *given, **about)
    assert (len(gate.figures["slices"]), gate.figures["too_small"]) == (60, 500)
    assert [row["n"] for row in gate.figures["slices"] if row["worse"]] == [40]


def test_limits_hold_for_the_test_figure_too():
    settings = SelectConfig(limits={"val_ece": 0.05, "texts_per_s": 100, "size_mb": 1})
    good = {"val_ece": 0.04, "test_ece": 0.05, "texts_per_s": 100.0, "size_mb": 1.0}
    assert limits(settings, good).passed
    assert limits(settings, {k: v for k, v in good.items() if k != "test_ece"}).passed
    gate = limits(settings, {**good, "test_ece": 0.09})
    assert gate.reason == "outside select.limits: test_ece is 0.09, the limit is 0.05"
    assert limits(settings, {"val_ece": 0.01, "size_mb": 0.5}).reason.endswith("texts_per_s was not measured")


def test_slices_that_no_table_has_are_refused_before_anything_is_done(tmp_path):
    with pytest.raises(ConfigError, match=r"select.slices: 'chanel' is not carried to the test.*'channel'"):
        run(make_project(tmp_path, data={"partition_by": ["channel"]}, select={"slices": ["chanel"]}))
    assert not (tmp_path / "lake").exists()


# --- store and registry


def test_decisions_are_numbered_and_stay(place):
    version = place.publish(everything(place))
    assert place.store.decisions("mail", version) == {}
    assert [place.store.record_decision("mail", version, {"a": i}) for i in range(3)] == [1, 2, 3]
    assert list(place.store.decisions("mail", version)) == [1, 2, 3]
    with pytest.raises(ModelNotFoundError):
        place.store.record_decision("mail", "9", {})
    with pytest.raises(ValueError, match="JSON"):
        place.store.record_decision("mail", version, {"a": float("nan")})
    assert place.publish(everything(place)) == str(int(version) + 1)
    place.store.delete("mail", version)
    assert list(place.store.decisions("mail", version)) == [1, 2, 3]
    (Path(place.store.place) / "mail" / "decisions" / f"{version}-2.json").write_text("[")
    with pytest.raises(StoreError, match="is damaged"):
        place.store.decisions("mail", version)


class Unreachable(MemoryRegistry):
    def alias(self, name: str, version: str | None) -> None:
        raise RegistryError("no connection")


def test_a_registry_that_does_not_know_the_version_is_given_it(place):
    version = place.publish(everything(place))
    notices: list[str] = []
    registry = MemoryRegistry()
    promote(place.store, registry, "mail", version, by="ana", reason="first", notice=notices.append)
    promote(place.store, registry, "mail", version, alias="challenger", by="ana", reason="first")
    assert (registry.aliases, notices) == ({"champion": version, "challenger": version}, [])
    (run,) = registry.runs()
    assert (run.family, run.version) == ("linear", version)
    assert run.metrics == place.store.index("mail").versions[version].metrics
    other = place.publish(of_channel(place, "web"))
    place.decide(other, registry=registry, evidence="better")  # a worse one, of which the record is kept alone
    assert [run.version for run in registry.runs()] == [version]
    promote(place.store, registry, "mail", other, by="ana", reason="second")
    rollback(place.store, new := MemoryRegistry(), "mail", by="ana", reason="back")
    assert (registry.aliases["champion"], new.aliases) == (other, {"champion": version})


def test_a_registry_that_cannot_be_told_leaves_no_half_state(place):
    version = place.publish(everything(place))
    notices: list[str] = []
    promote(place.store, Unreachable(), "mail", version, by="ana", reason="again", notice=notices.append)
    assert place.champion == version
    assert notices[0].startswith(f"version {version} is the champion in the store, but the registry was not told")
    assert notices[0].endswith(f"Repeat that with: tamiz promote {version}")
    with pytest.raises(RegistryError, match="is the challenger in the store"):
        promote(place.store, Unreachable(), "mail", version, alias="challenger", by="ana", reason="first")


def test_models_of_the_record_are_those_of_the_store(place):
    """The figure of the gate is what `evaluate` says of the stored package."""
    web, all_ = place.publish(of_channel(place, "web")), place.publish(everything(place))
    place.crown(web)
    place.decide(all_)
    figures = place.record(all_)["gates"][1]["figures"]
    test = place.sides["test"]
    for version, found in ((all_, figures["first"]), (web, figures["second"])):
        model = Model.load(place.store.fetch(f"mail@{version}"))
        expected = evaluate(model, test.texts_raw, test.targets, prefix="test_").metrics["test_f1_macro"]
        assert found == pytest.approx(expected, abs=1e-12)


# --- between candidates


def test_the_lead_over_the_runner_up_is_measured_on_validation(tmp_path):
    two = [{"family": "prior"}, {"family": "linear"}]
    first = run(make_project(tmp_path, candidates=two))
    lead = first.lead
    assert (lead["winner"], lead["runner_up"], lead["metric"]) == ("linear", "prior", "val_f1_macro")
    assert [lead["first"], lead["second"]] == pytest.approx([c.metrics["val_f1_macro"] for c in first.leaderboard])
    assert lead["low"] < lead["difference"] < lead["high"]
    assert lead["p_better"] > 0.9
    assert run(make_project(tmp_path, candidates=two)).lead == lead


def test_the_lead_points_up_where_lower_is_better(tmp_path):
    two = [{"family": "linear", "params": {"C": 1e-4}}, {"family": "prior"}]
    lead = run(make_project(tmp_path, candidates=two, select={"metric": "val_log_loss"})).lead
    assert lead["difference"] < 0
    assert lead["p_better"] > 0.5


def test_choice_and_lead_rest_on_answers_by_calibrations_that_have_not_seen_the_example(tmp_path):
    # On few examples, isotonic calibration fits those that it was fitted on best and others worst.
    two = [{"family": "linear", "name": name, "calibrate": name} for name in ("isotonic", "none")]
    project = make_project(tmp_path, candidates=two, select={"metric": "val_log_loss"})
    found = run(project)
    first, second = found.leaderboard
    assert (first.candidate, second.candidate) == ("none", "isotonic")
    assert [found.lead["first"], found.lead["second"]] == pytest.approx(
        [c.metrics["val_log_loss"] for c in found.leaderboard]
    )
    validation = side(project, "validation")
    model = candidate_package(open_blobs(project.resolve(project.lake)), second.key, tmp_path / "package")
    about = {"texts": validation.texts_raw, "targets": validation.targets, "prefix": "val_"}
    served, held = (evaluate(model, **about, learnt=learnt).metrics["val_log_loss"] for learnt in (False, True))
    assert served < first.metrics["val_log_loss"] < held == pytest.approx(second.metrics["val_log_loss"])


def test_one_candidate_has_no_lead(tmp_path):
    assert run(make_project(tmp_path, n=80)).lead is None

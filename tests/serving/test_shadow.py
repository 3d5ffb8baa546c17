import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from tamiz.config import RecordsConfig, ServeConfig
from tamiz.serving.app import create_app
from tamiz.serving.live import LiveModels
from tamiz.serving.metrics import Metrics
from tamiz.serving.served import Served
from tamiz.serving.shadow import Shadow
from tamiz.store import ModelStore
from tests.serving.helpers import TEXTS, ask, make_model, predict, publish
from tests.serving.test_limits import limiter
from tests.serving.test_live import Clock, damage

PATIENCE_S = 10
SHADOW = ServeConfig(shadow="challenger")


def store_with(tmp_path, family="prior"):
    """Return a store with a champion, and a challenger that answers otherwise."""
    store = ModelStore(str(tmp_path / "store"))
    publish(store, make_model(), tmp_path)
    version = publish(store, make_model(family), tmp_path, champion=False)
    store.set_alias("demo", "challenger", version, by="test", reason="test")
    return store


def live_of(store, **about):
    live = LiveModels(store, ["demo"], shadow="challenger", **about)
    live.refresh()
    return live


def figures(app, name):
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in ask(app, "GET", "/metrics").text.splitlines()
        if line.startswith(name)
    }


def compared(app, least):
    """Wait until so many texts have been compared, and return them by outcome."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        found = figures(app, "tamiz_shadow_texts_total")
        if sum(found.values()) >= least:
            return {name.partition('outcome="')[2].partition('"')[0]: count for name, count in found.items()}
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {least} texts")


def test_a_challenger_is_compared_and_never_answers(tmp_path):
    app = create_app(live_of(store_with(tmp_path)), limits=SHADOW)
    got = predict(app, TEXTS)
    assert got.json()["version"] == "1"
    want = make_model().predict(TEXTS), make_model("prior").predict(TEXTS)
    same = sum(ours.label == theirs.label for ours, theirs in zip(*want, strict=True))
    assert compared(app, len(TEXTS)) == {"same": same, "other": len(TEXTS) - same}
    apart = [np.abs(ours.probabilities - theirs.probabilities).max() for ours, theirs in zip(*want, strict=True)]
    (total,) = figures(app, "tamiz_shadow_difference_sum").values()
    np.testing.assert_allclose(total, sum(apart))
    assert [one["label"] for one in got.json()["predictions"]] == [one.label for one in want[0]]


def test_without_shadow_mode_nothing_is_compared(tmp_path):
    store = store_with(tmp_path)
    live = LiveModels(store, ["demo"])
    live.refresh()
    app = create_app(live)
    predict(app, TEXTS)
    assert live.challenger("demo") is None
    assert figures(app, "tamiz_shadow_texts_total") == {}


def test_the_alias_is_followed(tmp_path):
    store = store_with(tmp_path)
    live = live_of(store)
    assert live.challenger("demo").version == "2"
    third = publish(store, make_model("nb_stack"), tmp_path, champion=False)
    store.set_alias("demo", "challenger", third, by="test", reason="test")
    live.refresh()
    assert (live.challenger("demo").version, live.get().version) == ("3", "1")
    store.set_alias("demo", "challenger", None, by="test", reason="test")
    live.refresh()
    assert live.challenger("demo") is None


def test_an_alias_that_no_version_has_is_said_once(tmp_path, log_lines):
    store = store_with(tmp_path)
    live = LiveModels(store, ["demo"], shadow="chalenger")
    live.refresh()
    publish(store, make_model(), tmp_path)  # a change, at which the aliases are looked at again
    live.refresh()
    assert live.get().version == "3"
    (warning,) = [line for line in log_lines if line.levelname == "WARNING"]
    assert (
        warning.getMessage() == "no version has the shadow's alias (--shadow, serve.shadow); one that gets it is taken"
    )
    assert warning.fields == {"model": "demo", "alias": "chalenger", "aliases": ["challenger", "champion"]}
    store.set_alias("demo", "chalenger", "2", by="test", reason="test")
    live.refresh()
    assert live.challenger("demo").version == "2"


def test_a_promoted_challenger_is_not_compared_with_itself(tmp_path):
    store = store_with(tmp_path)
    live = live_of(store)
    app = create_app(live, limits=SHADOW)
    challenger = live.challenger("demo")
    live.deploy("demo", version=None, alias="challenger", by="test")
    assert live.get() is challenger  # not loaded twice
    predict(app, TEXTS)
    assert figures(app, "tamiz_shadow_texts_total") == {}


def test_a_challenger_that_will_not_load_sees_nothing_and_harms_nobody(tmp_path, log_lines):
    store = store_with(tmp_path)
    damage_version = publish(store, make_model("nb_stack"), tmp_path, champion=False)
    damage(store, "demo", damage_version)
    live = live_of(store, clock=Clock())
    store.set_alias("demo", "challenger", damage_version, by="test", reason="test")
    live.refresh()
    live.refresh()
    assert live.challenger("demo") is None
    assert live.get().version == "1"
    assert live.ready
    assert [line.getMessage() for line in log_lines if line.levelname == "ERROR"] == [
        "the challenger cannot be shown requests"
    ]


class Failing:
    def __init__(self, inner):
        self.labels, self.task = inner.labels, inner.task

    def predict_proba(self, texts):
        raise ValueError(f"cannot: {texts}")


def test_a_challenger_that_fails_is_counted_and_logged_once_without_texts(tmp_path, log_lines):
    live = live_of(store_with(tmp_path))
    broken = live.challenger("demo")
    broken = replace(broken, model=replace(broken.model, classifier=Failing(broken.model.classifier)))
    live._challenge("demo", broken)
    app = create_app(live, limits=SHADOW)
    for _ in range(3):
        assert predict(app, ["Zitronenfalter"]).status_code == 200
    assert compared(app, 3) == {"failed": 3}
    (line,) = [line for line in log_lines if line.levelname == "ERROR"]
    assert line.fields["version"] == "2"
    assert "Zitronenfalter" not in json.dumps(line.fields)


def test_outcomes_are_counted_by_text(tmp_path):
    live = live_of(store_with(tmp_path))
    broken = live.challenger("demo")
    live._challenge("demo", replace(broken, model=replace(broken.model, classifier=Failing(broken.model.classifier))))
    app = create_app(live, limits=SHADOW)
    predict(app, TEXTS)
    assert compared(app, 3) == {"failed": 3}
    limiter_of(app).line._refused_s = time.monotonic()
    predict(app, TEXTS)
    assert compared(app, 6) == {"failed": 3, "skipped": 3}


def test_copies_that_were_compared_make_room_for_others(tmp_path):
    app = create_app(live_of(store_with(tmp_path)), limits=SHADOW)
    for number in range(1, 4):  # together more than may wait
        predict(app, ["card " * 80_000])
        assert "skipped" not in compared(app, number)


class Waiting:
    def __init__(self, inner):
        self.inner, self.labels, self.task = inner, inner.labels, inner.task
        self.begun, self.open = threading.Event(), threading.Event()

    def predict_proba(self, texts):
        self.begun.set()
        assert self.open.wait(PATIENCE_S)
        return self.inner.predict_proba(texts)


def test_copies_are_skipped_when_the_challenger_is_slow_or_the_server_overloaded(tmp_path):
    live = live_of(store_with(tmp_path))
    slow = live.challenger("demo")
    gate = Waiting(slow.model.classifier)
    live._challenge("demo", replace(slow, model=replace(slow.model, classifier=gate)))
    app = create_app(live, limits=SHADOW)
    predict(app, ["a"])  # answered although the challenger has not begun to
    assert gate.begun.wait(PATIENCE_S)
    line = limiter_of(app).line
    line._refused_s = time.monotonic()
    predict(app, ["b"])
    line._refused_s = float("-inf")
    predict(app, ["x" * 600_000])
    predict(app, ["x" * 600_000])
    assert compared(app, 2) == {"skipped": 2}
    gate.open.set()
    found = compared(app, 4)
    assert (found.pop("skipped"), sum(found.values())) == (2, 2)


def limiter_of(app):
    ask(app, "GET", "/ping")  # which builds the layers
    return limiter(app)


def test_a_share_of_requests_is_compared(tmp_path):
    app = create_app(live_of(store_with(tmp_path)), limits=ServeConfig(shadow="challenger", shadow_share=0.5))
    from tamiz.serving.feedback import is_sampled

    names = [f"r-{number}" for number in range(20)]
    for name in names:
        predict(app, ["a"], headers={"x-request-id": name})
    want = sum(is_sampled(name, 0.5) for name in names)
    assert 0 < want < 20
    assert sum(compared(app, want).values()) == want


def test_the_challengers_answers_are_kept_beside_those_given(tmp_path):
    records = RecordsConfig(folder=str(tmp_path / "records"), share=1)
    app = create_app(live_of(store_with(tmp_path)), limits=ServeConfig(shadow="challenger", records=records))
    request_id = predict(app, TEXTS[:1]).headers["x-request-id"]
    compared(app, 1)
    ends = time.monotonic() + PATIENCE_S
    kept = []
    while len(kept) < 2 and time.monotonic() < ends:
        kept = [json.loads(line) for path in (tmp_path / "records").glob("*") for line in path.read_text().splitlines()]
    assert [(one["request_id"], one["role"], one["version"]) for one in kept] == [
        (request_id, "champion", "1"),
        (request_id, "challenger", "2"),
    ]


def test_versions_are_compared_by_label_and_not_by_place():
    def served(labels, version, probabilities, label):
        answer = SimpleNamespace(label=label, probabilities=np.array(probabilities))
        model = SimpleNamespace(labels=labels, predict=lambda texts: [answer for _ in texts])
        return Served("demo", version, model, 0), [answer]

    metrics = Metrics()
    shadow = Shadow(None, SHADOW, metrics, SimpleNamespace(samples=False), None)
    ours, given = served(("a", "b", "c"), "1", [0.1, 0.2, 0.7], ("b", "c"))
    for labels in (("c", "a", "b"), ("c", "a", "other")):
        theirs, _ = served(labels, "2", [0.7, 0.1, 0.2], ("c", "b"))
        shadow._compare((ours, theirs), ("demo", "1", "2"), ["x"], given, "r", None)
    text = metrics.render().decode()
    found = {line.partition("{")[0]: line for line in text.splitlines() if line.startswith("tamiz_shadow_")}
    assert found["tamiz_shadow_difference_sum"].endswith(" 0.0")
    assert found["tamiz_shadow_difference_count"].endswith(" 1.0")  # other labels have no difference
    assert 'outcome="same"' in found["tamiz_shadow_texts_total"]
    assert found["tamiz_shadow_texts_total"].endswith(" 2.0")

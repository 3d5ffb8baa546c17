import asyncio
import json
import logging
import shutil
import threading
from dataclasses import replace

import httpx
import pytest

from tamiz.data.lake import Lake
from tamiz.errors import ConflictError, ModelNotFoundError, PackageError
from tamiz.pipeline.promotion import replay
from tamiz.serving.app import create_app
from tamiz.serving.fixed import FixedModel
from tamiz.serving.live import LiveModels
from tamiz.serving.problems import NotReadyError
from tamiz.serving.served import INLINE_MOST, check_parity, warm_up
from tamiz.store import CHAMPION, ModelStore
from tests.serving.helpers import LABELS, LOCAL, ask, make_model, predict, publish

URL = "/v1/models/demo"


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def store(tmp_path):
    return ModelStore(str(tmp_path / "store"))


def damage(store, name, version):
    """Cut a file of a published package short."""
    folder = store._blobs.local(f"{name}/{version}")
    weights = next(folder.glob("*.npz"))
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-10])


def test_the_champion_is_served_and_followed(store, tmp_path):
    publish(store, make_model("prior"), tmp_path)
    live = LiveModels(store, ["demo"])
    with pytest.raises(NotReadyError):
        live.get("demo")
    assert not live.ready
    live.refresh()
    assert live.ready
    held = live.get("demo")
    assert (held.version, held.model.manifest.family) == ("1", "prior")
    publish(store, make_model("linear"), tmp_path)
    live.refresh()
    assert (live.get().version, live.get().model.manifest.family) == ("2", "linear")
    assert held.version == held.model.version == "1"


def test_a_store_that_was_made_anew_is_followed_though_it_counts_from_one_again(store, tmp_path):
    publish(store, make_model("prior"), tmp_path)
    live = LiveModels(store, ["demo"])
    live.refresh()
    assert live.get().model.manifest.family == "prior"
    shutil.rmtree(tmp_path / "store")
    publish(store, make_model("linear").with_records(created_at="2030-01-01T00:00:00+00:00"), tmp_path)
    live.refresh()
    assert (live.get().version, live.get().model.manifest.family) == ("1", "linear")


def test_a_new_version_is_not_served_until_it_is_the_champion(store, tmp_path):
    publish(store, make_model(), tmp_path)
    publish(store, make_model(), tmp_path, champion=False)
    live = LiveModels(store, ["demo"])
    live.refresh()
    assert live.get().version == "1"


def test_a_version_that_will_not_load_is_logged_and_the_old_one_kept(store, tmp_path, log_lines):
    clock = Clock()
    publish(store, make_model(), tmp_path)
    live = LiveModels(store, ["demo"], clock=clock)
    live.refresh()
    version = publish(store, make_model("prior"), tmp_path, champion=False)
    damage(store, "demo", version)
    store.set_alias("demo", CHAMPION, version, by="test", reason="test")
    for _ in range(3):  # put off: tried once
        live.refresh()
    errors = [line for line in log_lines if line.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].fields["still_served"] == "1"
    assert live.get().version == "1"
    assert live.ready
    clock.now_s = 1.5
    live.refresh()
    assert len([line for line in log_lines if line.levelno == logging.ERROR]) == 2
    publish(store, make_model("prior"), tmp_path)  # a change is looked at without waiting
    live.refresh()
    assert live.get().version == "3"


class CountingStore(ModelStore):
    """A store that counts how often it is asked for more than a fingerprint."""

    asked = 0

    def resolve(self, ref):
        self.asked += 1
        return super().resolve(ref)


def test_an_unchanged_store_is_asked_for_its_fingerprint_only(tmp_path):
    store, clock = CountingStore(str(tmp_path / "store")), Clock()
    publish(store, make_model(), tmp_path)
    live = LiveModels(store, ["demo"], clock=clock)
    for _ in range(3):
        live.refresh()
    assert store.asked == 1
    other = LiveModels(CountingStore(store.place), ["demo"], clock=clock)
    publish(store, make_model("prior"), tmp_path)
    damage(store, "demo", "2")
    for _ in range(3):  # it cannot be loaded, and is not tried again before its time
        other.refresh()
    assert other.store.asked == 1
    assert not other.ready
    clock.now_s = 1.5
    other.refresh()
    assert other.store.asked == 2


def test_a_model_that_answers_wrongly_is_not_served():
    model = make_model()

    class Broken:
        labels, task = model.labels, model.task

        def predict_proba(self, texts):
            return model.classifier.predict_proba(texts) * float("nan")

    with pytest.raises(PackageError, match="not numbers"):
        warm_up(replace(model, classifier=Broken()))
    assert 0 < warm_up(model).inline_cost <= INLINE_MOST
    assert not warm_up(model).batched


def test_a_store_without_a_champion_is_waited_for(store, tmp_path):
    live = LiveModels(store, ["demo"], clock=(clock := Clock()))
    live.refresh()
    assert not live.ready
    with pytest.raises(NotReadyError):
        live.get("demo")
    with pytest.raises(ModelNotFoundError):
        live.get("other")
    (listed,) = ask(create_app(live), "GET", "/v1/models").json()["models"]
    assert (listed["version"], listed["versions"]) == (None, [])
    publish(store, make_model(), tmp_path)
    clock.now_s = 10
    live.refresh()
    assert live.ready


def test_without_names_all_champions_are_served_and_new_ones_join(store, tmp_path):
    publish(store, make_model(name="beta"), tmp_path)
    publish(store, make_model(name="unready"), tmp_path, champion=False)
    live = LiveModels(store)
    with pytest.raises(NotReadyError):
        _ = live.default
    live.refresh()
    assert live.names == ("beta",)
    assert live.ready
    publish(store, make_model(name="alpha"), tmp_path)
    live.refresh()
    assert live.names == ("alpha", "beta")
    assert [one.name for one in live.served()] == ["alpha", "beta"]


def test_the_watcher_swaps_by_itself_and_stops(store, tmp_path):
    publish(store, make_model(), tmp_path)
    others = threading.enumerate()
    live = LiveModels(store, ["demo"], poll_s=0.01)
    told = threading.Event()
    live.subscribe(lambda served: told.set() if served and served[0].version == "2" else None)
    live.start()
    live.start()
    try:
        publish(store, make_model("prior"), tmp_path)
        assert told.wait(5)
        assert live.get().version == "2"
    finally:
        live.stop()
    assert not live.ready
    assert "tamiz-watcher" not in [thread.name for thread in threading.enumerate() if thread not in others]


def test_no_answer_mixes_two_versions(store, tmp_path):
    """Champions with other labels take turns while texts are classified."""
    publish(store, make_model(), tmp_path)
    publish(store, make_model(labels=LABELS[::-1]), tmp_path)
    live = LiveModels(store, ["demo"])
    live.refresh()
    app = create_app(live)
    of_version = {"1": list(LABELS), "2": list(LABELS[::-1])}

    async def main():
        seen = set()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=LOCAL) as client:
            for turn in range(6):
                version = str(turn % 2 + 1)
                answers = [client.post(f"{URL}/predict", json={"text": ["card"] * 30}) for _ in range(8)]
                deploy = client.post(f"{URL}/deploy", json={"version": version})
                *got, deployed = await asyncio.gather(*answers, deploy)
                assert deployed.status_code == 200
                for answer in (one.json() for one in got):
                    seen.add(answer["version"])
                    assert answer["labels"] == of_version[answer["version"]]
                    assert all(list(p["probabilities"]) == answer["labels"] for p in answer["predictions"])
        return seen

    assert asyncio.run(main()) == {"1", "2"}


def test_deploy_and_rollback_change_the_store_and_this_process(store, tmp_path):
    publish(store, make_model(), tmp_path)
    second = publish(store, make_model("prior"), tmp_path, champion=False)
    store.set_alias("demo", "challenger", second, by="test", reason="test")
    live = LiveModels(store, ["demo"])
    live.refresh()
    app = create_app(live)
    got = ask(app, "POST", f"{URL}/deploy", json={"alias": "challenger"})
    workers = {"serving": 1, "all": 1}
    assert got.json() == {"model": "demo", "version": "2", "previous": "1", "workers": workers}
    assert predict(app, ["x"]).json()["version"] == "2"
    change = store.index("demo").history[-1]
    assert (change.alias, change.version, change.by) == (CHAMPION, "2", "local")
    got = ask(app, "POST", f"{URL}/rollback")
    assert got.json() == {"model": "demo", "version": "1", "previous": "2", "workers": workers}
    assert store.index("demo").aliases[CHAMPION] == "1"
    got = ask(app, "POST", f"{URL}/rollback")
    assert got.status_code == 409


def with_metrics(model, **metrics):
    return model.with_records(metrics=metrics)


@pytest.mark.parametrize(
    ("body", "version", "mode"),
    [
        ({"by": "best_val_f1"}, "2", "max"),
        ({"by": "best_val_f1", "mode": "min"}, "1", "min"),
        ({"by": "val_log_loss"}, "3", "min"),
        ({"by": "val_accuracy"}, "3", "max"),  # all are equal: the newest
    ],
)
def test_the_best_version_by_a_metric_is_deployed(store, tmp_path, body, version, mode):
    for f1, loss in ((0.7, 0.6), (0.9, 0.5), (0.8, 0.4)):
        model = with_metrics(make_model(), best_val_f1=f1, val_log_loss=loss, val_accuracy=0.9)
        publish(store, model, tmp_path, champion=False)
    store.set_alias("demo", CHAMPION, "1" if version != "1" else "3", by="test", reason="test")
    live = LiveModels(store, ["demo"])
    live.refresh()
    app = create_app(live)
    got = ask(app, "POST", f"{URL}/deploy", json=body).json()
    assert (got["version"], got["by"]["metric"], got["by"]["mode"]) == (version, body["by"], mode)
    assert predict(app, ["x"]).json()["version"] == version
    change = store.index("demo").history[-1]
    assert change.version == version
    assert f"deployed over HTTP: best by {body['by']}" in change.reason
    (record,) = store.decisions("demo", version).values()
    about = ("http", True, False, got["by"]["reason"])
    assert tuple(record[key] for key in ("asked", "promoted", "forced", "why")) == about
    assert replay(store, Lake(str(tmp_path / "lake")), record) == []
    assert ask(app, "POST", f"{URL}/deploy", json=body).json()["previous"] == version
    assert len(store.decisions("demo", version)) == 1


def test_the_first_champion_can_be_chosen_by_metric(store, tmp_path):
    publish(store, with_metrics(make_model(), best_val_f1=0.5), tmp_path, champion=False)
    live = LiveModels(store, ["demo"])
    live.refresh()
    assert ask(create_app(live), "POST", f"{URL}/deploy", json={"by": "best_val_f1"}).json()["version"] == "1"
    (record,) = store.decisions("demo", "1").values()
    assert replay(store, Lake(str(tmp_path / "lake")), record) == []


def test_a_metric_that_no_version_has_is_refused_with_what_there_is(store, tmp_path):
    publish(store, with_metrics(make_model(), best_val_f1=0.5), tmp_path)
    live = LiveModels(store, ["demo"])
    live.refresh()
    got = ask(create_app(live), "POST", f"{URL}/deploy", json={"by": "best_val_fl"})
    (error,) = got.json()["errors"]
    assert (got.status_code, error["location"], error["type"]) == (422, "body.by", "unknown_metric")
    assert "allowed: best_val_f1; did you mean 'best_val_f1'?" in error["message"]
    assert "best_val_fl" not in got.text
    assert store.decisions("demo", "1") == {}


def test_callers_are_not_told_where_the_store_lies(store, tmp_path, log_lines):
    publish(store, make_model(), tmp_path)
    publish(store, make_model(), tmp_path, champion=False)
    damage(store, "demo", "2")
    live = LiveModels(store, ["demo"])
    live.refresh()
    app = create_app(live)
    got = [ask(app, "POST", f"{URL}/deploy", json={"version": "2"})]
    shutil.rmtree(tmp_path / "store" / "demo")
    for body in ({"version": "1"}, {"by": "best_val_f1"}):
        got.append(ask(app, "POST", f"{URL}/deploy", json=body))
    got.append(ask(app, "POST", f"{URL}/rollback"))
    assert [one.status_code for one in got] == [409, 404, 404, 404]
    assert [one.json()["detail"].partition("the store")[1] for one in got] == ["the store"] * 4
    assert not any(str(tmp_path) in one.text for one in got)
    logged = [line.fields["error_message"] for line in log_lines if line.levelname == "ERROR"]
    assert [store.place in one for one in logged] == [True] * 4


def test_a_broken_version_is_not_deployed(store, tmp_path):
    publish(store, make_model(), tmp_path)
    live = LiveModels(store, ["demo"])
    live.refresh()
    version = publish(store, make_model(), tmp_path, champion=False)
    damage(store, "demo", version)
    got = ask(create_app(live), "POST", f"{URL}/deploy", json={"version": version})
    assert got.status_code == 409
    assert store.index("demo").aliases[CHAMPION] == "1"
    assert live.get().version == "1"


@pytest.mark.parametrize(
    ("body", "status"),
    [({"version": "7"}, 404), ({"alias": "nobody"}, 404), ({}, 422), ({"version": "1", "alias": "champion"}, 422)]
    + [({"by": "val_f1_macro"}, 422), ({"by": "a b"}, 422), ({"by": "x", "mode": "most"}, 422)]
    + [({"version": "1", "by": "val_f1_macro"}, 422), ({"version": "1", "mode": "max"}, 422)]
    + [({key: value}, 422) for key in ("version", "alias") for value in ("../1", "", "0", "1@2", 1)],
)
def test_wrong_deployments_are_refused(shared_app, body, status):
    assert ask(shared_app, "POST", f"{URL}/deploy", json=body).status_code == status


@pytest.mark.parametrize("body", [{"version": "777777777"}, {"alias": "nobody"}])
def test_an_unknown_version_is_refused_without_its_name_or_the_place_of_the_store(store, tmp_path, body):
    publish(store, make_model(), tmp_path)
    live = LiveModels(store, ["demo"])
    live.refresh()
    got = ask(create_app(live), "POST", f"{URL}/deploy", json=body)
    assert got.status_code == 404
    assert "versions: 1; aliases: champion" in got.json()["detail"]
    for hidden in (*body.values(), store.place):
        assert hidden not in got.text


@pytest.mark.parametrize("name", ["other", "..", "demo@1"])
@pytest.mark.parametrize("action", ["deploy", "rollback"])
def test_only_served_models_are_changed(shared_app, name, action):
    got = ask(shared_app, "POST", f"/v1/models/{name}/{action}", json={"version": "1"})
    assert got.status_code == 404


def test_a_package_folder_is_served_as_it_is(tmp_path):
    make_model().save(tmp_path / "package")
    fixed = FixedModel(tmp_path / "package")
    told = []
    fixed.subscribe(told.append)
    assert not fixed.ready
    with pytest.raises(NotReadyError):
        fixed.get()
    fixed.start()
    app = create_app(fixed)
    assert predict(app, ["card"]).json()["version"] is None
    assert ask(app, "GET", URL).json()["versions"] == []
    assert ask(app, "GET", "/v1/models/other").status_code == 404
    for action, about in (("deploy", {"json": {"version": "1"}}), ("rollback", {})):
        assert ask(app, "POST", f"{URL}/{action}", **about).status_code == 409
    with pytest.raises(ConflictError):
        fixed.rollback("demo", by="test")
    assert len(told[-1]) == 1
    fixed.stop()
    assert not fixed.ready


def test_a_damaged_package_folder_is_refused(tmp_path):
    with pytest.raises(PackageError):
        FixedModel(tmp_path / "nothing").start()


def test_a_version_that_answers_otherwise_than_recorded_never_takes_traffic(store, tmp_path, log_lines):
    """Neither by deployment, nor by promotion, nor by rollback, nor as a package of its own."""
    publish(store, make_model(), tmp_path)
    live = LiveModels(store, ["demo"])
    live.refresh()
    model = make_model()
    other = replace(model, manifest=model.manifest.model_copy(update={"prepare": []}))
    other.save(tmp_path / "other")
    manifest = tmp_path / "other" / "model.json"
    about = json.loads(manifest.read_text())
    about["parity"][0] = [0.5, 0.25, 0.25]
    manifest.write_text(json.dumps(about))
    version = store.publish("demo", tmp_path / "other")
    got = ask(create_app(live), "POST", f"{URL}/deploy", json={"version": version})
    assert (got.status_code, got.json()["type"]) == (409, "urn:tamiz:problem:bad-package")
    assert "parity" in got.json()["detail"]
    assert store.index("demo").aliases[CHAMPION] == "1"
    store.set_alias("demo", CHAMPION, version, by="test", reason="test")
    live.refresh()
    assert live.get().version == "1"
    store.set_alias("demo", CHAMPION, "1", by="test", reason="test")
    live.refresh()
    assert ask(create_app(live), "POST", f"{URL}/rollback").status_code == 409
    assert store.index("demo").aliases[CHAMPION] == "1"
    assert live.get().version == "1"
    with pytest.raises(PackageError, match="parity"):
        FixedModel(tmp_path / "other").start()


def test_a_package_without_recorded_answers_is_served():
    model = make_model()
    assert model.manifest.parity == []
    check_parity(model)
    with pytest.raises(PackageError, match="recorded"):
        check_parity(model.with_records(parity=[[0.5, 0.5]]))

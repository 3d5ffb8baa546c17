import asyncio
import json

import pytest

from tamiz.config import RecordsConfig, ServeConfig
from tamiz.errors import ConflictError
from tamiz.serving.auth import KeyAuth
from tamiz.serving.feedback import Records, is_sampled, text_sha256
from tamiz.serving.keys import KeyRing, create_key
from tamiz.serving.metrics import Metrics
from tamiz.serving.problems import FullError
from tamiz.serving.served import Served
from tamiz.types import Task
from tests.serving.helpers import LABELS, TEXTS, ask, make_model, predict, serve_model

URL = "/v1/models/demo/feedback"


def limits(folder, **about):
    return ServeConfig(records=RecordsConfig(folder=str(folder), **about))


def lines(folder, kind):
    return [json.loads(line) for path in folder.glob(f"{kind}-*.jsonl") for line in path.read_text().splitlines()]


def give(app, **body):
    return ask(app, "POST", URL, json=body)


def test_feedback_refers_to_a_kept_answer(tmp_path):
    folder = tmp_path / "records"
    app = serve_model(tmp_path, limits=limits(folder, share=1))
    answer = predict(app, TEXTS)
    request_id = answer.headers["x-request-id"]
    got = give(app, request_id=request_id, place=1, label="card")
    assert (got.status_code, got.json()) == (200, {"model": "demo", "kept": 1})
    (given,) = lines(folder, "feedback")
    about = {"model": "demo", "version": "1", "by": "local", "request_id": request_id, "place": 1, "label": "card"}
    assert {key: given[key] for key in about} == about
    kept = {(one["request_id"], one["place"]): one for one in lines(folder, "answers")}
    answered = kept[given["request_id"], given["place"]]
    assert answered["sha256"] == text_sha256(TEXTS[1])
    assert (answered["label"], answered["role"]) == ("loan", "champion")
    assert answered["probabilities"] == list(answer.json()["predictions"][1]["probabilities"].values())
    assert len(kept) == len(TEXTS)
    assert 'tamiz_feedback_total{label="card",model="demo"} 1.0' in ask(app, "GET", "/metrics").text


def test_feedback_names_a_text_by_its_hash(tmp_path):
    app = serve_model(tmp_path, limits=limits(tmp_path / "records"))
    assert give(app, sha256=text_sha256(TEXTS[0]), label="loan").status_code == 200
    (given,) = lines(tmp_path / "records", "feedback")
    assert (given["sha256"], given["label"]) == (text_sha256(TEXTS[0]), "loan")
    assert "place" not in given


def test_feedback_to_an_answer_is_about_its_first_text_unless_it_says_otherwise(tmp_path):
    app = serve_model(tmp_path, limits=limits(tmp_path / "records"))
    assert give(app, request_id="r", label="loan").status_code == 200
    assert [one["place"] for one in lines(tmp_path / "records", "feedback")] == [0]


def test_feedback_is_kept_after_its_file_was_moved_away(tmp_path):
    app = serve_model(tmp_path, limits=limits(tmp_path / "records"))
    for place in range(2):
        assert give(app, sha256=text_sha256(TEXTS[place]), label="loan").status_code == 200
        (given,) = lines(tmp_path / "records", "feedback")
        assert given["sha256"] == text_sha256(TEXTS[place])
        for file in (tmp_path / "records").glob("feedback-*"):
            file.rename(tmp_path / f"away-{place}")
    assert len((tmp_path / "away-1").read_text().splitlines()) == 1


def test_texts_are_kept_only_if_asked(tmp_path):
    for texts in (False, True):
        here = tmp_path / str(texts)
        here.mkdir()
        app = serve_model(here, limits=limits(here / "records", share=1, texts=texts))
        predict(app, ["my Zitronenfalter was charged"])
        (one,) = lines(here / "records", "answers")
        assert ("text" in one) is texts
        assert ("Zitronenfalter" in json.dumps(one)) is texts


def test_nothing_is_kept_unless_a_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = serve_model(tmp_path)
    predict(app, TEXTS)
    got = give(app, request_id="r", label="card")
    assert (got.status_code, got.json()["type"]) == (409, "urn:tamiz:problem:conflict")
    assert not list(tmp_path.rglob("*.jsonl"))


def test_answers_are_not_kept_by_a_folder_alone(tmp_path):
    app = serve_model(tmp_path, limits=limits(tmp_path / "records"))
    predict(app, TEXTS)
    assert not (tmp_path / "records").exists()


def test_a_share_of_requests_is_kept_whole(tmp_path):
    names = [f"r-{number}" for number in range(2000)]
    kept = [name for name in names if is_sampled(name, 0.25)]
    assert 400 < len(kept) < 600
    assert all(is_sampled(name, 0.5) for name in kept)
    assert not any(is_sampled(name, 0) for name in names)
    assert all(is_sampled(name, 1) for name in names)
    app = serve_model(tmp_path, limits=limits(tmp_path / "records", share=0.25))
    for name in names[:12]:
        predict(app, TEXTS, headers={"x-request-id": name})
    found = [one["request_id"] for one in lines(tmp_path / "records", "answers")]
    assert sorted(found) == sorted(name for name in names[:12] for _ in TEXTS if name in kept)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"label": "card"},
        {"request_id": "r", "sha256": "0" * 64, "label": "card"},
        {"request_id": "r"},
        {"request_id": "../r", "label": "card"},
        {"request_id": "r" * 65, "label": "card"},
        {"sha256": "0" * 63, "label": "card"},
        {"sha256": "0" * 64, "place": 1, "label": "card"},
        {"request_id": "r", "place": -1, "label": "card"},
        {"request_id": "r", "label": "crad"},
        {"request_id": "r", "label": ["card"]},
        {"request_id": "r", "label": None},
        {"request_id": "r", "label": "card", "text": "x"},
    ],
)
def test_wrong_feedback_is_refused_and_not_kept(tmp_path, body):
    app = serve_model(tmp_path, limits=limits(tmp_path / "records"))
    assert give(app, **body).status_code == 422
    assert lines(tmp_path / "records", "feedback") == []


def test_multi_label_feedback_is_a_list(tmp_path):
    app = serve_model(tmp_path, make_model(task=Task.MULTI_LABEL), limits=limits(tmp_path / "records"))
    for label, status in (([], 200), (list(LABELS), 200), ("card", 422), (["card", "card"], 422), (["x"], 422)):
        assert give(app, request_id="r", label=label).status_code == status, label
    assert [one["label"] for one in lines(tmp_path / "records", "feedback")] == [[], list(LABELS)]


def test_feedback_needs_a_key_of_any_role(tmp_path):
    keys = tmp_path / "keys.json"
    secret, key = create_key(keys, "predict")
    app = serve_model(tmp_path, limits=limits(tmp_path / "records"), auth=KeyAuth(KeyRing(keys)))
    body = {"request_id": "r", "label": "card"}
    assert ask(app, "POST", URL, json=body).status_code == 401
    assert ask(app, "POST", URL, json=body, headers={"x-api-key": secret}).status_code == 200
    assert [one["by"] for one in lines(tmp_path / "records", "feedback")] == [key.id]


def test_the_folder_never_holds_more_than_it_may(tmp_path, log_lines):
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / "answers-20200101-1.jsonl").write_bytes(b"x" * 999_000)  # of another process
    app = serve_model(tmp_path, limits=limits(folder, share=1, max_mb=1))
    for _ in range(10):
        assert predict(app, TEXTS).status_code == 200
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_000_000
    for _ in range(20):
        got = give(app, request_id="r" * 64, label="card")
    assert (got.status_code, got.json()["type"]) == (507, "urn:tamiz:problem:full")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_000_000
    assert len([line for line in log_lines if "full" in line.getMessage()]) == 1
    assert 'tamiz_records_total{outcome="full"}' in ask(app, "GET", "/metrics").text


def test_a_disk_that_refuses_fails_no_prediction(tmp_path, log_lines):
    (tmp_path / "file").write_text("no folder")
    app = serve_model(tmp_path, limits=limits(tmp_path / "file" / "records", share=1))
    for _ in range(3):
        assert predict(app, TEXTS).status_code == 200
    assert give(app, request_id="r", label="card").status_code == 507
    assert len([line for line in log_lines if line.getMessage() == "answers cannot be kept"]) == 1
    assert 'tamiz_records_total{outcome="failed"} 9.0' in ask(app, "GET", "/metrics").text


def test_after_a_line_in_part_the_next_ones_stay_whole(tmp_path):
    """As on a disk that is full, and has room again after a while."""
    resource = pytest.importorskip("resource")
    app = serve_model(tmp_path, limits=limits(tmp_path / "records"))
    about = {"sha256": text_sha256("a"), "label": "loan"}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert give(app, **about).status_code == 200
    (path,) = (tmp_path / "records").iterdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        assert [give(app, **about).status_code for _ in range(2)] == [507, 507]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [give(app, **about).status_code for _ in range(2)] == [200, 200]
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["label"] for line in whole] == ["loan"] * 3
    assert len(path.read_text().splitlines()) == 4


def test_lines_of_many_threads_stay_whole(tmp_path):
    records = Records(RecordsConfig(folder=str(tmp_path)), Metrics())
    served = Served("demo", "1", make_model(), 0)

    async def main():
        about = [{"request_id": f"r-{number}", "place": 0, "label": "card"} for number in range(200)]
        await asyncio.gather(
            *(asyncio.to_thread(records.keep_feedback, served, one, ["card"], by="test") for one in about)
        )

    asyncio.run(main())
    records.close()
    assert {one["request_id"] for one in lines(tmp_path, "feedback")} == {f"r-{number}" for number in range(200)}
    (path,) = tmp_path.glob("*.jsonl")
    assert path.stat().st_mode & 0o077 == 0


def test_records_say_why_nothing_is_kept(tmp_path):
    served = Served("demo", "1", make_model(), 0)
    with pytest.raises(ConflictError, match=r"serve\.records\.folder"):
        Records(RecordsConfig(), Metrics()).keep_feedback(served, {"label": "card"}, ["card"], by="test")
    full = Records(RecordsConfig(folder=str(tmp_path), max_mb=1), Metrics())
    (tmp_path / "answers-1.jsonl").write_bytes(b"x" * 1_000_000)
    with pytest.raises(FullError, match="max_mb"):
        full.keep_feedback(served, {"label": "card"}, ["card"], by="test")

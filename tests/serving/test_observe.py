import json
import logging
import os
import time

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from tamiz.errors import ConfigError
from tamiz.serving.logs import JsonLines, configure_logs
from tamiz.serving.metrics import Metrics
from tamiz.types import Task
from tests.serving.helpers import TEXTS, ask, make_model, predict, serve_model


def access(lines):
    return [json.loads(JsonLines().format(line)) for line in lines if line.name == "tamiz.access"]


def test_the_access_log_has_no_query_and_no_path_of_the_callers_making(shared_app, log_lines):
    ask(shared_app, "GET", "/inference?text=Zitronenfalter")
    ask(shared_app, "GET", "/Zitronenfalter")
    known, unknown = access(log_lines)
    assert (known["route"], known["door"], known["status"]) == ("/inference", "movie-genres", 200)
    assert (unknown["route"], unknown["status"]) == ("(none)", 404)
    assert known["caller"] == "local"
    assert known["took_ms"] >= 0
    assert "Zitronenfalter" not in json.dumps([known, unknown])


def test_a_request_is_named_in_header_log_and_problem(shared_app, log_lines):
    got = ask(shared_app, "GET", "/nothing", headers={"x-request-id": "abc-1.2_3"})
    assert got.headers["x-request-id"] == "abc-1.2_3"
    assert got.json()["instance"] == "urn:tamiz:request:abc-1.2_3"
    assert access(log_lines)[0]["request_id"] == "abc-1.2_3"


def test_a_harmful_identifier_is_replaced(shared_app):
    for given in ("a b", "x" * 65, '"><script>', ""):
        assert ask(shared_app, "GET", "/ping", headers={"x-request-id": given}).headers["x-request-id"] != given


def test_identifiers_differ(shared_app):
    assert len({ask(shared_app, "GET", "/ping").headers["x-request-id"] for _ in range(5)}) == 5


def test_requests_and_predictions_are_counted_by_closed_sets(tmp_path):
    app = serve_model(tmp_path)
    predict(app, TEXTS)
    predict(app, [TEXTS[0]])
    ask(app, "GET", "/inference")
    ask(app, "GET", "/whatever")
    ask(app, "BREW", "/predict")
    text = ask(app, "GET", "/metrics").text
    for line in (
        'tamiz_requests_total{door="native",method="POST",status="200"} 2.0',
        'tamiz_requests_total{door="movie-genres",method="GET",status="422"} 1.0',
        'tamiz_requests_total{door="operations",method="GET",status="404"} 1.0',
        'tamiz_requests_total{door="complaints",method="other",status="405"} 1.0',
        'tamiz_predictions_total{label="card",model="demo"} 2.0',
        'tamiz_predictions_total{label="loan",model="demo"} 1.0',
        'tamiz_request_seconds_count{door="native"} 2.0',
        'tamiz_model_info{family="linear",model="demo",version="1"} 1.0',
    ):
        assert line in text.splitlines(), line
    assert "whatever" not in text
    for line in (
        'tamiz_confidence_count{model="demo"} 4.0',
        'tamiz_errors_total{door="movie-genres",kind="invalid-request"} 1.0',
        'tamiz_errors_total{door="operations",kind="not-found"} 1.0',
        'tamiz_errors_total{door="complaints",kind="method-not-allowed"} 1.0',
        "tamiz_requests_in_flight 1.0",
    ):
        assert line in text.splitlines(), line
    (created,) = [line for line in text.splitlines() if line.startswith("tamiz_model_created_timestamp_seconds{")]
    assert abs(time.time() - float(created.split()[-1])) < 3600
    assert "BREW" not in text


def test_abstentions_and_several_labels_are_counted(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    app = serve_model(tmp_path / "a", make_model("prior", abstain_below=0.9))
    predict(app, ["x", "y"])
    assert 'tamiz_predictions_total{label="(none)",model="demo"} 2.0' in ask(app, "GET", "/metrics").text
    app = serve_model(tmp_path / "b", make_model(task=Task.MULTI_LABEL))
    predict(app, ["card charge chip", "zzz"])
    text = ask(app, "GET", "/metrics").text
    assert 'tamiz_predictions_total{label="card",model="demo"} 1.0' in text
    assert 'tamiz_predictions_total{label="(none)",model="demo"} 1.0' in text


def test_a_version_no_longer_served_is_shown_at_zero(shared_app):
    from tamiz.serving.served import Served

    metrics = Metrics()
    metrics.set_served([Served("demo", "1", make_model(), 0)])
    metrics.set_served([Served("demo", "2", make_model(), 0)])
    text = metrics.render().decode()
    assert 'version="1"} 0.0' in text
    assert 'version="2"} 1.0' in text


def test_logs_are_json_lines_and_withhold_foreign_messages(capsys):
    configure_logs("info")
    try:
        logger = logging.getLogger("tamiz.test")
        for error in (ValueError("a user's text"), ConfigError("the key is wrong")):
            try:
                raise error
            except ValueError:
                logger.exception("it failed")
        logger.debug("too small")
    finally:
        for name in ("tamiz", "uvicorn"):
            logging.getLogger(name).handlers = []
            logging.getLogger(name).propagate = True
    foreign, own = map(json.loads, capsys.readouterr().err.splitlines())
    assert foreign["error"] == "ValueError"
    assert "a user's text" not in json.dumps(foreign)
    assert "test_observe" in foreign["traceback"]
    assert own["error_message"] == "the key is wrong"
    assert "traceback" not in own  # its message says what to do


def test_files_that_a_starting_worker_makes_just_now_do_not_fail_the_figures(tmp_path):
    written = MmapedDict(str(tmp_path / "counter_1.db"))
    written.write_value(mmap_key("seen", "seen_total", [], [], "Texts seen"), 3.0, 0.0)
    (tmp_path / f"counter_{os.getpid()}.db").touch()
    (tmp_path / f"gauge_livesum_{os.getpid()}.db").write_bytes(bytes(1 << 16))
    assert b"\nseen_total 3.0\n" in Metrics(tmp_path).render()

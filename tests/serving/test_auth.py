import pytest

from tamiz.errors import ConfigError
from tamiz.serving.auth import OPEN_PATHS, KeyAuth, PlatformAuth, check_host
from tamiz.serving.keys import KeyRing, create_key, revoke_key
from tests.serving.helpers import ask, predict, serve_model

ADMIN = {("POST", "/v1/models/{name}/deploy"), ("POST", "/v1/models/{name}/rollback")}


def calls(app):
    return sorted((method, route.path) for route in app.routes for method in route.methods)


def url_of(path: str) -> str:
    return path.replace("{name}", "demo").replace("{version}", "1")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Give an application behind keys, and headers with a key of each role."""
    folder = tmp_path_factory.mktemp("guarded")
    path = folder / "keys.json"
    keys = {role: {"authorization": f"Bearer {create_key(path, role)[0]}"} for role in ("predict", "admin")}
    return serve_model(folder, auth=KeyAuth(KeyRing(path))), keys


def test_every_route_but_the_open_ones_refuses_without_a_key(guarded):
    app, _ = guarded
    open_calls = {("GET", path) for path in OPEN_PATHS}
    assert open_calls <= set(calls(app))
    for method, path in calls(app):
        got = ask(app, method, url_of(path))
        if (method, path) in open_calls:
            assert got.status_code == 200, path
        else:
            assert got.status_code == 401, (method, path)
            assert got.headers["www-authenticate"].startswith("Bearer")
            assert "Send an API key" in got.text, path  # in the shape of the door


def test_unknown_paths_refuse_too(guarded):
    app, _ = guarded
    for path in ("/nothing", "/health/", "/health/../docs", "/PING", "/ping/x", "//ping"):
        assert ask(app, "GET", path).status_code == 401, path
    assert ask(app, "POST", "/ping").status_code == 401


def test_every_route_takes_an_admin_and_the_others_a_key_for_predictions(guarded):
    app, keys = guarded
    for method, path in calls(app):
        url = url_of(path)
        assert ask(app, method, url, headers=keys["admin"]).status_code not in (401, 403), path
        refused = ask(app, method, url, headers=keys["predict"]).status_code == 403
        assert refused == ((method, path) in ADMIN), path


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer "},
        {"authorization": "Bearer tz_0011_guess"},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": "tz__"},
        {"x-api-key": "ÿ"},
        {"x-api-key": ""},
    ],
)
def test_wrong_keys_are_refused(guarded, headers):
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    assert ask(guarded[0], "GET", "/version", headers=raw).status_code == 401


def test_a_key_is_taken_from_either_header(guarded):
    app, keys = guarded
    key = keys["predict"]["authorization"].removeprefix("Bearer ")
    assert ask(app, "GET", "/version", headers={"X-API-Key": key}).status_code == 200
    assert ask(app, "GET", "/version", headers={"Authorization": f"bearer {key}"}).status_code == 200


def test_keys_are_created_and_revoked_without_a_restart(tmp_path):
    path = tmp_path / "keys.json"
    first, record = create_key(path, "predict")
    app = serve_model(tmp_path, auth=KeyAuth(KeyRing(path)))
    assert predict(app, ["x"], headers={"x-api-key": first}).status_code == 200
    second, _ = create_key(path, "predict")
    assert predict(app, ["x"], headers={"x-api-key": second}).status_code == 200
    revoke_key(path, record.id)
    assert predict(app, ["x"], headers={"x-api-key": first}).status_code == 401
    assert predict(app, ["x"], headers={"x-api-key": second}).status_code == 200


def test_behind_a_platform_anybody_may_ask_and_nobody_may_change(tmp_path):
    app = serve_model(tmp_path, auth=PlatformAuth())
    assert ask(app, "GET", "/version", base_url="https://api.example").status_code == 200
    assert ask(app, "POST", "/v1/models/demo/rollback").status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "[::1]:80", "127.9.9.9"])
def test_without_authentication_loopback_names_are_answered(shared_app, host):
    assert ask(shared_app, "GET", "/version", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "localhost.evil"])
def test_without_authentication_other_names_are_refused(shared_app, host):
    assert ask(shared_app, "GET", "/version", headers={"host": host}).status_code == 403


def test_without_authentication_pages_of_other_sites_are_refused(shared_app):
    for origin, status in (("https://evil.example", 403), ("null", 403), ("http://localhost:8050", 200)):
        assert ask(shared_app, "GET", "/version", headers={"origin": origin}).status_code == status, origin


def test_a_network_address_needs_authentication():
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(ConfigError, match="--auth keys"):
            check_host("none", host)
        check_host("keys", host)
        check_host("platform", host)
    for host in ("127.0.0.1", "localhost", "::1"):
        check_host("none", host)


def test_answers_carry_security_headers(guarded):
    app, keys = guarded
    for got in (
        ask(app, "GET", "/version"),
        ask(app, "GET", "/version", headers=keys["predict"]),
        ask(app, "GET", "/docs", headers=keys["predict"]),
    ):
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in got.headers["content-security-policy"]
        assert got.headers["x-request-id"]

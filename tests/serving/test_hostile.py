"""Hostile requests at every door: each gets its 4xx, quotes nothing, and leaves the server well.

The doors are those of the application, so that a new one is tried as soon as it is listed.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from pathlib import Path

import pytest

from tamiz.serving.app import create_app
from tamiz.serving.fixed import FixedModel
from tests.serving.helpers import ask, predict, serve_model
from tests.serving.live_server import answered, connected, live, say, status_of

JSON = {"content-type": "application/json"}
STRICT = ("/v1/models/", "/predict")  # doors of our own, whose answers to wrong fields are known
BOMB = gzip.compress(bytes(20_000_000))

# --- what is not JSON at all

NOT_JSON = {
    "nothing": b"",
    "blank": b" \r\n\t",
    "null byte": b"\x00",
    "cut off": b'{"text": ["card"',
    "cut off in a string": b'{"text": ["ca',
    "cut off in an escape": b'{"text": ["\\u00',
    "more behind": b'{"text": ["card"]} x',
    "two documents": b'{"text": ["card"]}{"text": ["card"]}',
    "comma at the end": b'{"text": ["card",]}',
    "missing comma": b'{"text": ["card" "loan"]}',
    "missing colon": b'{"text" ["card"]}',
    "single quotes": b"{'text': ['card']}",
    "bare key": b'{text: ["card"]}',
    "comment": b'{"text": ["card"] /* card */}',
    "line comment": b'{"text": ["card"]} // card',
    "bare word": b'{"text": [card]}',
    "undefined": b'{"text": undefined}',
    "leading zero": b'{"text": 01}',
    "plus": b'{"text": +1}',
    "hexadecimal": b'{"text": 0x1}',
    "bare point": b'{"text": .5}',
    "bare exponent": b'{"text": 1e}',
    "line break in a string": b'{"text": ["a\nb"]}',
    "null byte in a string": b'{"text": ["a\x00b"]}',
    "bad escape": b'{"text": ["\\x41"]}',
    "lone high surrogate": b'{"text": ["\\ud800"]}',
    "lone low surrogate": b'{"text": ["\\udc00"]}',
    "surrogates the wrong way round": b'{"text": ["\\udc00\\ud800"]}',
    "invalid UTF-8": b'{"text": ["\xff\xfe"]}',
    "overlong UTF-8": b'{"text": ["\xc0\xaf"]}',
    "UTF-8 surrogate": b'{"text": ["\xed\xa0\x80"]}',
    "cut off UTF-8": b'{"text": ["\xe2\x82"]}',
    "Latin-1": '{"text": ["ñandú"]}'.encode("latin-1"),
    "UTF-16": '{"text": ["card"]}'.encode("utf-16"),
    "UTF-32": '{"text": ["card"]}'.encode("utf-32"),
    "byte order mark": b'\xef\xbb\xbf{"text": ["card"]}',
    "deep arrays": b"[" * 100_000,
    "deep closed arrays": b"[" * 10_000 + b"]" * 10_000,
    "deep objects": b'{"text":' * 100_000,
    "deep in a field": b'{"text": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "deep in an unknown field": b'{"x": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}",
    "deep mixed": b'[{"a":' * 50_000,
    "closing only": b"]" * 1000,
    "form": b"text=card&text=loan",
    "multipart": b'--x\r\nContent-Disposition: form-data; name="text"; filename="../../x"\r\n\r\ncard\r\n--x--',
    "XML entities": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "YAML": b"text: !!python/object/apply:os.system [id]",
    "pickle": b"\x80\x04\x95\x0e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "zip": b"PK\x03\x04" + bytes(100),
    "gzip bomb": BOMB,
    "deflate bomb": zlib.compress(bytes(20_000_000)),
    "random": os.urandom(64) + b"{",
    "a query": b"' OR 1=1; --",
    "a shell": b"$(id); `id`",
}

# --- JSON that no door asks for

WRONG = {
    "null": b"null",
    "true": b"true",
    "number": b"1",
    "huge whole number": b"9" * 4_000,
    "huge number": b"1e999",
    "tiny number": b"1e-999",
    "not a number": b"NaN",
    "infinity": b"-Infinity",
    "string": b'"text"',
    "empty array": b"[]",
    "array of arrays": b"[[], [[]]]",
    "empty object": b"{}",
    "empty key": b'{"": ""}',
    "unknown fields": b'{"__proto__": {"x": 1}, "constructor": 1, "__class__": 2}',
    "many unknown fields": b"{" + b",".join(b'"k%d":1' % n for n in range(5_000)) + b"}",
    "null text": b'{"text": null}',
    "number as text": b'{"text": 5}',
    "huge number as text": b'{"text": ' + b"7" * 4_000 + b"}",
    "not a number as text": b'{"text": NaN}',
    "object as text": b'{"text": {"0": "card"}}',
    "array of numbers": b'{"text": [1, 1e999, -0]}',
    "array of nulls": b'{"text": [null, null]}',
    "array of arrays as text": b'{"text": [["card"]]}',
    "array of objects as text": b'{"text": [{"text": "card"}]}',
    "a hundred thousand wrong texts": b'{"text": [' + b"1," * 100_000 + b"1]}",
    "last of two keys wrong": b'{"text": ["card"], "text": 5}',
    "case of the key": b'{"TEXT": ["card"]}',
    "another key": b'{"text": ["card"], "model": "../../etc/passwd"}',
    "a template": b'{"text": ["card"], "{0.__class__}": "%s%n"}',
    "escaped key": b'{"\\u0074ext\\u0000": ["card"]}',
}

# --- bodies that are said to be something else

TYPES = [
    "text/plain",
    "text/html; charset=utf-8",
    "text/xml",
    "application/xml",
    "application/octet-stream",
    "application/x-yaml",
    "application/x-python-pickle",
    "application/gzip",
    "multipart/form-data; boundary=x",
    "application/json; charset=utf-16",
    "application/json; charset=latin-1",
    "application/jsonp",
    "json",
    "",
    "/",
    "application/json, text/plain",
    "application/" + "x" * 5_000,
]
CODINGS = ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", "identity, gzip", "x" * 5_000, "\x00"]

# --- names of models that are none; each is put into the path as it stands

NAMES = [
    "%2e%2e",
    "..%2fdemo",
    "..%2f..%2f..%2fetc%2fpasswd",
    "..%5c..%5cwindows",
    "%252e%252e%252fdemo",
    "%c0%ae%c0%ae%c0%afdemo",
    "%2fetc%2fpasswd",
    "%2f%2fhost%2fshare",
    "%5c%5chost%5cshare",
    "C:%5cWindows",
    "file:%2f%2f%2fetc%2fpasswd",
    "s3:%2f%2fbucket%2fkey",
    "http:%2f%2fother.example",
    "demo%23",
    "%23demo",
    "demo%23x@champion",
    "demo@champion",
    "demo@1",
    "demo%2f1",
    "demo;x=1",
    "demo%3fx=1",
    "demo%00",
    "demo%00.json",
    "demo%0a",
    "demo%0d%0aSet-Cookie:%20a=b",
    "demo%20",
    "%20demo",
    "demo.",
    "DEMO",
    "dem%c3%b3",
    "demo%cc%81",
    "%e2%80%aedemo",
    "%ff%fe",
    "~",
    "~root",
    "*",
    "-rf",
    "$(id)",
    "%60id%60",
    "%7bname%7d",
    "%7b0.__class__%7d",
    "%25s%25n",
    "'%20OR%201=1--",
    "%3cscript%3ealert(1)%3c%2fscript%3e",
    "CON",
    "nul",
    "index.json",
    ".lock",
    "a" * 5_000,
    "%41" * 3_000,
]


def routes():
    """Give the calls of the application, from its own document: method, path, and its body's schema if it has one."""
    app = create_app(FixedModel(Path("no-package")))
    document = app.openapi()
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            body = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            yield method.upper(), path, body, document


def valid(schema, document):
    """Build the smallest body that a schema allows; texts are `card`."""
    if "$ref" in schema:
        at = document
        for key in schema["$ref"].removeprefix("#/").split("/"):
            at = at[key]
        return valid(at, document)
    for kind in ("const", "default"):
        if kind in schema:
            return schema[kind]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("oneOf", "anyOf"):
        if several in schema and "properties" not in schema:
            return valid(schema[several][0], document)
    kind = schema.get("type")
    if kind == "object":
        wanted = schema.get("required") or schema.get("oneOf", [{"required": []}])[0]["required"]
        return {name: "1" if name == "version" else valid(schema["properties"][name], document) for name in wanted}
    if kind == "array":
        return [valid(schema["items"], document)]
    return {"integer": 1, "number": 1.0, "boolean": True}.get(kind, "card")


def refused(got, path: str, status: int) -> bool:
    """Say whether an answer refuses: with this status by our own doors, with their protocol's by the others."""
    return got.status_code == status if path.startswith(STRICT) else got.status_code in (400, 404, 406, 415, 422, 424)


def filled(path: str, name: str = "demo") -> str:
    """Put a model's name, and any word for whatever else is asked, into a path."""
    parts = [("1" if "version" in part else name) if part.startswith("{") else part for part in path.split("/")]
    return "/".join(parts)


TENSOR = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["card"]}]}
READS_MORE = {  # several forms, or bytes of whatever name
    "/invocations",
    "/endpoints/{name}/invocations",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}/infer",
}
GIVEN = {  # where the schema alone does not make a body that is accepted
    "/v1/models/{name}/feedback": {"sha256": "0" * 64, "label": "card"},
    "/v2/models/{name}/infer": TENSOR,
    "/v2/models/{name}/versions/{version}/infer": TENSOR,
}
ROUTES = list(routes())
WITH_BODY = [
    (method, path, GIVEN.get(path) or valid(body, document)) for method, path, body, document in ROUTES if body
]
WITH_NAME = [
    (method, path, (GIVEN.get(path) or valid(body, document)) if body else None)
    for method, path, body, document in ROUTES
    if "name}" in path
]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return serve_model(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(autouse=True)
def healthy_after(app):
    yield
    assert ask(app, "GET", "/health/live").status_code == 200
    assert predict(app, ["my card was charged"]).json()["predictions"][0]["label"] == "card"


def test_there_are_enough_hostile_requests():
    count = len(WITH_BODY) * (len(NOT_JSON) + len(WRONG) + len(TYPES) + len(CODINGS)) + len(WITH_NAME) * len(NAMES)
    assert count >= 200
    own = {f"/v1/models/{{name}}/{action}" for action in ("predict", "explain", "deploy")}
    assert {path for _, path, _ in WITH_BODY} >= {"/predict", *own}


@pytest.mark.parametrize(("method", "path", "body"), WITH_BODY)
def test_a_valid_body_is_not_taken_for_a_hostile_one(app, method, path, body):
    """Else the refusals below could be for another reason."""
    nothing_kept = path.endswith("/feedback")  # this server keeps no records
    assert ask(app, method, filled(path), json=body).status_code == (409 if nothing_kept else 200)


@pytest.mark.parametrize("name", NOT_JSON)
@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in WITH_BODY])
def test_what_is_not_json_is_refused(app, method, path, name):
    got = ask(app, method, filled(path), content=NOT_JSON[name], headers=JSON)
    assert refused(got, path, 400)
    assert b"passwd" not in got.content
    got.json()


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in WITH_BODY])
def test_json_that_is_not_asked_for_is_refused(app, method, path, name):
    got = ask(app, method, filled(path), content=WRONG[name], headers=JSON)
    if path.startswith(STRICT):
        assert got.status_code == 422
    assert 400 <= got.status_code < 500
    assert len(got.content) < 20_000
    assert not any(word in got.text for word in ("passwd", "__proto__", "__class__"))


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind[:40])
@pytest.mark.parametrize(("method", "path", "body"), WITH_BODY)
def test_bodies_of_another_type_are_refused(app, method, path, body, kind):
    got = ask(app, method, filled(path), content=json.dumps(body).encode(), headers={"content-type": kind})
    if path in READS_MORE:
        assert got.status_code < 500
        return
    assert refused(got, path, 415)
    if path.startswith(STRICT):
        assert got.headers["accept-post"] == "application/json"


@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding[:20])
@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, *_ in ROUTES if method == "POST"])
def test_compressed_bodies_are_refused_unread(app, method, path, coding):
    async def never():
        raise AssertionError("the body was read")
        yield b""

    got = ask(app, method, filled(path), content=never(), headers={**JSON, "content-encoding": coding})
    assert refused(got, path, 415)
    if path.startswith(STRICT):
        assert got.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; Charset=UTF-8", "application/problem+json"])
def test_json_by_its_other_names_is_read(app, kind):
    got = ask(app, "POST", "/predict", content=b'{"text": ["card"]}', headers={"content-type": kind})
    assert got.status_code == 200


def test_a_body_without_a_type_or_with_that_of_curl_is_read_as_json(app):
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}, {"content-encoding": "identity"}):
        assert ask(app, "POST", "/predict", content=b'{"text": ["card"]}', headers=headers).status_code == 200


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:30])
@pytest.mark.parametrize(("method", "path", "body"), WITH_NAME)
def test_names_that_are_none_are_not_found(app, method, path, body, name):
    content = None if body is None else json.dumps(body).encode()
    got = ask(app, method, filled(path, name), content=content, params={"text": "card"} if body is None else None)
    assert refused(got, path, 404)
    assert not any(word in got.text for word in ("passwd", "script", "etc/", "Windows", "__class__"))
    assert "set-cookie" not in got.headers


@pytest.mark.parametrize(
    "text", ["%ff%fe", "%00", "%c0%af", "%ed%a0%80", "a" * 50_000, "", "%0d%0aX-A:%20b", "%s%n{0}"]
)
def test_texts_in_an_address_are_answered_whatever_they_hold(app, text):
    for path in ("/inference", "/v1/models/demo/predict"):
        got = ask(app, "GET", f"{path}?text={text}")
        assert got.status_code == 200
        assert "x-a" not in got.headers


@pytest.mark.parametrize(
    "query", ["", "?", "?Text=card", "?text[]=card", "?%00text=card", "?text%00=card", "?" + "a=1&" * 5_000, "?&&&==&"]
)
def test_an_address_without_its_text_is_refused(app, query):
    for path in ("/inference", "/v1/models/demo/predict"):
        assert ask(app, "GET", path + query).status_code == 422


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-id": "a b"},
        {"x-request-id": "a" * 1000},
        {"x-request-id": "<script>"},
        {"x-request-id": "../../log"},
        {"accept": "*/*;q=" + "9" * 5000},
        {"accept": "text/html"},
        {"accept-encoding": "gzip;q=nan"},
        {"range": "bytes=0-,0-,0-" * 500},
        {"cookie": "a=b; " * 2000},
        {"x-forwarded-for": "127.0.0.1", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"},
        {"x-http-method-override": "DELETE"},
        {"transfer-encoding": "identity"},
        {"if-none-match": "*", "if-match": '"x"'},
    ],
)
def test_odd_headers_change_nothing(app, headers):
    got = predict(app, ["card"], headers=headers)
    assert got.status_code == 200
    assert got.headers["x-request-id"] != headers.get("x-request-id")
    assert "evil" not in str(got.headers)


def test_over_the_wire_every_body_is_refused_in_chunks_on_one_connection(tmp_path):
    with live(serve_model(tmp_path)) as port, connected(port) as one:
        for body in [*NOT_JSON.values(), *WRONG.values()]:
            head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            parts = [body[place : place + 50_000] for place in range(0, len(body), 50_000)]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            one.sendall(head + chunks + b"0\r\n\r\n")
            assert answered(one) in (400, 422), body[:40]
        good = b'{"text": ["card"]}'
        one.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(good), good))
        assert answered(one) == 200


RAW_TARGETS = [
    b"/../../etc/passwd",
    b"/v1/models/../../etc/passwd",
    b"/v1/models/..%2f..%2fetc%2fpasswd",
    b"/v1/models/%2e%2e/%2e%2e/etc/passwd",
    b"/v1/models//etc/passwd",
    b"//etc/passwd",
    b"/docs/../../../etc/passwd",
    b"/docs%2f..%2f..%2fetc%2fpasswd",
    b"/v1/models/demo/predict%00",
    b"/v1/models/demo#/predict",
    b"/v1/models/demo%23",
    b"/%",
    b"/%zz",
    b"/%2",
    b"/;/../etc/passwd",
    b"file:///etc/passwd",
    b"*",
]


def test_over_the_wire_no_path_leads_out_of_the_doors(tmp_path):
    with live(serve_model(tmp_path)) as port:
        for target in RAW_TARGETS:
            answer = say(port, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert status_of(answer) in (400, 404), target
            assert b"root:" not in answer

import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiz.errors import ConfigError
from tamiz.serving.keys import KeyRing, create_key, list_keys, revoke_key, rotate_key


def test_a_created_key_is_known_and_its_secret_is_nowhere(tmp_path):
    path = tmp_path / "keys.json"
    full, record = create_key(path, "admin", note="for the pipeline")
    found = KeyRing(path).check(full)
    assert found == record
    assert found.role == "admin"
    assert full.split("_", 2)[2] not in path.read_text()
    assert list_keys(path) == [record]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_the_file_is_its_owners_only(tmp_path):
    path = tmp_path / "keys.json"
    create_key(path, "predict")
    create_key(path, "predict")
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
    assert modes == {"keys.json": 0o600, ".keys.json.lock": 0o600}


def test_secrets_hold_256_bits_and_differ(tmp_path):
    made = [create_key(tmp_path / "keys.json", "predict")[0] for _ in range(5)]
    secrets = {full.split("_", 2)[2] for full in made}
    assert len(secrets) == 5
    assert all(len(secret) == 43 for secret in secrets)  # 32 bytes in base64


def test_a_key_expires(tmp_path):
    path = tmp_path / "keys.json"
    now = datetime(2030, 1, 1, tzinfo=UTC)
    full, _ = create_key(path, "predict", lasts=timedelta(days=1), now=now)
    ring = KeyRing(path)
    assert ring.check(full, now=now + timedelta(hours=23)) is not None
    assert ring.check(full, now=now + timedelta(hours=24)) is None


def test_revoking_an_unknown_key_lists_the_known_ones(tmp_path):
    path = tmp_path / "keys.json"
    _, record = create_key(path, "predict")
    with pytest.raises(ConfigError, match=record.id):
        revoke_key(path, "nothing")


def test_a_missing_empty_or_damaged_file_is_refused_at_the_start(tmp_path):
    path = tmp_path / "keys.json"
    with pytest.raises(ConfigError, match="tamiz keys create"):
        KeyRing(path)
    path.write_text('{"version": 1, "keys": []}')
    with pytest.raises(ConfigError, match="no API key"):
        KeyRing(path)
    for text in ("{", "[]", '{"version": 2, "keys": []}', '{"keys": [{"id": "0011aabb", "role": "root"}]}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="damaged"):
            KeyRing(path)


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("{"), lambda path: path.unlink()])
def test_a_file_that_becomes_unreadable_lets_nobody_in_until_it_is_mended(tmp_path, spoil, log_lines):
    path = tmp_path / "keys.json"
    full, _ = create_key(path, "predict")
    whole = path.read_text()
    ring = KeyRing(path)
    spoil(path)
    assert ring.check(full) is None
    assert ring.check(full) is None
    assert len([line for line in log_lines if line.levelname == "ERROR"]) == 1
    path.write_text(whole)
    assert ring.check(full) is not None


@pytest.mark.slow
@given(st.data())
def test_any_other_text_is_no_key(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "property-keys.json"
    path.unlink(missing_ok=True)
    full, _ = create_key(path, "admin")
    ring = KeyRing(path)
    at = data.draw(st.integers(0, len(full) - 1))
    other = data.draw(st.text(max_size=3).filter(lambda piece: piece != full[at]))
    assert ring.check(full[:at] + other + full[at + 1 :]) is None
    assert ring.check(data.draw(st.text(max_size=80))) is None
    assert ring.check(full) is not None


def test_a_rotated_key_is_known_for_a_while_beside_its_successor(tmp_path):
    path, now = tmp_path / "keys.json", datetime(2026, 1, 1, tzinfo=UTC)
    old, record = create_key(path, "admin", lasts=timedelta(days=90), note="for Ana", now=now)
    later = now + timedelta(days=10)
    new, successor = rotate_key(path, record.id, grace=timedelta(hours=2), now=later)
    assert (successor.role, successor.note) == ("admin", "for Ana")
    assert successor.expires == later + timedelta(days=90)
    ring = KeyRing(path)
    for shown, hours, known in ((old, 1, True), (old, 2, False), (new, 1, True), (new, 2, True)):
        assert (ring.check(shown, now=later + timedelta(hours=hours)) is not None) == known
    with pytest.raises(ConfigError, match="has expired"):
        rotate_key(path, record.id, grace=timedelta(0), now=later + timedelta(hours=3))


def test_a_key_that_was_replaced_is_not_replaced_again(tmp_path):
    path, now = tmp_path / "keys.json", datetime(2026, 1, 1, tzinfo=UTC)
    _, record = create_key(path, "admin", now=now)
    _, successor = rotate_key(path, record.id, grace=timedelta(hours=24), now=now)
    with pytest.raises(ConfigError, match=f"was replaced by '{successor.id}'; rotate that one"):
        rotate_key(path, record.id, grace=timedelta(hours=24), now=now)
    assert rotate_key(path, successor.id, grace=timedelta(hours=24), now=now)[1].expires is None


def test_a_file_that_could_not_be_read_once_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "keys.json"
    full, _ = create_key(path, "predict")
    ring = KeyRing(path)
    create_key(path, "predict")
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "read_bytes", lambda self: (_ for _ in ()).throw(OSError(24, "too many open files")))
        assert ring.check(full) is None
    assert ring.check(full) is not None


def test_grace_does_not_prolong_a_key(tmp_path):
    path, now = tmp_path / "keys.json", datetime(2026, 1, 1, tzinfo=UTC)
    old, record = create_key(path, "predict", lasts=timedelta(hours=1), now=now)
    rotate_key(path, record.id, grace=timedelta(days=9), now=now)
    assert KeyRing(path).check(old, now=now + timedelta(hours=1)) is None


def test_keys_made_at_the_same_time_are_all_kept(tmp_path):
    path = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create_key(path, "predict")[1].id, range(24)))
    assert {key.id for key in list_keys(path)} == set(made)

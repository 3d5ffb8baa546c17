from __future__ import annotations

import os

import pyarrow as pa
import pytest

from tamiz.data.spool import Spool
from tamiz.errors import StoreError

SCHEMA = pa.schema([("text", pa.string())])


def test_what_the_disk_refuses_names_the_temporary_folder_and_leaves_nothing(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    batch = pa.record_batch([pa.array([os.urandom(5000).hex()])], SCHEMA)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with (
            pytest.raises(StoreError, match=r"the temporary folder .* cannot be written: .*too large"),
            Spool(SCHEMA) as spool,
        ):
            spool.write(batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []

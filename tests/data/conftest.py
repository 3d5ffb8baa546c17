"""Fixtures for tests of the lake."""

import pytest

from tamiz.data.lake import Lake


@pytest.fixture(params=["local", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path) -> Lake:
    """An empty lake: the same tests run on a folder and on an S3 server."""
    if request.param == "s3":
        return Lake(request.getfixturevalue("s3_place"))
    return Lake(str(tmp_path / "the lake ñ"))


@pytest.fixture
def local_lake(tmp_path) -> Lake:
    """An empty lake in a folder, for what does not touch storage."""
    return Lake(str(tmp_path / "lake"))

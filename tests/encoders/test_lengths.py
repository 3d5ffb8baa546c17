"""Pieces of long texts and the pooling of their answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiz.encoders.lengths import POLICIES, pieces, pool, spread
from tamiz.errors import ConfigError


@given(
    st.integers(0, 60),
    st.integers(1, 12),
    st.sampled_from(list(POLICIES)),
    st.integers(0, 11),
    st.one_of(st.none(), st.integers(1, 5)),
)
def test_no_piece_is_too_long_and_short_texts_stay_whole(n, room, policy, overlap, most):
    ids = list(range(n))
    found = pieces(ids, room, policy, overlap=min(overlap, room - 1), most=most)
    assert found
    assert all(len(piece) <= room for piece in found)
    if n <= room:
        assert found == [ids]
    if most is not None:
        assert len(found) <= most


@given(st.integers(1, 80), st.integers(1, 12), st.integers(0, 11))
def test_windows_cover_the_whole_text(n, room, overlap):
    found = pieces(list(range(n)), room, "windows", overlap=min(overlap, room - 1))
    assert sorted({one for piece in found for one in piece}) == list(range(n))


def test_what_each_policy_reads():
    ids = list(range(12))
    assert pieces(ids, 8, "head") == [list(range(8))]
    assert pieces(ids, 8, "tail") == [list(range(4, 12))]
    assert pieces(ids, 8, "head_tail") == [[0, 1, 6, 7, 8, 9, 10, 11]]
    assert pieces(list(range(100)), 20, "head_tail") == [[*range(5), *range(85, 100)]]
    assert pieces(ids, 8, "windows", overlap=4) == [list(range(8)), list(range(4, 12))]
    assert pieces(list(range(100)), 10, "windows", most=2) == [list(range(10)), list(range(90, 100))]


def test_pooling():
    owners = spread([2, 1])
    scores = np.array([[0.2, 0.8], [0.6, 0.4], [1.0, 0.0]])
    assert pool(scores, owners, 2).tolist() == pytest.approx(np.array([[0.4, 0.6], [1.0, 0.0]]))
    assert pool(scores, owners, 2, "max").tolist() == [[0.6, 0.8], [1.0, 0.0]]
    assert pool(np.empty((0, 2)), spread([]), 0).shape == (0, 2)


@pytest.mark.parametrize(("room", "policy", "overlap"), [(0, "head", 0), (4, "windows", 4), (4, "haed", 0)])
def test_what_cannot_be_cut_is_refused(room, policy, overlap):
    with pytest.raises(ConfigError):
        pieces([1, 2, 3, 4, 5, 6], room, policy, overlap=overlap)

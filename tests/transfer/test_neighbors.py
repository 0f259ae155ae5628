"""Exact nearest neighbours against a plain search."""

from __future__ import annotations

import numpy as np
import pytest

from pycnn.errors import ArgumentError, DTypeError, LabelError, ShapeError
from pycnn.transfer import classify_by_neighbors, leave_one_out_accuracy, neighbors


def plain_search(features, queries, k):
    distances = np.sqrt(np.square(queries[:, None].astype(np.float64) - features[None].astype(np.float64)).sum(axis=2))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)


@pytest.mark.parametrize(("count", "asked", "size", "k"), [(1, 1, 1, 1), (7, 3, 2, 7), (201, 55, 17, 5), (40, 9, 3, 1)])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_neighbours_equal_a_plain_search(count, asked, size, k, offset, monkeypatch):
    monkeypatch.setattr("pycnn.transfer.nearest._BLOCK_ELEMENTS", 500, raising=True)
    rng = np.random.default_rng(count)
    features = (rng.normal(size=(count, size)) + offset).astype(np.float32)
    queries = (rng.normal(size=(asked, size)) + offset).astype(np.float32)
    found = neighbors(features, queries, k)
    order, distances = plain_search(features, queries, k)
    assert np.array_equal(found.indices, order)
    np.testing.assert_array_equal(found.distances, distances.astype(np.float32))


def test_equal_distances_come_in_the_order_of_the_rows():
    features = np.tile(np.arange(5.0)[:, None], (6, 3))  # each row six times
    found = neighbors(features, features[:5], 6)
    assert np.array_equal(found.indices, np.arange(5)[:, None] + 5 * np.arange(6))
    assert not found.distances.any()
    assert neighbors(np.zeros((30, 4)), np.ones(4), 30).indices.tolist() == [list(range(30))]


def test_a_sample_is_not_its_own_neighbour_even_with_a_twin():
    features = np.array([[0.0], [0.0], [3.0]])
    assert neighbors(features, features, 1, exclude_self=True).indices.ravel().tolist() == [1, 0, 0]
    assert neighbors(features, features, 2, exclude_self=True).indices.tolist() == [[1, 2], [0, 2], [0, 1]]


def test_votes_and_leave_one_out():
    features, labels = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]]), np.array([0, 1, 1, 2, 2])
    assert classify_by_neighbors(features, labels, [[0.1], [10.4]]).tolist() == [0, 2]
    assert classify_by_neighbors(features, labels, [[0.1]], k=3).tolist() == [1]
    assert classify_by_neighbors(features, labels, [[0.1]], k=2).tolist() == [0]  # one each: the nearest decides
    assert leave_one_out_accuracy(features, labels) == pytest.approx(0.6)  # 1 lies between 0 and 2: the first decides


def test_mistakes_are_named():
    with pytest.raises(ShapeError, match="queries have 3 features, the others 2"):
        neighbors(np.zeros((4, 2)), np.zeros((1, 3)), 1)
    with pytest.raises(ArgumentError, match=r"k must be in 1..4, got 5"):
        neighbors(np.zeros((4, 2)), np.zeros((1, 2)), 5)
    with pytest.raises(ArgumentError, match="NaN or infinity in row 2"):
        neighbors(np.array([[0.0], [1.0], [np.nan]]), np.zeros((1, 1)), 1)
    with pytest.raises(ShapeError, match=r"\(0, 3\), expected \(N, features\)"):
        neighbors(np.zeros((0, 3)), np.zeros((1, 3)), 1)
    with pytest.raises(DTypeError, match="expected real numbers"):
        neighbors(np.array([["a"]]), np.zeros((1, 1)), 1)
    with pytest.raises(ShapeError, match="4 samples but labels"):
        classify_by_neighbors(np.zeros((4, 2)), [0, 1], np.zeros((1, 2)))
    with pytest.raises(DTypeError, match="expected integers"):
        leave_one_out_accuracy(np.zeros((2, 2)), [0.5, 1.0])
    for label, why in ((-1, "negative"), (2**63 + 5, "too large")):
        with pytest.raises(LabelError, match=f"label {label} at position 1 is {why}"):
            leave_one_out_accuracy(np.zeros((2, 2)), np.array([0, label], np.int64 if label < 0 else np.uint64))
    with pytest.raises(ArgumentError, match="one sample has no neighbour"):
        leave_one_out_accuracy(np.zeros((1, 2)), [0])


def test_ragged_lists_are_named():
    with pytest.raises(ShapeError, match="neighbors: features are lists of different lengths"):
        neighbors([[1.0, 2.0], [3.0]], [[1.0, 2.0]])
    with pytest.raises(ShapeError, match="neighbors: queries are lists of different lengths"):
        neighbors([[1.0, 2.0]], [[1.0, 2.0], [3.0]])
    with pytest.raises(ShapeError, match="labels are lists of different lengths"):
        classify_by_neighbors([[1.0], [2.0]], [[0], [1, 2]], [[1.0]])

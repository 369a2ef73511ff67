"""Picks of one group come from its rows in order of tie and id, however Arrow has chunked them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from conf.errors import QuarryError
from udfs.k_center import greedy_k_center
from udfs.k_center_groups import PICKS_SCHEMA, RADIUS_SCHEMA, feature_matrix, group_picks, group_radius

FEATURES = np.random.default_rng(9).standard_normal((50, 4)).astype(np.float32)
TIES = np.random.default_rng(10).permutation(50) // 2  # every tie twice: ids decide
IDS = [f"image-{i:02d}" for i in range(50)]
NONE = pa.schema([("id", pa.string()), ("feature", pa.list_(pa.float32()))]).empty_table()


def table(rows: np.ndarray, *, chunks: int = 1) -> pa.Table:
    parts = [
        pa.table({"id": [IDS[i] for i in part], "feature": list(FEATURES[part]), "tie": TIES[part]})
        for part in np.array_split(rows, chunks)
    ]
    return pa.concat_tables(parts)


@pytest.mark.parametrize("chunks", [1, 7])
def test_order_and_chunks_change_no_pick(chunks: int) -> None:
    by_tie = np.lexsort((IDS, TIES))
    expected = greedy_k_center(FEATURES[by_tie], 9)
    rows = np.random.default_rng(chunks).permutation(50)
    found = group_picks(table(rows, chunks=chunks).slice(0, 50), NONE, 9)
    assert found.schema == PICKS_SCHEMA
    assert found["id"].to_pylist() == [IDS[by_tie[row]] for row in expected.order]
    assert found["feature"].to_pylist() == FEATURES[by_tie[expected.order]].tolist()
    assert found["rank"].to_pylist() == list(range(1, 10))
    assert found["distance"].to_pylist() == [None, *expected.distances[1:]]
    assert set(found["group_radius"].to_pylist()) == {expected.radius}


def test_radius_is_that_of_the_centers() -> None:
    found = group_radius(table(np.arange(50), chunks=3), table(np.arange(5)))
    gaps = np.linalg.norm(FEATURES[:, None].astype(np.float64) - FEATURES[:5], axis=2).min(axis=1)
    assert found.schema == RADIUS_SCHEMA
    assert found["radius"].to_pylist() == [pytest.approx(gaps.max(), rel=1e-12)]


def test_small_and_empty_groups() -> None:
    assert group_picks(table(np.arange(3)), NONE, 9).num_rows == 3
    assert group_picks(table(np.arange(3)).slice(0, 0), NONE, 9) == PICKS_SCHEMA.empty_table()
    assert group_radius(NONE, table(np.arange(5))) == RADIUS_SCHEMA.empty_table()


def test_bad_features_have_their_id() -> None:
    order = np.array([2, 0, 1])
    for values, message in (([1.0, None], "of b has a value that is null"), ([1.0], "of b has 1 values")):
        rows = pa.table({"id": ["a", "b", "c"], "feature": [[1.0, 2.0], values, [3.0, 4.0]]})
        with pytest.raises(QuarryError, match=message):
            feature_matrix(rows, order)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(QuarryError, match=r"acquire\.device is cuda, but torch finds no CUDA device"):
        group_picks(table(np.arange(3)), NONE, 2, device="cuda")

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from conf.errors import QuarryError
from tests.udfs.detection_scenes import Box, box, scene_batch
from udfs.detection_batch import DetectionBatch, TruthBatch, with_labels

GOOD = box((1, 2, 3, 4), 2, score=0.5, detection_id="a", logits=[0.0, 1.0])


def test_slices_nulls_and_empty_lists() -> None:
    other = box((5, 6, 7, 8), 3, score=0.25, detection_id="b", logits=[2.0, 3.0])
    batch = scene_batch([[GOOD], None, [], [other, GOOD], [GOOD]]).slice(1, 3)
    detections = DetectionBatch.from_arrow(batch)
    assert detections.image_ids.to_pylist() == ["image-1", "image-2", "image-3"]
    assert detections.offsets.tolist() == [0, 0, 0, 2]
    assert detections.boxes_xyxy.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    assert detections.labels.tolist() == [3, 2] and detections.scores.tolist() == [0.25, 0.5]
    assert detections.logits is not None and detections.logits.to_pylist() == [[2.0, 3.0], [0.0, 1.0]]
    assert detections.detection_ids is not None and detections.detection_ids.to_pylist() == ["b", "a"]
    assert detections.image_index.tolist() == [2, 2]
    last = detections.images(2, 3)
    assert last.offsets.tolist() == [0, 2] and last.labels.tolist() == [3, 2]


def test_a_null_list_hides_what_lies_under_it() -> None:
    lists = scene_batch([[GOOD], [GOOD, GOOD]]).column("detections")
    hidden = pa.ListArray.from_arrays(lists.offsets, lists.values, mask=pa.array([True, False]))
    detections = DetectionBatch.from_arrow(scene_batch([[], []]).set_column(4, "detections", hidden))
    assert detections.offsets.tolist() == [0, 0, 2] and len(detections.scores) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x1": float("nan")}, "finite"),
        ({"y2": float("inf")}, "finite"),
        ({"x2": 0.5}, "x2 >= x1"),
        ({"score": 1.5}, "0..1"),
        ({"score": float("nan")}, "0..1"),
        ({"score": None}, "no score"),
        ({"label": None}, "no label"),
    ],
)
def test_bad_detections_name_the_image(change: Box, words: str) -> None:
    with pytest.raises(QuarryError, match=f"image-2.*{words}|{words}.*image-2"):
        DetectionBatch.from_arrow(scene_batch([[GOOD], [], [GOOD, {**GOOD, **change}], [GOOD]]))


def test_missing_columns_sizes_and_elements() -> None:
    batch = scene_batch([[GOOD]])
    with pytest.raises(QuarryError, match="'detections' is missing"):
        DetectionBatch.from_arrow(batch.drop_columns(["detections"]))
    with pytest.raises(QuarryError, match="image-0.*width, height"):
        DetectionBatch.from_arrow(scene_batch([[GOOD]], wh_px=(0, 5)))
    with pytest.raises(QuarryError, match="image-0.*width, height"):
        DetectionBatch.from_arrow(batch.set_column(2, "width", pa.array([None], pa.int32())))
    with pytest.raises(QuarryError, match="image-0.*null element"):
        DetectionBatch.from_arrow(scene_batch([[None]]))  # type: ignore[list-item]


def test_truth_counts_labeled_boxes_only_and_refuses_null() -> None:
    boxes = [
        box((0, 0, 1, 1), 1, status="labeled"),
        box((0, 0, 1, 1), 2, status="background"),
        box((0, 0, 1, 1), 3, status="noisy"),
        box((0, 0, 1, 1), 4, iscrowd=True),
    ]
    truth = TruthBatch.from_arrow(scene_batch([[], []], [[], boxes]))
    assert truth.labels.tolist() == [1, 4] and truth.is_crowd.tolist() == [False, True]
    assert truth.offsets.tolist() == [0, 0, 2]
    with pytest.raises(QuarryError, match="image-1.*boxes is null"):
        TruthBatch.from_arrow(scene_batch([[], []], [[], None]))  # type: ignore[list-item]


def test_labels_restrict_classes() -> None:
    detections = DetectionBatch.from_arrow(scene_batch([[GOOD], [{**GOOD, "label": 7}, GOOD]]))
    kept = with_labels(detections, (7,))
    assert kept.offsets.tolist() == [0, 0, 1] and kept.labels.tolist() == [7]
    assert with_labels(detections, None) is detections
    assert np.array_equal(with_labels(detections, ()).offsets, [0, 0, 0])

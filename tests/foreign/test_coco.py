"""COCO read by pycocotools, supervision and datumaro."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import supervision
from conftest import assert_same_boxes, xywh
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
from PIL import Image, ImageOps
from pycocotools.coco import COCO


def test_pycocotools(manifests: Any, capsys: pytest.CaptureFixture[str]) -> None:
    files = manifests("coco")
    coco = COCO(str(files.path))
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    expected = files.by("file_name")
    images = coco.loadImgs(coco.getImgIds())
    assert {image["file_name"] for image in images} == set(expected)
    for image in images:
        wanted = expected[image["file_name"]]
        assert (image["width"], image["height"]) == (wanted["width"], wanted["height"])
        boxes = [
            (names[annotation["category_id"]], xywh(*annotation["bbox"]))
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        ]
        assert_same_boxes(boxes, wanted["boxes"], image["file_name"])
    results = [
        {key: annotation[key] for key in ("image_id", "category_id", "bbox", "score")}
        for annotation in coco.dataset["annotations"]
    ]
    assert len(coco.loadRes(results).getAnnIds()) == len(results)


def test_supervision(manifests: Any, image_folder: Path) -> None:
    files = manifests("coco")
    dataset = supervision.DetectionDataset.from_coco(str(image_folder), str(files.path))
    found = {str(Path(path).relative_to(image_folder)): boxes for path, boxes in dataset.annotations.items()}
    expected = files.by("file_name")
    assert set(found) == set(expected)
    for name, boxes in found.items():
        labels = [dataset.classes[class_id] for class_id in boxes.class_id]
        assert_same_boxes(list(zip(labels, boxes.xyxy, strict=True)), expected[name]["boxes"], name)


def test_datumaro(manifests: Any, image_folder: Path, tmp_path: Path) -> None:
    files = manifests("coco")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").symlink_to(image_folder)
    shutil.copy(files.path, tmp_path / "annotations" / "instances_default.json")
    dataset = Dataset.import_from(str(tmp_path), "coco_instances")
    assert_same_items(dataset, files.by("file_name"))


def assert_same_items(dataset: Dataset, expected: dict[str, dict[str, Any]]) -> None:
    """Compare a dataset of datumaro, whose item ids are file names without their ending."""
    labels = dataset.categories()[AnnotationType.label]
    by_stem = {str(Path(name).with_suffix("")): image for name, image in expected.items()}
    assert {item.id for item in dataset} == set(by_stem)
    for item in dataset:
        wanted = by_stem[item.id]
        assert tuple(item.media.size) == (wanted["height"], wanted["width"]), item.id
        boxes = [
            (labels[annotation.label].name, annotation.points)
            for annotation in item.annotations
            if annotation.type == AnnotationType.bbox
        ]
        assert_same_boxes(boxes, wanted["boxes"], item.id)


def test_sizes_are_those_people_see(manifests: Any, image_folder: Path) -> None:
    """The image on disk is stored on its side; its size in the manifest is that of the upright image."""
    ((name, image),) = (
        (name, Image.open(image_folder / name))
        for name in manifests("coco").by("file_name")
        if "exif" in name
    )
    expected = manifests("coco").by("file_name")[name]
    assert image.size == (expected["height"], expected["width"])
    assert ImageOps.exif_transpose(image).size == (expected["width"], expected["height"])

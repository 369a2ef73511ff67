"""CVAT XML read by datumaro, the library CVAT itself builds on; its manifest against a schema."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import KINDS, assert_same_boxes
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
from test_schemas import validate

REGION = "quarry_region"


@pytest.mark.parametrize("kind", KINDS)
def test_datumaro(manifests: Any, image_folder: Path, tmp_path: Path, kind: str) -> None:
    files = manifests("cvat", kind)
    shutil.copy(files.path, tmp_path / "default.xml")
    (tmp_path / "images").symlink_to(image_folder)
    dataset = Dataset.import_from(str(tmp_path), "cvat")
    labels = dataset.categories()[AnnotationType.label]
    expected = {str(Path(name).with_suffix("")): image for name, image in files.by_file_name().items()}
    assert {item.id for item in dataset} == set(expected)
    for item in dataset:
        wanted = expected[item.id]
        assert tuple(item.media.size) == (wanted["height"], wanted["width"]), item.id
        found = [box for box in item.annotations if box.type == AnnotationType.bbox]
        boxes = [box for box in found if labels[box.label].name != REGION]
        assert_same_boxes([(labels[box.label].name, box.points) for box in boxes], wanted["boxes"], item.id)
        assert len(found) - len(boxes) == (len(boxes) if kind.startswith("verify") else 0)
        ids = [str(box.attributes["quarry_detection_id"]) for box in boxes]
        assert sorted(ids) == sorted(box["detection_id"] for box in wanted["boxes"])


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_those_of_the_file(manifests: Any, kind: str) -> None:
    files = manifests("cvat", kind)
    validate(files.json("cvat_labels.json"), "cvat_labels")


@pytest.mark.parametrize("kind", KINDS)
def test_manifest(manifests: Any, kind: str) -> None:
    files = manifests("cvat_manifest", kind)
    lines = files.lines()
    assert lines[:2] == [{"version": "1.0"}, {"type": "images"}]
    for line in lines[2:]:
        validate(line, "cvat_manifest_line")
    named = {line["name"] + line["extension"]: (line["width"], line["height"]) for line in lines[2:]}
    expected = {name: (image["width"], image["height"]) for name, image in files.by_file_name().items()}
    assert list(named.items()) == list(expected.items())
    assert len(named) == len(lines) - 2

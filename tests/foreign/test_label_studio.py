"""Label Studio tasks checked and converted by its own SDK."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import KINDS, assert_same_boxes, xywh
from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface

CONFIG = "label_studio_config.xml"


def _tasks(files: Any) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = json.loads(files.path.read_text(encoding="utf-8"))
    return tasks


@pytest.mark.parametrize("kind", KINDS)
def test_the_interface_takes_every_prediction(manifests: Any, kind: str) -> None:
    files = manifests("label_studio", kind)
    interface = LabelInterface(files.text(CONFIG))
    interface.validate()
    n_predictions = 0
    for task in _tasks(files):
        interface.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction, return_errors=True) == []
            n_predictions += 1
    assert n_predictions == sum(bool(image["boxes"]) for image in files.expected.values())


def test_the_interface_would_turn_down_another_label(manifests: Any) -> None:
    files = manifests("label_studio")
    interface = LabelInterface(files.text(CONFIG))
    prediction = _tasks(files)[0]["predictions"][0]
    prediction["result"][0]["value"]["rectanglelabels"] = ["unheard of"]
    assert interface.validate_prediction(prediction, return_errors=True)


@pytest.mark.parametrize("kind", KINDS)
def test_percents_are_of_the_image(manifests: Any, kind: str) -> None:
    files = manifests("label_studio", kind)
    tasks = _tasks(files)
    assert [task["data"]["task_id"] for task in tasks] == list(files.expected)
    for task in tasks:
        wanted = files.expected[task["data"]["task_id"]]
        boxes = []
        for region in (region for prediction in task["predictions"] for region in prediction["result"]):
            assert (region["original_width"], region["original_height"]) == (
                wanted["width"],
                wanted["height"],
            )
            assert all(0 <= region["value"][side] <= 100 for side in ("x", "y", "width", "height"))
            if region["from_name"] == "label":
                x, width = (region["value"][key] / 100 * wanted["width"] for key in ("x", "width"))
                y, height = (region["value"][key] / 100 * wanted["height"] for key in ("y", "height"))
                boxes.append((region["value"]["rectanglelabels"][0], xywh(x, y, width, height)))
        assert_same_boxes(boxes, wanted["boxes"], wanted["file_name"])


def test_its_converter_makes_coco_of_what_people_submit(manifests: Any, tmp_path: Path) -> None:
    files = manifests("label_studio")
    submitted = [
        {
            "id": number,
            "data": task["data"],
            "annotations": [
                {
                    "id": number,
                    "completed_by": 1,
                    "was_cancelled": False,
                    "result": task["predictions"][0]["result"] if task["predictions"] else [],
                }
            ],
        }
        for number, task in enumerate(_tasks(files), start=1)
    ]
    export = tmp_path / "export.json"
    export.write_text(json.dumps(submitted), encoding="utf-8")
    converter = Converter(files.text(CONFIG), str(tmp_path), download_resources=False)
    converter.convert_to_coco(str(export), str(tmp_path / "coco"), is_dir=False)
    coco = json.loads((tmp_path / "coco" / "result.json").read_text(encoding="utf-8"))
    labels = {category["id"]: category["name"] for category in coco["categories"]}
    # The converter names images by a hash and keeps the order of the tasks.
    images = sorted(coco["images"], key=lambda image: image["id"])
    for image, wanted in zip(images, files.expected.values(), strict=True):
        boxes = [
            (labels[annotation["category_id"]], xywh(*annotation["bbox"]))
            for annotation in coco["annotations"]
            if annotation["image_id"] == image["id"]
        ]
        assert_same_boxes(boxes, wanted["boxes"], wanted["file_name"])
        if wanted["boxes"]:
            assert (image["width"], image["height"]) == (wanted["width"], wanted["height"])

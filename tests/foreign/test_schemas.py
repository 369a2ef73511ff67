"""Ground Truth, Labelbox and Scale against JSON Schemas written from what their vendors document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import KINDS, assert_same_boxes, xywh
from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).parent / "schemas"
SIDES = ("left", "top", "width", "height")


def validate(value: Any, schema: str) -> None:
    """Fail with the first fault and where it is."""
    document = json.loads((SCHEMAS / f"{schema}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(document)
    checker = Draft202012Validator(document, format_checker=Draft202012Validator.FORMAT_CHECKER)
    faults = sorted(checker.iter_errors(value), key=str)
    assert not faults, f"{schema}: {faults[0].json_path}: {faults[0].message}"


@pytest.mark.parametrize("kind", KINDS)
def test_ground_truth(manifests: Any, kind: str) -> None:
    files = manifests("ground_truth", kind)
    lines = files.lines()
    assert len(lines) == len(files.expected)
    for line, wanted in zip(lines, files.expected.values(), strict=True):
        validate(line, "ground_truth_line")
        assert line["source-ref"] == wanted["uri"]
        labels, metadata = line["pred"], line["pred-metadata"]
        (size,) = labels["image_size"]
        assert (size["width"], size["height"]) == (wanted["width"], wanted["height"])
        assert len(metadata["objects"]) == len(labels["annotations"])
        boxes = [
            (metadata["class-map"][str(box["class_id"])], xywh(*(box[side] for side in SIDES)))
            for box in labels["annotations"]
        ]
        assert_same_boxes(boxes, wanted["boxes"], wanted["uri"])
    validate(files.json("ground_truth_labels.json"), "ground_truth_labels")


@pytest.mark.parametrize("kind", KINDS)
def test_labelbox(manifests: Any, kind: str) -> None:
    rows = json.loads(manifests("labelbox_data_rows", kind).path.read_text(encoding="utf-8"))
    validate(rows, "labelbox_data_rows")
    files = manifests("labelbox", kind)
    expected = list(files.expected.values())
    assert [(row["row_data"], row["external_id"]) for row in rows] == [
        (image["uri"], image["file_name"]) for image in expected
    ]
    assert len({row["global_key"].lower() for row in rows}) == len(rows)
    ontology = files.json("labelbox_ontology.json")
    validate(ontology, "labelbox_ontology")
    tools = {tool["name"] for tool in ontology["tools"]}
    boxes: dict[str, list[Any]] = {row["global_key"]: [] for row in rows}
    lines = files.lines()
    for line in lines:
        validate(line, "labelbox_annotation")
        assert line["name"] in tools
        box = (line["name"], xywh(*(line["bbox"][side] for side in SIDES)))
        boxes[line["dataRow"]["globalKey"]].append(box)
    assert len({line["uuid"] for line in lines}) == len(lines)
    for found, wanted in zip(boxes.values(), expected, strict=True):
        assert_same_boxes(found, wanted["boxes"], wanted["file_name"])


@pytest.mark.parametrize("kind", KINDS)
def test_scale(manifests: Any, kind: str) -> None:
    files = manifests("scale", kind)
    lines = files.lines()
    assert [line["unique_id"] for line in lines] == list(files.expected)
    for line in lines:
        validate(line, "scale_task")
        wanted = files.expected[line["unique_id"]]
        assert line["attachment"] == wanted["uri"]
        labels = line["geometries"]["box"]["objects_to_annotate"]
        found = line["hypothesis"]["annotations"]
        assert {box["label"] for box in found} <= set(labels)
        boxes = [(box["label"], xywh(*(box[side] for side in SIDES))) for box in found]
        assert_same_boxes(boxes, wanted["boxes"], wanted["file_name"])
    validate(files.json("scale_project.json"), "scale_project")


@pytest.mark.parametrize(
    ("form", "schema", "key"),
    [
        ("labelbox", "labelbox_annotation", "dataRow"),
        ("scale", "scale_task", "attachment"),
        ("ground_truth", "ground_truth_line", "pred"),
    ],
)
def test_schemas_turn_down_what_is_not_documented(manifests: Any, form: str, schema: str, key: str) -> None:
    line = manifests(form).lines()[0]
    validate(line, schema)
    text = json.dumps(line)
    spoiled = [
        {name: value for name, value in line.items() if name != key},
        json.loads(text.replace('"top": ', '"y": ', 1)),
        json.loads(text.replace('"width": 30', '"width": "30"', 1)),
        json.loads(text.replace('"left": 10', '"left": -10', 1)),
    ]
    for value in spoiled:
        assert value != line
        with pytest.raises(AssertionError):
            validate(value, schema)

"""URLs of images are often signed: whatever is wrong with a file, no message repeats what opens an image."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from conf.label_map import LabelMap
from tests.udfs.formats.hostile_json import places
from udfs.formats.registry import FORMATS
from udfs.formats.returned import NotThisFormat, RejectedItem
from udfs.formats.shown_values import shown, without_query
from udfs.labels import label_batches

SECRET = "hush-hush"
URL = f"https://ann:{SECRET}@b.example/day 1/a.jpg?X-Amz-Signature={SECRET}&e='1'#{SECRET}"
NOTE = {"note": URL, "more": {"url": URL}, "all": [URL, [URL]]}
INSTEAD: tuple[Any, ...] = (
    None,
    True,
    10**400,
    float("nan"),
    "",
    URL,
    [URL],
    {URL: URL},
    [[URL], {"a": URL}],
)
TIME = "2026-12-01T10:00:00Z"
BOX = {"left": 10, "top": 20, "width": 30, "height": 40}

SCALE = {
    **NOTE,
    "task_id": "t",
    "unique_id": "u",
    "status": "completed",
    "completed_at": TIME,
    "params": {**NOTE, "attachment": URL},
    "metadata": {**NOTE, "width": 640, "height": 480, "kind": "verify_class", "detection_ids": {"a": "d"}},
    "response": {
        "annotations": [
            {
                **NOTE,
                **BOX,
                "uuid": "a",
                "type": "box",
                "label": "car",
                "attributes": {**NOTE, "answer": "no", "right_class": "bus"},
            }
        ]
    },
}
LABEL_STUDIO = {
    "id": 1,
    "data": {**NOTE, "image": URL, "task_id": "t", "width": 640, "height": 480},
    "annotations": [
        {
            **NOTE,
            "id": 1,
            "completed_by": {"email": "a@b.example"},
            "updated_at": TIME,
            "result": [
                {
                    **NOTE,
                    "id": "r1",
                    "type": "rectanglelabels",
                    "from_name": "label",
                    "original_width": 640,
                    "original_height": 480,
                    "value": {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["car"]},
                }
            ],
        }
    ],
}
LABELBOX = {
    **NOTE,
    "data_row": {**NOTE, "row_data": URL, "external_id": URL, "global_key": "quarry:image:i"},
    "media_attributes": {"width": 640, "height": 480},
    "projects": {
        "p": {
            "project_details": {"workflow_status": "DONE"},
            "labels": [
                {
                    "id": "l",
                    "label_details": {"updated_at": TIME, "created_by": "a@b.example"},
                    "annotations": {
                        **NOTE,
                        "objects": [{**NOTE, "feature_id": "f", "name": "car", "bounding_box": BOX}],
                    },
                }
            ],
        }
    },
}
GROUND_TRUTH = {
    **NOTE,
    "source-ref": URL,
    "labels": {
        **NOTE,
        "image_size": [{"width": 640, "height": 480, "depth": 3}],
        "annotations": [{**NOTE, **BOX, "class_id": 0}],
    },
    "labels-metadata": {
        **NOTE,
        "class-map": {"0": "car"},
        "type": "groundtruth/object-detection",
        "human-annotated": "yes",
        "creation-date": TIME,
    },
}
FAILED = {"source-ref": URL, "labels-metadata": {"failure-reason": f"ClientError: cannot fetch {URL}"}}
COCO = {
    "images": [{**NOTE, "id": 1, "file_name": URL, "coco_url": URL, "width": 640, "height": 480}],
    "annotations": [{**NOTE, "id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
    "categories": [{**NOTE, "id": 1, "name": "car"}],
}
CVAT = f"""<annotations><meta><task><name>t</name><dumped/></task></meta>
<image id="0" name="{URL.replace("&", "&amp;")}" width="640" height="480">
<box label="car" xtl="10" ytl="20" xbr="40" ybr="60" rotation="0"/></image></annotations>"""
DOCUMENTS: tuple[tuple[str, Any], ...] = (
    ("scale", [SCALE]),
    ("label_studio", [LABEL_STUDIO]),
    ("labelbox", LABELBOX),
    ("ground_truth", GROUND_TRUTH),
    ("ground_truth", FAILED),
    ("coco", COCO),
)


def _said(form: str, data: bytes) -> list[str]:
    read = FORMATS[form].read
    assert read is not None
    try:
        return [item.reason for item in read(io.BytesIO(data)) if isinstance(item, RejectedItem)]
    except NotThisFormat as error:
        return [str(error)]


def _spoiled(document: Any) -> Iterator[Any]:
    """The document with each value in turn taken away or replaced, and with all its texts replaced."""
    for path in places(document, ()):
        *above, last = path
        for value in INSTEAD:
            changed = copy.deepcopy(document)
            holder = changed
            for key in above:
                holder = holder[key]
            holder[last] = value
            yield changed
        del holder[last]
        yield changed
    yield from (_only_secrets(document), URL, [URL], {URL: URL}, [{"annotations": URL, "data": URL}])


def _only_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _only_secrets(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_only_secrets(part) for part in value]
    return URL if isinstance(value, str) else value


@pytest.mark.parametrize(("form", "document"), DOCUMENTS)
def test_no_reason_and_no_error_repeats_a_signature(form: str, document: Any) -> None:
    said = [text for spoiled in _spoiled(document) for text in _said(form, json.dumps(spoiled).encode())]
    assert len(said) > 20, "the ways to spoil it are noticed"
    assert [text for text in said if SECRET in text] == []


def test_no_reason_of_a_cvat_file_repeats_a_signature() -> None:
    assert _said("cvat", CVAT.encode()) == []
    said = []
    n_parts = len(list(ElementTree.fromstring(CVAT).iter()))
    for number in range(n_parts):
        for key in list(ElementTree.fromstring(CVAT).iter())[number].attrib:
            for value in ("", URL, None):
                root = ElementTree.fromstring(CVAT)
                part = list(root.iter())[number]
                if value is None:
                    del part.attrib[key]
                else:
                    part.set(key, value)
                said += _said("cvat", ElementTree.tostring(root))
    said += _said("cvat", CVAT.replace("&amp;", "&").encode())
    said += _said("cvat", CVAT.replace("e='1'", f"&{SECRET};").encode())
    said += _said("cvat", f'<x:a xmlns:x="{URL.replace("&", "")}"/>'.encode())
    said += _said("cvat", URL.encode())
    assert len(said) > 10
    assert [text for text in said if SECRET in text] == []


def test_no_message_about_a_class_repeats_a_signature(tmp_path: Path) -> None:
    document = copy.deepcopy(COCO)
    document["categories"][0]["name"] = URL
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(document))
    for given in ({}, {"label_map": LabelMap("some map", {"car": "car"})}):
        batch = pa.RecordBatch.from_pydict({"uri": [str(file)]})
        rows = [row for out in label_batches([batch], "coco", {"car": 1}, **given) for row in out.to_pylist()]
        (reason,) = (row["reason"] for row in rows if row["reason"])
        assert "b.example" in reason and SECRET not in reason


def test_what_is_left_of_a_text() -> None:
    assert without_query(URL) == "https://b.example/day 1/a.jpg"
    assert without_query(f"see HTTP://x/a?{SECRET}") == "see HTTP://x/a"
    assert without_query(f"/data/local-files/?d={SECRET}") == "/data/local-files/"
    for name in ("what?.jpg", "s3://b/ä#1.jpg", "day=1/a&b=c.jpg", "a@b.example", "car 1, 2, 3, 4"):
        assert without_query(name) == name


def test_what_is_shown_of_a_value() -> None:
    assert shown({"a": URL, "b": {}}) == "an object with 'a', 'b'"
    assert shown({}) == "an object with nothing in it"
    assert shown([1, float("nan"), "x", [URL]]) == "[1, nan, 'x', an array]"
    assert shown([{"a": URL}, {"b": URL}]) == "[an object with 'a', ...]"
    assert shown(list(range(100))) == "[0, 1, 2, 3, 4, 5, 6, 7, ...]"
    assert len(shown("x" * 10**6)) < 100 and len(shown({"x" * 10**6: 1})) < 120
    # Shortened first, the middle would go: the question mark, but not the signature.
    assert SECRET not in shown(f"https://b.example/{'x' * 100}?s={SECRET}")

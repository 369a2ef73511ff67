from __future__ import annotations

import io
import json
import time
import tracemalloc
import weakref
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import numpy as np
import pytest

from conf.errors import QuarryError
from tests.udfs.formats.sent_tasks import CLASSES, HOSTILE, example, manifest, questions, tasks
from udfs.formats.cvat import write_cvat
from udfs.formats.cvat_returns import read_cvat
from udfs.formats.newest_returns import IS_OLDER
from udfs.formats.registry import FORMATS
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedBox, ReturnedImage
from udfs.formats.task import LabelingTask, Manifest, TaskKind, clipped_box

SCHEMAS = Path(__file__).parents[2] / "foreign" / "schemas"
UPDATED = "2026-11-22 10:00:00.5+02:00"
ORIGIN = (
    "<id>7</id><name>n</name><size>1</size><mode>annotation</mode><overlap>0</overlap><created>"
    f"2026-11-21 09:00:00+00:00</created><updated>{UPDATED}</updated>"
    "<assignee><username>ann</username><email>ann@example.org</email></assignee>"
)


def _written(sent: list[LabelingTask], about: Manifest | None = None) -> str:
    stream = io.StringIO()
    write_cvat(stream, iter(sent), about or manifest())
    return stream.getvalue()


def _exported(xml: str, edit: Callable[[ET.Element], None] = lambda image: None) -> bytes:
    """What CVAT exports after the file was uploaded: its meta, each frame once, boxes ahead of tags."""
    sent = ET.fromstring(xml.encode())
    labels = sent.find("meta/task/labels")
    assert labels is not None
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    meta = ET.SubElement(root, "meta")
    task = ET.fromstring(f"<task>{ORIGIN}</task>")
    task.append(labels)
    meta.append(task)
    ET.SubElement(meta, "dumped").text = "2026-11-22 10:05:00+00:00"
    frames: dict[str, ET.Element] = {}
    for image in sent.iterfind("image"):
        frame = frames.setdefault(image.attrib["id"], ET.Element("image", image.attrib))
        frame.extend(list(image))
    for frame in frames.values():
        frame[:] = [shape for shape in frame if shape.tag != "tag"] + frame.findall("tag")
        edit(frame)
        root.append(frame)
    data: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return data


def _read(data: bytes) -> list[ReturnedImage | RejectedItem]:
    return list(read_cvat(io.BytesIO(data)))


def _images(data: bytes) -> list[ReturnedImage]:
    items = _read(data)
    assert all(isinstance(item, ReturnedImage) for item in items), items
    return [item for item in items if isinstance(item, ReturnedImage)]


def _file(images: str, meta: str = f"<meta><task>{ORIGIN}</task></meta>") -> bytes:
    return f"<annotations><version>1.1</version>{meta}{images}</annotations>".encode()


def _image(shapes: str = "", name: str = "a.jpg", more: str = "") -> str:
    return f'<image id="0" name="{name}" width="640" height="480" {more}>{shapes}</image>'


def _box(more: str = "", corners: tuple[float | str, ...] = (10, 20, 40, 60), inside: str = "") -> str:
    sides = " ".join(f'{key}="{v}"' for key, v in zip(("xtl", "ytl", "xbr", "ybr"), corners, strict=True))
    return f'<box label="car" {sides} {more}>{inside}</box>'


def _zipped(data: bytes, name: str = "annotations.xml") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/a.jpg", b"\xff\xd8")
        archive.writestr(name, data)
    return stream.getvalue()


def test_the_worked_example() -> None:
    root = ET.fromstring(_written([example()]).encode())
    assert root.tag == "annotations" and root.findtext("version") == "1.1"
    assert (root.findtext("meta/task/size"), root.findtext("meta/task/mode")) == ("1", "annotation")
    assert [label.findtext("name") for label in root.iterfind("meta/task/labels/label")] == [
        *CLASSES,
        "quarry_task",
    ]
    (image,) = root.iterfind("image")
    assert image.attrib == {"id": "0", "name": "dir/a.jpg", "width": "640", "height": "480"}
    (box,) = image.iterfind("box")
    assert box.attrib == {
        "label": "car",
        "source": "auto",
        "occluded": "0",
        "xtl": "10.00",
        "ytl": "20.00",
        "xbr": "40.00",
        "ybr": "60.00",
        "z_order": "0",
    }
    assert [(a.get("name"), a.text) for a in box] == [("quarry_detection_id", "d1")]


@pytest.mark.parametrize("is_zip", [False, True])
def test_boxes_that_nobody_changed_come_back(is_zip: bool) -> None:
    sent = tasks()
    data = _exported(_written(sent))
    returned = _images(_zipped(data) if is_zip else data)
    assert [image.file_name for image in returned] == [task.file_name for task in sent]
    for task, image in zip(sent, returned, strict=True):
        assert (image.task_id, image.quarry_image_id) == (task.task_id, task.image_id)
        assert (image.width, image.height, image.complete) == (task.width, task.height, True)
        assert (image.annotator, image.annotated_at) == ("ann", "2026-11-22T08:00:00.500000+00:00")
        for box, back in zip(task.boxes, image.boxes, strict=True):
            assert (back.label_name, back.detection_id) == (box.label_name, box.detection_id)
            corners = clipped_box(box, task)
            assert corners is not None
            assert np.allclose(corners, (back.x1, back.y1, back.x2, back.y2), atol=0.0051)


def test_bytes_are_the_same_each_time_and_the_size_is_known() -> None:
    xml = _written(tasks())
    assert xml == _written(tasks())
    assert f"<size>{len(tasks())}</size>" in xml
    asked = _written(questions("verify_box"), manifest("verify_box"))
    assert f"<size>{sum(bool(task.boxes) for task in tasks())}</size>" in asked


def test_answers_to_verifications_of_a_box() -> None:
    sent = questions("verify_box")
    answers = {task.task_id: ("yes", "no", "unanswered")[k % 3] for k, task in enumerate(sent)}

    def answer(frame: ET.Element) -> None:
        for box in frame.iterfind("box"):
            values = {part.attrib["name"]: part for part in box}
            if box.get("label") != "quarry_region":
                values["quarry_box_fits"].text = answers[values["quarry_task_id"].text or ""]

    returned = _images(_exported(_written(sent, manifest("verify_box")), answer))
    by_task = {image.task_id: image for image in returned}
    assert by_task.keys() == {task_id for task_id, answer in answers.items() if answer != "unanswered"}
    for task in sent:
        if answers[task.task_id] == "unanswered":
            continue
        image, (box,) = by_task[task.task_id], by_task[task.task_id].boxes
        assert not image.complete
        assert (image.file_name, image.quarry_image_id) == (task.file_name, task.image_id)
        assert box.detection_id == task.boxes[0].detection_id
        assert box.status == ("labeled" if answers[task.task_id] == "yes" else "background")


def test_a_verification_shows_its_region_and_question() -> None:
    root = ET.fromstring(_written([example("verify_box")], manifest("verify_box")).encode())
    region, box = root.iterfind("image/box")
    assert region.get("label") == "quarry_region"
    assert [region.get(key) for key in ("xtl", "ytl", "xbr", "ybr")] == ["0.00", "0.00", "55.00", "80.00"]
    assert {part.get("name"): part.text for part in box} == {
        "quarry_box_fits": "unanswered",
        "quarry_detection_id": "d1",
        "quarry_task_id": "t1",
        "quarry_sent_class": "car",
    }


@pytest.mark.parametrize(
    ("verdict", "label", "expected"),
    [
        ("yes", "car", ("car", "labeled")),
        ("no", CLASSES[1], (CLASSES[1], "labeled")),
        ("unanswered", CLASSES[1], (CLASSES[1], "labeled")),
        ("unanswered", "car", None),
        ("no", "car", "but no other one was chosen"),
        ("maybe", "car", "expected the answer yes or no"),
    ],
)
def test_answers_to_verifications_of_a_class(
    verdict: str, label: str, expected: tuple[str, str] | str | None
) -> None:
    def answer(frame: ET.Element) -> None:
        box = frame.findall("box")[1]
        box.set("label", label)
        box[0].text = verdict

    items = _read(_exported(_written([example("verify_class")], manifest("verify_class")), answer))
    if expected is None:
        assert items == []
        return
    (item,) = items
    if isinstance(expected, str):
        assert isinstance(item, RejectedItem) and expected in item.reason
        return
    assert isinstance(item, ReturnedImage)
    (box,) = item.boxes
    assert ((box.label_name, box.status), box.detection_id, item.complete) == (expected, "d1", False)


def test_a_moved_box_is_an_answer_and_one_drawn_besides_is_a_label_of_its_own() -> None:
    def answer(frame: ET.Element) -> None:
        box = frame.findall("box")[1]
        box.set("xbr", "44.00")
        box[0].text = "yes"
        drawn = ET.fromstring(_box(corners=(1, 2, 3, 4)))
        for name in ("quarry_box_fits", "quarry_detection_id", "quarry_task_id", "quarry_sent_class"):
            ET.SubElement(drawn, "attribute", name=name).text = ""
        frame.append(drawn)

    moved, drawn = _images(_exported(_written([example("verify_box")], manifest("verify_box")), answer))
    assert (moved.task_id, moved.boxes[0].x2, moved.boxes[0].detection_id) == ("t1", 44.0, "d1")
    assert (drawn.task_id, drawn.complete, drawn.boxes[0].x1) == (None, False, 1.0)
    assert drawn.boxes[0].detection_id is None


def test_a_verification_whose_box_was_deleted_is_no_empty_image() -> None:
    def delete(frame: ET.Element) -> None:
        frame[:] = []

    xml = _written([example("verify_box")], manifest("verify_box"))
    assert _read(_exported(xml, delete)) == []
    assert _images(_exported(_written([example()]), delete))[0].boxes == ()


def test_the_manifest_itself_is_no_label() -> None:
    with pytest.raises(NotThisFormat, match="nobody labeled"):
        _read(_written([example()]).encode())


def test_copied_boxes_and_tags_keep_no_id_twice() -> None:
    def copy(frame: ET.Element) -> None:
        box, tag = frame
        copied = ET.fromstring(ET.tostring(box))
        copied.set("xtl", "11.00")
        frame[:] = [box, copied, tag, tag]

    (image,) = _images(_exported(_written([example()]), copy))
    assert [box.detection_id for box in image.boxes] == ["d1", None]
    assert (image.task_id, image.quarry_image_id) == (None, None)


def test_a_turned_box_becomes_the_box_around_it() -> None:
    (upright,) = _images(_file(_image(_box('rotation="90"', (10, 20, 50, 40)))))
    (box,) = upright.boxes
    assert np.allclose((box.x1, box.y1, box.x2, box.y2), (20, 10, 40, 50))
    (turned,) = _images(_file(_image(_box('rotation="-45"', (100, 100, 110, 110)))))
    assert np.allclose(turned.boxes[0].x1, 105 - 50**0.5) and np.allclose(turned.boxes[0].y2, 105 + 50**0.5)


def test_other_shapes_and_unsound_boxes_are_rejected_with_a_reason() -> None:
    shapes = (
        _box()
        + '<polygon label="car" points="1,1;2,2;3,1"/><mask label="car" rle="1, 2"/><tag label="foggy"/>'
        + _box('outside="1"')
        + _box(corners=(10, 20, 10, 60))
        + _box(corners=(700, 20, 710, 60))
        + _box(corners=("nan", 20, 30, 60))
        + '<box xtl="1" ytl="1" xbr="2" ybr="2"/>'
        + _box('rotation="inf"')
    )
    *rejected, image = _read(_file(_image(shapes)))
    assert isinstance(image, ReturnedImage) and len(image.boxes) == 1
    reasons = [(item.item_id, item.reason) for item in rejected if isinstance(item, RejectedItem)]
    expected = [
        ("shape 2", "'polygon' is no box"),
        ("shape 3", "'mask' is no box"),
        ("shape 6", "positive size"),
        ("shape 7", "outside the image"),
        ("shape 8", "finite px"),
        ("shape 9", "expected a label"),
        ("shape 10", "rotation in degrees"),
    ]
    assert [item_id for item_id, _ in reasons] == [item_id for item_id, _ in expected]
    assert all(text in reason for (_, text), (_, reason) in zip(expected, reasons, strict=True))
    assert {item.file_name for item in rejected} == {"a.jpg"}


@pytest.mark.parametrize(
    "image",
    [
        '<image id="0" width="1" height="1"/>',
        '<image id="0" name="a" width="1.5" height="1"/>',
        '<image id="0" name="a" width="1" height="0"/>',
        f'<image id="0" name="a" width="1" height="{2**31}"/>',
    ],
)
def test_an_image_without_name_or_size_is_rejected_and_the_rest_goes_on(image: str) -> None:
    rejected, sound = _read(_file(image + _image(name="b.jpg")))
    assert isinstance(rejected, RejectedItem) and isinstance(sound, ReturnedImage)


def test_of_an_image_in_two_tasks_of_a_project_the_last_updated_counts() -> None:
    def project(times: tuple[str, str]) -> bytes:
        of_tasks = "".join(
            f"<task><id>{k}</id><updated>{t}</updated><assignee><username>p{k}</username></assignee></task>"
            for k, t in enumerate(times)
        )
        meta = f"<meta><project><tasks>{of_tasks}</tasks></project><dumped>2026</dumped></meta>"
        images = _image(_box(), more='task_id="0"') + _image(more='task_id="1"') + _image(name="b")
        return _file(images, meta)

    newest, older, other = _read(project(("2026-01-02 00:00:00+00:00", "2026-01-02 00:30:00+01:00")))
    assert isinstance(older, RejectedItem) and older.reason == IS_OLDER
    assert isinstance(newest, ReturnedImage) and isinstance(other, ReturnedImage)
    assert (newest.annotator, len(newest.boxes)) == ("p0", 1)
    assert (other.file_name, other.annotator, other.annotated_at) == ("b", None, None)
    first, second, _ = _read(project(("2026-01-02 00:00:00+00:00", "2026-01-02 01:00:00+01:00")))
    assert isinstance(first, RejectedItem) and "labeled 2 times" in first.reason
    assert isinstance(second, RejectedItem)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not sound XML"),
        (b"{}", "not sound XML"),
        (b"<annotation/>", "root <annotations>"),
        (b"<annotations/>", "expected <meta>"),
        (_file(_image(), meta=""), "expected <meta>"),
        (_file('<track id="0" label="car"/>'), "tracks of a video"),
        (_file(_image())[:-9], "not sound XML"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]>' + _file(_image("&x;")), "document type"),
        (b'<!DOCTYPE annotations SYSTEM "file:///etc/passwd">' + _file(""), "document type"),
        (b'<?xml version="1.0" encoding="utf-7"?>' + _file(""), "not sound XML"),
        (b'<?xml version="1.0" encoding="nonsense"?>' + _file(""), "not sound XML"),
        (_file(_image(name="ö")).decode().encode("latin-1"), "not sound XML"),
        (_file(_image("<a>" * 5000 + "</a>" * 5000)), "nested deeper"),
        (_zipped(b"<annotations/>", "other.xml"), "unencrypted annotations.xml"),
        (_zipped(b"<annotations/>", "../annotations.xml"), "unencrypted annotations.xml"),
        (_zipped(_file(_image()))[:200], "damaged zip"),
        (b"PK\x03\x04", "damaged zip"),
    ],
)
def test_other_files_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(NotThisFormat, match=reason):
        _read(data)


@pytest.mark.parametrize(
    ("head", "filler"),
    [(b"", b" "), (b"", b"<!-- -->" * 999), (b"<meta>", b"<b/>"), (b'<meta x="', b"x"), (b"<meta>", b"x ")],
)
def test_a_zip_bomb_is_refused_in_little_memory(head: bytes, filler: bytes) -> None:
    bomb = _zipped(_file("")[:-14] + head + filler * (200 * 2**20 // len(filler)))
    assert len(bomb) < 2**20
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(NotThisFormat, match="too large"):
        _read(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 2**20
    assert time.monotonic() - started < 60


def test_many_images_are_read_in_the_memory_of_few() -> None:
    def peak_bytes(n_images: int) -> int:
        data = _file("".join(_image(_box() * 20, name=f"{k}.jpg") for k in range(n_images)))
        tracemalloc.start()
        assert sum(isinstance(item, ReturnedImage) for item in read_cvat(io.BytesIO(data))) == n_images
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # More images cost what tells their names apart; 20 boxes of an image would be over 4 KiB.
    assert peak_bytes(1_000) - peak_bytes(300) < 700 * 1_500


def test_tasks_are_written_one_by_one() -> None:
    alive: list[weakref.ref[LabelingTask]] = []
    most = 0

    def source() -> Iterator[LabelingTask]:
        nonlocal most
        for number in range(200):
            task = replace(example(), file_name=f"{number}.jpg")
            alive.append(weakref.ref(task))
            most = max(most, sum(ref() is not None for ref in alive))
            yield task

    assert write_cvat(io.StringIO(), source(), manifest()).n_boxes == 200
    assert most <= 2


def _fails(sent: list[LabelingTask], about: Manifest, *texts: str) -> None:
    with pytest.raises(QuarryError) as error:
        _written(sent, about)
    assert all(text in str(error.value) for text in texts), error.value


def test_what_cvat_would_refuse_or_mix_up_is_refused() -> None:
    task = example()
    _fails([task, replace(task, image_id="i2")], manifest(), "i2", "dir/a", "twice")
    _fails([task, replace(task, image_id="i2", file_name="dir/a.png")], manifest(), "i2", "dir/a", "twice")
    _fails([replace(task, file_name="a\x01.jpg")], manifest(), "i1", "control")
    _fails([replace(task, file_name="a\ud800.jpg")], manifest(), "i1", "half")
    _fails([task], manifest(classes=("car", "x" * 65)), "64")
    _fails([task], manifest(classes=("car", " x")), "blanks")
    _fails([task], manifest(classes=("car", "quarry_task")), "quarry_task", "rename")
    _fails([task], manifest(classes=("truck",)), "'car'", "i1")
    _fails([replace(task, boxes=(replace(task.boxes[0], x1=float("nan")),))], manifest(), "finite", "d1")


def test_boxes_that_vanish_are_dropped_and_counted() -> None:
    (box,) = example().boxes
    gone = [replace(box, x1=10.001, x2=10.002), replace(box, x1=640, x2=700)]
    counts = write_cvat(io.StringIO(), [replace(example(), boxes=(box, *gone))], manifest())
    assert (counts.n_tasks, counts.n_boxes, counts.n_dropped_boxes) == (1, 1, 2)


def test_the_manifest_names_each_image_once_in_order() -> None:
    form = FORMATS["cvat_manifest"]
    assert form.write is not None
    stream = io.StringIO()
    form.write(stream, [example()], manifest())
    assert stream.getvalue() == (
        '{"version":"1.0"}\n{"type":"images"}\n'
        '{"name":"dir/a","extension":".jpg","width":640,"height":480,"meta":{"related_images":[]}}\n'
    )
    stream = io.StringIO()
    sent = questions("verify_box")
    counts = form.write(stream, sent, manifest("verify_box"))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()][2:]
    schema = json.loads((SCHEMAS / "cvat_manifest_line.json").read_text())
    for line in lines:
        jsonschema.validate(line, schema)
    names = [line["name"] + line["extension"] for line in lines]
    assert names == list(dict.fromkeys(task.file_name for task in sent))
    assert (counts.n_tasks, counts.n_boxes) == (len(sent), 0)
    root = ET.fromstring(_written(sent, manifest("verify_box")).encode())
    assert {image.get("name"): int(image.attrib["id"]) for image in root.iterfind("image")} == {
        name: number for number, name in enumerate(names)
    }


@pytest.mark.parametrize("kind", ["image", "verify_box", "verify_class"])
def test_the_labels_of_the_task_are_those_of_the_file(kind: TaskKind) -> None:
    companions = FORMATS["cvat"].companions(manifest(kind))
    labels = json.loads(companions["cvat_labels.json"])
    jsonschema.validate(labels, json.loads((SCHEMAS / "cvat_labels.json").read_text()))
    root = ET.fromstring(_written([example(kind)], manifest(kind)).encode())
    declared = {
        (label.findtext("name"), attribute.findtext("name"))
        for label in root.iterfind("meta/task/labels/label")
        for attribute in label.iterfind("attributes/attribute")
    }
    assert declared == {(label["name"], a["name"]) for label in labels for a in label["attributes"]}
    used = {
        (shape.get("label"), attribute.get("name"))
        for shape in root.iterfind("image/*")
        for attribute in shape.iterfind("attribute")
    }
    assert used <= declared
    assert all(a["default_value"] in a["values"] for label in labels for a in label["attributes"])


def test_no_hostile_file_gets_through() -> None:
    rng = np.random.default_rng(11)
    files = [
        _exported(_written(tasks()[:3])),
        _exported(_written(questions("verify_box"), manifest("verify_box"))),
    ]
    n_read = n_refused = 0
    for round_number in range(400):
        root = ET.fromstring(files[round_number % 2])
        elements = list(root.iter())
        for _ in range(int(rng.integers(1, 6))):
            element = elements[int(rng.integers(len(elements)))]
            choice = int(rng.integers(4))
            value = HOSTILE[int(rng.integers(len(HOSTILE)))]
            if choice == 0 and element.attrib:
                key = sorted(element.attrib)[int(rng.integers(len(element.attrib)))]
                element.attrib[key] = value
            elif choice == 1 and element.attrib:
                del element.attrib[sorted(element.attrib)[0]]
            elif choice == 2:
                element.text = value
            else:
                element.tag = ["box", "image", "meta", "tag", "x", "attribute"][int(rng.integers(6))]
        data = bytearray(ET.tostring(root, encoding="utf-8"))
        if round_number % 3 == 0:
            data = data[: int(rng.integers(len(data)))] if round_number % 2 else data
            for _ in range(3):
                data[int(rng.integers(len(data)))] = int(rng.integers(256))
        if round_number % 5 == 0:
            data = bytearray(_zipped(bytes(data)))
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        try:
            items = _read(bytes(data))
        except NotThisFormat:
            n_refused += 1
            continue
        n_read += 1
        for item in items:
            assert isinstance(item, (ReturnedImage, RejectedItem))
            for box in item.boxes if isinstance(item, ReturnedImage) else ():
                assert isinstance(box, ReturnedBox) and box.x2 > box.x1 and box.y2 > box.y1
    assert n_read > 50 and n_refused > 50

"""Tasks to correct the boxes that were picked: every tool carries them out and their ids back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tool_returns import FORMATS, returned
from tests.udfs.formats.sent_tasks import example, manifest
from udfs.formats.registry import FORMATS as REGISTERED
from udfs.formats.returned import ReturnedImage
from udfs.formats.task import QUESTIONS, TaskBox

MANIFEST = manifest("boxes", classes=("car", "bus"))
TASK = replace(
    example("boxes"),
    task_id="c1/Ä b/boxes/it's",
    image_id="Ä b",
    file_name="Ä b.jpg",
    boxes=(
        TaskBox(detection_id="d-1", label_name="car", score=0.9, x1=10, y1=10, x2=30, y2=30),
        TaskBox(detection_id="d-2", label_name="bus", score=0.4, x1=40, y1=10, x2=60, y2=30),
    ),
)


@pytest.mark.parametrize("form", FORMATS)
def test_a_task_of_boxes_comes_back_as_itself(form: str, tmp_path: Path) -> None:
    for name in {form, "labelbox_data_rows"} if form == "labelbox" else {form}:
        written = REGISTERED[name]
        folder = tmp_path / f"sure.{name}"
        folder.mkdir()
        assert written.write is not None
        path = folder / f"tasks-1{'.json' if form == 'labelbox' else written.suffixes[0]}"
        with path.open("w", encoding="utf-8") as stream:
            counts = written.write(stream, [TASK], MANIFEST)
        assert counts.n_tasks == 1
        texts = written.companions(MANIFEST).values()
        assert name == "labelbox_data_rows" or any(QUESTIONS["boxes"] in text for text in texts)
    read = REGISTERED[form].read
    assert read is not None
    (file,) = returned(form, tmp_path, "sure", tmp_path / "back").iterdir()
    with file.open("rb") as stream:
        (image,) = read(stream)
    assert isinstance(image, ReturnedImage)
    assert (image.task_id, image.complete) == (TASK.task_id, True)
    assert {(box.label_name, box.x1, box.status) for box in image.boxes} == {
        ("car", 10.0, "labeled"),
        ("bus", 40.0, "labeled"),
    }

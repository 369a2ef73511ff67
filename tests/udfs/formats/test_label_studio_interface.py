from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from conf.errors import QuarryError
from udfs.formats.label_studio_interface import label_studio_companions, labeling_config
from udfs.formats.task import Manifest

CLASSES = ("car", 'a "b" & <c>', "日本", "5 $")
MANIFEST = Manifest(
    name="cycle 1, hardest",
    classes=CLASSES,
    model_version="m",
    n_tasks=1234,
    last_rank=1234,
    created="2026-01-01T00:00:00Z",
)


def _view(manifest: Manifest) -> ElementTree.Element:
    return ElementTree.fromstring(labeling_config(manifest))


def _names(view: ElementTree.Element, control: str) -> list[str | None]:
    (element,) = (part for part in view.iter() if part.get("name") == control)
    return [choice.get("value") for choice in element]


def test_whole_images_get_a_label_for_each_class() -> None:
    view = _view(MANIFEST)
    image, labels = view.find("Image"), view.find("RectangleLabels")
    assert image is not None
    assert labels is not None
    assert (image.get("name"), image.get("value")) == ("image", "$image")
    assert image.get("defaultZoom") == "auto"
    assert (labels.get("name"), labels.get("toName"), labels.get("canRotate")) == ("label", "image", "false")
    assert _names(view, "label") == list(CLASSES)
    assert [label.get("hotkey") for label in labels] == ["1", "2", "3", "4"]
    assert view.find("Choices") is None
    assert [part.tag for part in view] == ["Header", "RectangleLabels", "Image"], "below it, out of sight"


def test_a_box_is_answered_with_yes_or_no() -> None:
    view = _view(replace(MANIFEST, kind="verify_box"))
    assert _names(view, "answer") == ["yes", "no"]
    assert _names(view, "label") == list(CLASSES)
    assert _names(view, "region") == ["region"]
    assert all(choices.get("required") == "true" for choices in view.iter("Choices"))


@pytest.mark.parametrize(("n_classes", "layout"), [(4, None), (80, "select")])
def test_a_wrong_class_is_replaced_by_one_of_the_classes(n_classes: int, layout: str | None) -> None:
    classes = (*CLASSES, *(f"class {k}" for k in range(n_classes - 4)))
    view = _view(replace(MANIFEST, kind="verify_class", classes=classes))
    assert [header.get("value") for header in view.iter("Header")][1:] == ["Class of the box: $label_name"]
    assert _names(view, "answer") == ["yes", "no", "no object"]
    assert _names(view, "class") == list(classes)
    (element,) = (part for part in view.iter("Choices") if part.get("name") == "class")
    assert (element.get("whenTagName"), element.get("whenChoiceValue")) == ("answer", "no")
    assert element.get("layout") == layout


def test_eighty_classes_have_eighty_colours() -> None:
    view = _view(replace(MANIFEST, classes=tuple(f"class {k}" for k in range(80))))
    assert len({label.get("background") for label in view.iter("Label")}) == 80


@pytest.mark.parametrize("name", ["car\x00", "$image", "5 $a", "${x}"])
def test_what_the_tool_would_show_otherwise_is_refused(name: str) -> None:
    with pytest.raises(QuarryError, match="control characters and without"):
        labeling_config(replace(MANIFEST, classes=("car", name)))


def test_the_companions_say_how_to_import() -> None:
    companions = label_studio_companions(MANIFEST)
    assert list(companions) == ["label_studio_config.xml", "README.txt"]
    readme = companions["README.txt"]
    assert readme.startswith("cycle 1, hardest: 1,234 tasks for Label Studio\n")
    for step in ("label_studio_config.xml", "Draw a box", "JSON-MIN", "duplicates", "task_id"):
        assert step in readme

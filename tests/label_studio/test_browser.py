"""A manifest's boxes as a labeler sees them, a box drawn with the mouse and a question answered with keys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hard_lake import HEIGHT, SEEN, TURNED, WIDTH
from tests.label_studio.browser import WAIT_LIMIT_S, Browser, browser, installed_browser
from tests.label_studio.cycles import (
    DRAWN,
    DRAWN_BOX,
    LABEL_ORDER,
    PERSON,
    QUESTIONS,
    WHOLE,
    Region,
    answers_of,
    assert_boxes,
    import_labels,
    manifest_of,
    sent_box,
)
from tests.label_studio.server import EMAIL, LabelStudio

SCREENSHOTS = Path(__file__).parents[2] / "build" / "label-studio"
EDITOR, CANVAS = "Htx.annotationStore.selected", "document.querySelector('canvas')"
SUBMIT = "document.querySelector('button[aria-label^=Submit]')"
CTRL = 2


@pytest.fixture(scope="module")
def page(studio: LabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser in which the user has logged in."""
    program = installed_browser()
    assert program is not None
    with browser(program, tmp_path_factory.mktemp("profile")) as page:
        page.open(f"{studio.url}/user/login/")
        page.wait_for("document.querySelector('input[name=password]') !== null")
        for field, text in {"email": EMAIL, "password": studio.password}.items():
            page.value(f"document.querySelector('input[name={field}]').value = '{text}'")
        page.value("document.querySelector('form').submit()")
        page.wait_for("!location.pathname.includes('login')")
        yield page


def _opened(page: Browser, studio: LabelStudio, project: int, task: dict[str, Any]) -> list[Region]:
    """Opens a task and gives the regions that the editor shows, once the picture is there."""
    page.open(f"{studio.url}/projects/{project}/data?task={task['id']}")
    page.wait_for(f"Htx.task.id == {task['id']} && {EDITOR}.regions.length > 0")
    is_there = f"i.src.startsWith('blob:') && i.naturalWidth == {WIDTH} && i.naturalHeight == {HEIGHT}"
    page.wait_for(f"[...document.images].some(i => {is_there}) && {CANVAS} !== null && {SUBMIT} !== null")
    found: list[Region] = page.value(f"{EDITOR}.serializeAnnotation()")
    return found


def _corners(region: Region) -> tuple[float, ...]:
    x, y, width, height = (region["value"][side] / 100 for side in ("x", "y", "width", "height"))
    return x * WIDTH, y * HEIGHT, (x + width) * WIDTH, (y + height) * HEIGHT


def _submit(page: Browser, studio: LabelStudio, task: dict[str, Any]) -> None:
    page.value(f"{SUBMIT}.click()")
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not studio.call("GET", f"/api/tasks/{task['id']}/annotations/"):
        assert time.monotonic() < deadline, "nothing was submitted"
        time.sleep(0.2)


@pytest.mark.skipif(installed_browser() is None, reason="no Chromium or Chrome is installed")
def test_boxes_are_seen_and_answered_in_a_browser(
    page: Browser, studio: LabelStudio, sent: Path, root: Path, tmp_path: Path
) -> None:
    whole = studio.new_project(manifest_of(sent / "manifests", WHOLE))
    (task,) = (task for task in studio.tasks(whole) if task["data"]["file_name"] == TURNED)
    i, shown = task["data"]["image_id"], _opened(page, studio, whole, task)
    assert [region["id"] for region in shown] == [f"{i}-{n}" for n in range(4)]
    for region, corners in zip(shown, SEEN, strict=True):
        assert _corners(region) == pytest.approx(corners, abs=0.5)
    page.screenshot(SCREENSHOTS / "boxes.png")
    left, top, width = page.value(f"(({{x, y, width}}) => [x, y, width])({CANVAS}.getBoundingClientRect())")
    x1, y1, x2, y2 = (value * width / WIDTH for value in DRAWN)
    page.press(str(1 + LABEL_ORDER.index(PERSON)))
    page.drag((left + x1, top + y1), (left + x2, top + y2), modifiers=CTRL)  # over another box
    page.wait_for(f"{EDITOR}.regions.length == 5")
    page.screenshot(SCREENSHOTS / "drawn.png")
    _submit(page, studio, task)

    asked = studio.new_project(manifest_of(sent / "manifests", QUESTIONS["verify_class"]))
    *_, question = studio.tasks(asked)
    _opened(page, studio, asked, question)
    page.press("2")  # no
    page.press(str(4 + LABEL_ORDER.index(PERSON)))
    page.screenshot(SCREENSHOTS / "question.png")
    _submit(page, studio, question)

    import_labels(root, studio.export(whole, tmp_path / "whole.json"), "look")
    import_labels(root, studio.export(asked, tmp_path / "asked.json"), "verify_class")
    answers, j = answers_of(root), question["data"]["image_id"]
    assert_boxes(answers.pop(f"look/{i}")["boxes"], [*(sent_box(i, n) for n in range(4)), DRAWN_BOX], TURNED)
    answer = answers.pop(f"verify_class/{j}/{j}-3/verify_class")
    assert_boxes(answer["boxes"], [sent_box(j, 3, label=PERSON)], "question")
    assert not answers

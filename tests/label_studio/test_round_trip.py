"""Out to a real Label Studio server, through the hands of an annotator, and back: px for px, each once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hard_lake import CORNERS, EMPTY, NAMES, TURNED
from tests.label_studio.cycles import (
    BOXES,
    DRAFT,
    DRAWN_BOX,
    FRONT,
    MOVED,
    PERSON,
    QUESTIONS,
    REAR,
    SKIPPED,
    WHOLE,
    Box,
    Region,
    answers_of,
    assert_boxes,
    at,
    corrected,
    export_tasks,
    ids_of,
    import_labels,
    kept,
    manifest_of,
    sent_box,
)
from tests.label_studio.server import LabelStudio
from tests.small_lake import rows


def test_the_server_takes_all_boxes_and_shows_each_image(studio: LabelStudio, sent: Path) -> None:
    ids = ids_of(sent / "tables")
    for asked in (WHOLE, BOXES, *QUESTIONS.values()):
        manifest = manifest_of(sent / "manifests", asked)
        tasks = [task for file in sorted(manifest.glob("tasks-*")) for task in json.loads(file.read_bytes())]
        stored = studio.tasks(studio.new_project(manifest))
        for task, was in zip(stored, tasks, strict=True):  # in the order of their ranks
            assert task["data"] == was["data"]
            results = [prediction["result"] for prediction in task["predictions"]]
            assert results == [prediction["result"] for prediction in was["predictions"]]
            name = task["data"]["file_name"]
            picture = (studio.documents / "images" / name).read_bytes()
            assert studio.get(task["data"]["image"]) == picture and task["data"]["image_id"] == ids[name]


def test_what_an_annotator_did_to_images_and_boxes_comes_back(
    studio: LabelStudio, sent: Path, root: Path, tmp_path: Path
) -> None:
    whole = studio.new_project(manifest_of(sent / "manifests", WHOLE))
    for task in studio.tasks(whole):
        name, regions = task["data"]["file_name"], kept(task)
        if name == DRAFT:
            studio.call("POST", f"/api/tasks/{task['id']}/drafts", {"result": regions, "lead_time": 1.0})
        else:
            result = corrected(regions) if name in (REAR, TURNED) else regions
            studio.annotate(task, result, was_cancelled=name == SKIPPED)
    boxes = studio.new_project(manifest_of(sent / "manifests", BOXES))
    for task in studio.tasks(boxes):
        by_number = {region["id"][-1]: region for region in kept(task)}
        is_turned = task["data"]["file_name"] == TURNED
        studio.annotate(task, [at(by_number["3"], MOVED)] if is_turned else list(by_number.values()))
    exports = [studio.export(whole, tmp_path / "whole.json"), studio.export(boxes, tmp_path / "boxes.json")]
    for export in exports:
        import_labels(root, export, "look")

    ids, answers = ids_of(root), answers_of(root)
    for name in NAMES:
        i, answer = ids[name], answers.pop(f"look/{ids[name]}")
        wanted = [] if name == EMPTY else [sent_box(i, n) for n in range(4)]
        if name in (REAR, TURNED):
            wanted = [wanted[0], wanted[2], sent_box(i, 3, corners=MOVED), DRAWN_BOX]
        assert (answer["image_id"], answer["complete"], answer["annotator"]) == (i, True, "1")
        assert_boxes(answer["boxes"], wanted, name)
    # What was deleted is the model's box, not what was seen of it.
    gone = sent_box(ids[TURNED], 1, corners=CORNERS[1], status="background")
    for name, wanted in {
        FRONT: [sent_box(ids[FRONT], 2), sent_box(ids[FRONT], 3)],
        TURNED: [sent_box(ids[TURNED], 3, corners=MOVED), gone],
    }.items():
        answer = answers.pop(f"look/{ids[name]}/boxes/boxes")
        assert_boxes(answer["boxes"], wanted, f"boxes of {name}")
    assert not answers, "skipped tasks and drafts are no labels"
    truth = {row["image_id"]: row for row in rows(str(root), "ground_truth")}
    assert truth.keys() == {ids[name] for name in NAMES} and all(row["complete"] for row in truth.values())

    tables = ("ground_truth", "ground_truth_history", "label_imports")
    before = [rows(str(root), table, volatile=True) for table in tables]
    for export in exports:
        import_labels(root, export, "look")
    assert [rows(str(root), table, volatile=True) for table in tables] == before


@pytest.mark.parametrize("kind", QUESTIONS)
def test_answers_to_questions_come_back(
    studio: LabelStudio, sent: Path, root: Path, tmp_path: Path, kind: str
) -> None:
    project = studio.new_project(manifest_of(sent / "manifests", QUESTIONS[kind]))
    (i,) = {task["data"]["image_id"] for task in studio.tasks(project)}
    no = {"status": "background"}
    # Of each box: what is answered, what happens to the box, what must come back.
    said: list[tuple[tuple[str, ...], Callable[[Region], list[Region]], Box]] = [
        (("yes",), lambda box: [box], sent_box(i, 0)),
        (("no",), lambda box: [box], sent_box(i, 1, **no)),
        (("no",), lambda box: [], sent_box(i, 2, **no)),
        (("yes",), lambda box: [at(box, MOVED)], sent_box(i, 3, corners=MOVED)),
    ]
    if kind == "verify_class":
        said[1] = (("no", PERSON), lambda box: [box], sent_box(i, 1, label=PERSON))
        said[2] = (("no object",), lambda box: [box], sent_box(i, 2, **no))
    for task, (chosen, changed, _) in zip(studio.tasks(project), said, strict=True):
        box, region = kept(task)
        choices = [
            {
                "id": f"q_{control}",
                "type": "choices",
                "from_name": control,
                "to_name": "image",
                "origin": "manual",
                "value": {"choices": [choice]},
            }
            for control, choice in zip(("answer", "class"), chosen, strict=False)
        ]
        studio.annotate(task, [*changed(box), region, *choices])
    import_labels(root, studio.export(project, tmp_path / "export.json"), kind)
    answers = answers_of(root)
    for n, (*_, wanted) in enumerate(said):
        answer = answers.pop(f"{kind}/{i}/{i}-{n}/{kind}")
        assert (answer["image_id"], answer["complete"]) == (i, False)
        assert_boxes(answer["boxes"], [wanted], f"{kind} {n}")
    assert not answers
    (truth,) = rows(str(root), "ground_truth")
    assert (truth["complete"], len(truth["boxes"])) == (False, 4)


def test_tasks_that_are_imported_again_are_known_by_their_ids(
    studio: LabelStudio, sent: Path, root: Path, tmp_path: Path
) -> None:
    """Label Studio shows them twice; of the answers to one task the newest counts, wherever it was given."""
    manifest = manifest_of(sent / "manifests", WHOLE)
    export_tasks(root, tmp_path / "again", "look", "image")
    again = manifest_of(tmp_path / "again", WHOLE)
    files = [sorted((file.name, file.read_bytes()) for file in one.iterdir()) for one in (manifest, again)]
    assert files[0] == files[1]
    project = studio.new_project(manifest)
    studio.import_files(project, again)
    stored = studio.tasks(project)
    first, second = stored[: len(stored) // 2], stored[len(stored) // 2 :]
    assert [task["data"] for task in first] == [task["data"] for task in second]

    for task in first[1:]:
        studio.annotate(task, kept(task))
    for task in second[:3]:
        studio.annotate(task, corrected(kept(task)))
    studio.annotate(first[0], kept(first[0]))
    import_labels(root, studio.export(project, tmp_path / "export.json"), "look")
    answers = answers_of(root)
    for n, task in enumerate(first):
        i, boxes = task["data"]["image_id"], answers.pop(task["data"]["task_id"])["boxes"]
        wanted = [sent_box(i, n) for n in range(4) if task["data"]["file_name"] != EMPTY]
        if n in (1, 2):
            wanted = [wanted[0], wanted[2], sent_box(i, 3, corners=MOVED), DRAWN_BOX]
        assert_boxes(boxes, wanted, task["data"]["file_name"])
    assert not answers

"""What labeling tools would send back of a manifest whose boxes are all right: each as its tool writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TIME = "2026-12-01T10:00:00Z"
FORMATS = ("coco", "label_studio", "cvat", "ground_truth", "labelbox", "scale")


def returned(form: str, manifests: Path, strategy: str, folder: Path) -> Path:
    """Writes the label files of a format and returns where they are.

    Args:
        form: Name of the format.
        manifests: Folder of a cycle's manifests.
        strategy: Whose manifest was labeled.
        folder: Where the files go; made when absent.
    """
    sent, target = manifests / f"{strategy}.{form}", folder / form
    target.mkdir(parents=True)
    for file in sorted(sent.glob("tasks-*")):
        text = file.read_text("utf-8")
        if form == "labelbox":
            rows = manifests / f"{strategy}.labelbox_data_rows" / f"{file.stem}.json"
            text = _labelbox(_lines(text), json.loads(rows.read_text("utf-8")))
        elif form != "coco":
            text = {
                "label_studio": _label_studio,
                "cvat": _cvat,
                "ground_truth": _ground_truth,
                "scale": _scale,
            }[form](text)
        (target / file.name).write_text(text, "utf-8")
    return target


def _lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def _label_studio(text: str) -> str:
    tasks = json.loads(text)
    for number, task in enumerate(tasks, start=1):
        shown = task["predictions"][0]["result"] if task["predictions"] else []
        result = [{**region, "origin": "prediction"} for region in shown]
        annotation = {"id": number, "updated_at": TIME, "completed_by": 1, "result": result}
        task |= {"id": number, "annotations": [annotation]}
    return json.dumps(tasks)


def _cvat(text: str) -> str:
    said = f"<updated>{TIME}</updated><assignee><username>ann</username></assignee>"
    return text.replace("<task>", f"<task>{said}", 1).replace("</meta>", "<dumped/></meta>", 1)


def _ground_truth(text: str) -> str:
    lines = _lines(text)
    for line in lines:
        said = {"human-annotated": "yes", "creation-date": TIME, "adjustment-status": "unadjusted"}
        line |= {"checked": line["pred"], "checked-metadata": line["pred-metadata"] | said}
    return "".join(json.dumps(line) + "\n" for line in lines)


def _labelbox(boxes: list[Any], rows: list[Any]) -> str:
    text = ""
    for row in rows:
        objects = [
            {"feature_id": box["uuid"], "name": box["name"], "bounding_box": box["bbox"]}
            for box in boxes
            if box["dataRow"]["globalKey"] == row["global_key"]
        ]
        label = {"label_details": {"updated_at": TIME}, "annotations": {"objects": objects}}
        project = {"project_details": {"workflow_status": "DONE"}, "labels": [label]}
        data_row = {key: row[key] for key in ("external_id", "global_key")}
        text += json.dumps({"data_row": data_row, "projects": {"p": project}}) + "\n"
    return text


def _scale(text: str) -> str:
    answers = [
        {
            "task_id": f"scale-{number}",
            "status": "completed",
            "completed_at": TIME,
            "metadata": task["metadata"],
            "response": {"annotations": task["hypothesis"]["annotations"]},
        }
        for number, task in enumerate(_lines(text))
    ]
    return json.dumps(answers)

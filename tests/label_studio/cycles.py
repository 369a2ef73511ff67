"""What is sent to labelers here, how their annotations differ from it, and what must come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.quarry import main
from tests.hard_lake import CLASSES, HEIGHT, LABELS, NAMES, SEEN, TURNED, WIDTH
from tests.small_lake import rows

FRONT, REAR, SPACES, NON_ASCII, *_ = NAMES
SKIPPED, DRAFT = "left/skipped.jpg", "left/draft.jpg"
LABEL_ORDER = [*CLASSES.values()]
PERSON = LABEL_ORDER[2]
# Cycle, strategy and what its manifest asks.
WHOLE = ("look", "whole", "image")
BOXES = ("look", "boxes", "image")
QUESTIONS = {kind: (kind, "asked", kind) for kind in ("verify_box", "verify_class")}
PICKED_BOXES = ((TURNED, 1), (TURNED, 3), (FRONT, 2), (FRONT, 3))
MOVED = (60.55, 53.1, 163.95, 156.9)  # box 3, between px
DRAWN = (300.4, 200.2, 420.6, 310.8)

Region = dict[str, Any]
# Class, corners, status and the detection it was made from.
Box = tuple[str, tuple[float, ...], str, str | None]
DRAWN_BOX: Box = (PERSON, DRAWN, "labeled", None)


def export_tasks(root: Path, folder: Path, cycle: str, kind: str) -> None:
    """Writes the manifests of a cycle, its pictures where the server finds them."""
    flags = ["--root", str(root), "--folder", str(folder), "--cycle", cycle, "--tasks", kind]
    settings = ["export.uri_prefix=/data/local-files/?d=images", "export.tasks_per_file=5"]
    flags += ["--formats", "label_studio", "--config", "demo"]
    assert main(["export_manifest", *flags, *(part for one in settings for part in ("--set", one))]) == 0


def manifest_of(folder: Path, asked: tuple[str, str, str]) -> Path:
    """The folder of its files."""
    return folder / asked[0] / f"{asked[1]}.label_studio"


def import_labels(root: Path, export: Path, cycle: str) -> None:
    """Imports what the server exported; nothing of it may be rejected."""
    flags = ["--root", str(root), "--labels", str(export), "--cycle", cycle, "--config", "demo"]
    assert main(["import_labels", *flags, "--format", "label_studio", "--split", "train"]) == 0
    assert not (root / "label_rejects").exists(), rows(str(root), "label_rejects")


def kept(task: dict[str, Any]) -> list[Region]:
    """The boxes of a task as the editor submits them when nothing was changed."""
    shown = [region for prediction in task["predictions"] for region in prediction["result"]]
    return [{**region, "origin": "prediction"} for region in shown]


def at(region: Region, corners: tuple[float, float, float, float], **changes: Any) -> Region:
    """A region somewhere else."""
    x1, y1, x2, y2 = corners
    sides = {"x": x1 / WIDTH, "y": y1 / HEIGHT, "width": (x2 - x1) / WIDTH, "height": (y2 - y1) / HEIGHT}
    percent = {name: 100 * value for name, value in sides.items()}
    return {**region, "value": {**region["value"], **percent}, "origin": "prediction-changed", **changes}


def corrected(regions: list[Region]) -> list[Region]:
    """Box 1 deleted, box 3 moved, a box of another class drawn."""
    drawn = at(regions[0], DRAWN, id="Xq3_drawn", origin="manual")
    drawn["value"]["rectanglelabels"] = [PERSON]
    return [regions[0], regions[2], at(regions[3], MOVED), drawn]


def sent_box(image_id: str, n: int, **changes: Any) -> Box:
    """Box n of an image as it was sent, with changes."""
    sent = {"label": LABELS[n], "corners": SEEN[n], "status": "labeled", "detection": f"{image_id}-{n}"}
    label, corners, status, detection = (sent | changes).values()
    return label, corners, status, detection


def assert_boxes(found: list[dict[str, Any]], wanted: list[Box], what: str) -> None:
    """Fail unless class, status and detection of each box are right, and its corners within half a px."""
    by_place = sorted(found, key=lambda box: (box["label_name"], box["x1"], box["y2"]))
    wanted = sorted(wanted, key=lambda box: (box[0], box[1][0], box[1][3]))
    said = [(box["label_name"], box["status"], box["detection_id"]) for box in by_place]
    assert said == [(label, status, detection) for label, _, status, detection in wanted], what
    for box, (_, corners, _, _) in zip(by_place, wanted, strict=True):
        assert [box[side] for side in ("x1", "y1", "x2", "y2")] == pytest.approx(corners, abs=0.5), what


def answers_of(root: Path) -> dict[str, dict[str, Any]]:
    """Task id to the answer that was imported; each once."""
    found = rows(str(root), "ground_truth_history")
    assert len({row["task_id"] for row in found}) == len(found)
    return {row["task_id"]: row for row in found}


def ids_of(root: Path) -> dict[str, str]:
    """Path below the lake's root to image_id."""
    return {row["path"]: row["image_id"] for row in rows(str(root), "images")}

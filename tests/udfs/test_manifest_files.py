"""Files of manifests: which tasks go where, how large they get, and what is refused."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from conf.errors import QuarryError
from conf.export_settings import LABEL_FILE_FORMATS, ExportSettings, ManifestFormat
from tests.udfs.formats.hard_tasks import hard_manifest, hard_tasks
from udfs.formats.registry import FORMATS
from udfs.formats.task import LabelingTask, TaskKind
from udfs.manifest_files import FILE_SCHEMA, ManifestJob, folder_names, manifest_file_batches
from udfs.published_file import file_sha256
from udfs.sent_uris import SentUris

KINDS: tuple[TaskKind, ...] = ("image", "boxes", "verify_box", "verify_class")


def _row(task: LabelingTask, vendor: str, shard: int = 0) -> dict[str, Any]:
    return {
        "strategy": "hard",
        "vendor": vendor,
        "shard": shard,
        "task_id": task.task_id,
        "image_id": task.image_id,
        "uri": task.uri,
        "path": task.file_name,
        "width": task.width,
        "height": task.height,
        "rank": task.rank,
        "score": task.score,
        "cost_s": 2.0,
        "cost_money": None,
        "boxes": [asdict(box) for box in task.boxes],
    }


def _written(
    folder: Path, rows: list[dict[str, Any]], kind: TaskKind = "image", most: int = 100, largest: float = 1e9
) -> list[dict[str, Any]]:
    vendors = {row["vendor"] for row in rows}
    for vendor in vendors:
        (folder / vendor).mkdir(exist_ok=True)
    job = ManifestJob(
        folders={("hard", vendor): str(folder / vendor) for vendor in vendors},
        manifests={"hard": hard_manifest(kind)},
        uris=SentUris.of(ExportSettings()),
        most_tasks=most,
        largest_bytes=largest,
    )
    batches = [pa.RecordBatch.from_pylist(rows[start : start + 3]) for start in range(0, len(rows), 3)]
    files = list(manifest_file_batches(batches, job))
    assert all(batch.schema == FILE_SCHEMA for batch in files)
    return [row for batch in files for row in batch.to_pylist()]


def _tasks(vendor: str, kind: TaskKind) -> list[LabelingTask]:
    return hard_tasks(kind, root="s3://bucket/lake" if vendor == "ground_truth" else "https://x.example/lake")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vendor", sorted(FORMATS))
def test_no_file_is_larger_than_told(vendor: str, kind: TaskKind, tmp_path: Path) -> None:
    if kind not in FORMATS[vendor].kinds:
        pytest.skip("the format has no way to ask")
    largest = 12_000.0
    files = _written(tmp_path, [_row(t, vendor) for t in _tasks(vendor, kind)], kind, largest=largest)
    assert len(files) > 1 and sum(file["n_tasks"] for file in files) == len(_tasks(vendor, kind))
    for file in files:
        path = tmp_path / vendor / file["file_name"]
        assert path.stat().st_size <= largest and file_sha256(str(path)) == file["sha256"]
        assert file["cost_s"] == 2.0 * file["n_tasks"] and file["cost_money"] is None


def test_shards_and_parts_have_names_of_their_own(tmp_path: Path) -> None:
    tasks = _tasks("coco", "image")[:5]
    rows = [
        _row(task, vendor, number // 3) for vendor in ("coco", "scale") for number, task in enumerate(tasks)
    ]
    files = _written(tmp_path, rows, most=2)
    assert [(file["vendor"], file["file_name"], file["n_tasks"]) for file in files] == [
        ("coco", "tasks-00001-00001.json", 2),
        ("coco", "tasks-00001-00002.json", 1),
        ("coco", "tasks-00002.json", 2),
        ("scale", "tasks-00001-00001.jsonl", 2),
        ("scale", "tasks-00001-00002.jsonl", 1),
        ("scale", "tasks-00002.jsonl", 2),
    ]
    for vendor in ("coco", "scale"):
        names = {path.name for path in (tmp_path / vendor).iterdir()}
        assert names == {file["file_name"] for file in files if file["vendor"] == vendor}


def test_the_order_of_their_names_is_that_of_ranks(tmp_path: Path) -> None:
    """Also where names are sorted by the numbers in them, or without their punctuation."""
    tasks = [replace(_tasks("coco", "image")[0], rank=k + 1, file_name=f"{k}.jpg") for k in range(40)]
    shards = [0] * 12 + [1] * 2 + [k // 3 for k in range(6, 32)]
    files = _written(tmp_path, [_row(t, "coco", s) for t, s in zip(tasks, shards, strict=True)], most=1)
    files += _written(tmp_path, [_row(tasks[0], "coco", 98)])
    names = [file["file_name"] for file in files]

    def by_numbers(name: str) -> list[int]:
        return [int(digits) for digits in re.findall("[0-9]+", name)]

    def by_letters(name: str) -> str:
        return "".join(filter(str.isalnum, name))

    assert len(set(names)) == 41
    for order in (None, by_numbers, by_letters):
        assert sorted(names, key=order) == names


def test_questions_about_one_image_count_it_once(tmp_path: Path) -> None:
    tasks = [task for task in hard_tasks("verify_box") if task.file_name == "border/pixels.jpg"]
    (file,) = _written(tmp_path, [_row(task, "label_studio") for task in tasks], "verify_box")
    assert (file["n_tasks"], file["n_images"], file["n_boxes"]) == (3, 1, 3)


def test_an_image_nobody_knows_is_named(tmp_path: Path) -> None:
    row = _row(hard_tasks()[0], "coco")
    for lack in ({"uri": None}, {"width": None, "uri": "https://cdn.example/a.jpg?sig=hush-hush"}):
        with pytest.raises(QuarryError, match=r"'Bild Ö:7': its place or size is not known") as caught:
            _written(tmp_path, [row | lack])
        assert "hush-hush" not in str(caught.value)
    assert list((tmp_path / "coco").iterdir()) == []


def test_folders_of_strategies_are_told_apart() -> None:
    assert folder_names(["hardest:a b", "../x", "Random"]) == {
        "hardest:a b": "hardest-a-b",
        "../x": "-x",
        "Random": "Random",
    }
    with pytest.raises(QuarryError, match="'a:b' and 'A-b' would share the folder"):
        folder_names(["a:b", "A-b"])


def test_settings_name_the_formats_that_are_there() -> None:
    written = {name for name, form in FORMATS.items() if form.write is not None}
    assert written == set(ManifestFormat.__args__)  # type: ignore[attr-defined]
    assert {name for name, form in FORMATS.items() if form.read is not None} == set(LABEL_FILE_FORMATS)

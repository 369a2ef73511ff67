"""Out to every labeling tool and back: each box, class and image of hard names lands where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from conf.acquisition_spec import PriceList
from conf.export_settings import ExportSettings
from pipelines.export import export_manifests
from pipelines.labels import import_labels
from pipelines.run import Run
from pipelines.tables import TableStore
from tests.hard_lake import EMPTY, LABELS, MODEL, NAMES, SEEN, hard_lake, pick
from tests.small_lake import rows
from tests.tool_returns import FORMATS, returned


@pytest.fixture
def run(session: SparkSession, tmp_path: Path) -> Run:
    """Images of hard names in a lake, each but one with boxes, all picked by a strategy of a hard name."""
    made = Run(store=TableStore(session, str(tmp_path / "tables")))
    ids = hard_lake(made, tmp_path / "lake")
    pick(made, "c1", "it's", ((image_id, None) for image_id in sorted(ids.values())))
    return made


def test_every_box_class_and_image_comes_back_through_every_tool(run: Run, tmp_path: Path) -> None:
    settings = ExportSettings(
        formats=(*FORMATS, "labelbox_data_rows"),
        folder=str(tmp_path / "out"),
        uri_prefix="s3://bucket/lake",
        tasks_per_file=4,
    )
    export_manifests(Run(store=run.store), "c1", MODEL, settings, PriceList())
    path_of = {row["image_id"]: row["path"] for row in rows(run.store.root, "images")}
    seen = sorted((label, *corners) for label, corners in zip(LABELS, SEEN, strict=True))
    for form in FORMATS:
        files = returned(form, tmp_path / "out" / "c1", "it-s", tmp_path / "back")
        counts = import_labels(Run(store=run.store), str(files), form, "train", "c1", MODEL)
        assert counts == {"images": len(NAMES), "boxes": 20, "not_in_lake": 0, "rejected": 0}, form
        for row in rows(run.store.root, "ground_truth"):
            wanted = [] if path_of[row["image_id"]] == EMPTY else seen
            boxes = sorted((b["label_name"], b["x1"], b["y1"], b["x2"], b["y2"]) for b in row["boxes"])
            assert [box[0] for box in boxes] == [box[0] for box in wanted] and row["complete"], form
            for box, expected in zip(boxes, wanted, strict=True):
                assert box[1:] == pytest.approx(expected[1:], abs=0.5), form
            assert {box["source"] for box in row["boxes"]} <= {form}
    history = rows(run.store.root, "ground_truth_history")
    assert len(history) == len(FORMATS) * len(NAMES) and not (Path(run.store.root) / "label_rejects").exists()

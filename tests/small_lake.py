"""The lake and settings of the shared test cycle, and how its tables are read back without Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from deltalake import DeltaTable

from conf.load import load_settings
from conf.settings import SampleLakeSettings, Settings
from schemas.tables import DETECTIONS

CYCLE = "test-cycle"
STOPPED_BEFORE_SCORE = "tables-before-score"
SMALL_LAKE = SampleLakeSettings(
    images=72,
    seed=5,
    corrupt_fraction=0.06,
    unseen_fraction=0.33,
    frames_per_sequence=4,
    frames_per_second=1.0,
)
VOLATILE = {
    "run_id",
    "ts",
    "ingest_ts",
    "first_ts",
    "last_ts",
    "created_ts",
    "started",
    "ended",
    "latency_ms",
    "image_ts",
}


def lake_settings(lake: Path, root: Path) -> Settings:
    """Demo settings on a lake, with all output below `root`."""
    return load_settings(
        "demo",
        [
            f"lake.uri={lake}/images",
            f"lake.labels={lake}/labels",
            f"export.folder={root}/manifests",
            f"report.path={root}/report.html",
            "acquire.budget=10",
            "detect.images_per_task=16",
        ],
        root=f"{root}/tables",
    )


def detections_row(**given: Any) -> dict[str, Any]:
    """A row of `detections` without boxes, with what is given; no time stamp."""
    usual = {"view": "original", "width": 9, "height": 9, "run_id": "r", "detections": [], "n_detections": 0}
    return dict.fromkeys(DETECTIONS.column_names) | usual | given


def rows(root: str, table: str, *, volatile: bool = False) -> list[dict[str, Any]]:
    """All rows of a table, read by delta-rs, in fixed order; without time stamps and run ids unless asked."""
    frame = DeltaTable(f"{root}/{table}").to_pyarrow_table()
    if table == "metrics" and not volatile:
        frame = frame.filter(pc.field("method") != "detect")  # how long it took
    kept = [name for name in frame.column_names if volatile or name not in VOLATILE]
    return sorted(frame.select(kept).to_pylist(), key=lambda row: repr(sorted(row.items(), key=str)))


def assert_same_detections(mine: str, theirs: str) -> None:
    """Two roots hold the same quarantine and, each once, the same detections to the rounding of sums."""
    found, expected = (
        {(r["image_id"], r["view"]): r for r in rows(root, "detections")} for root in (mine, theirs)
    )
    assert len(found) == len(rows(mine, "detections"))
    assert found.keys() == expected.keys()
    states = [
        {(row["image_id"], row["error_class"], row["resolved"]) for row in rows(root, "quarantine")}
        for root in (mine, theirs)
    ]
    assert states[0] == states[1]
    for key, row in found.items():
        boxes, reference = row["detections"], expected[key]["detections"]
        assert [b["label"] for b in boxes] == [b["label"] for b in reference]
        for name, tolerance in (("score", 1e-4), ("x1", 0.05), ("y1", 0.05), ("x2", 0.05), ("y2", 0.05)):
            np.testing.assert_allclose(
                [b[name] for b in boxes], [b[name] for b in reference], atol=tolerance, rtol=0
            )

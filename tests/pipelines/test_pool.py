"""What may be picked of a made-up lake, row by row."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import QuarryError
from conf.settings import AcquireSettings, ScoreSettings
from pipelines.acquire import acquire
from pipelines.box_dataset import box_dataset
from pipelines.models import Model
from pipelines.pool import box_pool, image_pool, known_features
from pipelines.run import Run
from pipelines.tables import TableStore, in_schema, spark_schema
from schemas.table import Table
from schemas.tables import ACQUISITION, DETECTIONS, GROUND_TRUTH, IMAGES, TRUTH_BOX_DDL
from tests.small_lake import detections_row

OTHERS = "cycle_id <> 'c'"
MODEL = Model(model_id="m", name="street", classes={1: "car", 2: "truck"}, head="softmax")
# Name, score, left side: of boxes of 20 x 20 px, those 5 px apart share 0.6 of their union, 10 px apart 0.33.
Boxes = list[tuple[str, float, float]]


class Lake:
    """Tables of a few images."""

    def __init__(self, session: SparkSession, root: Path) -> None:
        self.told: list[str] = []
        self.run = Run(store=TableStore(session, str(root)), tell=self.told.append)

    def write(self, table: Table, given: list[dict[str, Any]], ddl: str, *times: str) -> None:
        """Rows of a table; what the DDL does not name is null, and `times` are now."""
        frame = self.run.store.session.createDataFrame(given, ddl)
        frame = frame.withColumns({name: F.current_timestamp() for name in times})
        self.run.store.merge(table, in_schema(frame, table))

    def detect(self, found: dict[str, Boxes], **places: dict[str, Any]) -> None:
        """Images and what the model found in them; a name's first word is its class, features are places.

        `places` are more columns of an image.
        """
        usual = {"partitions": {}, "dataset": "d"}
        images = [{"image_id": i, "uri": i, "path": i, **usual, **places.get(i, {})} for i in found]
        names = (
            "image_id STRING, uri STRING, path STRING, dataset STRING, partitions MAP<STRING, STRING>, "
            "sequence_id STRING, frame_index INT"
        )
        self.write(IMAGES, images, names, "ingest_ts")
        seen = [
            detections_row(
                image_id=image,
                model_id="m",
                width=100,
                height=100,
                detections=[_box(*box) for box in boxes],
                n_detections=len(boxes),
                image_feature=[float(place**2)],
            )
            for place, (image, boxes) in enumerate(found.items())
        ]
        self.write(DETECTIONS, seen, spark_schema(DETECTIONS).simpleString()[7:-1], "ts")

    def label(
        self, image: str, *boxes: tuple[str, float], complete: bool = False, split: str = "train"
    ) -> None:
        """Status and left side of an image's labels."""
        of_box = {"label": 1, "label_name": "car", "y1": 0.0, "y2": 20.0, "iscrowd": False, "source": "test"}
        labels = [of_box | {"status": status, "x1": x1, "x2": x1 + 20} for status, x1 in boxes]
        row = {"image_id": image, "boxes": labels, "complete": complete, "split": "train", "cycle_id": "l"}
        ddl = (
            f"image_id STRING, boxes ARRAY<{TRUTH_BOX_DDL}>, complete BOOLEAN, split STRING, cycle_id STRING"
        )
        self.write(GROUND_TRUTH, [row], ddl, "ts")


def _box(name: str, score: float, x1: float) -> tuple[Any, ...]:
    return (name, 1, name.split()[0], score, x1, 0.0, x1 + 20, 20.0, None, [x1])


@pytest.fixture
def lake(session: SparkSession, tmp_path: Path) -> Lake:
    """No images yet."""
    return Lake(session, tmp_path)


def picked(lake: Lake, cycle: str, **settings: Any) -> list[str]:
    """Images or boxes that a strategy picks for a cycle, in order."""
    acquire(lake.run, cycle, MODEL, AcquireSettings.model_validate(settings), ScoreSettings(), seed=5)
    mine = lake.run.store.read(ACQUISITION).where(F.col("cycle_id") == cycle).orderBy("rank")
    return [row.detection_id or row.image_id for row in mine.collect()]


def column(rows: DataFrame, name: str) -> list[Any]:
    """A column's values in order."""
    return sorted(row[name] for row in rows.select(name).collect())


def test_detections_of_one_object_are_one_box_the_best_scored(lake: Lake) -> None:
    lake.detect(
        {
            # One proposal, two classes; the third is the same object as the second only; then equal scores.
            "a": [("car 1", 0.9, 0.0), ("truck 1", 0.06, 0.0)],
            "b": [("car 2", 0.9, 0.0), ("truck 2", 0.8, 5.0), ("car 3", 0.7, 10.0)],
            "c": [("truck 4", 0.5, 0.0), ("car 4", 0.5, 1.0)],
            "d": [("car 5", 0.5, 0.0), ("car 6", 0.04, 0.0), ("car 7", 0.5, 40.0)],
            "e": [],
        }
    )
    pool = box_pool(lake.run, OTHERS, MODEL, AcquireSettings(box_threshold=0.05), None)
    expected = ["car 1", "car 2", "car 3", "car 4", "car 5", "car 7"]
    assert column(pool, "detection_id") == expected
    assert column(pool, "uncertainty") == pytest.approx([0.1, 0.1, 0.3, 0.5, 0.5, 0.5])
    lake.label("b", ("labeled", 10.0))
    noisy = box_dataset(lake.run, MODEL, 0.05, only_partly_labeled=True)
    assert {(row.detection_id, row.status) for row in noisy.collect()} == {
        ("car 2", "noisy"),
        ("car 3", "labeled"),
    }


def test_a_cycle_picked_again_is_the_same_and_picks_nothing_that_is_out(lake: Lake) -> None:
    lake.detect({f"i{n}": [] for n in range(10)})
    picks = partial(picked, lake, strategies=("k_center_images",))
    first, second = (picks(cycle, budget=2) for cycle in ("first", "second"))
    assert picks("first", budget=2, near_misses=3) == first
    assert not {*first} & {*second}
    # A cycle that branches off with the picks: both stay as they are.
    copied = lake.run.store.read(ACQUISITION, pinned=True).where("cycle_id = 'first'")
    lake.run.store.merge(ACQUISITION, copied.withColumn("cycle_id", F.lit("branch")))
    assert picks("branch", budget=2) == first
    # Other settings make it a new pick: what later cycles picked is out by now.
    anew = picks("first", budget=3)
    assert not {*anew} & {*first, *second}
    assert picks("first", budget=3) == anew


def test_box_k_center_starts_from_what_people_were_asked_about(lake: Lake) -> None:
    places = {"a": (0.0, 25.0, 50.0), "b": (0.0, 25.0, 50.0), "c": (0.0, 60.0), "d": (75.0,)}
    lake.detect({i: [(f"car {i}{x:.0f}", 0.5, x) for x in xs] for i, xs in places.items()})
    lake.label("a", ("labeled", 0.0), ("background", 25.0))
    lake.label("b", ("labeled", 0.0), ("background", 25.0), complete=True)
    few = {"strategies": ("k_center_boxes",), "budget_in": "boxes"}
    # 75 is farthest from the centers 0 and 25.
    assert picked(lake, "other", budget=1, **few) == ["car d75"]
    settings = AcquireSettings()
    centers = known_features(lake.run, OTHERS, MODEL, settings, "box")
    assert column(centers, "id") == ["car a0", "car a25", "car b0", "car b25", "car d75"]
    told = len(lake.told)
    # Of 50, 0 and 60 the first is farthest from 0, 25 and 75.
    assert picked(lake, "c", budget=1, **few) == ["car a50"]
    assert len(lake.told) == told + 1, "only the radius"


def test_counting_boxes_and_classes_reads_no_features_of_boxes(lake: Lake) -> None:
    lake.detect({"a": [("truck 1", 0.9, 0.0), ("car 1", 0.5, 30.0), ("car 2", 0.4, 60.0)], "b": []})
    pool = image_pool(lake.run, OTHERS, MODEL, AcquireSettings(), 0.5, "class").drop("feature")
    assert {(r.image_id, r.n_boxes, r.group) for r in pool.collect()} == {
        ("a", 2, "truck"),
        ("b", 0, "(none)"),
    }
    conf = lake.run.store.session.conf
    before = conf.get("spark.sql.maxMetadataStringLength")
    conf.set("spark.sql.maxMetadataStringLength", 10_000)
    plan = pool.select("image_id", "n_boxes", "group")._jdf.queryExecution().executedPlan().toString()
    conf.set("spark.sql.maxMetadataStringLength", before)
    read = [line for line in plan.splitlines() if "ReadSchema" in line and "detections:" in line]
    assert len(read) == 1 and "score:double" in read[0] and "logits" not in read[0] and "x1" not in read[0]


def test_quotas_hold_by_class_partition_and_sequence(lake: Lake) -> None:
    kinds = {"a": "car", "b": "car", "c": "car", "d": "truck"}
    places = {
        i: {"partitions": {"date": date}, "sequence_id": video, "frame_index": 0}
        for i, date, video in zip("abcd", ("mon", "mon", "mon", "tue"), ("v", "v", None, None), strict=True)
    }
    lake.detect({i: [(f"{kind} {i}", 0.9, 0.0)] for i, kind in kinds.items()}, **places)
    for by, expected in {
        "class": ["car", "car", "car", "truck"],
        "partition:date": ["mon", "mon", "mon", "tue"],
        "partition:vehicle": ["(none)"] * 4,
        "sequence": ["v", "v", None, None],
        "dataset": ["d"] * 4,
    }.items():
        pool = image_pool(lake.run, OTHERS, MODEL, AcquireSettings(), 0.5, by)
        assert [row.group for row in pool.orderBy("image_id").collect()] == expected
    rules = {
        "one_truck": {"by": "class", "at_least": {"truck": 1}},
        "no_two_of_a_video": {"by": "sequence", "at_most": 0.5},
        "half_of_a_day": {"by": "partition:date", "at_most": 0.5},
    }
    define = {name: {"score": "random", "quotas": quotas} for name, quotas in rules.items()}
    picked(lake, "c", strategies=tuple(define), define=define, budget=2)
    rows = lake.run.store.read(ACQUISITION).collect()
    found = {name: {row.image_id for row in rows if row.strategy == name} for name in rules}
    assert {len(images) for images in found.values()} == {2}
    assert "d" in found["one_truck"] and "d" in found["half_of_a_day"]
    assert found["no_two_of_a_video"] != {"a", "b"}


def test_what_leaves_nothing_to_pick_is_told_and_nothing_is_written(lake: Lake) -> None:
    lake.detect({"a": [("car 1", 0.9, 0.0)]})
    lake.label("a", complete=True)
    quotas = {"by": "class", "at_least": {"trucks": 1}}
    define = {
        "few": {"score": "random", "quotas": {"by": "dataset", "at_most": 0.1}},
        "named": {"score": "random", "quotas": quotas},
    }
    for strategy, told in {
        "random": "nothing to acquire: no images are left",
        "few": r"strategy few: quotas.at_most 0.1 of 5 images buys nothing for any group",
        "named": "quotas.at_least: 'trucks' is no class of the model; did you mean 'truck'",
    }.items():
        with pytest.raises(QuarryError, match=told):
            picked(lake, "c", strategies=(strategy,), define=define, budget=5)
    with pytest.raises(QuarryError, match="nothing to acquire: no boxes are left"):
        picked(lake, "c", strategies=("random_boxes",), budget=1, budget_in="boxes")
    assert not lake.run.store.exists(ACQUISITION)

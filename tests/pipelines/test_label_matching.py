"""What is kept of items that were left out."""

from __future__ import annotations

from pyspark.sql import SparkSession

from pipelines.label_matching import rejected_items
from udfs.formats.shown_values import without_query

SIGNED = (
    "https://ann:hush-hush@b.example/a.jpg?s=hush-hush#hush-hush",
    "see HTTP://x/a?hush-hush",
    "/data/local-files/?d=hush-hush",
    "what?.jpg",
    "s3://b/ä#1.jpg",
    "day=1/a&b=c.jpg",
)


def test_a_rejected_item_is_kept_without_the_signature_of_its_url(session: SparkSession) -> None:
    rows = [("f", "image", name, name, None, "why", []) for name in SIGNED]
    columns = (
        "source STRING, item_kind STRING, item_id STRING, file_name STRING, image_id STRING, reason STRING"
    )
    judged = session.createDataFrame(rows, f"{columns}, outside ARRAY<STRING>")
    kept = rejected_items(judged).collect()
    assert {row.file_name for row in kept} == {row.item_id for row in kept} == set(map(without_query, SIGNED))
    assert not any("hush-hush" in str(row) for row in kept)

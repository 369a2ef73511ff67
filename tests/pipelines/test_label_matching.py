"""What is kept of items that were left out."""

from __future__ import annotations

import re

from pyspark.sql import SparkSession

from pipelines.label_matching import rejected_items, with_image_id
from udfs.formats.shown_values import without_query

COLUMNS = "source STRING, item_kind STRING, item_id STRING, file_name STRING, image_id STRING, reason STRING"
SIGNED = (
    "https://ann:hush-hush@b.example/a.jpg?s=hush-hush#hush-hush",
    "see HTTP://x/a?hush-hush",
    "/data/local-files/?d=hush-hush",
    "what?.jpg",
    "s3://b/ä#1.jpg",
    "abfss://lake@account.dfs.core.windows.net/a.jpg",
    "day=1/a&b=c.jpg",
)


def test_a_rejected_item_is_kept_without_the_signature_of_its_url(session: SparkSession) -> None:
    rows = [("f", "image", name, name, None, "why", []) for name in SIGNED]
    judged = session.createDataFrame(rows, f"{COLUMNS}, outside ARRAY<STRING>")
    kept = rejected_items(judged).collect()
    names = {row.file_name for row in kept}
    assert names == {row.item_id for row in kept} and len(names) == len(SIGNED)
    assert {re.sub(" #[0-9a-f]{8}$", "", name) for name in names} == set(map(without_query, SIGNED))
    assert not any("hush-hush" in str(row) for row in kept)


def test_images_that_differ_in_what_is_left_out_are_rejected_each(session: SparkSession) -> None:
    rows = [("f", "image", f"/data/?d={n}", f"/data/?d={n}", None, "why", []) for n in (1, 2, 2)]
    kept = rejected_items(session.createDataFrame(rows, f"{COLUMNS}, outside ARRAY<STRING>")).collect()
    assert len(kept) == 2 and all(row.item_id.startswith("/data/ #") for row in kept)


def test_an_id_and_a_name_of_two_images_fit_neither(session: SparkSession) -> None:
    images = session.createDataFrame(
        [("A", "day/a.jpg", "/lake/day/a.jpg"), ("B", "b.jpg", "/lake/b.jpg"), ("C", "night/b.jpg", "/c")],
        "image_id STRING, path STRING, uri STRING",
    )
    told = [
        ("day/a.jpg", "A"),
        ("b.jpg", "A"),
        ("b.jpg", "C"),  # a tool that flattens folders
        ("nowhere.jpg", "B"),
        ("b.jpg", None),
        ("b.jpg", "gone"),
    ]
    labels = session.createDataFrame(told, "file_name STRING, quarry_image_id STRING")
    found = {(r.file_name, r.quarry_image_id): r for r in with_image_id(labels, images).collect()}
    assert [found[row].image_id for row in told] == ["A", None, "C", "B", "B", None]
    assert [row for row in told if found[row].of_other] == [("b.jpg", "A")]
    assert [found[row].n_fits for row in told] == [1, 1, 1, 1, 1, 0]

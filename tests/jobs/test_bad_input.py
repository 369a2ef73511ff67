"""Bad input through the real command: one clear line, exit code 2, nothing written."""

from __future__ import annotations

import io
import json
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from conf.load import load_settings
from conf.settings import Settings
from jobs.command import as_settings
from jobs.quarry import main
from pipelines.run import Run
from pipelines.tables import TableStore
from schemas.tables import IMAGES
from tests.test_readme import python, quarry


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """The command ended with exit code 2 and one error line that holds all parts."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, done.stderr[-2000:]
    assert len(errors) == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in errors[0], errors[0]


def here(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs `quarry` in this process, in the tests' session."""
    out, error = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error):
        code = main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())


def no_tables(root: Path) -> bool:
    """Nothing was written below the root."""
    return not root.exists() or not any(root.iterdir())


def test_settings_typos_are_all_told_at_once(tmp_path: Path) -> None:
    flags = ["--set", "score.ets=0.4", "--set", "detector.eta0=0.9", "--set", "acquire.budget=-1"]
    done = quarry(["run_cycle", "--config", "demo", "--root", str(tmp_path / "t"), *flags], tmp_path)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 3
    assert any("score.ets" in e and "did you mean 'eta'" in e for e in errors)
    assert any("detector.eta0" in e and "score.eta" in e for e in errors)
    assert any("acquire.budget" in e and "greater than 0" in e for e in errors)
    assert no_tables(tmp_path / "t")


def test_unknown_job_lists_near_names(tmp_path: Path) -> None:
    done = quarry(["run_cycel"], tmp_path)
    assert done.returncode == 2 and "did you mean 'run_cycle'?" in done.stderr


def test_root_is_asked_for(tmp_path: Path) -> None:
    assert_refused(quarry(["score"], tmp_path), "--root DIR")


@pytest.mark.parametrize("flag", ["--labels", "--root"])
def test_a_secret_in_a_path_is_refused_and_not_repeated(flag: str, tmp_path: Path) -> None:
    paths = {"--labels": "x.json", "--root": str(tmp_path)} | {flag: "s3://KEY:hush-hush@bucket/x"}
    given = ["import_labels", "--format", "coco", *(part for pair in paths.items() for part in pair)]
    done = quarry(given, tmp_path)
    assert done.returncode == 2 and "a password in a path would be kept" in done.stderr
    assert "hush-hush" not in done.stderr + done.stdout


def test_a_lake_that_does_not_exist(session: SparkSession, tmp_path: Path) -> None:
    done = here(["ingest", "--root", str(tmp_path / "t"), "--lake", str(tmp_path / "nowhere")])
    assert_refused(done, "nowhere", "no such folder")
    assert no_tables(tmp_path / "t")


def test_a_lake_without_images(session: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "lake" / "date=2026-01-01").mkdir(parents=True)
    (tmp_path / "lake" / "date=2026-01-01" / "notes.txt").write_text("no image")
    done = here(["run_cycle", "--root", str(tmp_path / "t"), "--set", f"lake.uri={tmp_path}/lake"])
    assert_refused(done, "no image files found", "jpg")
    assert not (tmp_path / "t" / "images").exists()


def test_what_a_strategy_lacks_is_told_before_any_image_is_detected(
    session: SparkSession, small_lake: Path, tmp_path: Path
) -> None:
    flags = ["run_cycle", "--config", "demo", "--root", str(tmp_path / "t")]
    flags += ["--set", f"lake.uri={small_lake}/images"]
    done = here([*flags, "--set", "acquire.strategies=[random, k_center_images]"])
    assert_refused(done, "'k_center_images' compares features", "--set detector.keep_image_feature=true")
    assert no_tables(tmp_path / "t")
    quotas = "acquire.define={few: {score: random, quotas: {by: class, at_least: {pedestrain: 2}}}}"
    done = here([*flags, "--set", quotas, "--set", "acquire.strategies=[few]"])
    assert_refused(done, "'pedestrain' is no class of the model", "did you mean 'pedestrian'")
    assert not (tmp_path / "t" / "detections").exists()


def test_weights_that_are_no_checkpoint(tmp_path: Path, finished: tuple[Run, Settings]) -> None:
    (tmp_path / "model.pt").write_bytes(b"not a checkpoint")
    root = finished[0].store.root
    assert_refused(here(["detect", "--root", root, "--weights", str(tmp_path / "model.pt")]), "model.pt")


def test_classes_that_do_not_match_the_checkpoint(tmp_path: Path, finished: tuple[Run, Settings]) -> None:
    flags = ["--set", "detector.classes=[cat,dog,cow,hen]"]
    assert_refused(here(["detect", "--root", finished[0].store.root, *flags]), "cat", "pedestrian")


def test_a_class_the_model_does_not_know(tmp_path: Path, finished: tuple[Run, Settings]) -> None:
    done = here(["score", "--root", finished[0].store.root, "--set", "score.classes=[pedestrain]"])
    assert_refused(done, "pedestrain", "did you mean 'pedestrian'?")


def test_labels_with_a_class_the_model_does_not_know(tmp_path: Path, finished: tuple[Run, Settings]) -> None:
    root = finished[0].store.root
    path = finished[0].store.read(IMAGES).where("width IS NOT NULL").select("path").first()
    assert path is not None
    image = {"id": 1, "file_name": path.path, "width": 640, "height": 384}
    box = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 30, 40], "area": 1200, "iscrowd": 0}
    coco = {"images": [image], "annotations": [box], "categories": [{"id": 7, "name": "zebra"}]}
    (tmp_path / "labels.json").write_text(json.dumps(coco))
    done = here(["import_labels", "--root", root, "--labels", str(tmp_path / "labels.json")])
    assert_refused(done, "zebra", "unknown to the model")


@pytest.mark.parametrize("content", ["{", "[]", '{"images": 3}'])
def test_labels_that_are_not_coco(tmp_path: Path, finished: tuple[Run, Settings], content: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    labels = str(tmp_path / "labels.json")
    assert_refused(
        here(["import_labels", "--root", finished[0].store.root, "--labels", labels]),
        "labels.json",
    )


@pytest.mark.parametrize(
    ("detections", "parts"),
    [
        ('{"images": []}', ("results.json", "holds an object", "--images")),
        ('[{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}]', ("result 1", "'score'")),
        (
            '[{"image_id": 8, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 1}]',
            ("1 detections of 1 images that are not in", "images.json"),
        ),
        (
            '[{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": NaN}]',
            ("no image is left", "a.jpg", "score nan"),
        ),
    ],
)
def test_detections_that_cannot_be_imported(
    session: SparkSession, tmp_path: Path, detections: str, parts: tuple[str, ...]
) -> None:
    image = {"id": 1, "file_name": "a.jpg", "width": 640, "height": 384}
    (tmp_path / "images.json").write_text(
        json.dumps({"images": [image], "categories": [{"id": 3, "name": "car"}]})
    )
    (tmp_path / "results.json").write_text(detections)
    flags = ["--images", str(tmp_path / "images.json"), "--detections", str(tmp_path / "results.json")]
    assert_refused(here(["import_detections", "--root", str(tmp_path / "t"), *flags]), *parts)
    assert no_tables(tmp_path / "t")


def test_a_label_map_that_misses_a_class(session: SparkSession, tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "a.jpg", "width": 640, "height": 384}
    (tmp_path / "images.json").write_text(
        json.dumps({"images": [image], "categories": [{"id": 3, "name": "cars"}]})
    )
    (tmp_path / "results.json").write_text("[]")
    flags = ["--images", str(tmp_path / "images.json"), "--detections", str(tmp_path / "results.json")]
    done = here(
        ["import_detections", "--root", str(tmp_path / "t"), *flags, "--label-map", "nuimages_ten_to_two"]
    )
    assert_refused(done, "nuimages_ten_to_two", "'cars'", "did you mean 'car'?")
    assert no_tables(tmp_path / "t")


def test_a_table_of_a_newer_schema(tmp_path: Path, finished: tuple[Run, Settings]) -> None:
    run, _ = finished
    store = TableStore(run.store.session, str(tmp_path / "newer"))
    store.create(IMAGES)
    run.store.session.sql(
        f"ALTER TABLE delta.`{store.path(IMAGES)}` SET TBLPROPERTIES ('quarry.schema_version' = '99')"
    )
    done = here(["ingest", "--root", store.root, "--lake", str(tmp_path)])
    assert_refused(done, "schema version 99", "upgrade Quarry")
    assert sorted(path.name for path in (tmp_path / "newer").iterdir()) == ["images"]


def test_sql_that_does_not_parse(tmp_path: Path, finished: tuple[Run, Settings]) -> None:
    done = here(["sql", "--root", finished[0].store.root, "SELECT nothing FROM nowhere"])
    assert_refused(done, "nowhere", "hardness")


def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['pyspark'] = None; "
    program = hide + "from jobs.quarry import main; sys.exit(main(['sql', 'x']))"
    assert_refused(python(["-c", program], tmp_path), "pyspark", "make setup")


@pytest.mark.parametrize("statement", ["DELETE FROM metrics", "UPDATE images SET path = 'x'", "DROP TABLE x"])
def test_sql_only_reads(finished: tuple[Run, Settings], statement: str) -> None:
    assert_refused(here(["sql", "--root", finished[0].store.root, statement]), "read only")


@pytest.mark.parametrize("statement", ["SELECT 1/0 AS x", "SELECT raise_error('boom')"])
def test_sql_that_fails_while_it_runs(finished: tuple[Run, Settings], statement: str) -> None:
    assert_refused(here(["sql", "--root", finished[0].store.root, statement]), "read only")


def test_sql_keeps_the_order_it_was_asked_for(finished: tuple[Run, Settings]) -> None:
    statement = "SELECT id FROM range(5) ORDER BY id DESC; "
    done = here(["sql", "--root", finished[0].store.root, statement])
    assert done.returncode == 0 and done.stdout.split()[2:] == ["4", "3", "2", "1", "0"]
    assert "tableName" in here(["sql", "--root", finished[0].store.root, "SHOW TABLES"]).stdout


@pytest.mark.parametrize("path", ['it\'s "odd"', "tab\there", "back\\slash", "narrow\u202fspace", "a: b"])
def test_paths_reach_settings_as_they_are(path: str) -> None:
    items = as_settings("report", {"path": f"/{path}"})
    assert load_settings("local", items).report.path == f"/{path}"

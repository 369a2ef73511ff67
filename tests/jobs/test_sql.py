"""`quarry sql`: docs/sql.md answers as it says, all forms of input and output, and nothing can be changed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tty
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from conf.errors import QuarryError
from conf.load import load_settings
from pipelines.outstanding import sent_and_back
from pipelines.run import Run
from pipelines.sql import sql_session, told_in_one_line
from pipelines.tables import TableStore
from schemas.tables import GROUND_TRUTH_HISTORY, MANIFESTS, SENT_TASKS
from tests.jobs.test_bad_input import assert_refused, here
from tests.sql_tables import ODD_QUERY, append, day, write_tables

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
ANSWERS: list[list[tuple[Any, ...]]] = [
    [
        ("harbor/h3.jpg", 3.0, "street-1"),
        ("harbor/h1.jpg", 2.5, "street-2"),
        ("harbor/h2.jpg", 0.7, "street-2"),
    ],
    [("harbor/h1.jpg", 2.5, 0.1), ("harbor/h3.jpg", 3.0, 0.3)],
    [
        ("harbor", "2026-03-01", "street-1", 2, 1.5),
        ("harbor", "2026-03-01", "street-2", 2, 1.6),
        ("harbor", "2026-03-02", "street-1", 1, 3.0),
        ("town", "2026-03-02", "street-1", 2, 4.5),
        ("town", "2026-03-02", "street-2", 2, 1.25),
    ],
    [("person", 2, 2, 1.0), ("car", 2, 0, 0.0)],
    [("coco", 1, 30.0, 3, 2, 3, 2, 1, 5), ("label_studio", 2, 50.0, 4, 2, 4, 2, 2, 5)],
    [
        ("town/t1.jpg", "hardest", 3, False, 0),
        ("town/t1.jpg", "random", 1, False, 0),
        ("town/t2.jpg", "random", 2, False, 0),
        ("harbor/h1.jpg", "hardest", 1, True, 3),
        ("harbor/h2.jpg", "hardest", 2, True, 2),
    ],
    [("h1", 0.5, 1.0)],
    [(10,)],
]
READS = [
    "SHOW TABLES",
    "SHOW VIEWS",
    "SHOW CREATE TABLE boxes",
    "DESCRIBE hardness",
    "DESCRIBE HISTORY hardness",
    "DESCRIBE DETAIL hardness",
    "DESCRIBE QUERY SELECT 1",
    "EXPLAIN SELECT * FROM images",
    "EXPLAIN DROP TABLE images",
    "TABLE models",
    "VALUES (1)",
    "FROM images |> WHERE dataset = 'town' |> LIMIT 1",
    "WITH x AS (SELECT 1 AS a) SELECT * FROM x WHERE EXISTS (SELECT * FROM x)",
    "SELECT * FROM near_misses",
    "SELECT 'ScriptTransformation', 'DROP TABLE images; --' AS `reflect(``a``);`",
    "SELECT image_id FROM hardness VERSION AS OF 0; ",
]
CHANGES = [
    "DROP TABLE hardness",
    "DROP VIEW boxes",
    "DROP DATABASE default CASCADE",
    "DELETE FROM hardness",
    "DELETE FROM delta.`{root}/hardness`",
    "UPDATE images SET path = 'x'",
    "INSERT INTO models SELECT * FROM models",
    "INSERT OVERWRITE models SELECT * FROM models",
    "WITH x AS (SELECT * FROM models) INSERT INTO models SELECT * FROM x",
    "FROM models INSERT INTO models SELECT *",
    "INSERT OVERWRITE DIRECTORY '{new}' USING csv SELECT 1",
    "MERGE INTO images USING models ON image_id = model_id WHEN NOT MATCHED BY SOURCE THEN DELETE",
    "TRUNCATE TABLE images",
    "CREATE TABLE x (a INT) USING delta LOCATION '{new}'",
    "CREATE TABLE x USING csv LOCATION '{new}' AS SELECT 1 AS a",
    "CREATE OR REPLACE TABLE models (a INT) USING delta",
    "CREATE TABLE delta.`{new}` SHALLOW CLONE images",
    "CREATE VIEW x AS SELECT 1",
    "CREATE TEMPORARY VIEW x AS SELECT 1",
    "CREATE TEMPORARY VIEW x USING text OPTIONS (path '/etc/hostname')",
    "CREATE DATABASE x",
    "CREATE FUNCTION f AS 'java.lang.String'",
    "CREATE TEMPORARY FUNCTION f() RETURNS INT RETURN 1",
    "ALTER TABLE images ADD COLUMN x INT",
    "ALTER TABLE images SET TBLPROPERTIES ('a' = 'b')",
    "ALTER VIEW boxes AS SELECT 1",
    "COMMENT ON TABLE images IS 'x'",
    "OPTIMIZE hardness",
    "VACUUM hardness",
    "RESTORE TABLE hardness TO VERSION AS OF 0",
    "GENERATE symlink_format_manifest FOR TABLE images",
    "ANALYZE TABLE images COMPUTE STATISTICS",
    "CACHE TABLE images",
    "REFRESH TABLE images",
    "SET spark.sql.shuffle.partitions = 1",
    "SET",
    "RESET",
    "DECLARE VARIABLE x INT",
    "ADD JAR '/x.jar'",
    "ADD FILE '/etc/hostname'",
    "LIST JARS",
    "EXECUTE IMMEDIATE 'DROP TABLE images'",
    "BEGIN DROP TABLE images; END",
    "SELECT TRANSFORM(image_id) USING 'touch {new}' AS x FROM images",
    "SELECT * FROM (SELECT TRANSFORM(image_id) USING 'touch {new}' AS x FROM images) JOIN models",
    "SELECT (SELECT count(*) FROM (SELECT TRANSFORM(image_id) USING 'touch {new}' AS x FROM images))",
    "WITH x AS (SELECT TRANSFORM(1) USING 'touch {new}' AS x) SELECT * FROM images WHERE EXISTS (FROM x)",
    "SELECT reflect('java.lang.System', 'setProperty', 'a', 'b')",
    "SELECT java_method('java.lang.System', 'setProperty', 'a', 'b')",
    "SELECT try_reflect('java.lang.System', 'setProperty', 'a', 'b')",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small tables with known answers, in a folder whose name is hard to quote; nothing may write to it."""
    folder = tmp_path_factory.mktemp("sql")
    write_tables(folder / "tables")  # delta-rs takes a path for a URL and would decode the name
    return (folder / "tables").rename(folder / 'it\'s a "root"; #1 `%20`')


@pytest.fixture(scope="module")
def prompt(session: SparkSession, root: Path) -> tuple[SparkSession, list[str]]:
    """What `quarry sql` asks."""
    return sql_session(Run(store=TableStore(session, str(root))), load_settings("demo").score)


def files(root: Path) -> dict[str, int]:
    """Every file below a folder and its last change."""
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def blocks(language: str) -> list[str]:
    """The page's code of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_s_questions_have_their_answers(prompt: tuple[SparkSession, list[str]]) -> None:
    questions = blocks("sql")
    assert len(questions) == len(ANSWERS)
    for question, answer in zip(questions, ANSWERS, strict=True):
        assert [tuple(row) for row in prompt[0].sql(question).collect()] == answer, question


def test_an_image_sent_and_labeled_many_times_is_a_row_for_each_vendor_and_strategy(
    session: SparkSession, tmp_path: Path
) -> None:
    """Two vendors, two strategies, files of several days, several boxes picked and several imports."""
    names = ("cycle_id", "vendor", "strategy", "path", "n_tasks", "cost_s", "ts")
    files = [
        ("c", vendor, strategy, f"{vendor}/{strategy}/{n}", 2, 5.0, day(10 + n + 5 * (vendor == "scale")))
        for vendor in ("coco", "scale")
        for strategy in ("boxes", "whole")
        for n in (1, 2, 3)
    ]
    files += [("d", "coco", "whole", "d", 1, 1.0, day(9))]
    append(tmp_path, MANIFESTS, [dict(zip(names, file, strict=True)) for file in files])
    names = ("cycle_id", "strategy", "kind", "rank", "image_id", "task_id")
    tasks = [
        ("c", "boxes", "boxes", rank, image, f"c/{image}/boxes/boxes") for rank, image in enumerate("yx", 1)
    ]
    tasks += [("c", "whole", "image", rank, image, f"c/{image}") for rank, image in enumerate("xz", 1)]
    tasks += [("d", "whole", "image", 7, "x", "d/x"), ("c", "unsent", "image", 1, "x", "c/x")]
    append(tmp_path, SENT_TASKS, [dict(zip(names, task, strict=True)) for task in tasks])
    names = ("cycle_id", "image_id", "ts", "split", "complete", "boxes")
    drawn = [{"label_name": "car", "status": status} for status in ("labeled", "noisy", "labeled")]
    imports = [
        ("c", "x", day(20), "train", True, drawn[:1]),
        ("c", "x", day(22), "train", False, drawn),
        ("c", "x", day(21), "train", True, []),
        ("c", "x", day(25), "eval", True, []),
        ("c", "y", day(23), "train", True, []),
        ("e", "z", day(24), "train", True, drawn),
    ]
    rows = [dict(zip(names, row, strict=True)) | {"import_id": f"i{n}"} for n, row in enumerate(imports)]
    append(tmp_path, GROUND_TRUTH_HISTORY, rows)

    found, _ = sql_session(Run(store=TableStore(session, str(tmp_path))), load_settings("demo").score)
    found.conf.set("spark.sql.session.timeZone", "UTC")
    columns = "cycle_id, vendor, strategy, image_id, rank, day(sent_ts), returned, day(returned_ts), complete"
    sent = found.sql(f"SELECT {columns}, n_labels FROM sent_images ORDER BY 1, 2, 3, 4").collect()
    one_vendor = [
        ("boxes", "x", 2, True, 22, False, 2),
        ("boxes", "y", 1, True, 23, True, 0),
        ("whole", "x", 1, True, 22, False, 2),
        ("whole", "z", 2, False, None, None, 0),
    ]
    assert [tuple(row) for row in sent] == [
        *[
            ("c", vendor, *row[:3], first, *row[3:])
            for vendor, first in (("coco", 11), ("scale", 16))
            for row in one_vendor
        ],
        ("d", "coco", "whole", "x", 7, 9, False, None, None, 0),
    ]
    delivered = found.sql("SELECT * EXCEPT (sent_ts) FROM deliveries ORDER BY cycle_id, vendor").collect()
    assert [tuple(row) for row in delivered] == [
        ("c", "coco", 6, 30.0, 4, 3, 3, 2, 1, 2),
        ("c", "scale", 6, 30.0, 4, 3, 3, 2, 1, 2),
        ("d", "coco", 1, 1.0, 1, 0, 1, 0, 1, 0),
    ]


def test_answers_count_for_the_tasks_they_are_about(session: SparkSession, tmp_path: Path) -> None:
    names = ("cycle_id", "strategy", "tasks", "ts", "vendor")
    sent = [
        ("c", "sure", "boxes"),
        ("c", "doubt", "boxes"),
        ("c", "whole", "image"),
        ("c", "ask", "verify_box"),
    ]
    append(tmp_path, MANIFESTS, [dict(zip(names, (*file, day(11), "coco"), strict=True)) for file in sent])
    tasks = [
        ("sure", "boxes", "c/x/boxes/sure", "x", None),
        ("doubt", "boxes", "c/x/boxes/doubt", "x", None),
        ("whole", "image", "c/x", "x", None),
        ("ask", "verify_box", "c/x/d0/verify_box", "x", "d0"),
        ("sure", "boxes", "c/y/boxes/sure", "y", None),
        *(("ask", "verify_box", f"c/y/d{n}/verify_box", "y", f"d{n}") for n in (1, 2, 3)),
    ]
    names = ("strategy", "kind", "task_id", "image_id", "detection_id")
    append(tmp_path, SENT_TASKS, [{"cycle_id": "c"} | dict(zip(names, t, strict=True)) for t in tasks])
    label = {"label_name": "car", "status": "labeled"}
    answers = [
        ("x", "c/x/boxes/sure", 1, False, 20),
        ("x", "c/x/boxes/sure", 2, False, 21),
        ("x", "c/x", 3, True, 22),
        ("y", "c/y/d1/verify_box", 1, False, 23),
        ("y", "c/y/d2/verify_box", 1, False, 24),
        ("y", "c/y/d2/verify_class", 7, False, 25),
    ]
    names = ("image_id", "task_id", "boxes", "complete", "ts", "cycle_id", "split", "import_id")
    given = [
        dict(zip(names, (image, task, [label] * n, complete, day(d), "c", "train", str(d)), strict=True))
        for image, task, n, complete, d in answers
    ]
    append(tmp_path, GROUND_TRUTH_HISTORY, given)
    found, _ = sql_session(Run(store=TableStore(session, str(tmp_path))), load_settings("demo").score)
    columns = "strategy, image_id, kind, n_tasks, n_answered, returned, complete, n_labels"
    rows = found.sql(f"SELECT {columns} FROM sent_images ORDER BY 1, 2").collect()
    assert [tuple(row) for row in rows] == [
        ("ask", "x", "verify_box", 1, 0, False, None, 0),
        ("ask", "y", "verify_box", 3, 2, False, False, 2),
        ("doubt", "x", "boxes", 1, 1, True, True, 0),
        ("sure", "x", "boxes", 1, 1, True, True, 2),
        ("sure", "y", "boxes", 1, 0, False, None, 0),
        ("whole", "x", "image", 1, 1, True, True, 3),
    ]
    columns = "tasks_sent, tasks_returned, images_sent, images_returned, images_out, labels_returned"
    (row,) = found.sql(f"SELECT {columns} FROM deliveries").collect()
    assert tuple(row) == (8, 5, 2, 0, 2, 7), "of both images a task is still out"
    told = sent_and_back(Run(store=TableStore(session, str(tmp_path))))
    assert sorted((r.strategy, r.n_sent, r.n_back) for r in told.collect()) == [
        ("ask", 4, 2),
        ("doubt", 1, 1),
        ("sure", 2, 1),
        ("whole", 1, 1),
    ]


def test_answers_whose_ids_are_lost_count_once_and_only_after_their_tasks_were_sent(
    session: SparkSession, tmp_path: Path
) -> None:
    append(tmp_path, MANIFESTS, [{"cycle_id": "c", "strategy": s, "vendor": "coco"} for s in ("a", "b", "q")])
    tasks = [
        *((strategy, "boxes", f"c/x/boxes/{strategy}", "x", None) for strategy in ("a", "b")),
        ("a", "image", "c/seed", "seed", None),
        ("a", "image", "c/z", "z", None),
        *(("q", "verify_box", f"c/y/d{n}/verify_box", "y", f"d{n}") for n in (1, 2, 3)),
    ]
    names = ("strategy", "kind", "task_id", "image_id", "detection_id")
    sent = [dict(zip(names, t, strict=True)) | {"cycle_id": "c", "ts": day(11)} for t in tasks]
    append(tmp_path, SENT_TASKS, sent)

    def answer(image: str, imported: int, ids: list[str | None], said: int | None = None) -> dict[str, Any]:
        boxes = [{"status": "labeled", "label_name": "car", "detection_id": d} for d in ids]
        when = {"ts": day(imported), "annotated_ts": None if said is None else day(said)}
        whose = {"cycle_id": "c", "split": "train", "import_id": f"{image}{imported}"}
        return {"image_id": image, "boxes": boxes, "complete": True, **when, **whose}

    answers = [
        answer("x", 20, ["d7", "d8", None]),
        answer("seed", 11, [None]),  # by the run that sent the task later: labels to begin with
        answer("y", 20, ["d1", "d2", "d2"]),
        answer("z", 23, [None, None], said=22),
        answer("z", 25, [None], said=21) | {"complete": False},  # said before, and imported after
    ]
    append(tmp_path, GROUND_TRUTH_HISTORY, answers)
    found, _ = sql_session(Run(store=TableStore(session, str(tmp_path))), load_settings("demo").score)
    columns = "strategy, image_id, detection_id, returned, complete, n_labels, answer.import_id"
    rows = found.sql(f"SELECT {columns} FROM tasks ORDER BY 1, 2, 3").collect()
    assert [tuple(row) for row in rows] == [
        ("a", "seed", None, False, None, 0, None),
        ("a", "x", None, True, True, 3, "x20"),
        ("a", "z", None, True, True, 2, "z23"),
        ("b", "x", None, True, True, 3, "x20"),
        ("q", "y", "d1", True, True, 1, "y20"),
        ("q", "y", "d2", True, True, 2, "y20"),
        ("q", "y", "d3", False, None, 0, None),
    ]
    (row,) = found.sql("SELECT tasks_sent, tasks_returned, labels_returned FROM deliveries").collect()
    assert tuple(row) == (7, 5, 3 + 2 + 1 + 2)


def test_the_page_lists_all_views(prompt: tuple[SparkSession, list[str]]) -> None:
    session, tables = prompt
    views = {row.viewName for row in session.sql("SHOW VIEWS").collect()}
    empty = {"quarantine", "near_misses", "cycles", "metrics", "quality", "label_imports", "label_rejects"}
    assert views - set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == empty
    assert not empty & set(tables) and {row.tableName for row in session.sql("SHOW TABLES").collect()} == {
        *views,
        *tables,
    }


def test_the_page_s_readers_without_spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tables(tmp_path / "tables")
    monkeypatch.chdir(tmp_path)
    _, delta, parquet = blocks("python")
    found: dict[str, Any] = {}
    exec(delta, found)
    assert found["rows"] == [("harbor/h3.jpg", 3.0), ("harbor/h1.jpg", 2.5), ("harbor/h2.jpg", 2.0)]
    assert found["before"] == 10
    exec(parquet, {})
    copy = duckdb.read_parquet("hardness.parquet").filter("model_id = 'm2'")
    assert sorted(copy.project("query, hardness").fetchall()) == sorted(
        [("total_fn", 2.5), ("total_fn", 0.7), ("total_fn", 1.0), ("total_fn", 1.5), (ODD_QUERY, 6.0)]
    )


def test_tables_that_jobs_wrote_need_no_newer_reader(finished: tuple[Run, Any]) -> None:
    for folder in Path(finished[0].store.root).iterdir():
        assert DeltaTable(str(folder)).protocol().min_reader_version == 1


def test_statements_that_read(prompt: tuple[SparkSession, list[str]], root: Path) -> None:
    before = files(root)
    for statement in READS:
        prompt[0].sql(statement.rstrip("; ")).collect()
    assert files(root) == before


def test_nothing_can_be_changed(
    prompt: tuple[SparkSession, list[str]], root: Path, tmp_path: Path, session: SparkSession
) -> None:
    before, new = files(root), tmp_path / "new"
    for statement in CHANGES:
        with pytest.raises(QuarryError) as refused, told_in_one_line(prompt[1]):
            prompt[0].sql(statement.format(root=str(root).replace("`", "``"), new=new)).collect()
        message = str(refused.value)
        assert "read only: " in message or "reflect" in message or "java_method" in message, message
        assert "\n" not in message and "Traceback" not in message
    assert files(root) == before and not new.exists()
    assert session._jvm is not None and session._jvm.java.lang.System.getProperty("a") is None
    session.sql("CREATE OR REPLACE TEMPORARY VIEW other_sessions_stay_as_they_are AS SELECT 1")


def test_a_query_s_name_stays_data(session: SparkSession, root: Path) -> None:
    scoring = load_settings("demo").score.model_copy(update={"queries": ("total_fn", ODD_QUERY)})
    found, _ = sql_session(Run(store=TableStore(session, str(root))), scoring)
    row = found.sql("SELECT * FROM hardness_wide WHERE image_id = 'h1' AND model_id = 'm2'").first()
    assert row is not None and (row["total_fn"], row[ODD_QUERY]) == (2.5, 6.0)
    literal = ODD_QUERY.replace("\\", "\\\\").replace("'", "\\'")
    assert found.sql(f"SELECT * FROM latest_hardness WHERE query = '{literal}'").count() == 1


def test_a_relative_root(session: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tables(tmp_path / "my tables")
    relative = os.path.relpath(tmp_path / "my tables")
    done = here(["sql", "--root", relative, "SELECT count(*) AS n FROM images"])
    assert done.returncode == 0 and done.stdout.split() == ["n", "-", "5"], done.stderr


def test_statements_of_a_file_as_csv(root: Path, session: SparkSession, tmp_path: Path) -> None:
    odd = "SELECT 'a,\"b\"\n;' AS `x;y`, NULL AS z, array(1) AS list, 1 AS x, 2 AS x; -- the end;"
    (tmp_path / "two.sql").write_text(f"{odd}\nSELECT named_struct('a', date'2026-03-01') AS s;\n\n")
    done = here(["sql", "--root", str(root), "--file", str(tmp_path / "two.sql"), "--format", "csv"])
    assert done.returncode == 0, done.stderr
    assert list(csv.reader(io.StringIO(done.stdout))) == [
        ["x;y", "z", "list", "x", "x"],
        ['a,"b"\n;', "", "[1]", "1", "2"],
        ["s"],
        ['{"a":"2026-03-01"}'],
    ]


def test_statements_of_standard_input_as_json(
    root: Path, session: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "SELECT path, partitions, width FROM images ORDER BY path; SELECT id FROM range(99)"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    done = here(["sql", "--root", str(root), "--format", "json"])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0] == {"path": "harbor/h1.jpg", "partitions": {"date": "2026-03-01"}, "width": None}
    assert rows[5:] == [{"id": number} for number in range(99)]


def test_the_first_wrong_statement_ends_the_command(root: Path, session: SparkSession) -> None:
    done = here(["sql", "--root", str(root), "SELECT 41 + 1; SELECT * FROM imagse; SELECT 7"])
    assert_refused(done, "imagse", "images")
    assert "42" in done.stdout and "7" not in done.stdout


def test_input_that_is_no_statement(root: Path, session: SparkSession, tmp_path: Path) -> None:
    sql = ["sql", "--root", str(root)]
    assert_refused(here([*sql, " ; -- nothing"]), "no statement")
    assert_refused(here([*sql, "SELECT 1", "--file", "x.sql"]), "give one of them")
    assert_refused(here([*sql, "--file", str(tmp_path / "none.sql")]), "none.sql")
    assert_refused(here(["sql", "--root", str(tmp_path / "empty"), "SELECT 1"]), "no tables")
    assert not (tmp_path / "empty").exists()


def test_the_prompt_goes_on_after_an_error(
    root: Path, session: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = os.openpty()
    tty.setcbreak(mine)
    os.write(mine, b"SELECT nothing;\nSELECT 'a;\nb' AS x,\n 40 + 2;\nDROP TABLE images; SELECT 43;\nexit\n")
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        done = here(["sql", "--root", str(root), "--format", "json"])
    os.close(mine)
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "nothing" in errors[0] and "read only: " in errors[1]
    assert [json.loads(line) for line in re.findall(r"\{.*\}", done.stdout)] == [
        {"x": "a;\nb", "(40 + 2)": 42},
        {"43": 43},
    ]

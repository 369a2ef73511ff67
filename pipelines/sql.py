"""What people query: tables and views by name, results as text, and the small results that jobs print."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, StructType

from conf.errors import QuarryError
from conf.settings import ScoreSettings
from pipelines.catalog import Catalog, absolute, open_catalog
from pipelines.read_only import read_only_session
from pipelines.run import Run
from schemas.tables import METRICS
from schemas.views import views

NESTED_TYPES = (ArrayType, MapType, StructType)
LONGEST_REASON = 500


def tables_and_views(
    run: Run, scoring: ScoreSettings, pixel_scores: Sequence[str] = (), *, database: str
) -> Catalog:
    """The catalog of the run's root, nothing registered in it yet.

    Args:
        run: The run.
        scoring: Its queries and baselines are columns of `hardness_wide`.
        pixel_scores: So are these.
        database: Database of the session's catalog that takes the names.

    Raises:
        QuarryError: There are no tables.
    """
    named = views((*scoring.queries, *scoring.baselines, *pixel_scores))
    return open_catalog(run.store, named, database)


def sql_session(
    run: Run, scoring: ScoreSettings, pixel_scores: Sequence[str] = ()
) -> tuple[SparkSession, list[str]]:
    """A session that reads all tables and views by name and can change nothing, and the tables' names.

    Args:
        run: The run.
        scoring: Its queries and baselines are columns of `hardness_wide`.
        pixel_scores: So are these.

    Raises:
        QuarryError: There are no tables.
    """
    root = absolute(run.store.session, run.store.root)
    # Several roots may be open in one notebook.
    database = f"quarry_{hashlib.sha256(root.encode()).hexdigest()[:12]}"
    tables = tables_and_views(run, scoring, pixel_scores, database=database).register()
    session = read_only_session(run.store.session)
    session.sql(f"USE {database}")
    return session, tables


@contextmanager
def told_in_one_line(tables: Sequence[str]) -> Iterator[None]:
    """Spark's errors, of a statement or while its rows are read, as `QuarryError`.

    Args:
        tables: Named in the message, for those who mistyped one.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        java = error.java_exception.toString() if isinstance(error, Py4JJavaError) else error
        lines = re.split(r"JVM stacktrace|== Physical", str(java))[0].split("\n\tat ")[0].splitlines()
        reason = " ".join(line.strip() for line in lines if line.strip())[:LONGEST_REASON]
        raise QuarryError(f"{reason} (read only; tables: {', '.join(tables)})") from None


def json_lines(frame: DataFrame) -> Iterator[str]:
    """Each row as one line of JSON, nulls included; nested values stay nested."""
    whole = F.to_json(F.struct("*"), {"ignoreNullFields": "false"})
    for row in frame.select(whole.alias("line")).toLocalIterator():
        yield str(row.line)


def text_rows(frame: DataFrame) -> Iterator[list[str | None]]:
    """Each row as text, null as None; nested values as JSON."""
    # Two columns of a result may have the same name.
    numbered = frame.toDF(*(f"c{index}" for index in range(len(frame.columns))))
    cells = [
        F.to_json(c.name) if isinstance(c.dataType, NESTED_TYPES) else F.col(c.name).cast("string")
        for c in numbered.schema
    ]
    for row in numbered.select(*cells).toLocalIterator():
        yield list(row)


def detector_figures(run: Run, cycle_id: str, model_id: str) -> DataFrame:
    """AP, AP50 and expected calibration error of a cycle's detector, overall and per class."""
    rows = run.store.read(METRICS).where((F.col("cycle_id") == cycle_id) & (F.col("model_id") == model_id))
    rows = rows.where("method = 'detector' AND metric IN ('ap', 'ap50', 'ece')")
    return rows.select("metric", "query", F.round("value", 3).alias("value"), "n").orderBy("metric", "query")

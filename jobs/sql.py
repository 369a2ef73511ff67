"""Queries the tables."""

from __future__ import annotations

import argparse
import sys

from pyspark.errors import PySparkException

from conf.errors import QuarryError
from conf.settings import Settings
from jobs.command import Job
from jobs.tables_shown import show
from pipelines.run import Run
from pipelines.sql import register_tables

READING_COMMANDS = ("SHOW", "DESCRIBE", "DESC", "EXPLAIN")


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "statement", metavar="SQL", help="a query over the tables and the views boxes, hardness_wide"
    )
    parser.add_argument("--rows", type=int, default=50, metavar="N", help="rows shown (default 50)")


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    names = register_tables(run, settings.score, settings.detector.pixel_scores)
    if not names:
        raise QuarryError(
            f"no tables under {run.store.root}: run `quarry run_cycle` or `quarry ingest` first"
        )
    try:
        show(run, run.store.session.sql(as_query(args.statement)), args.rows)
    except PySparkException as error:
        reason = str(error).split("JVM stacktrace")[0].strip().splitlines()
        raise QuarryError(f"{' '.join(reason)[:500]} (read only; tables: {', '.join(names)})") from None


def as_query(statement: str) -> str:
    """The statement in a form that Spark parses only when it reads: tables are changed by jobs alone."""
    text = statement.strip().rstrip(";")
    first = text.split(maxsplit=1)[0].upper() if text else ""
    return text if first in READING_COMMANDS else f"SELECT * FROM (\n{text}\n)"


JOB = Job(
    name="sql",
    summary="Runs a SQL query over the tables under a root and prints the result.",
    example='quarry sql --root tables "SELECT query, avg(hardness) FROM hardness GROUP BY query"',
    work=_work,
    flags=_flags,
)

if __name__ == "__main__":
    sys.exit(JOB.main())

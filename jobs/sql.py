"""Queries the tables."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from conf.errors import QuarryError
from conf.settings import Settings
from jobs.command import Job
from jobs.sql_statements import split_statements
from jobs.tables_shown import show
from pipelines.run import Run
from pipelines.sql import json_lines, sql_session, text_rows, told_in_one_line

ROWS_OF_A_TABLE = 50
LEAVE = {"exit", "quit"}


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "statements",
        nargs="?",
        metavar="SQL",
        help="one query over the tables and views, or several with `;` between; without it and --file they "
        "come from standard input, on a terminal from a prompt",
    )
    parser.add_argument("--file", type=Path, metavar="FILE", help="file of statements")
    parser.add_argument(
        "--format", choices=("table", "csv", "json"), default="table", help="json: one object a line"
    )
    parser.add_argument(
        "--rows",
        type=int,
        metavar="N",
        help=f"most rows shown of a result (default {ROWS_OF_A_TABLE} of a table, all of csv and json)",
    )


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    at_prompt = args.statements is None and args.file is None and sys.stdin.isatty()
    text = "" if at_prompt else _given_text(args)
    session, tables = sql_session(run, settings.score, settings.detector.pixel_scores)
    if at_prompt:
        names = [row.viewName for row in session.sql("SHOW VIEWS").collect() if row.viewName not in tables]
        run.tell(f"tables: {', '.join(tables)}\nviews: {', '.join(names)}")
        run.tell("read only; a statement ends with `;`; `exit` or Ctrl-D leaves")
    execute = partial(_print_result, run, session, tables, args)
    if at_prompt:
        for statement in _typed_statements():
            try:
                execute(statement)
            except QuarryError as error:
                sys.stderr.write(f"error: {error}\n")
            except KeyboardInterrupt:
                sys.stderr.write("query stopped\n")
        return
    whole, rest = split_statements(text)
    for statement in [*whole, rest] if rest else whole:
        execute(statement)


def _given_text(args: argparse.Namespace) -> str:
    if args.statements is not None and args.file is not None:
        raise QuarryError("both SQL and --file are given: give one of them")
    try:
        text: str = args.statements or (args.file.read_text("utf-8") if args.file else sys.stdin.read())
    except (OSError, UnicodeDecodeError) as error:
        raise QuarryError(f"--file {args.file}: cannot be read as UTF-8 text: {error}") from None
    if split_statements(text) == ([], ""):
        raise QuarryError('no statement: give SQL, e.g. quarry sql "SHOW TABLES", or --file FILE')
    return text


def _typed_statements() -> Iterator[str]:
    """Statements from a terminal, which may span lines; Ctrl-C drops the one being typed."""
    with suppress(ModuleNotFoundError):  # gives input() history and editing, where Python has it
        import readline  # noqa: F401
    typed = ""
    while True:
        try:
            typed += input("     > " if typed else "quarry> ") + "\n"
        except EOFError:
            return
        except KeyboardInterrupt:
            typed = ""
            sys.stdout.write("\n")
            continue
        if typed.strip().rstrip(";").lower() in LEAVE:
            return
        statements, typed = split_statements(typed)
        typed += "\n" if typed else ""
        yield from statements


def _print_result(
    run: Run, session: SparkSession, tables: list[str], args: argparse.Namespace, statement: str
) -> None:
    with told_in_one_line(tables):
        frame = session.sql(statement)
        if args.format == "table":
            show(run, frame, ROWS_OF_A_TABLE if args.rows is None else args.rows)
            return
        _print_rows(frame if args.rows is None else frame.limit(args.rows), args.format)
    sys.stdout.flush()


def _print_rows(frame: DataFrame, form: str) -> None:
    if form == "json":
        for line in json_lines(frame):
            sys.stdout.write(line + "\n")
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows(text_rows(frame))


JOB = Job(
    name="sql",
    summary="Runs SQL queries over the tables under a root and prints the results; it can change nothing.",
    example='quarry sql --root tables "SELECT query, avg(hardness) FROM hardness GROUP BY query"',
    work=_work,
    flags=_flags,
)

if __name__ == "__main__":
    sys.exit(JOB.main())

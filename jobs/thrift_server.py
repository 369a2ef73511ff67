"""Serves the tables to JDBC, ODBC and DB-API clients."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from conf.errors import QuarryError
from conf.settings import Settings
from jobs.command import Job
from pipelines.catalog import Catalog
from pipelines.run import Run
from pipelines.sql import tables_and_views
from pipelines.thrift_server import thrift_server

LOOK_S = 10
DATABASE = "default"


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        default="localhost",
        metavar="NAME",
        help="address to listen on (default localhost). There is no password and no encryption: whoever "
        "reaches the port reads all tables",
    )
    parser.add_argument("--port", type=int, default=10000, metavar="N", help="default 10000; 0: any free one")


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    if run.store.session.sql(f"SHOW TABLES IN {DATABASE}").first() is not None:
        raise QuarryError("this Spark session has tables of its own: start the server in its own process")
    catalog = tables_and_views(run, settings.score, settings.detector.pixel_scores, database=DATABASE)
    tables = catalog.register()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with thrift_server(run.store.session, args.host, args.port) as port:
            address = f"jdbc:hive2://{args.host}:{port}"
            run.tell(
                f"serving {', '.join(tables)} and the views\n"
                f"  JDBC     {address}\n"
                f"  beeline  beeline -u {address} -e 'SHOW TABLES'\n"
                f"  Python   impala.dbapi.connect('{args.host}', {port}, auth_mechanism='PLAIN')\n"
                "read only, no password; Ctrl-C stops it"
            )
            _keep_up(catalog, tables)
    except KeyboardInterrupt:
        run.tell("stopped")


def _keep_up(catalog: Catalog, tables: list[str]) -> None:
    """Registers tables as jobs write them for the first time; new rows need nothing."""
    while True:
        time.sleep(LOOK_S)
        if catalog.has_new_tables(tables):
            tables = catalog.register()


JOB = Job(
    name="thrift_server",
    summary=(
        "Serves the tables and views under a root to JDBC, ODBC and Python DB-API clients, read only, until "
        "Ctrl-C. There is no password: it listens on localhost unless told otherwise."
    ),
    example="quarry thrift_server --root tables --port 10000",
    work=_work,
    flags=_flags,
)

if __name__ == "__main__":
    sys.exit(JOB.main())

"""The tables and views of a root by name: a database of Spark's in-memory catalog.

Entries of a catalog rather than temporary views: `VERSION AS OF` and `DESCRIBE HISTORY` work on their names,
all sessions of the application see them, and every query sees the latest commit. Nothing is written: an entry
is a name for a folder, and the catalog ends with the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import SparkSession

from conf.errors import QuarryError
from pipelines.tables import TableStore, sql_identifier, sql_literal
from schemas.table import Table, View
from schemas.tables import TABLES

CATALOG_KIND = "spark.sql.catalogImplementation"


@dataclass(frozen=True)
class Catalog:
    """A database that names the tables under one root.

    Attributes:
        store: The tables.
        session: A session of its own, in which the database is the current one.
        views: Views over the tables, each after those it reads.
    """

    store: TableStore
    session: SparkSession
    views: Sequence[View]

    def register(self) -> list[str]:
        """Makes all tables and views readable by name; called again, it adds tables written since.

        A table that was never written is an empty view, so that views over it and queries work before.

        Returns:
            The tables that were written.
        """
        empty = {row.viewName for row in self.session.sql("SHOW VIEWS").collect()}
        known = {row.tableName for row in self.session.sql("SHOW TABLES").collect()} - empty
        for table in TABLES:
            if table.name in known:
                continue
            if self.store.exists(table):
                self.session.sql(f"DROP VIEW IF EXISTS {table.name}")
                self._create_table(table)
                known.add(table.name)
            elif table.name not in empty:
                self._create_view(View(name=table.name, comment=table.comment, sql=_no_rows(table)))
        for view in self.views:
            self._create_view(view)
        return [table.name for table in TABLES if table.name in known]

    def has_new_tables(self, known: Sequence[str]) -> bool:
        """Whether a table outside `known` has been written."""
        return any(self.store.exists(table) for table in TABLES if table.name not in known)

    def _create_table(self, table: Table) -> None:
        location = sql_literal(absolute(self.session, self.store.path(table)))
        self.session.sql(f"CREATE TABLE {table.name} USING DELTA LOCATION {location}")

    def _create_view(self, view: View) -> None:
        comment = sql_literal(view.comment)
        self.session.sql(f"CREATE OR REPLACE VIEW {view.name} COMMENT {comment} AS {view.sql}")


def open_catalog(store: TableStore, views: Sequence[View], database: str) -> Catalog:
    """A catalog of the root's tables, nothing registered in it yet.

    Args:
        store: The tables.
        views: Views over them, each after those it reads.
        database: Made when absent. Several roots may be open in one application, each in its own.

    Raises:
        QuarryError: No table is there; or the application's catalog outlives it (Hive, Glue), and names of
            ours do not belong there.
    """
    if not any(store.exists(table) for table in TABLES):
        raise QuarryError(f"no tables under {store.root}: run `quarry run_cycle` or `quarry ingest` first")
    kind = store.session.conf.get(CATALOG_KIND)
    if kind != "in-memory":
        raise QuarryError(
            f"SQL by name needs Spark's in-memory catalog, this application has {kind!r}: run the command by "
            f"itself or with `--conf {CATALOG_KIND}=in-memory`"
        )
    session = store.session.newSession()
    # JDBC clients ask the catalog for a table's columns; Delta leaves them out unless told.
    session.conf.set("spark.databricks.delta.catalog.update.enabled", "true")
    name, location = sql_identifier(database), sql_literal(absolute(session, store.root))
    session.sql(f"CREATE DATABASE IF NOT EXISTS {name} LOCATION {location}")
    session.sql(f"USE {name}")
    return Catalog(store, session, views)


def absolute(session: SparkSession, path: str) -> str:
    """The path with scheme and working folder; the catalog would take a relative one as its database's."""
    jvm = session._jvm
    assert jvm is not None
    name = jvm.org.apache.hadoop.fs.Path(path)
    filesystem = name.getFileSystem(session.sparkContext._jsc.hadoopConfiguration())
    return str(filesystem.makeQualified(name).toString())


def _no_rows(table: Table) -> str:
    columns = (f"CAST(NULL AS {column.ddl_type}) AS `{column.name}`" for column in table.columns)
    return f"SELECT {', '.join(columns)} WHERE false"

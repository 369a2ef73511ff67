"""All table reads and writes: Delta tables under one root path, created on first use.

Writes are merges on the table's key, so a job that runs twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from conf.errors import QuarryError
from schemas.table import Table, View
from schemas.tables import TABLES

VERSION_PROPERTY = "quarry.schema_version"


@dataclass(frozen=True)
class TableStore:
    """The tables under one root.

    Attributes:
        session: The job's session.
        root: Folder of the tables: a path or URI every worker can reach.
    """

    session: SparkSession
    root: str

    def path(self, table: Table) -> str:
        """Where a table lies."""
        return f"{self.root.rstrip('/')}/{table.name}"

    def exists(self, table: Table) -> bool:
        """Whether the table was ever written."""
        return DeltaTable.isDeltaTable(self.session, self.path(table))

    def read(self, table: Table, *, pinned: bool = False) -> DataFrame:
        """The table's rows; an empty frame of its schema when it was never written.

        Args:
            table: What to read.
            pinned: Keep to the version of this moment. A frame that decides what is left to do must: Spark
                drops what it persisted of a table as soon as that table is written.
        """
        if not self.exists(table):
            return self.session.createDataFrame([], spark_schema(table))
        reader = self.session.read.format("delta")
        if pinned:
            reader = reader.option("versionAsOf", self._version(table))
        return reader.load(self.path(table))

    def _version(self, table: Table) -> int:
        latest = DeltaTable.forPath(self.session, self.path(table)).history(1).first()
        assert latest is not None
        return int(latest.version)

    def require(self, table: Table, made_by: str) -> DataFrame:
        """The table's rows, or an error that names the job to run first.

        Raises:
            QuarryError: The table was never written or holds no rows.
        """
        frame = self.read(table)
        if frame.isEmpty():
            raise QuarryError(
                f"{self.path(table)} has no rows: run `quarry {made_by} --root {self.root}` first"
            )
        return frame

    def merge(
        self,
        table: Table,
        rows: DataFrame,
        on_match: Literal["update", "keep"] = "update",
        only: str | None = None,
        update: dict[str, str] | None = None,
        changed: str | None = None,
    ) -> None:
        """Inserts rows with new keys; rows whose key is there are updated or kept.

        Args:
            table: The target; created when absent.
            rows: Columns of the table, keys unique.
            on_match: `update` brings the old row up to date; `keep` leaves it alone.
            only: SQL condition on target alias `t` that all affected rows meet; lets Delta skip partitions.
            update: Column to SQL expression over aliases `t` and `s`; none: every column from `s`.
            changed: SQL condition over `t` and `s`; a row that does not meet it stays as it is.
        """
        self.create(table)
        same_key = " AND ".join(f"t.`{key}` = s.`{key}`" for key in table.key)
        condition = f"{same_key} AND {only}" if only else same_key
        target = DeltaTable.forPath(self.session, self.path(table))
        merge = target.alias("t").merge(rows.select(*table.column_names).alias("s"), condition)
        if on_match == "update":
            values = update or {name: f"s.`{name}`" for name in table.column_names}
            merge = merge.whenMatchedUpdate(condition=changed, set=dict(values))
        merge.whenNotMatchedInsertAll().execute()

    def delete(self, table: Table, rows: DataFrame) -> None:
        """Removes all rows that agree with one of `rows` in its columns; writes nothing when none does."""
        if self.exists(table) and not self.read(table).join(rows, rows.columns, "left_semi").isEmpty():
            target = DeltaTable.forPath(self.session, self.path(table)).alias("t")
            same = " AND ".join(f"t.`{key}` = s.`{key}`" for key in rows.columns)
            target.merge(rows.distinct().alias("s"), same).whenMatchedDelete().execute()

    def replace(self, table: Table, rows: DataFrame, where: str) -> None:
        """Replaces all rows that meet a condition by new ones, in one commit.

        Args:
            table: The target; created when absent.
            rows: Columns of the table; every row meets `where`.
            where: SQL condition on the table's columns.
        """
        self.create(table)
        writer = rows.select(*table.column_names).write.format("delta").mode("overwrite")
        writer.option("replaceWhere", where).save(self.path(table))

    def create(self, table: Table) -> None:
        """Makes the table with its columns, comments, version and constraints; nothing when it is there."""
        path = self.path(table)
        if self.exists(table):
            return
        properties = {VERSION_PROPERTY: str(table.version)}
        properties |= {f"delta.constraints.{name}": condition for name, condition in table.checks}
        columns = ", ".join(column.ddl() for column in table.columns)
        partitions = f"PARTITIONED BY ({', '.join(table.partition_by)})" if table.partition_by else ""
        listed = ", ".join(f"{sql_literal(key)} = {sql_literal(value)}" for key, value in properties.items())
        self.session.sql(
            f"CREATE TABLE IF NOT EXISTS delta.{_identifier(path)} ({columns}) USING DELTA {partitions} "
            f"COMMENT {sql_literal(table.comment)} TBLPROPERTIES ({listed})"
        )

    def require_versions(self, tables: Iterable[Table] = TABLES) -> None:
        """Fails before any work when a table under the root was written by a newer Quarry.

        Raises:
            QuarryError: Names the table, its version and the newest this code reads.
        """
        for table in tables:
            if not self.exists(table):
                continue
            rows = self.session.sql(f"SHOW TBLPROPERTIES delta.{_identifier(self.path(table))}").collect()
            found = int({row.key: row.value for row in rows}.get(VERSION_PROPERTY, "1"))
            if found > table.version:
                raise QuarryError(
                    f"{self.path(table)}: schema version {found}, this Quarry reads up to {table.version}; "
                    "upgrade Quarry (pip install --upgrade quarry)"
                )

    def register_views(self, views: Iterable[View] = ()) -> list[str]:
        """Makes every table that exists, and the given views over them, readable by name in SQL.

        Returns:
            The names now registered.
        """
        names = []
        for table in TABLES:
            if self.exists(table):
                self.read(table).createOrReplaceTempView(table.name)
                names.append(table.name)
        for view in views:
            needed = {table.name: table.name for table in TABLES if f"{{{table.name}}}" in view.sql}
            if set(needed) <= set(names):
                sql = view.sql
                for name in needed:
                    sql = sql.replace(f"{{{name}}}", name)
                self.session.sql(sql).createOrReplaceTempView(view.name)
                names.append(view.name)
        return names


def spark_schema(table: Table) -> StructType:
    """A table's schema as Spark's type, all fields nullable."""
    return cast(StructType, StructType.fromDDL(table.ddl()))


def utc_timestamp(epoch_s: float) -> Column:
    """A literal timestamp; one value per run, so that a run's rows agree."""
    return F.timestamp_seconds(F.lit(epoch_s))


def _identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def sql_literal(text: str) -> str:
    """A SQL string literal of the text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

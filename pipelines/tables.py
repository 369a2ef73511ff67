"""All table reads and writes: Delta tables under one root path, created on first use.

Writes are merges on the table's key, or appends of keys that are not there, so a job that runs twice changes
nothing. Jobs that write the same table at once are told apart by Delta: the later commit sees the earlier one
and is made again on top of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

from delta import exceptions as conflicts
from delta.tables import DeltaTable
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType
from tenacity import (
    retry,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from conf.errors import QuarryError
from pipelines.local_frame import local_frame
from schemas.table import Table
from schemas.tables import TABLES

VERSION_PROPERTY = "quarry.schema_version"
# Cycles run for months: Delta would forget versions after a month and refuse to read them after a week.
HISTORY_PROPERTIES = {
    "delta.logRetentionDuration": "interval 365 days",
    "delta.deletedFileRetentionDuration": "interval 365 days",
}
MOST_CONFLICT_S = 900
MOST_COMMITS = 50
MOST_CREATION_S = 20
# A folder that holds files and no table yet: as a rule another job's first commit to it is under way.
BEING_MADE = "DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION"
# That module holds nothing else; its classes have no common base of their own.
CONFLICTS = tuple(
    kind for kind in vars(conflicts).values() if isinstance(kind, type) and issubclass(kind, PySparkException)
)
# Another job committed to the same table in between: nothing of ours was written, and the same write, made
# again on the table as it now is, is right. Delta leaves that to the application.
_repeated_on_conflict = retry(
    retry=retry_if_exception_type(CONFLICTS),
    wait=wait_random_exponential(multiplier=0.5, max=15),
    stop=stop_after_delay(MOST_CONFLICT_S),
    reraise=True,
)


def _is_being_made(error: BaseException) -> bool:
    return isinstance(error, AnalysisException) and error.getCondition() == BEING_MADE


_repeated_while_being_made = retry(
    retry=retry_if_exception(_is_being_made),
    wait=wait_random_exponential(multiplier=0.2, max=2),
    stop=stop_after_delay(MOST_CREATION_S),
    reraise=True,
)


class Seen(NamedTuple):
    """Rows that a result was made from: a write of it can depend on them still being the same.

    Attributes:
        where: SQL condition on a table's columns.
        digest: Of all rows that meet it, in any order.
    """

    where: str
    digest: str


class RowsChanged(Exception):
    """The rows that a result was made from are others now: nothing of it was written."""


@dataclass(frozen=True)
class TableStore:
    """The tables under one root.

    Attributes:
        session: The job's session.
        root: Folder of the tables: a path or URI every worker can reach.
    """

    session: SparkSession
    root: str
    _ready: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

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
            return local_frame(self.session, [], spark_schema(table))
        reader = self.session.read.format("delta")
        if pinned:
            reader = reader.option("versionAsOf", self.version(table))
        return reader.load(self.path(table))

    def version(self, table: Table) -> int:
        """The number of the table's latest commit."""
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
        same_key = " AND ".join(_same(table, key) for key in table.key)
        condition = f"{same_key} AND {only}" if only else same_key
        source = in_schema(rows, table).alias("s")

        def write() -> None:
            merge = self._target(table).merge(source, condition)
            if on_match == "update":
                values = update or {name: f"s.`{name}`" for name in table.column_names}
                merge = merge.whenMatchedUpdate(condition=changed, set=dict(values))
            merge.whenNotMatchedInsertAll().execute()

        self._commit(write)

    def append_new(
        self,
        table: Table,
        rows: DataFrame,
        *,
        only: str,
        order: Sequence[str],
        files: int = 1,
        note: str = "",
    ) -> None:
        """Appends rows whose key is not there; rows with a known key change nothing.

        Unlike a merge it decides how rows lie in files. The append reads the keys it must not repeat, so
        Delta refuses it when another job has added rows that meet `only` meanwhile; it is then made again.

        Args:
            table: The target; created when absent.
            rows: Columns of the table, keys unique; computed again for every try, so persist what is costly.
            only: SQL condition on the table's columns that all rows meet; lets Delta skip partitions.
            order: Columns the rows are laid out by, over files and within them.
            files: Number of files written.
            note: Kept with the commit; see `others_appended`.
        """
        self.create(table)

        def write() -> None:
            known = self.read(table).where(only).select(*table.key)
            new = in_schema(rows.join(known, list(table.key), "left_anti"), table)
            laid_out = new.repartition(1) if files == 1 else new.repartitionByRange(files, *order)
            laid_out = laid_out.sortWithinPartitions(*order)
            writer = laid_out.write.format("delta").mode("append").option("userMetadata", note)
            writer.save(self.path(table))

        self._commit(write)

    def others_appended(self, table: Table, since_version: int, note: str) -> bool:
        """Whether one of the latest commits, after a version, appended rows under another note."""
        commits = self._target(table).history(MOST_COMMITS).where(F.col("version") > since_version)
        others = commits.where("operation = 'WRITE'").where(~F.col("userMetadata").eqNullSafe(note))
        return not others.isEmpty()

    def delete(self, table: Table, rows: DataFrame) -> None:
        """Removes all rows that agree with one of `rows` in its columns; writes nothing when none does."""
        if self.exists(table) and not self.read(table).join(rows, rows.columns, "left_semi").isEmpty():
            same = " AND ".join(f"t.`{key}` = s.`{key}`" for key in rows.columns)
            source = rows.distinct().alias("s")
            self._commit(lambda: self._target(table).merge(source, same).whenMatchedDelete().execute())

    def replace(self, table: Table, rows: DataFrame, where: str, *, seen: Seen | None = None) -> None:
        """Replaces all rows that meet a condition by new ones, in one commit.

        Args:
            table: The target; created when absent.
            rows: Columns of the table; every row meets `where`. With `seen`, at least one.
            where: SQL condition on the table's columns.
            seen: Rows of the table that `rows` were made from.

        Raises:
            RowsChanged: Another job changed what was seen. If it did so during the commit itself, no row
                meets `where` now.
        """
        self.create(table)

        def write() -> None:
            new = in_schema(rows, table)
            if seen is not None:
                if self.seen(table, seen.where) != seen:
                    raise RowsChanged(self.path(table))
                # The write reads what it depends on, so Delta refuses it when that changes under way, and
                # there is nothing to write when that changed just before.
                same = self._digest(table, seen.where).where(F.col("digest") == seen.digest).drop("digest")
                new = new.crossJoin(F.broadcast(same))
            writer = new.write.format("delta").mode("overwrite")
            writer.option("replaceWhere", where).save(self.path(table))

        self._commit(write)
        if seen is not None and self.read(table).where(where).isEmpty():
            raise RowsChanged(self.path(table))

    def seen(self, table: Table, where: str) -> Seen:
        """What the rows that meet a condition are like at this moment."""
        row = self._digest(table, where).first()
        assert row is not None
        return Seen(where=where, digest=row.digest)

    def _digest(self, table: Table, where: str) -> DataFrame:
        rows = in_schema(self.read(table), table).where(where)
        every = F.bit_xor(F.xxhash64(*table.column_names))
        return rows.agg(F.concat_ws(":", F.count("*"), every).alias("digest"))

    def create(self, table: Table) -> None:
        """Makes the table with its columns, comments, version and constraints.

        One that is there gains the columns that came with a later Quarry; else it stays as it is.
        """
        if table.name in self._ready:
            return
        if self.exists(table):
            self._add_missing_columns(table)
        else:
            self._commit(lambda: self._create(table))
        self._ready.add(table.name)

    def _add_missing_columns(self, table: Table) -> None:
        wanted = spark_schema(table)
        found = self.read(table).schema
        if any(f.name not in found.names or f.dataType != found[f.name].dataType for f in wanted):
            none = local_frame(self.session, [], wanted).write.format("delta").mode("append")
            self._commit(lambda: none.option("mergeSchema", True).save(self.path(table)))

    def _target(self, table: Table) -> DeltaTable:
        return DeltaTable.forPath(self.session, self.path(table)).alias("t")

    @staticmethod
    @_repeated_on_conflict
    def _commit(write: Callable[[], None]) -> None:
        write()

    @_repeated_while_being_made
    def _create(self, table: Table) -> None:
        path = self.path(table)
        properties = {VERSION_PROPERTY: str(table.version), **HISTORY_PROPERTIES}
        properties |= {f"delta.constraints.{name}": condition for name, condition in table.checks}
        columns = ", ".join(column.ddl() for column in table.columns)
        partitions = f"PARTITIONED BY ({', '.join(table.partition_by)})" if table.partition_by else ""
        listed = ", ".join(f"{sql_literal(key)} = {sql_literal(value)}" for key, value in properties.items())
        self.session.sql(
            f"CREATE TABLE IF NOT EXISTS delta.{sql_identifier(path)} ({columns}) USING DELTA {partitions} "
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
            rows = self.session.sql(f"SHOW TBLPROPERTIES delta.{sql_identifier(self.path(table))}").collect()
            found = int({row.key: row.value for row in rows}.get(VERSION_PROPERTY, "1"))
            if found > table.version:
                raise QuarryError(
                    f"{self.path(table)}: schema version {found}, this Quarry reads up to {table.version}; "
                    "upgrade Quarry (pip install --upgrade quarry)"
                )

    def register_temporary_views(self) -> None:
        """Makes every table that exists readable by name in this session alone."""
        for table in TABLES:
            if self.exists(table):
                self.read(table).createOrReplaceTempView(table.name)


def spark_schema(table: Table) -> StructType:
    """A table's schema as Spark's type, all fields nullable."""
    return cast(StructType, StructType.fromDDL(table.ddl()))


def _same(table: Table, key: str) -> str:
    nullable = next(column.nullable for column in table.columns if column.name == key)
    return f"t.`{key}` {'<=>' if nullable else '='} s.`{key}`"


def differs(*names: str) -> str:
    """The condition of a merge that a known row has another value in one of these columns; null is one."""
    return " OR ".join(f"NOT (t.`{name}` <=> s.`{name}`)" for name in names)


def in_schema(rows: DataFrame, table: Table) -> DataFrame:
    """The table's columns in schema order; nullable ones that the rows lack are null."""
    missing = [c for c in table.columns if c.nullable and c.name not in rows.columns]
    filled = rows.withColumns({c.name: F.lit(None).cast(c.ddl_type) for c in missing}) if missing else rows
    return filled.select(*table.column_names)


def utc_timestamp(epoch_s: float) -> Column:
    """A literal timestamp; one value per run, so that a run's rows agree."""
    return F.timestamp_seconds(F.lit(epoch_s))


def sql_identifier(name: str) -> str:
    """A SQL identifier of the name."""
    return "`" + name.replace("`", "``") + "`"


def sql_literal(text: str) -> str:
    """A SQL string literal of the text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

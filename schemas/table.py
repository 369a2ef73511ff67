"""What a table is: name, key, columns with units, constraints, version. Plain data, no engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its Spark DDL type, and what people who write SQL need to know about it."""

    name: str
    ddl_type: str
    comment: str
    nullable: bool = True

    def ddl(self) -> str:
        """The column as it stands in CREATE TABLE."""
        null = "" if self.nullable else " NOT NULL"
        comment = self.comment.replace("'", "''")
        return f"`{self.name}` {self.ddl_type}{null} COMMENT '{comment}'"


@dataclass(frozen=True, kw_only=True)
class Table:
    """The contract of one Delta table.

    Attributes:
        name: Table name under the root or in the database.
        comment: One sentence for the catalog.
        columns: In schema order.
        key: Columns that identify a row; writes merge on them.
        partition_by: Low-cardinality columns readers filter on.
        checks: CHECK constraints, name to SQL condition.
        version: Raised when a change needs readers to change; an older Quarry refuses a newer table.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    checks: tuple[tuple[str, str], ...] = ()
    version: int = 1

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names in schema order."""
        return tuple(column.name for column in self.columns)

    def ddl(self) -> str:
        """All columns as one DDL schema string, without comments: `name TYPE, ...`."""
        return ", ".join(f"`{column.name}` {column.ddl_type}" for column in self.columns)


@dataclass(frozen=True, kw_only=True)
class View:
    """A SQL view: a query over tables and earlier views by name."""

    name: str
    comment: str
    sql: str

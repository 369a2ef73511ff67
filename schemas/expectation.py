"""What a quality gate expects: conditions on rows, in suites. Plain data, no engine."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.table import Table


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What every row of a suite's rows must meet.

    Attributes:
        name: Of the expectation, unique within its suite.
        description: What is true of a sound row, for people.
        condition: SQL over the rows' columns; a row of which it is false or null is a failing row.
        measure: SQL number of a row; the largest is shown as what was observed. None: the failing rows.
        drift: Whether the setting `quality.drift` decides if a failure stops the cycle or warns.
    """

    name: str
    description: str
    condition: str
    measure: str | None = None
    drift: bool = False


KEYS_UNIQUE = Expectation(name="keys_unique", description="there is one row per key", condition="copies = 1")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The expectations on one kind of rows, judged after one stage.

    Attributes:
        stage: Of the cycle (`pipelines.cycle_stages.STAGES`).
        name: What the rows are: a table, or what `pipelines.quality_rows` makes of some.
        table: The table that is at fault when a row fails.
        key: Columns that name a failing row.
        on_rows: Expectations on each row.
        unique: Whether `key` must be unique.
        shown: Further columns told of a failing row, where `key` is unique by construction.
    """

    stage: str
    name: str
    table: str
    key: tuple[str, ...]
    on_rows: tuple[Expectation, ...]
    unique: bool = False
    shown: tuple[str, ...] = ()

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """All of them, that of a unique key first."""
        return (KEYS_UNIQUE, *self.on_rows) if self.unique else self.on_rows


def table_suite(stage: str, table: Table, *on_rows: Expectation) -> Suite:
    """A suite on a table's own rows: whatever else is expected, its key is whole and unique.

    Args:
        stage: Of the cycle.
        table: The table.
        *on_rows: Expectations on its rows.
    """
    required = [column.name for column in table.columns if column.name in table.key and not column.nullable]
    keys_not_null = Expectation(
        name="keys_not_null",
        description=f"{', '.join(required)} are not null",
        condition=" AND ".join(f"{name} IS NOT NULL" for name in required),
    )
    return Suite(
        stage=stage,
        name=table.name,
        table=table.name,
        key=table.key,
        on_rows=(keys_not_null, *on_rows),
        unique=True,
    )

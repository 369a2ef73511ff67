"""What the quality gates of a cycle found."""

from __future__ import annotations

from pyspark.sql import functions as F

from pipelines.report_source import ReportSource
from schemas.expectations import SUITES
from schemas.tables import QUALITY
from udfs.report_content import QualityFailure, QualityGate


def quality_gates(source: ReportSource) -> tuple[QualityGate, ...]:
    """One gate a stage, in the order of a cycle; the table has as many rows as there are expectations."""
    rows = source.run.store.read(QUALITY).where(F.col("cycle_id") == source.cycle_id)
    found = rows.orderBy("table_name", "expectation").collect()
    stages = list(dict.fromkeys(suite.stage for suite in SUITES))
    return tuple(
        QualityGate(
            stage=stage,
            n_expectations=sum(row.stage == stage for row in found),
            failures=tuple(
                QualityFailure(
                    name=f"{row.table_name}.{row.expectation}",
                    description=row.description,
                    observed=row.observed,
                    is_warning=row.severity == "warning",
                    rows=tuple(row.examples),
                )
                for row in found
                if row.stage == stage and not row.passed
            ),
        )
        for stage in stages
        if any(row.stage == stage for row in found)
    )

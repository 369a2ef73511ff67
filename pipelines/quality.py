"""Quality gates: Great Expectations judges what a stage left in the tables, before the next one uses it.

A gate makes one pass over its rows: Spark counts those that fail each expectation of `schemas.expectations`,
Great Expectations judges the counts, and failing rows are looked up only where there are any. Its own row
expectations would fetch failing values in a pass for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from conf.errors import QuarryError
from conf.settings import QualitySettings, Settings
from pipelines.local_frame import local_frame
from pipelines.quality_rows import Gate, suite_rows
from pipelines.run import Run
from pipelines.tables import spark_schema, sql_literal, utc_timestamp
from schemas.expectation import KEYS_UNIQUE, Expectation, Suite
from schemas.expectations import SUITES
from schemas.tables import QUALITY

MOST_EXAMPLES = 20
Severity = Literal["critical", "warning"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one expectation came to: a row of `quality`."""

    stage: str
    table_name: str
    expectation: str
    description: str
    passed: bool
    severity: Severity
    observed: str
    n_unexpected: int
    examples: tuple[str, ...] = ()

    @property
    def stops(self) -> bool:
        """Whether a cycle must not go on."""
        return not self.passed and self.severity == "critical"

    def line(self) -> str:
        """One line: what failed, how often, and where."""
        rows = f": {'; '.join(self.examples)}" if self.examples else ""
        return f"{self.table_name}.{self.expectation} ({self.description}): {self.observed}{rows}"


def require_quality(run: Run, cycle_id: str, stage: str, model_id: str, settings: Settings) -> None:
    """Judges a stage's tables and keeps the result in `quality`; warnings are told.

    Args:
        run: The run.
        cycle_id: The cycle.
        stage: Its stage that was just done; one without expectations passes.
        model_id: The cycle's detector.
        settings: What the cycle asked for, and what `quality` allows.

    Raises:
        QuarryError: A critical expectation failed; the message names the failing rows.
    """
    if not settings.quality.enabled:
        return
    gate = Gate(run=run, cycle_id=cycle_id, model_id=model_id, settings=settings)
    findings = judge(gate, stage)
    for finding in findings:
        if not finding.passed and not finding.stops:
            run.tell(f"warning: {finding.line()}")
    stopping = [finding for finding in findings if finding.stops]
    if stopping:
        raise QuarryError(
            "\n".join(
                [
                    f"stage {stage} of cycle {cycle_id!r} failed {len(stopping)} of {len(findings)} quality "
                    "expectations; no later stage was begun:",
                    *(f"  {finding.line()}" for finding in stopping),
                    "put the rows right and run the cycle again; the table quality keeps this result, and "
                    "quality.enabled=false goes on without gates",
                ]
            )
        )


def judge(gate: Gate, stage: str) -> list[Finding]:
    """Judges the expectations of a stage and puts the findings into `quality`, in place of earlier ones."""
    rows = {s: suite_rows(gate, s.name) for s in SUITES if s.stage == stage}
    judged = {suite: judged_rows(frame, suite) for suite, frame in rows.items() if frame is not None}
    if not judged:
        return []
    findings = found(judged, gate.settings.quality)
    _record(gate, stage, findings)
    return findings


def judged_stages(gate: Gate) -> list[str]:
    """The stages that have left rows for the cycle and its detector."""
    first = {suite.stage: suite for suite in reversed(SUITES)}
    stages = []
    for stage in dict.fromkeys(suite.stage for suite in SUITES):
        rows = suite_rows(gate, first[stage].name)
        if rows is not None and not rows.isEmpty():
            stages.append(stage)
    return stages


def judged_rows(rows: DataFrame, suite: Suite) -> DataFrame:
    """One row per key: whether it meets each expectation, by name, and the measures of those that have one.

    Args:
        rows: What the suite is about.
        suite: The suite.
    """
    met = {e.name: F.coalesce(F.expr(e.condition), F.lit(False)) for e in suite.on_rows}
    measures = {_measure(e): F.expr(e.measure) for e in suite.on_rows if e.measure}
    slim = rows.select(
        *suite.key, *suite.shown, *(value.alias(name) for name, value in (met | measures).items())
    )
    if not suite.unique:
        return slim
    every = [F.bool_and(name).alias(name) for name in met]
    groups = slim.groupBy(*suite.key).agg(F.count("*").alias("copies"), *every)
    return groups.withColumn(KEYS_UNIQUE.name, F.expr(KEYS_UNIQUE.condition))


def found(judged: Mapping[Suite, DataFrame], settings: QualitySettings) -> list[Finding]:
    """What the expectations come to on judged rows, in one pass; failing rows are then looked up.

    Args:
        judged: The `judged_rows` of each suite.
        settings: Whether drift stops or warns.
    """
    totals = _totals(judged)
    passed = _verdicts(next(iter(judged.values())).sparkSession, totals)
    failed = [(s, e) for s in judged for e in s.expectations if not passed[s.name, e.name]]
    examples = _examples(judged, failed)
    findings = []
    for suite in judged:
        for expectation in suite.expectations:
            key = suite.name, expectation.name
            findings.append(
                Finding(
                    stage=suite.stage,
                    table_name=suite.table,
                    expectation=expectation.name,
                    description=expectation.description,
                    passed=passed[key],
                    severity="warning" if expectation.drift and settings.drift == "warn" else "critical",
                    observed=totals[key].observed,
                    n_unexpected=totals[key].n_unexpected,
                    examples=tuple(examples.get(key, ())),
                )
            )
    return findings


class _Total(NamedTuple):
    n_unexpected: int
    observed: str


def _totals(judged: Mapping[Suite, DataFrame]) -> dict[tuple[str, str], _Total]:
    """Failing rows and what is told of them, by suite and expectation: one Spark job, one row a suite."""
    parts = []
    for suite, rows in judged.items():
        failing = [F.count_if(~F.col(e.name)) for e in suite.expectations]
        largest = [F.max(_measure(e)) if e.measure else F.lit(None) for e in suite.expectations]
        parts.append(
            rows.agg(
                F.lit(suite.name).alias("suite"),
                F.count("*").alias("n_rows"),
                F.array(*failing).alias("failing"),
                F.array(*largest).cast("array<double>").alias("largest"),
            )
        )
    by_name = {row.suite: row for row in reduce(DataFrame.unionByName, parts).collect()}
    return {
        (suite.name, e.name): _total(by_name[suite.name], place)
        for suite in judged
        for place, e in enumerate(suite.expectations)
    }


def _total(row: Row, place: int) -> _Total:
    n_unexpected, largest = int(row.failing[place]), row.largest[place]
    told = f"{n_unexpected:,} of {row.n_rows:,} rows" if largest is None else f"{largest:.4g}"
    return _Total(n_unexpected, told)


def _measure(expectation: Expectation) -> str:
    return f"{expectation.name}_measure"


def _verdicts(session: SparkSession, totals: Mapping[tuple[str, str], _Total]) -> dict[tuple[str, str], bool]:
    """Great Expectations' verdict on each number of failing rows: none is allowed."""
    import great_expectations as gx  # seconds that jobs without a gate need not wait

    columns = {key: "__".join(key) for key in totals}
    counts = [total.n_unexpected for total in totals.values()]
    schema = ", ".join(f"{column} BIGINT" for column in columns.values())
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_spark("quarry", persist=False).add_dataframe_asset("failing_rows")
    batch = asset.add_batch_definition_whole_dataframe("gate").get_batch(
        {"dataframe": local_frame(session, [tuple(counts)], schema)}
    )
    expected = [
        gx.expectations.ExpectColumnMaxToBeBetween(column=column, max_value=0) for column in columns.values()
    ]
    outcome = batch.validate(gx.ExpectationSuite(name="gate", expectations=expected), result_format="BASIC")
    success = {}
    for result in outcome.results:
        if result.result.get("observed_value") is None:  # it reports its own errors as failures
            raise RuntimeError(f"Great Expectations could not judge a gate: {result.exception_info}")
        success[result.expectation_config.kwargs["column"]] = bool(result.success)
    return {key: success[column] for key, column in columns.items()}


def _examples(
    judged: Mapping[Suite, DataFrame], failed: Sequence[tuple[Suite, Expectation]]
) -> dict[tuple[str, str], list[str]]:
    """Key and shown columns of the first rows that fail each expectation, in one Spark job."""
    if not failed:
        return {}
    parts = []
    for suite, expectation in failed:
        told = (*suite.key, *(("copies",) if expectation is KEYS_UNIQUE else suite.shown))
        texts = [F.concat(F.lit(f"{c}="), F.coalesce(F.col(c).cast("string"), F.lit("null"))) for c in told]
        first = judged[suite].where(~F.col(expectation.name)).orderBy(*suite.key).limit(MOST_EXAMPLES)
        names = F.lit(suite.name).alias("suite"), F.lit(expectation.name).alias("expectation")
        parts.append(first.select(*names, F.concat_ws(", ", *texts).alias("example")))
    examples: dict[tuple[str, str], list[str]] = {}
    for row in reduce(DataFrame.unionByName, parts).collect():
        examples.setdefault((row.suite, row.expectation), []).append(row.example)
    return examples


def _record(gate: Gate, stage: str, findings: Sequence[Finding]) -> None:
    # Replaced as a whole: a finding that is no longer made must not stand as the last word.
    values = [
        (gate.cycle_id, f.stage, f.table_name, f.expectation, f.description, f.passed, f.severity)
        + (f.observed, f.n_unexpected, list(f.examples), None)
        for f in findings
    ]
    frame = local_frame(gate.run.store.session, values, spark_schema(QUALITY))
    frame = frame.withColumn("ts", utc_timestamp(gate.run.started_s))
    where = f"cycle_id = {sql_literal(gate.cycle_id)} AND stage = {sql_literal(stage)}"
    gate.run.store.replace(QUALITY, frame, where=where)

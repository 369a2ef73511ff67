"""A whole cycle: every stage in order; its state is in `cycles`, so a stopped cycle goes on where it was."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import Row
from pyspark.sql import functions as F

from conf.errors import QuarryError
from conf.settings import Settings, settings_hash
from conf.strategy import scores_ranked_by
from pipelines.acquire import acquire
from pipelines.detect import detect, detect_job, known_detector
from pipelines.evaluate import evaluate
from pipelines.export import export_manifests
from pipelines.ingest import ingest
from pipelines.labels import import_coco_labels
from pipelines.models import Model, model_named
from pipelines.quality import require_quality
from pipelines.report import write_report
from pipelines.run import Run
from pipelines.score import score
from pipelines.score_inputs import require_known_names
from pipelines.tables import spark_schema, utc_timestamp
from schemas.tables import CYCLES

CYCLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PLANNED, CLOSED = "planned", "closed"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a cycle: what it is called, the state it leads to, and what it does."""

    name: str
    state: str
    work: Callable[[Run, str, Settings], dict[str, int]]


def _ingest(run: Run, _: str, settings: Settings) -> dict[str, int]:
    return ingest(run, settings.lake)


def _detect(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    return detect(run, cycle_id, detect_job(settings))


def _import_labels(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    if settings.lake.labels is None:
        return {}
    return import_coco_labels(
        run, settings.lake.labels, settings.lake.labels_split, cycle_id, _model(run, settings)
    )


def _score(run: Run, _: str, settings: Settings) -> dict[str, int]:
    return score(run, _model(run, settings), settings.score, settings.calibration, settings.seed)


def _evaluate(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    if settings.lake.labels is None or settings.lake.labels_split == "train":
        run.tell("no held-out labels (setting lake.labels): rankings are not measured")
        return {}
    return evaluate(run, cycle_id, _model(run, settings), settings.score, settings.evaluate, settings.seed)


def _acquire(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    model = _model(run, settings)
    return acquire(run, cycle_id, model, settings.acquire, settings.score, settings.seed)


def _export(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    paths = export_manifests(run, cycle_id, _model(run, settings), settings.export)
    return {"files": len(paths)}


def _report(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    run.tell(f"report: {write_report(run, cycle_id, _model(run, settings), settings)}")
    return {}


STAGES = (
    Stage(name="ingest", state="ingested", work=_ingest),
    Stage(name="detect", state="detected", work=_detect),
    Stage(name="import_labels", state="labels_imported", work=_import_labels),
    Stage(name="score", state="scored", work=_score),
    Stage(name="evaluate", state="evaluated", work=_evaluate),
    Stage(name="acquire", state="ranked", work=_acquire),
    Stage(name="export_manifest", state="exported", work=_export),
    Stage(name="report", state=CLOSED, work=_report),
)


def run_cycle(run: Run, cycle_id: str, settings: Settings) -> None:
    """Runs the stages a cycle has not done yet, in order.

    Every stage is safe to repeat, so a stage that was cut off is simply run again.

    Args:
        run: The run.
        cycle_id: Letters, digits, `.`, `_` and `-`; used in file names.
        settings: Of the whole cycle; a started cycle keeps the ones it was started with.

    Raises:
        QuarryError: A bad name, settings that differ from the cycle's own, or a stage whose tables fail a
            quality gate; the stage is done again by the next run.
    """
    require_cycle_name(cycle_id)
    require_known_names(settings.score, scores_ranked_by(settings.acquire), settings.detector.pixel_scores)
    digest = cycle_settings_hash(settings)
    row = cycle_row(run, cycle_id)
    if row is not None and row.settings_hash != digest:
        raise QuarryError(
            f"cycle {cycle_id!r} was started with other settings (hash {row.settings_hash}, now {digest}): "
            "give a new name with --cycle, or the old settings"
        )
    counts = dict(row.counts) if row is not None else {}
    done = _stages_done(row.state if row is not None else PLANNED)
    started_s = row.started if row is not None else None
    if row is None:
        _save(run, cycle_id, PLANNED, settings, digest, counts, started=None)
    if done == len(STAGES):
        run.tell(f"cycle {cycle_id!r} is complete; start another with --cycle NAME")
        return
    if done:
        run.tell(f"cycle {cycle_id!r} goes on after stage {STAGES[done - 1].name}")
    for number, stage in enumerate(STAGES[done:], start=done + 1):
        run.tell(f"[{number}/{len(STAGES)}] {stage.name}")
        begin_s = time.perf_counter()
        found = stage.work(run, cycle_id, settings)
        require_quality(run, cycle_id, stage.name, known_detector(settings.detector).model_id, settings)
        counts |= {f"{stage.name}.{key}": value for key, value in found.items()}
        _save(run, cycle_id, stage.state, settings, digest, counts, started=started_s)
        summary = ", ".join(f"{key} {value:,}" for key, value in found.items())
        run.tell(f"    {summary + ', ' if summary else ''}{time.perf_counter() - begin_s:.0f} s")


def require_cycle_name(cycle_id: str) -> None:
    """Fails unless the name can stand in file names and SQL.

    Raises:
        QuarryError: Other characters, or too long.
    """
    if not CYCLE_NAME.fullmatch(cycle_id):
        raise QuarryError(f"--cycle {cycle_id!r}: expected up to 100 letters, digits, `.`, `_` or `-`")


def cycle_row(run: Run, cycle_id: str) -> Row | None:
    """The cycle's row of `cycles`, or none."""
    return run.store.read(CYCLES).where(F.col("cycle_id") == cycle_id).first()


def cycle_settings_hash(settings: Settings) -> str:
    """Identity of the settings that change a cycle's tables; how and where it runs may change on the way."""
    parts = (settings.lake, settings.detector, settings.score, settings.calibration, settings.evaluate)
    return settings_hash(*parts, settings.acquire, settings.export, settings.seed)


def _stages_done(state: str) -> int:
    states = [PLANNED, *(stage.state for stage in STAGES)]
    return states.index(state)


def _model(run: Run, settings: Settings) -> Model:
    return model_named(run, known_detector(settings.detector).model_id)


def _save(
    run: Run,
    cycle_id: str,
    state: str,
    settings: Settings,
    digest: str,
    counts: dict[str, int],
    started: object,
) -> None:
    now = time.time()
    model_id = known_detector(settings.detector).model_id
    row = (cycle_id, None, model_id, state, settings.model_dump_json(), digest, started, None, counts)
    frame = run.store.session.createDataFrame([row], spark_schema(CYCLES))
    frame = frame.withColumn("started", F.coalesce("started", utc_timestamp(run.started_s)))
    if state == CLOSED:
        frame = frame.withColumn("ended", utc_timestamp(now))
    run.store.merge(CYCLES, frame)

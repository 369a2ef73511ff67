"""A cycle as a small state machine: its state is in `cycles`, so a stopped cycle goes on where it was."""

from __future__ import annotations

import re
import time

from pydantic import ValidationError
from pyspark.sql import Row
from pyspark.sql import functions as F

from conf.errors import QuarryError, nearest
from conf.settings import NOT_KEPT, Settings, settings_hash
from conf.strategy import require_features_kept, scores_ranked_by
from pipelines.cycle_stages import CLOSED, PLANNED, STAGE_NAMES, STAGES, STATES, Stage, StillOut
from pipelines.detect import known_detector
from pipelines.labeling_tasks import CYCLE_NAME
from pipelines.local_frame import local_frame
from pipelines.models import Model, model_named
from pipelines.quality import require_quality
from pipelines.run import Run
from pipelines.score_inputs import require_known_names
from pipelines.tables import spark_schema, utc_timestamp
from schemas.tables import ACQUISITION, CYCLES, METRICS, NEAR_MISSES

# What a cycle's own rows come from; the rows of other tables belong to images and models.
CYCLE_ROWS = {"evaluate": (METRICS,), "acquire": (ACQUISITION, NEAR_MISSES)}


def run_cycle(run: Run, cycle_id: str, settings: Settings) -> None:
    """Runs the stages a cycle has not done yet, in order; stops where labels are still out, and says so.

    Every stage is safe to repeat, so a stage that was cut off is simply run again.

    Args:
        run: The run.
        cycle_id: Letters, digits, `.`, `_` and `-`; used in file names.
        settings: Of the whole cycle; those of finished stages must be the ones it was started with.

    Raises:
        QuarryError: A bad name, settings or weights that differ from the cycle's own, or a stage whose tables
            fail a quality gate; the stage is done again by the next run.
    """
    require_cycle_name(cycle_id)
    require_known_names(settings.score, scores_ranked_by(settings.acquire), settings.detector.pixel_scores)
    require_features_kept(settings.acquire, settings.detector)
    row = cycle_row(run, cycle_id)
    if row is not None and (other := _stage_of_other_settings(row, settings, STATES.index(row.state))):
        raise QuarryError(
            f"cycle {cycle_id!r} was started with other settings of stage {other}: give the old ones, or a "
            f"new cycle that keeps what is before: --cycle NAME --from-cycle {cycle_id} --from-stage {other}"
        )
    if row is None:
        row = _save(run, cycle_id, PLANNED, settings, {})
    elif row.model_id != (model_id := known_detector(settings.detector).model_id):
        raise QuarryError(
            f"cycle {cycle_id!r} was started with model {row.model_id}; what detector.weights names now is "
            f"model {model_id}: put the old weights back, or start another cycle with --cycle NAME"
        )
    counts = dict(row.counts)
    done = STATES.index(row.state)
    if done == len(STAGES):
        run.tell(f"cycle {cycle_id!r} is complete; start another with --cycle NAME")
        return
    if done:
        run.tell(f"cycle {cycle_id!r} goes on after stage {STAGES[done - 1].name}")
    for number, stage in enumerate(STAGES[done:], start=done + 1):
        run.tell(f"[{number}/{len(STAGES)}] {stage.name}")
        begin_s = time.perf_counter()
        try:
            found = stage.work(run, cycle_id, settings)
        except StillOut as waiting:
            run.tell(str(waiting))
            return
        judged = stage.judged_as or stage.name
        require_quality(run, cycle_id, judged, known_detector(settings.detector).model_id, settings)
        counts |= {f"{stage.name}.{key}": value for key, value in found.items()}
        row = _save(run, cycle_id, stage.state, settings, counts, before=row)
        summary = ", ".join(f"{key} {value:,}" for key, value in found.items())
        run.tell(f"    {summary + ', ' if summary else ''}{time.perf_counter() - begin_s:.0f} s")


def branch_cycle(run: Run, cycle_id: str, settings: Settings, parent_id: str, stage_name: str) -> None:
    """Plans a cycle that goes on from another one's work, with settings of its own from a stage on.

    What belongs to images and models is there already; the parent's metrics and picks are copied where its
    stages are kept. A cycle of this name that exists stays as it is.

    Args:
        run: The run.
        cycle_id: The new cycle.
        settings: Of the new cycle.
        parent_id: The cycle it goes on from.
        stage_name: First stage that is done anew.

    Raises:
        QuarryError: No such cycle or stage, a parent that has not come so far, other settings of a stage
            that is kept, or a cycle of this name with another parent.
    """
    require_cycle_name(cycle_id)
    if stage_name not in STAGE_NAMES:
        raise QuarryError(f"--from-stage {stage_name!r}: no such stage; {nearest(stage_name, STAGE_NAMES)}")
    parent = cycle_row(run, parent_id)
    first = STAGE_NAMES.index(stage_name)
    if parent is None or STATES.index(parent.state) < first:
        state = "there is no such cycle" if parent is None else f"it is only {parent.state}"
        raise QuarryError(f"--from-cycle {parent_id!r}: {state}; it must be {STATES[first]} for {stage_name}")
    if other := _stage_of_other_settings(parent, settings, first):
        raise QuarryError(
            f"cycle {parent_id!r} ran stage {other} with other settings: start from there, or give those"
        )
    row = cycle_row(run, cycle_id)
    if row is not None and row.parent != parent_id:
        of = "no other cycle" if row.parent is None else f"cycle {row.parent!r}"
        raise QuarryError(
            f"cycle {cycle_id!r} is there already and goes on from {of}, not from {parent_id!r}: give "
            "another --cycle, or leave out --from-cycle to go on with it"
        )
    if row is not None:
        return
    for stage in STAGES[:first]:
        for table in CYCLE_ROWS.get(stage.name, ()):
            theirs = run.store.read(table, pinned=True).where(F.col("cycle_id") == parent_id)
            run.store.merge(table, theirs.withColumn("cycle_id", F.lit(cycle_id)), on_match="keep")
    _save(run, cycle_id, STATES[first], settings, {}, parent=parent_id)


def _stage_of_other_settings(row: Row, settings: Settings, n_done: int) -> str | None:
    """The first of a cycle's finished stages whose settings are no longer the same."""
    before = recorded_settings(row)
    for stage in STAGES[:n_done]:
        if _hash(stage, before) != _hash(stage, settings):
            return stage.name
    return None


def _hash(stage: Stage, settings: Settings) -> str:
    return settings_hash(*(getattr(settings, section) for section in stage.settings))


def require_cycle_name(cycle_id: str) -> None:
    """Fails unless the name can stand in file names and SQL.

    Raises:
        QuarryError: Other characters, or too long.
    """
    if not re.fullmatch(CYCLE_NAME, cycle_id):
        raise QuarryError(f"--cycle {cycle_id!r}: expected up to 100 letters, digits, `.`, `_` or `-`")


def recorded_settings(row: Row) -> Settings:
    """The settings a cycle was started with, as its row of `cycles` has them.

    Raises:
        QuarryError: Another Quarry started the cycle, with settings that this one does not know.
    """
    try:
        return Settings.model_validate_json(row.settings)
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise QuarryError(
            f"cycle {row.cycle_id!r} was run by a Quarry with other settings ({keys}): go on with that one, "
            "or start another cycle with --cycle NAME"
        ) from None


def settings_of_cycle(run: Run, row: Row | None, given: Settings) -> Settings:
    """What a cycle was started with; those given where it has no row, or where another Quarry ran it."""
    if row is None:
        return given
    try:
        return recorded_settings(row)
    except QuarryError:
        run.tell("the cycle was run by a Quarry with other settings; those given are taken for them")
        return given


def model_of_cycle(run: Run, cycle_id: str, name: str | None) -> Model:
    """The model with this name or id; without one, the cycle's own, or else the one registered last."""
    row = cycle_row(run, cycle_id) if name is None else None
    return model_named(run, name if row is None else row.model_id)


def cycle_row(run: Run, cycle_id: str) -> Row | None:
    """The cycle's row of `cycles`, or none."""
    return run.store.read(CYCLES).where(F.col("cycle_id") == cycle_id).first()


def cycle_settings_hash(settings: Settings) -> str:
    """Identity of the settings that change a cycle's tables; how and where it runs may change on the way."""
    sections = dict.fromkeys(section for stage in STAGES for section in stage.settings)
    return settings_hash(*(getattr(settings, section) for section in sections))


def _save(
    run: Run,
    cycle_id: str,
    state: str,
    settings: Settings,
    counts: dict[str, int],
    *,
    before: Row | None = None,
    parent: str | None = None,
) -> Row:
    """Writes the cycle's row, keeping parent and start of the one before, and returns it."""
    row = {
        "cycle_id": cycle_id,
        "parent": parent if before is None else before.parent,
        "model_id": known_detector(settings.detector).model_id,
        "state": state,
        "settings": settings.model_dump_json(exclude=NOT_KEPT),
        "settings_hash": cycle_settings_hash(settings),
        "started": None if before is None else before.started,
        "ended": None,
        "counts": counts,
    }
    frame = local_frame(run.store.session, [row], spark_schema(CYCLES))
    frame = frame.withColumn("started", F.coalesce("started", utc_timestamp(run.started_s)))
    if state == CLOSED:
        frame = frame.withColumn("ended", utc_timestamp(time.time()))
    run.store.merge(CYCLES, frame)
    saved = frame.first()
    assert saved is not None
    return saved

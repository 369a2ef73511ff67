"""The stages of a cycle in order: what each does, the state it leads to, and the settings it depends on."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from conf.errors import QuarryError
from conf.settings import Settings
from conf.strategy import strategies
from pipelines.acquire import acquire
from pipelines.detect import detect, detect_job, known_detector
from pipelines.evaluate import evaluate
from pipelines.export import export_manifests
from pipelines.ingest import ingest
from pipelines.labels import import_labels
from pipelines.models import Model, model_named
from pipelines.outstanding import awaited, export_command, import_command
from pipelines.place_check import require_places
from pipelines.ranked_images import ScoredOtherwise
from pipelines.report import write_report
from pipelines.run import Run
from pipelines.score import score
from pipelines.train import train
from pipelines.training_set import write_training_set

PLANNED, CLOSED = "planned", "closed"


class StillOut(Exception):
    """The stage has to wait for labels; the message says for how many and what to do."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a cycle.

    Attributes:
        name: Of the stage, and of its job where it has one.
        state: What the cycle is in once it is done.
        work: Does it, from the run, the cycle's name and the settings; returns counts.
        settings: Sections whose change makes its result another one.
        judged_as: Stage whose expectations its tables must meet; none: its own.
    """

    name: str
    state: str
    work: Callable[[Run, str, Settings], dict[str, int]]
    settings: tuple[str, ...] = ()
    judged_as: str | None = None


def cycle_model(run: Run, settings: Settings) -> Model:
    """The registered model of the cycle's detector."""
    return model_named(run, known_detector(settings.detector).model_id)


def _ingest(run: Run, _: str, settings: Settings) -> dict[str, int]:
    return ingest(run, settings.lake)


def _detect(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    # What no image has is known now: not after days of detection.
    require_places(run, known_detector(settings.detector).classes, strategies(settings.acquire))
    return detect(run, cycle_id, detect_job(settings))


def _import_labels(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    labels, split = settings.lake.labels, settings.lake.labels_split
    if labels is None:
        return {}
    return import_labels(run, labels, "coco", split, cycle_id, cycle_model(run, settings))


def _score(run: Run, _: str, settings: Settings) -> dict[str, int]:
    return score(run, cycle_model(run, settings), settings.score, settings.calibration, settings.seed)


def _evaluate(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    if settings.lake.labels is None or settings.lake.labels_split == "train":
        run.tell("no held-out labels (setting lake.labels): rankings are not measured")
        return {}
    model = cycle_model(run, settings)
    return evaluate(run, cycle_id, model, settings.score, settings.evaluate, settings.seed)


def _acquire(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    model = cycle_model(run, settings)
    pick = partial(acquire, run, cycle_id, model, settings.acquire, settings.score, settings.seed)
    try:
        return pick()
    except ScoredOtherwise as found:  # by another cycle with this model, since this one scored
        run.tell(f"{found}; scoring again")
        _score(run, cycle_id, settings)
        return pick()


def _export(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    model = cycle_model(run, settings)
    return export_manifests(run, cycle_id, model, settings.export, settings.acquire.prices)


def _report(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    run.tell(f"report: {write_report(run, cycle_id, cycle_model(run, settings), settings)}")
    return {}


def _await_labels(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    awaits = awaited(run, cycle_id)
    rows = awaits.sent
    if awaits.is_enough(settings.cycle.labels_wanted):
        return {"sent": sum(row.n_sent for row in rows), "back": sum(row.n_back for row in rows)}
    if awaits.unrecorded:
        raise QuarryError(
            f"cycle {awaits.cycle_id!r} was exported by a Quarry that did not record tasks, so nobody can "
            f"tell what is back: run `{export_command(run.store.root, awaits)}` with the settings of that "
            "export (the same tasks get the same ids), then this again"
        )
    lines = [f"  {row.strategy}: {row.n_back:,} of {row.n_sent:,} back" for row in rows]
    raise StillOut(
        f"labels are out since {min(row.sent_ts for row in rows):%Y-%m-%d}:\n" + "\n".join(lines) + "\n"
        f"import them with `{import_command(run.store.root, awaits)}`, then run this again; other "
        "cycles need not wait, and --set cycle.labels_wanted=0.5 goes on with half of them"
    )


def _train(run: Run, cycle_id: str, settings: Settings) -> dict[str, int]:
    if not settings.cycle.retrain:
        run.tell("the detector is not trained (setting cycle.retrain); labels are in ground_truth")
        return {}
    folder = settings.cycle.folder or f"{run.store.root}/checkpoints"
    card = known_detector(settings.detector)
    labels, checkpoint = f"{folder}/{cycle_id}.labels", f"{folder}/{cycle_id}.pt"
    model = model_named(run, card.model_id)
    counts = write_training_set(run, labels, model, settings.acquire.box_threshold)
    report = train(
        settings.train,
        labels=labels,
        images="",  # the labels say where each image is
        output=checkpoint,
        seed=settings.seed,
        tell=run.tell,
        classes=card.classes,
        start_from=card.uri if card.uri.endswith(".pt") else None,
    )
    ap50 = "none held out" if report.ap50 is None else f"AP50 {report.ap50:.3f} on held-out labels"
    anew = ["--cycle", "NAME", "--from-cycle", cycle_id, "--from-stage", STAGE_NAMES[0]]
    flags = ["--root", run.store.root, *anew, "--set", f"detector.weights={checkpoint}"]
    run.tell(f"{checkpoint}: {ap50}; next: {shlex.join(['quarry', 'run_cycle', *flags])}")
    return counts


def _close(_: Run, __: str, ___: Settings) -> dict[str, int]:
    return {}


STAGES = (
    Stage(name="ingest", state="ingested", work=_ingest, settings=("lake",)),
    Stage(name="detect", state="detected", work=_detect, settings=("detector",)),
    Stage(name="import_labels", state="labels_imported", work=_import_labels, settings=("lake",)),
    Stage(name="score", state="scored", work=_score, settings=("score", "calibration", "seed")),
    Stage(name="evaluate", state="evaluated", work=_evaluate, settings=("evaluate",)),
    Stage(name="acquire", state="ranked", work=_acquire, settings=("acquire", "seed")),
    Stage(name="export_manifest", state="exported", work=_export, settings=("export",)),
    Stage(name="report", state="reported", work=_report),
    Stage(name="labels", state="labeled", work=_await_labels, judged_as="import_labels"),
    Stage(name="train", state="trained", work=_train),
    Stage(name="close", state=CLOSED, work=_close),
)
STATES = (PLANNED, *(stage.state for stage in STAGES))
STAGE_NAMES = tuple(stage.name for stage in STAGES)

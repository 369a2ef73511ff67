"""Runs a whole cycle, or what is left of one."""

from __future__ import annotations

import argparse
import shlex
import sys

from conf.code_settings import require_given
from conf.errors import QuarryError
from conf.load import load_settings
from conf.settings import Settings
from jobs.command import DEFAULT_CYCLE, Job, add_cycle_flag, path_or_uri
from jobs.tables_shown import show, show_evaluation
from pipelines.cycle import branch_cycle, cycle_row, recorded_settings, require_cycle_name, run_cycle
from pipelines.cycle_stages import STAGE_NAMES
from pipelines.detect import known_detector
from pipelines.ingest import is_folder
from pipelines.report import sql_examples
from pipelines.run import Run
from pipelines.sample_lake import is_made, make_sample_lake

SHOWN_IMAGES = 10


def _flags(parser: argparse.ArgumentParser) -> None:
    add_cycle_flag(parser)
    parser.add_argument(
        "--from-cycle",
        metavar="NAME",
        help="keep the work of this cycle up to --from-stage, with a new --cycle",
    )
    parser.add_argument(
        "--from-stage", metavar="STAGE", help=f"first stage done anew: {', '.join(STAGE_NAMES)}"
    )
    parser.add_argument(
        "--sample-lake",
        type=path_or_uri,
        metavar="DIR",
        help="write the built-in sample lake there first, unless it is there whole",
    )


def _work(run: Run, given: Settings, args: argparse.Namespace) -> None:
    require_cycle_name(args.cycle)
    settings = _settings_of_cycle(run, given, args)
    known_detector(settings.detector)
    if args.sample_lake is not None and not is_made(args.sample_lake, settings.sample_lake):
        make_sample_lake(run, args.sample_lake, settings.sample_lake)
    if settings.lake.uri is not None and not is_folder(settings.lake.uri):
        raise QuarryError(f"lake.uri {settings.lake.uri}: no such folder; give the root folder of the images")
    if (args.from_cycle is None) != (args.from_stage is None):
        raise QuarryError("--from-cycle and --from-stage go together: a cycle, and the first stage done anew")
    if args.from_cycle is not None:
        branch_cycle(run, args.cycle, settings, args.from_cycle, args.from_stage)
    run_cycle(run, args.cycle, settings)
    _show_outcome(run, settings, args)


def _settings_of_cycle(run: Run, given: Settings, args: argparse.Namespace) -> Settings:
    """Without --config a started cycle goes on with its own settings, and so does one that branches off.

    Those that have code run must be given again. A branch writes a report of its own, not over that of the
    cycle it came from.
    """
    started = cycle_row(run, args.cycle)
    row = started or cycle_row(run, args.from_cycle)
    if args.config is not None or row is None:
        return given
    own = recorded_settings(row).model_copy(update={"spark": given.spark})
    if started is None:
        own = own.model_copy(update={"report": own.report.model_copy(update={"path": None})})
    settings = load_settings(overrides=args.set, root=args.root, resolved=own)
    require_given(settings, given, row.cycle_id)
    return settings


def _show_outcome(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    run.store.register_temporary_views()
    examples = sql_examples(settings, known_detector(settings.detector).model_id)
    run.tell(f"\nhardest images for {settings.acquire.query}:")
    show(run, run.store.session.sql(examples[0].sql), rows=SHOWN_IMAGES)
    row = cycle_row(run, args.cycle)
    if row is not None and any(key.startswith("evaluate.") for key in row.counts):
        run.tell("")
        show_evaluation(run, args.cycle, row.model_id, settings.score)
    given = {"--config": args.config, "--root": args.root}
    flags = shlex.join(part for flag, value in given.items() if value for part in (flag, value))
    run.tell("\nSQL to try next:")
    for example in examples:
        run.tell(f'  quarry sql {flags} "{example.sql}"')
    run.tell("\nfiles:")
    run.tell(f"  report     {settings.report.path or f'{run.store.root}/reports/{args.cycle}.html'}")
    run.tell(f"  manifests  {settings.export.folder or f'{run.store.root}/exports'}/{args.cycle}")
    run.tell(f"  tables     {run.store.root}")


JOB = Job(
    name="run_cycle",
    summary=(
        "Runs ingest, detect, import_labels, score, evaluate, acquire, export_manifest and report in order. "
        "Quality gates judge each stage (docs/quality.md). A stopped cycle goes on after its last finished "
        "stage; one whose labels are back is trained (setting cycle.retrain) and closed; a new name starts "
        "a new one. Without --config a started cycle goes on with its own settings, changed by --set; those "
        "that have code run are given again."
    ),
    example=f"quarry run_cycle --config my_lake.yaml --cycle {DEFAULT_CYCLE}",
    work=_work,
    flags=_flags,
)

if __name__ == "__main__":
    sys.exit(JOB.main())

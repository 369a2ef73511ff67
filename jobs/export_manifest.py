"""Writes files for labeling tools."""

from __future__ import annotations

import argparse
import sys

from conf.settings import Settings
from jobs.command import Job, add_cycle_flag, add_model_flag, as_settings
from pipelines.cycle import require_cycle_name
from pipelines.export import export_manifests
from pipelines.models import model_named
from pipelines.run import Run


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", metavar="DIR", help="where the files go (setting export.folder)")
    add_cycle_flag(parser)
    add_model_flag(parser)


def _overrides(args: argparse.Namespace) -> list[str]:
    return as_settings("export", {"folder": args.folder})


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    require_cycle_name(args.cycle)
    model = model_named(run, args.model)
    for path in export_manifests(run, args.cycle, model, settings.export):
        run.tell(path)


JOB = Job(
    name="export_manifest",
    summary="Writes what a cycle acquired as COCO and Label Studio files, with pre-annotations.",
    example="quarry export_manifest --root tables --folder manifests",
    work=_work,
    flags=_flags,
    overrides=_overrides,
)

if __name__ == "__main__":
    sys.exit(JOB.main())

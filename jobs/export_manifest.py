"""Writes manifests for labeling tools."""

from __future__ import annotations

import argparse
import sys

from conf.settings import Settings
from jobs.command import OF_CYCLE, Job, add_cycle_flag, add_model_flag, as_settings, listed
from pipelines.cycle import model_of_cycle, require_cycle_name
from pipelines.export import export_manifests
from pipelines.run import Run


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", metavar="DIR", help="where the folders go (setting export.folder)")
    parser.add_argument(
        "--formats", metavar="a,b", help="label_studio, cvat, coco, ... (setting export.formats)"
    )
    parser.add_argument(
        "--tasks",
        metavar="KIND",
        help="image (of box picks: boxes to correct), or a question about each box: verify_box, verify_class "
        "(setting export.tasks)",
    )
    parser.add_argument(
        "--strategies", metavar="a,b", help="whose picks are sent (setting export.strategies; default: all)"
    )
    add_cycle_flag(parser)
    add_model_flag(parser, OF_CYCLE)


def _overrides(args: argparse.Namespace) -> list[str]:
    names = {"formats": args.formats, "strategies": args.strategies}
    lists = {key: None if text is None else listed(text) for key, text in names.items()}
    return as_settings("export", {"folder": args.folder, "tasks": args.tasks, **lists})


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    require_cycle_name(args.cycle)
    model = model_of_cycle(run, args.cycle, args.model)
    export_manifests(run, args.cycle, model, settings.export, settings.acquire.prices)


JOB = Job(
    name="export_manifest",
    summary="Writes what a cycle acquired as manifests that labeling tools import, with pre-annotations.",
    example="quarry export_manifest --root tables --folder manifests --formats label_studio,cvat",
    work=_work,
    flags=_flags,
    overrides=_overrides,
)

if __name__ == "__main__":
    sys.exit(JOB.main())

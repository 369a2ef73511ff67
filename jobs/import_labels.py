"""Imports COCO ground truth."""

from __future__ import annotations

import argparse
import sys

from conf.label_map import load_label_map
from conf.section import location
from conf.settings import Settings
from jobs.command import Job, add_model_flag
from pipelines.cycle import require_cycle_name
from pipelines.labels import import_coco_labels
from pipelines.models import model_if_any, model_named
from pipelines.run import Run


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels", type=location, metavar="COCO", required=True, help="COCO JSON: a file or a folder of them"
    )
    parser.add_argument(
        "--split",
        choices=("train", "eval"),
        default="eval",
        help="eval: held out to measure with (default); train: was trained on, never acquired again",
    )
    parser.add_argument(
        "--label-map",
        metavar="MAP",
        help="YAML `name: new name, or null to drop`, or the name of a shipped map",
    )
    add_model_flag(parser)
    parser.add_argument(
        "--cycle",
        metavar="NAME",
        default="manual",
        help="cycle that brings the labels: where it picked single boxes, only those count as asked",
    )


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    require_cycle_name(args.cycle)
    label_map = load_label_map(args.label_map) if args.label_map else None
    model = model_named(run, args.model) if args.model else model_if_any(run)
    counts = import_coco_labels(run, args.labels, args.split, args.cycle, model, label_map)
    run.tell(
        f"{counts['images']:,} images with {counts['boxes']:,} boxes imported, "
        f"{counts['not_in_lake']:,} images not in the lake, {counts['rejected']:,} items rejected"
    )


JOB = Job(
    name="import_labels",
    summary="Imports COCO ground truth; images are found by their path below the lake's root or by image_id.",
    example="quarry import_labels --root tables --labels my_lake/labels",
    work=_work,
    flags=_flags,
)

if __name__ == "__main__":
    sys.exit(JOB.main())

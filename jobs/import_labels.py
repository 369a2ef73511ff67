"""Imports labels."""

from __future__ import annotations

import argparse
import sys

from conf.export_settings import LABEL_FILE_FORMATS
from conf.label_map import load_label_map
from conf.settings import Settings
from jobs.command import OF_CYCLE, Job, add_model_flag, path_or_uri
from pipelines.cycle import model_of_cycle, require_cycle_name
from pipelines.labels import import_labels
from pipelines.models import is_any_registered
from pipelines.run import Run

WHY = "SELECT item_kind, reason, count(*) AS n FROM label_rejects GROUP BY ALL ORDER BY n DESC"


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels", type=path_or_uri, metavar="PATH", required=True, help="label file, or a folder of them"
    )
    parser.add_argument(
        "--format",
        choices=LABEL_FILE_FORMATS,
        default="coco",
        help="tool the files come from (default coco); cvat: CVAT for images 1.1, XML or zip",
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
    add_model_flag(parser, OF_CYCLE)
    parser.add_argument(
        "--cycle",
        metavar="NAME",
        default="manual",
        help="cycle that brings the labels: where it picked single boxes, only those count as asked",
    )


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    require_cycle_name(args.cycle)
    label_map = load_label_map(args.label_map) if args.label_map else None
    # Labels may come before a detector ran; else classes are those of the model that was asked about.
    has_model = args.model is not None or is_any_registered(run)
    model = model_of_cycle(run, args.cycle, args.model) if has_model else None
    counts = import_labels(run, args.labels, args.format, args.split, args.cycle, model, label_map)
    run.tell(
        f"{counts['images']:,} images with {counts['boxes']:,} boxes imported, "
        f"{counts['not_in_lake']:,} images not in the lake, {counts['rejected']:,} items rejected"
        + (f": quarry sql {WHY!r}" if counts["not_in_lake"] + counts["rejected"] else "")
    )


JOB = Job(
    name="import_labels",
    summary=(
        "Imports labels: returns of labeling tools, or COCO ground truth. Images are found by the ids our "
        "manifests carry, or by their path below the lake's root. What cannot be used is in label_rejects."
    ),
    example=(
        "quarry import_labels --root tables --labels export.json --format label_studio --split train "
        "--cycle cycle-1"
    ),
    work=_work,
    flags=_flags,
)

if __name__ == "__main__":
    sys.exit(JOB.main())

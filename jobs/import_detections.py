"""Imports detections made elsewhere; needs no detector, no torch and no image file."""

from __future__ import annotations

import argparse
import sys

from conf.label_map import load_label_map
from conf.settings import Settings
from jobs.command import Job, path_or_uri
from pipelines.import_detections import ImportRequest, import_detections
from pipelines.run import Run


def _class_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise ValueError("expected class names")
    return names


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--detections",
        type=path_or_uri,
        metavar="FILE",
        required=True,
        help="COCO results JSON, or a Parquet file or folder or a Delta table with the columns image_id, "
        "width, height and detections",
    )
    parser.add_argument(
        "--images",
        type=path_or_uri,
        metavar="COCO",
        help="COCO JSON that lists the images and categories; needed with COCO results",
    )
    parser.add_argument(
        "--image-root", type=path_or_uri, metavar="URI", help="folder or URI that the file names are below"
    )
    parser.add_argument(
        "--model-name", metavar="NAME", default="imported", help="name of the detector (default imported)"
    )
    parser.add_argument(
        "--head",
        choices=("softmax", "sigmoid"),
        default="sigmoid",
        help="how scores were made; baselines of softmax read logits, which COCO results lack "
        "(default sigmoid)",
    )
    parser.add_argument(
        "--classes",
        type=_class_names,
        metavar="A,B,...",
        help="names of the category ids 1, 2, ..., instead of the categories of --images",
    )
    parser.add_argument(
        "--label-map",
        metavar="MAP",
        help="YAML `name: new name, or null to drop`, or the name of a shipped map",
    )


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    request = ImportRequest(
        detections_uri=args.detections,
        images_uri=args.images,
        image_root=args.image_root,
        dataset=settings.lake.dataset,
        model_name=args.model_name,
        head=args.head,
        classes=args.classes,
        label_map=load_label_map(args.label_map) if args.label_map else None,
        eta0=settings.detector.eta0,
    )
    counts = import_detections(run, request)
    run.tell(
        f"{counts['images']:,} images with {counts['boxes']:,} detections imported as {args.model_name}; "
        f"{counts['below']:,} below eta0 {settings.detector.eta0:g} and {counts['dropped']:,} of dropped "
        f"classes not kept; {counts['quarantined']:,} images quarantined"
    )


JOB = Job(
    name="import_detections",
    summary="Imports detections made elsewhere: COCO results, Parquet or Delta. An image's id is its file "
    "name, unless the lake or quarry_image_id gives another.",
    example="quarry import_detections --root tables --images coco_images.json --detections results.json",
    work=_work,
    flags=_flags,
)

if __name__ == "__main__":
    sys.exit(JOB.main())

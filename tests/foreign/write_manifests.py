"""Manifests of the hard tasks in every format and kind, and what parsers that are not ours must find in them.

Run in the main environment: python -m tests.foreign.write_manifests FOLDER
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from PIL import Image

from tests.udfs.formats.hard_tasks import EXIF_NAME, WEB_ROOT, expected_images, hard_manifest, hard_tasks
from udfs.formats.registry import FORMATS
from udfs.formats.task import LabelingTask

_ORIENTATION_TAG, _TURNED_RIGHT = 0x0112, 6
# Ground Truth reads nothing but S3.
_ROOTS = {"ground_truth": "s3://bucket/lake"}


def main(folder: Path) -> None:
    """Write FOLDER/FORMAT/KIND/ with the manifest `tasks.*`, its companions and `expected.json`."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, form in FORMATS.items():
        for kind in sorted(form.kinds) if form.write else ():
            target = folder / name / kind
            target.mkdir(parents=True)
            root, manifest = _ROOTS.get(name, WEB_ROOT), hard_manifest(kind)
            assert form.write is not None
            with (target / f"tasks{form.suffixes[0]}").open("w", encoding="utf-8", newline="") as stream:
                form.write(stream, hard_tasks(kind, root), manifest)
            for companion, text in form.companions(manifest).items():
                (target / companion).write_text(text, encoding="utf-8")
            expected = json.dumps(expected_images(kind, root), indent=1)
            (target / "expected.json").write_text(expected, encoding="utf-8")
    for task in hard_tasks():
        path = folder / "images" / task.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        if task.file_name == EXIF_NAME:
            _write_turned_image(path, task)
        else:
            # Parsers look whether the file is there, not into it.
            Image.new("RGB", (1, 1)).save(path)


def _write_turned_image(path: Path, task: LabelingTask) -> None:
    """The image as cameras store it: on its side, and a tag that turns it."""
    image = Image.new("RGB", (task.height, task.width), "gray")
    exif = image.getexif()
    exif[_ORIENTATION_TAG] = _TURNED_RIGHT
    image.save(path, exif=exif)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Label Studio tasks: a streaming writer of pre-annotated images, and the labeling interface they need."""

from __future__ import annotations

import colorsys
import json
import re
from collections.abc import Iterable, Sequence
from typing import IO, Any
from xml.sax.saxutils import quoteattr

from conf.errors import QuarryError
from udfs.manifest import (
    ManifestBox,
    ManifestCounts,
    ManifestImage,
    UniqueNames,
    check_image,
    class_index,
    class_indices,
    clipped_box,
)

_GOLDEN_ANGLE_TURNS = 0.381966
_NOT_XML_1_0 = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_label_studio(
    stream: IO[str], images: Iterable[ManifestImage], classes: Sequence[str], *, model_version: str
) -> ManifestCounts:
    """Write a JSON array of Label Studio tasks, one an image, and count what went in.

    All boxes of an image are in ONE prediction, as the tool shows one prediction at a time. Sizes are
    percent of the image with 6 decimals. The prediction's `score` is the mean score of its boxes; what the
    image was picked by is in the task's data (`rank`, `strategy`, `query_score`). An image without boxes has
    no prediction.

    Args:
        stream: Where the JSON goes, opened for text; the text is pure ASCII.
        images: Any iterator; one image is held at a time.
        classes: Class names of the project's labeling interface.
        model_version: What Label Studio shows as the model; the predictions of a cycle share it.

    Returns:
        Images and boxes written, and boxes dropped because nothing of them lies inside their image.

    Raises:
        QuarryError: A label outside `classes`, an image or a box given twice, a NaN or infinite number.
    """
    indices = class_indices(classes)
    ids = UniqueNames("image id")
    n_images = n_boxes = n_dropped = 0
    stream.write("[")
    for n_images, image in enumerate(images, start=1):
        check_image(image)
        ids.add(image.image_id, image.image_id)
        regions: list[dict[str, Any]] = []
        for box in image.boxes:
            class_index(indices, box, image)
            region = _region(box, image)
            if region is not None:
                regions.append(region)
        if len({region["id"] for region in regions}) != len(regions):
            raise QuarryError(
                f"image {image.image_id!r}: two boxes share a detection_id; expected distinct ones, "
                "Label Studio would show one of them"
            )
        n_boxes += len(regions)
        n_dropped += len(image.boxes) - len(regions)
        stream.write(",\n" if n_images > 1 else "\n")
        stream.write(json.dumps(_task(image, regions, model_version), allow_nan=False, separators=(",", ":")))
    stream.write("\n]\n")
    return ManifestCounts(n_images=n_images, n_boxes=n_boxes, n_dropped_boxes=n_dropped)


def labeling_config(classes: Sequence[str]) -> str:
    """The XML of a labeling interface whose names fit `write_label_studio`, a colour for each class.

    Args:
        classes: Class names, in the order in which annotators see them. The first nine get a number key.

    Returns:
        XML 1.0 text.

    Raises:
        QuarryError: No class, a name given twice, or a control character that XML cannot hold.
    """
    lines = []
    for name, index in class_indices(classes).items():
        if _NOT_XML_1_0.search(name):
            raise QuarryError(f"class {name!r}: expected a name without control characters; rename the class")
        hotkey = f' hotkey="{index + 1}"' if index < 9 else ""
        lines.append(f'    <Label value={quoteattr(name)} background="{_colour(index)}"{hotkey}/>\n')
    return (
        "<View>\n"
        '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>\n'
        '  <RectangleLabels name="label" toName="image">\n'
        f"{''.join(lines)}"
        "  </RectangleLabels>\n"
        "</View>\n"
    )


def _task(image: ManifestImage, regions: list[dict[str, Any]], model_version: str) -> dict[str, Any]:
    data = {
        "image": image.uri,
        "image_id": image.image_id,
        "file_name": image.file_name,
        "rank": image.rank,
        "strategy": image.strategy,
        "query_score": image.score,
    }
    if not regions:
        return {"data": data, "predictions": []}
    mean_score = sum(float(region["score"]) for region in regions) / len(regions)
    prediction = {"model_version": model_version, "score": round(mean_score, 6), "result": regions}
    return {"data": data, "predictions": [prediction]}


def _region(box: ManifestBox, image: ManifestImage) -> dict[str, Any] | None:
    corners = clipped_box(box, image)
    if corners is None:
        return None
    x1, y1, x2, y2 = corners
    return {
        "id": box.detection_id,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "score": box.score,
        "value": {
            "x": round(100.0 * x1 / image.width, 6),
            "y": round(100.0 * y1 / image.height, 6),
            "width": round(100.0 * (x2 - x1) / image.width, 6),
            "height": round(100.0 * (y2 - y1) / image.height, 6),
            "rotation": 0,
            "rectanglelabels": [box.label_name],
        },
    }


def _colour(index: int) -> str:
    # Steps of the golden angle keep neighbouring classes far apart in hue for any number of classes.
    red, green, blue = colorsys.hls_to_rgb((0.58 + index * _GOLDEN_ANGLE_TURNS) % 1.0, 0.5, 0.75)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))

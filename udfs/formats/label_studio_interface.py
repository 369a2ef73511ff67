"""What a Label Studio project needs besides its tasks: the labeling interface, and how to import."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator
from xml.sax.saxutils import quoteattr

from conf.errors import QuarryError
from udfs.formats.label_studio import LABELS, REGION, REGION_LABEL
from udfs.formats.task import NO, QUESTIONS, YES, Manifest, class_indices, is_question

ANSWER, RIGHT_CLASS, NO_OBJECT = "answer", "class", "no object"
_GOLDEN_ANGLE_TURNS = 0.381966
_MOST_BUTTONS = 12
_NOT_XML_1_0 = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Label Studio puts a field of the task in place of these.
_FIELD_OF_TASK = re.compile(r"\$[\w[\].{}]", re.ASCII)
_IMPORT = """\
{name}: {n_tasks} tasks for Label Studio

1. Create Project. Labeling Setup -> Custom template -> Code: paste label_studio_config.xml and save it.
   Do this first: Label Studio checks the boxes against it as it imports.
2. Import the .json files of this folder, in the order of their names: rank 1 comes first. Leave the task
   sampling at sequential, or sort the Data Manager by the column `rank`.
3. Label: {question}
   Every label comes back with Submit. Submit an image without any box if nothing is there; Skip a task that
   cannot be answered (Label All Tasks has the button), it counts as not labeled.
4. Export -> JSON (not JSON-MIN) and import that file as labels of format label_studio.

Label Studio opens the images by their URIs: give the project a Source Storage with pre-signed URLs for s3://
and the like; a web server must allow cross-origin requests; /data/local-files/?d=... needs
LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED and a Source Storage of the kind Local files above the images.

Importing a file a second time duplicates its tasks in Label Studio. Nothing is counted twice: a task keeps
its task_id, and of several labelings of one the newest is read.
"""


def label_studio_companions(manifest: Manifest) -> dict[str, str]:
    """The labeling interface and the import instructions, as file name to text.

    Raises:
        QuarryError: As `labeling_config`.
    """
    readme = _IMPORT.format(
        name=manifest.name, n_tasks=f"{manifest.n_tasks:,}", question=QUESTIONS[manifest.kind]
    )
    return {"label_studio_config.xml": labeling_config(manifest), "README.txt": readme}


def labeling_config(manifest: Manifest) -> str:
    """The XML of the labeling interface of a manifest written by `write_label_studio`.

    Images and boxes to correct get a label for each class, in its own colour, the first nine with a number
    key. A question gets an answer that must be given and, of a class that is wrong, the classes to choose
    from.

    Args:
        manifest: Its kind and its classes, in the order in which annotators see them.

    Returns:
        XML 1.0 text.

    Raises:
        QuarryError: No class, a name given twice, one with a control character that XML cannot hold, or one
            in which Label Studio would replace a part by a field of the task.
    """
    for name in class_indices(manifest.classes):
        if _NOT_XML_1_0.search(name) or _FIELD_OF_TASK.search(name):
            raise QuarryError(
                f"class {name!r}: expected a name without control characters and without $ before a letter; "
                "rename the class"
            )
    return "\n".join(["<View>", *(f"  {line}" for line in _elements(manifest)), "</View>", ""])


def _elements(manifest: Manifest) -> Iterator[str]:
    yield f"<Header value={quoteattr(QUESTIONS[manifest.kind])}/>"
    if manifest.kind == "verify_box":
        yield from _choices(ANSWER, (YES, NO), "Answer yes or no.")
    if manifest.kind == "verify_class":
        # On the image the box has a colour and no name.
        yield '<Header value="Class of the box: $label_name" size="4"/>'
        yield from _choices(ANSWER, (YES, NO, NO_OBJECT), "Answer the question.")
        when = f' visibleWhen="choice-selected" whenTagName="{ANSWER}" whenChoiceValue="{NO}"'
        layout = ' layout="select"' if len(manifest.classes) > _MOST_BUTTONS else ""
        yield from _choices(RIGHT_CLASS, manifest.classes, "Choose the right class.", when + layout)
    if not is_question(manifest.kind):
        # Below the image they are out of sight: the view of an image is as high as the window.
        yield from _labels(manifest)
    # As it is by default, `fit` cuts off the borders of images that are smaller than the view.
    yield '<Image name="image" value="$image" defaultZoom="auto" zoom="true" zoomControl="true"/>'
    if is_question(manifest.kind):
        # Nothing is drawn for a question: what the tool must know to show the boxes stays out of sight.
        yield '<View style="display: none">'
        yield from (f"  {line}" for line in _labels(manifest))
        yield f'  <RectangleLabels name="{REGION}" toName="image" fillOpacity="0" strokeWidth="3">'
        yield f'    <Label value="{REGION_LABEL}" background="#ffd400"/>'
        yield "  </RectangleLabels>"
        yield "</View>"


def _choices(name: str, values: tuple[str, ...], message: str, attributes: str = "") -> Iterator[str]:
    yield (
        f'<Choices name="{name}" toName="image" choice="single" showInline="true" required="true" '
        f'requiredMessage="{message}"{attributes}>'
    )
    yield from (f"  <Choice value={quoteattr(value)}/>" for value in values)
    yield "</Choices>"


def _labels(manifest: Manifest) -> Iterator[str]:
    yield f'<RectangleLabels name="{LABELS}" toName="image" canRotate="false">'
    for index, name in enumerate(manifest.classes):
        hotkey = f' hotkey="{index + 1}"' if index < 9 and not is_question(manifest.kind) else ""
        yield f'  <Label value={quoteattr(name)} background="{_colour(index)}"{hotkey}/>'
    yield "</RectangleLabels>"


def _colour(index: int) -> str:
    # Steps of the golden angle keep neighbouring classes far apart in hue for any number of classes.
    red, green, blue = colorsys.hls_to_rgb((0.58 + index * _GOLDEN_ANGLE_TURNS) % 1.0, 0.5, 0.75)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))

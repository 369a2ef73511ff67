"""What labeling tools receive: formats, kinds of tasks, how images are addressed, how files are split."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from conf.section import Location, Positive, Probability, Section, secret_in

ManifestFormat = Literal[
    "coco",
    "label_studio",
    "cvat",
    "cvat_manifest",
    "ground_truth",
    "labelbox",
    "labelbox_data_rows",
    "scale",
]
LabelFileFormat = Literal["coco", "label_studio", "cvat", "ground_truth", "labelbox", "scale"]
LABEL_FILE_FORMATS: tuple[str, ...] = get_args(LabelFileFormat)


class ExportSettings(Section):
    """What labeling tools receive."""

    formats: tuple[ManifestFormat, ...] = Field(("coco", "label_studio"), description="manifest formats")
    strategies: tuple[str, ...] = Field((), description="strategies sent to labeling; none named: all")
    tasks: Literal["image", "verify_box", "verify_class"] = Field(
        "image",
        description="image: whole images to label, picked boxes to correct; verify_*: yes/no questions about "
        "each box's place or class",
    )
    folder: Location | None = Field(None, description="where manifests go; none: <root>/exports")
    pre_annotate_above: Probability | None = Field(
        0.5, description="send detections at or above as pre-annotations; null: send none"
    )
    uri_prefix: str | None = Field(None, description="replace the lake's root by this prefix in image URIs")
    uri_prefixes: dict[str, str] = Field(
        {}, description="replace the longest of these prefixes that an image URI starts with"
    )
    uri_template: str | None = Field(
        None,
        description="image URI from {uri}, {path}, {key} or {image_id}; ${NAME} comes from the environment",
    )
    uri_command: str | None = Field(
        None, description="program that reads a URI a line and writes the one to send (signed, say)"
    )
    tasks_per_file: Positive = Field(50_000, description="most tasks in one file of a manifest")
    mb_per_file: Annotated[float, Field(gt=0.0)] = Field(200.0, description="largest file of a manifest (MB)")

    @model_validator(mode="after")
    def _has_one_rewriting(self) -> ExportSettings:
        if self.uri_prefix is not None and self.uri_prefixes:
            raise ValueError("uri_prefix and uri_prefixes: give one of them")
        for uri in (self.uri_prefix, *self.uri_prefixes, *self.uri_prefixes.values(), self.uri_template):
            if secret := secret_in(uri or ""):
                raise ValueError(
                    f"a {secret} in image URIs would be kept in tables and reports: write ${{NAME}} in "
                    "uri_template for it, which comes from the environment variable NAME"
                )
        if self.uri_command is not None and not shlex.split(self.uri_command):
            raise ValueError("uri_command: expected a program and its arguments in shell quoting")
        if len(set(self.formats)) != len(self.formats) or not self.formats:
            raise ValueError("formats: expected one or more different formats")
        return self

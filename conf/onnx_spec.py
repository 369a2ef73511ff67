"""How a team says what an ONNX detector takes and gives: the mapping `detector.onnx`.

An ONNX file names its inputs and outputs but not what they mean. `docs/detectors.md` has worked examples.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from conf.section import Section

Side = Annotated[int, Field(ge=1, le=16_384)]
Column = Annotated[int, Field(ge=0)]
Triple = tuple[float, float, float]


class OnnxOutputSpec(Section):
    """One output of the model, or some of its columns; a plain name stands for all of an output."""

    output: Annotated[str, Field(min_length=1)] = Field(description="name of the output in the model")
    columns: tuple[Column, Column] | None = Field(
        None, description="first column and the one after the last, from 0; none: all columns"
    )

    @model_validator(mode="before")
    @classmethod
    def _name_is_enough(cls, given: Any) -> Any:
        return {"output": given} if isinstance(given, str) else given

    @field_validator("columns")
    @classmethod
    def _has_columns(cls, columns: tuple[int, int] | None) -> tuple[int, int] | None:
        if columns is not None and columns[0] >= columns[1]:
            raise ValueError("expected first < end")
        return columns


class OnnxSpec(Section):
    """What an ONNX detector takes and gives."""

    input_hw: tuple[Side, Side] | None = Field(
        None, description="height and width of the model's input (px); none: the model's static ones"
    )
    resize: Literal["stretch", "letterbox", "none"] = Field(
        "letterbox", description="to the input size: stretch, keep the aspect and pad, or leave as it is"
    )
    letterbox_anchor: Literal["center", "top_left"] = Field(
        "center", description="where letterbox puts the image: centered (YOLOv5 on) or top left (YOLOX)"
    )
    pad_value: Annotated[int, Field(ge=0, le=255)] = Field(114, description="gray of letterbox padding")
    antialias: bool = Field(
        False, description="smooth when shrinking, as Pillow does; off: bilinear as OpenCV does"
    )
    color: Literal["rgb", "bgr"] = Field("rgb", description="order of the model's color channels")
    divisor: Annotated[float, Field(gt=0.0)] = Field(255.0, description="pixel values are divided by it")
    mean: Triple = Field((0.0, 0.0, 0.0), description="then this is subtracted, in the model's channel order")
    std: Triple = Field((1.0, 1.0, 1.0), description="then divided by this, in the model's channel order")
    layout: Literal["nchw", "nhwc", "chw", "hwc"] = Field(
        "nchw", description="axes of the input; without n: one image, no batch axis (torchvision's exports)"
    )
    boxes: OnnxOutputSpec = Field(description="four columns a candidate box")
    box_format: Literal["xyxy", "xywh", "cxcywh"] = Field(
        "xyxy", description="corners; left, top, width, height; or center, width, height"
    )
    box_units: Literal["input_px", "fraction"] = Field(
        "input_px", description="px of the model's input, or fractions of its width and height"
    )
    scores: OnnxOutputSpec = Field(description="a column a class; with labels: the best class's score only")
    labels: OnnxOutputSpec | None = Field(
        None, description="class index of each candidate where scores has the best class only"
    )
    objectness: OnnxOutputSpec | None = Field(
        None, description="probability of any object, multiplied with the class scores (YOLOv5, YOLOX)"
    )
    transposed: bool = Field(
        False, description="outputs are (batch, columns, candidates), as YOLOv8's (1, 84, 8400)"
    )
    activation: Literal["none", "sigmoid", "softmax"] = Field(
        "none", description="what makes probabilities of scores; none: they are probabilities"
    )
    background: Literal["none", "first", "last"] = Field(
        "none", description="where background is among score columns or class indices; last: DETR"
    )
    multi_label: bool = Field(
        False, description="a detection of every class of a box that reaches eta0; off: of its best only"
    )
    nms: Literal["outside", "inside"] = Field(
        "outside", description="outside: Quarry suppresses overlaps; inside: the model did, or needs none"
    )

    @field_validator("std")
    @classmethod
    def _divides(cls, std: Triple) -> Triple:
        if min(std) <= 0:
            raise ValueError("expected three numbers above 0")
        return std

    @model_validator(mode="after")
    def _fits_together(self) -> OnnxSpec:
        if self.boxes.columns is not None and self.boxes.columns[1] - self.boxes.columns[0] != 4:
            raise ValueError("boxes.columns: expected four columns, such as [0, 4]")
        for name, column in (("labels", self.labels), ("objectness", self.objectness)):
            if column is not None and column.columns is not None and _width(column) != 1:
                raise ValueError(f"{name}.columns: expected one column, such as [4, 5]")
        if self.labels is not None:
            if self.scores.columns is not None and _width(self.scores) != 1:
                raise ValueError("with labels, scores has the best class's score only: expected one column")
            if self.activation == "softmax" or self.multi_label or self.background == "last":
                raise ValueError(
                    "labels go with neither activation: softmax, multi_label nor background: last"
                )
        if self.activation == "sigmoid" and self.background != "none":
            raise ValueError("activation: sigmoid has no background column; select the others with columns")
        if self.resize == "none" and self.input_hw is not None:
            raise ValueError("input_hw has no use with resize: none")
        return self


def _width(spec: OnnxOutputSpec) -> int:
    assert spec.columns is not None
    return spec.columns[1] - spec.columns[0]

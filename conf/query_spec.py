"""How a team writes a hardness query in YAML.

A query is one of three: the errors of an image reduced to a number (`errors`), two such numbers compared
(`compare`), or a Python function (`python`). `conf/queries/street.yaml` has examples.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from conf.plugin import MODULE_FUNCTION
from conf.section import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Price = Annotated[float, Field(ge=0.0, le=1e9)]
Power = Annotated[float, Field(ge=-4.0, le=4.0)]


class RangeSpec(Section):
    """Bounds of a feature, both included; one may be left out."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> RangeSpec:
        if self.min is None and self.max is None:
            raise ValueError("expected min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min must be at most max ({self.max:g}), got {self.min:g}")
        return self


class FilterSpec(Section):
    """Which error boxes count; all that is given must hold."""

    classes: tuple[str, ...] | None = Field(None, min_length=1, description="class names")
    area_px: RangeSpec | None = Field(None, description="area (px²)")
    area: RangeSpec | None = Field(None, description="area as a share of the image")
    width: RangeSpec | None = Field(None, description="width as a share of the image's")
    height: RangeSpec | None = Field(None, description="height as a share of the image's")
    bottom: RangeSpec | None = Field(
        None, description="lower edge as a share of the image's height: large is near in a forward camera"
    )
    aspect_ratio: RangeSpec | None = Field(None, description="width over height")
    score: RangeSpec | None = Field(None, description="detection score; only for errors: fp")
    region: tuple[Share, Share, Share, Share] | None = Field(
        None, description="x1, y1, x2, y2 in shares of the image; the box's centre must lie inside"
    )

    @field_validator("region")
    @classmethod
    def _has_area(
        cls, region: tuple[float, float, float, float] | None
    ) -> tuple[float, float, float, float] | None:
        if region is not None and (region[0] >= region[2] or region[1] >= region[3]):
            raise ValueError("expected x1 < x2 and y1 < y2")
        return region


class WeightSpec(Section):
    """What a counted box weighs: the product of all that is given."""

    constant: Annotated[float, Field(gt=0.0, le=1e9)] = Field(1.0, description="factor of every box")
    area: Power | None = Field(None, description="power of the area's share of the image")
    area_px: Power | None = Field(None, description="power of the area in px²")
    width: Power | None = Field(None, description="power of the width's share of the image's")
    height: Power | None = Field(None, description="power of the height's share of the image's")
    bottom: Power | None = Field(None, description="power of the lower edge's share of the image's height")
    occlusion: Annotated[float, Field(gt=0.0, le=4.0)] | None = Field(
        None, description="power of the overlap with true positives over the own area; exact for 1"
    )
    price: dict[str, Price] | None = Field(
        None, min_length=1, description="class name to price; `*` for all others, else 1"
    )


class TermSpec(Section):
    """Errors of one kind, filtered, weighed and reduced to one number an image."""

    errors: Literal["fp", "fn", "false"] | None = Field(
        None, description="false positives, missed objects, or both"
    )
    where: FilterSpec = Field(default_factory=FilterSpec, description="which boxes count")
    weight: WeightSpec | None = Field(None, description="what a box weighs; none: 1")
    reduce: Literal["sum", "count", "max", "any"] = Field("sum", description="boxes to one number")

    @field_validator("errors", mode="before")
    @classmethod
    def _unquoted_false(cls, errors: object) -> object:
        return "false" if errors is False else errors  # YAML reads a bare false as a boolean

    @model_validator(mode="after")
    def _fits_together(self) -> TermSpec:
        if self.where.score is not None and self.errors != "fp":
            raise ValueError("where.score needs errors: fp; labeled objects have no score")
        if self.weight is not None and self.reduce in {"count", "any"}:
            raise ValueError(
                f"weight has no use with reduce: {self.reduce}; take sum or max, or leave it out"
            )
        return self


class ComparisonSpec(Section):
    """1 where the left number compares with the right one or with a value, else 0."""

    left: TermSpec
    op: Literal[">", ">=", "<", "<="]
    right: TermSpec | None = None
    value: float | None = None

    @model_validator(mode="after")
    def _has_two_sides(self) -> ComparisonSpec:
        if (self.right is None) == (self.value is None):
            raise ValueError("expected exactly one of right and value")
        if self.left.errors is None or (self.right is not None and self.right.errors is None):
            raise ValueError("left and right need errors: fp, fn or false")
        return self


class QuerySpec(TermSpec):
    """A hardness query."""

    description: str = Field("", description="what it finds, for reports")
    compare: ComparisonSpec | None = Field(None, description="two numbers compared")
    python: str | None = Field(None, description="module:function on every worker's Python path")

    @field_validator("python")
    @classmethod
    def _names_a_function(cls, function: str | None) -> str | None:
        if function is not None and not MODULE_FUNCTION.fullmatch(function):
            raise ValueError("expected module:function")
        return function

    @model_validator(mode="after")
    def _is_one_kind(self) -> QuerySpec:
        given = [key for key in ("errors", "compare", "python") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of errors, compare and python, got {given or 'none'}")
        if given != ["errors"] and {"where", "weight", "reduce"} & self.model_fields_set:
            raise ValueError(f"where, weight and reduce go with errors, not with {given[0]}")
        return self

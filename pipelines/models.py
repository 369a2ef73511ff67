"""Which model a stage works for: the one named, or the one registered last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from pyspark.sql import functions as F

from conf.errors import QuarryError, nearest
from pipelines.run import Run
from schemas.tables import MODELS

MOST_MODELS = 1_000


@dataclass(frozen=True, kw_only=True)
class Model:
    """A row of `models`."""

    model_id: str
    name: str
    head: Literal["softmax", "sigmoid"]
    classes: dict[int, str]


def is_any_registered(run: Run) -> bool:
    """Whether a detector ran yet."""
    return not run.store.read(MODELS).isEmpty()


def model_named(run: Run, name: str | None, asked_by: str = "--model") -> Model:
    """The model with this id or name; without one, the model registered last.

    Args:
        run: The run.
        name: model_id or name, or none.
        asked_by: Flag or setting that gives the name, for the message.

    Raises:
        QuarryError: No model is registered, or none with that name.
    """
    rows = (
        run.store.require(MODELS, made_by="detect")
        .orderBy(F.desc("created_ts"), F.desc("model_id"))
        .limit(MOST_MODELS)
        .collect()
    )
    chosen = [row for row in rows if name in (None, row.model_id, row["name"])]
    if not chosen:
        raise QuarryError(
            f"{asked_by} {name}: no such model in {run.store.root}; "
            f"{nearest(str(name), [r['name'] for r in rows])}"
        )
    row = chosen[0]
    head = cast(Literal["softmax", "sigmoid"], row.head)
    return Model(model_id=row.model_id, name=row["name"], head=head, classes=dict(row.classes))

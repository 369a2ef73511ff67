"""Whether the lake's images and the model have what rules are about: frames, partition values, classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyspark.sql import functions as F

from conf.acquisition_spec import PARTITION, StrategySpec
from conf.errors import QuarryError, nearest
from conf.strategy import Strategy
from pipelines.pool import CLASS, NO_GROUP
from pipelines.run import Run
from schemas.tables import IMAGES

SEQUENCE = "sequence"
# Of so many different keys near ones are named.
MOST_KEYS = 1_000


def require_places(run: Run, classes: Iterable[str], chosen: Sequence[Strategy]) -> None:
    """Fails where a rule could not hold anything back, as no image has what it goes by.

    Args:
        run: The run.
        classes: What the model tells apart.
        chosen: The strategies.

    Raises:
        QuarryError: Temporal rules or a quota by sequence where no image is a frame of a video, a quota by a
            partition key that no image has, or a minimum for a class that the model does not know.
    """
    for strategy in chosen:
        for part in (strategy, *(part for _, part in strategy.parts)):
            if (rule := _rule_over_sequences(part.spec)) is not None:
                _require_sequences(run, f"strategy {part.name}: {rule}")
        quotas = strategy.spec.quotas
        if quotas is not None and quotas.by.startswith(PARTITION):
            _require_partition(run, quotas.by.removeprefix(PARTITION), f"strategy {strategy.name}")
        if quotas is not None and quotas.by == CLASS:
            known = (*classes, NO_GROUP)
            for name in quotas.at_least:
                if name not in known:
                    raise QuarryError(
                        f"strategy {strategy.name}: quotas.at_least: {name!r} is no class of the "
                        f"model; {nearest(name, known)}"
                    )


def _rule_over_sequences(spec: StrategySpec) -> str | None:
    if spec.temporal is not None:
        return "temporal rules are about frames of videos"
    if spec.quotas is not None and spec.quotas.by == SEQUENCE:
        return "quotas.by sequence is about frames of videos"
    return None


def _require_sequences(run: Run, what: str) -> None:
    if run.store.read(IMAGES).where("sequence_id IS NOT NULL").isEmpty():
        raise QuarryError(
            f"{what}, and no image has a sequence: run `quarry ingest` on the lake once more with "
            "lake.sequence_pattern, which finds sequence and frame in a path, or leave the rule out"
        )


def _require_partition(run: Run, key: str, what: str) -> None:
    images = run.store.read(IMAGES)
    if images.where(F.map_contains_key("partitions", key)).isEmpty():
        keys = images.select(F.explode(F.map_keys("partitions")).alias("key")).distinct().limit(MOST_KEYS)
        known = sorted(row.key for row in keys.collect())
        raise QuarryError(
            f"{what}: quotas.by {PARTITION}{key}: no image has the partition {key!r}; {nearest(key, known)}"
        )

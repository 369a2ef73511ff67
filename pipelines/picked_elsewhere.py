"""What other cycles picked that a cycle keeps away from, and the moment it was first picked at."""

from __future__ import annotations

import time
from typing import NamedTuple

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.run import Run
from pipelines.tables import Seen, in_schema, sql_literal
from schemas.tables import ACQUISITION


class PickedElsewhere(NamedTuple):
    """What counts as sent.

    Attributes:
        seen: Rows of `acquisition`, and what they were like.
        ts: What the cycle's own rows get as `acquisition.ts`: later than all that was seen.
    """

    seen: Seen
    ts: Column


def picked_elsewhere(run: Run, cycle_id: str, settings_hash: str) -> PickedElsewhere:
    """All that other cycles picked; where these settings picked for this cycle before, what was there then.

    So a cycle that is picked again gets the same rows, whatever cycles came after it. With other settings it
    is a new pick, and keeps away from those too. A cycle that branched off shares rows and their time with
    the one it came from: neither is before the other. Rows without a time, of an older Quarry, are earlier.

    Args:
        run: The run.
        cycle_id: The cycle that is picked.
        settings_hash: What its rows get as `acquisition.settings_hash`.
    """
    others = f"cycle_id <> {sql_literal(cycle_id)}"
    own = in_schema(run.store.read(ACQUISITION), ACQUISITION).where(f"NOT ({others})")
    first = own.agg(
        F.unix_micros(F.min("ts")).alias("us"),
        F.bool_and(F.col("settings_hash") == settings_hash).alias("same"),
    ).first()
    assert first is not None
    is_again = first.us is not None and first.same
    if is_again:
        others += f" AND (ts IS NULL OR unix_micros(ts) < {first.us})"
    seen = run.store.seen(ACQUISITION, others)
    us = first.us if is_again else max(time.time_ns() // 1000, _latest_us(run, others) + 1)
    return PickedElsewhere(seen=seen, ts=F.timestamp_micros(F.lit(us)))


def _latest_us(run: Run, others: str) -> int:
    """Another machine's clock may be ahead."""
    rows = in_schema(run.store.read(ACQUISITION), ACQUISITION).where(others)
    latest = rows.agg(F.unix_micros(F.max("ts")).alias("us")).first()
    return 0 if latest is None or latest.us is None else int(latest.us)

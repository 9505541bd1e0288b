"""Where claims begin to look, so that they don't walk over what was claimed before.

PostgreSQL leaves the index entries of claimed jobs in place until it vacuums, and as long as any transaction
could see them: right where the next claim begins. Measured, 20 at a time: 9,400 jobs/s fell to 2,300 within 50,000
jobs, and to 600 while another transaction was kept open. So a claim under load begins at the `run_at` that the
last one took. Jobs below that (given back, or submitted by a clock that is slow) are found by a claim without
floors: the next one as soon as one finds less than it could take, and else each time when twenty times as long as
such a claim takes has passed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncjobs.store.rows import JOB_COLUMNS
from asyncjobs.store.turns import Row, Take

SHARE = 20
_PRIORITY = 2 + JOB_COLUMNS.index("priority")  # after `seq` and `env`
_RUN_AT = 2 + JOB_COLUMNS.index("run_at")


@dataclass(slots=True)
class _Name:
    floors: dict[int, int] = field(default_factory=dict[int, int])
    whole_at: float = 0.0
    """When the next claim is to look at everything."""


class Floors:
    """The lowest `run_at` that claims look at, for each priority of each name."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}

    def of(self, name: str) -> tuple[list[int], list[int]]:
        """Return the priorities that have a floor, and those floors; none when everything is to be looked at."""
        known = self._names.get(name)
        if known is None or time.monotonic() >= known.whole_at:
            return [], []
        return list(known.floors), list(known.floors.values())

    def note(self, take: Take, rows: Sequence[Row], *, whole: bool, seconds: float) -> bool:
        """Note what a claim brought, which looked at everything or not; return whether there may be more below."""
        if len(rows) < take.limit:
            self._names.pop(take.name, None)
            return not whole
        known = self._names.setdefault(take.name, _Name())
        if whole:
            known.floors = {}
            known.whole_at = time.monotonic() + SHARE * seconds
        taken: dict[int, int] = {}
        for row in rows:
            priority, run_at = row[_PRIORITY], row[_RUN_AT]
            taken[priority] = min(run_at, taken.get(priority, run_at))
        known.floors |= taken
        return False

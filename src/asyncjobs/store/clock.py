"""What time it is, by the clock that all who use a database share: on SQLite the machine's, on PostgreSQL the server's.

    server's clock ──(told now and then)──> offset ─┐
    wall clock, as long as it goes on evenly ───────┴─> now()

A wall clock is believed as long as it agrees with the server's. When it jumps, `now` goes on as if it had not,
until the server tells who is right. Differences that the time on the way may explain are none.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

TOLERANCE = 0.25
"""Seconds by which clocks may differ and are not corrected: to correct milliseconds would cost wake-ups."""


class Clock(Protocol):
    """The time for one process."""

    def now(self) -> datetime:
        """Return the time now, by the shared clock as far as it is known."""
        ...

    @property
    def ahead(self) -> timedelta:
        """By how much this process's wall clock is ahead of the shared one; nothing where they agree."""
        ...

    def moved(self) -> float:
        """Return by how many seconds `now` was moved, forward or back, since this was asked last."""
        ...


class MachineClock:
    """The wall clock, which may be set."""

    ahead = timedelta(0)

    def __init__(self) -> None:
        self._wall, self._monotonic = time.time(), time.monotonic()

    def now(self) -> datetime:
        """Return the time now."""
        return datetime.fromtimestamp(time.time(), UTC)

    def moved(self) -> float:
        """Return by how many seconds the clock was set, forward or back, since this was asked last."""
        wall, monotonic = time.time(), time.monotonic()
        moved = (wall - self._wall) - (monotonic - self._monotonic)
        self._wall, self._monotonic = wall, monotonic
        return moved if abs(moved) > TOLERANCE else 0.0


class ServerClock:
    """A server's clock, as far as it has told."""

    def __init__(self) -> None:
        self._wall, self._monotonic = time.time(), time.monotonic()
        self._offset = 0.0
        self._told = False
        self._moved = 0.0

    def now(self) -> datetime:
        """Return the time now, by the server's clock as far as it is known."""
        return datetime.fromtimestamp(self._seconds(), UTC)

    @property
    def ahead(self) -> timedelta:
        """By how much this process's wall clock is ahead of the server's; nothing where they agree."""
        ahead = time.time() - self._seconds()
        return timedelta(seconds=ahead) if abs(ahead) > TOLERANCE else timedelta(0)

    def moved(self) -> float:
        """Return by how many seconds `now` was moved, forward or back, since this was asked last."""
        moved, self._moved = self._moved, 0.0
        return moved

    def agree(self, server: datetime, *, round_trip: float) -> None:
        """Take what the server said, an answer that took so many seconds."""
        before, about = self._seconds(), server.timestamp() + round_trip / 2
        if abs(about - before) <= TOLERANCE + round_trip / 2:
            about = before
        self._moved += about - before if self._told else 0.0
        self._told = True
        self._wall, self._monotonic = time.time(), time.monotonic()
        offset = about - self._wall
        self._offset = offset if abs(offset) > TOLERANCE else 0.0

    def _seconds(self) -> float:
        wall, even = time.time(), self._wall + time.monotonic() - self._monotonic
        return (wall if abs(wall - even) <= TOLERANCE else even) + self._offset

"""Checkpoints: what the log has gathered is copied into the file beside the turns.

SQLite by itself does it within the commit that finds the log too long, and that turn waits for thousands of pages and
two fsyncs. Here a connection of its own copies while turns go on, and again what they have written meanwhile. The few
pages that are left then the writer copies between two turns, so that the log begins anew.
"""

from __future__ import annotations

import asyncio
import sqlite3

import aiosqlite

from asyncjobs.errors import StoreError
from asyncjobs.store.sqlite.writer import Writer

PAGE_BYTES = 2048
"""A lone new job changes five pages, which the log takes whole: half of SQLite's own size makes it a tenth quicker."""
PAGES = 8000
"""What the log gathers of one process before it is copied."""
PAGES_AT_MOST = 4 * PAGES
"""What it has gathered when SQLite does it by itself: several processes may write, and large values take many pages."""
PAGES_A_TURN = 5
ROWS_A_PAGE = 5
MOST_TIMES = 4
_CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpoints:
    """Counts what the writer writes, roughly, and copies the log when that is enough."""

    def __init__(self, writer: Writer, beside: aiosqlite.Connection) -> None:
        self._writer = writer
        self._beside = beside
        self._rows = 0
        self._pages = 0.0
        self._loop = asyncio.get_running_loop()
        self._running: asyncio.Task[None] | None = None
        self._copying = self._closed = False

    def count(self, rows: int) -> None:
        """Count what the writer has just written, in its thread; it has changed so many rows since the beginning."""
        self._pages += PAGES_A_TURN + (rows - self._rows) % 2**32 / ROWS_A_PAGE  # SQLite counts in 32 bits
        self._rows = rows
        if self._pages >= PAGES and not self._copying:
            self._copying = True
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if not self._closed:
            self._running = asyncio.create_task(self._copy(), name="asyncjobs checkpoint")

    async def close(self) -> None:
        """Interrupt a copy that is under way."""
        self._closed = True
        if self._running is not None and not self._running.done():
            self._running.cancel()
            await self._beside.interrupt()
            await asyncio.wait([self._running])

    async def _copy(self) -> None:
        try:
            for _ in range(MOST_TIMES):
                self._pages = 0.0
                await self._beside.execute_fetchall(_CHECKPOINT)
                if self._pages < PAGES / 16:
                    break
            await self._writer.run(_CHECKPOINT)
        except (sqlite3.Error, StoreError):
            pass  # the log stays, and is copied when as much again is written, or by SQLite itself
        finally:
            self._copying = False

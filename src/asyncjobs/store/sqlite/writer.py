"""The connection that writes: its thread takes turn after turn, without going back to aiosqlite in between.

    loop ──── how to take a turn ────> thread: takes it, runs it in one transaction
    loop <──── what it has brought ────┘

One call of aiosqlite lasts until the connection is closed. A call for each turn would cost two passes of the loop
more, and could not take what has gathered by the time that the thread is awake.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeAlias

import aiosqlite

from asyncjobs.errors import StoreError, StoreUnavailable
from asyncjobs.store.sqlite.connection import is_busy
from asyncjobs.store.sqlite.turning import run_turn
from asyncjobs.store.turns import Brought, Turn
from asyncjobs.threads import WayBack

BUSY_SECONDS = 5.0
LONGEST_BUSY_SECONDS = 20.0
_Call: TypeAlias = tuple[Callable[[], Any], Callable[[Any, Brought], None]]
"""What returns the turn or statement to be run, and what is called with it and what it has brought."""


class Writer:
    """Runs turns, one after another, in its connection's thread.

    Args:
        connection: the thread of which is used from now on until `close`.
        translated: makes a StoreError of an error.
        written: is called in the thread after each call, with the number of rows changed since the beginning.
    """

    def __init__(
        self,
        connection: aiosqlite.Connection,
        *,
        translated: Callable[[BaseException], StoreError],
        written: Callable[[int], None],
    ) -> None:
        self._translated = translated
        self._written = written
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._answers = WayBack()
        self._closed = False
        self._serving = asyncio.create_task(_call(connection, self._serve), name="asyncjobs sqlite writer")
        self._serving.add_done_callback(self._over)

    def begin(self, take: Callable[[], Turn], ended: Callable[[Turn, Brought], None]) -> None:
        """Run a turn: `take` is called in the thread, `ended` in the loop."""
        self._put(take, ended)

    async def run(self, sql: str) -> list[Any]:
        """Run a statement that is no turn's; return its rows.

        Raises:
            StoreError: it failed.
        """
        answer: asyncio.Future[Brought] = self._loop.create_future()

        def ended(_sql: str, brought: Brought) -> None:
            if not answer.done():
                answer.set_result(brought)

        self._put(lambda: sql, ended)
        brought = await answer
        if isinstance(brought, StoreError):
            raise brought
        return brought

    async def close(self) -> None:
        """Give the thread back, once what it is about has ended."""
        self._closed = True
        self._calls.put(None)
        await asyncio.wait([self._serving])

    def _put(self, take: Callable[[], Any], ended: Callable[[Any, Brought], None]) -> None:
        if self._closed:
            self._loop.call_soon(ended, take(), StoreUnavailable("the connection that writes is closed"))
        else:
            self._calls.put((take, ended))

    def _over(self, serving: asyncio.Task[None]) -> None:
        """Give the thread back when the loop cancels all that is left in it, though nobody has closed us."""
        self._closed = True
        self._calls.put(None)

    # --- in the thread --------------------------------------------------------------------------

    def _serve(self, connection: sqlite3.Connection) -> list[Any]:
        try:
            while (call := self._calls.get()) is not None:
                take, ended = call
                work = take()
                brought = self._brought(connection, work)
                try:
                    self._answers.call(ended, work, brought)
                    self._written(connection.total_changes)
                except RuntimeError:  # the loop was closed without us
                    break
        finally:
            self._answers.end()
        return []

    def _brought(self, connection: sqlite3.Connection, work: Turn | str) -> Brought:
        """Run it; a file that others keep locked is waited for, far longer than any of them should take."""
        deadline = time.monotonic() + LONGEST_BUSY_SECONDS
        while True:
            try:
                return run_turn(connection, work) if isinstance(work, Turn) else connection.execute(work).fetchall()
            except Exception as error:
                if not is_busy(error) or time.monotonic() > deadline or self._closed:
                    return self._translated(error)


async def _call(connection: aiosqlite.Connection, function: Callable[[sqlite3.Connection], list[Any]]) -> None:
    await connection.execute_fetchall("", function)

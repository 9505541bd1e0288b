"""Processes booted ahead of need, so that a job does not wait for its interpreter.

None is started before the first attempt. From then on as many are kept as attempts ran at once in
the last minute, and one more, but never more than there are processors: booting is all CPU, so more
would only take it from the jobs. They end when nothing has run for a minute.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Coroutine

from asyncjobs.execution import NotStarted
from asyncjobs.execution.spawned import SpawnedProcess

IDLE = 60.0
_LEAVING = 1.0
_SETTLING = 0.02  # an attempt has the processors to itself that long before its successor is booted


class Standbys:
    """The processes that wait, oldest first, and the count of attempts that decides how many."""

    def __init__(self, start: Callable[[], Coroutine[None, None, SpawnedProcess]]) -> None:
        self._start = start
        self._most = _processors()
        self._waiting: deque[SpawnedProcess] = deque()
        self._starting: set[asyncio.Task[None]] = set()
        self._leaving: set[SpawnedProcess] = set()
        self._running = 0
        self._peak = 0
        self._last_peak = 0
        self._peak_since = 0.0
        self._refill_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closed = False

    def begin(self) -> None:
        """Count an attempt that begins."""
        loop = asyncio.get_running_loop()
        self._closed = False
        if loop.time() - self._peak_since > IDLE:
            self._last_peak, self._peak, self._peak_since = self._peak, self._running, loop.time()
        self._running += 1
        self._peak = max(self._peak, self._running)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._refill_timer is None:
            self._refill_timer = loop.call_later(_SETTLING, self._refill)

    def end(self) -> None:
        """Count an attempt that has ended."""
        self._running -= 1
        self._refill()
        if self._running == 0 and not self._closed:
            self._idle_timer = asyncio.get_running_loop().call_later(IDLE, self._dismiss_all)

    def take(self) -> SpawnedProcess | None:
        """Return the process that has waited longest and still lives, or None."""
        while self._waiting:
            process = self._waiting.popleft()
            process.channel.drain()
            if not process.ended.done() and not process.channel.ended:
                return process
            self._dismiss(process)
        return None

    async def close(self) -> None:
        """End all that wait, and return when they are gone."""
        self._closed = True
        for timer in (self._refill_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._refill_timer = self._idle_timer = None
        for starting in list(self._starting):
            starting.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        self._dismiss_all()
        await asyncio.gather(*map(_see_out, self._leaving))

    def _refill(self) -> None:
        if self._refill_timer is not None:
            self._refill_timer.cancel()
            self._refill_timer = None
        if self._closed:
            return
        wanted = min(self._most, max(self._peak, self._last_peak) + 1)
        for _ in range(wanted - len(self._waiting) - len(self._starting)):
            starting = asyncio.get_running_loop().create_task(self._start_one(), name="start a standby")
            self._starting.add(starting)
            starting.add_done_callback(self._starting.discard)

    async def _start_one(self) -> None:
        try:
            process = await self._start()
        except NotStarted:
            return  # the next attempt meets the same want, and reports it
        self._waiting.append(process)
        process.ended.add_done_callback(lambda _: self._lost(process))

    def _lost(self, process: SpawnedProcess) -> None:
        if process in self._waiting:
            self._waiting.remove(process)
            process.close()
        elif process in self._leaving:
            self._leaving.remove(process)
            process.close()

    def _dismiss_all(self) -> None:
        self._idle_timer = None
        self._peak = self._last_peak = 0
        while self._waiting:
            self._dismiss(self._waiting.popleft())

    def _dismiss(self, process: SpawnedProcess) -> None:
        """Close the channel of a process that waits: it ends by itself."""
        if process.ended.done():
            process.close()
            return
        self._leaving.add(process)
        process.channel.close()


async def _see_out(process: SpawnedProcess) -> None:
    if not await process.wait(_LEAVING):
        await process.kill()


def _processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1

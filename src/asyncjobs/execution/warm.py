"""`Warm`: the processes of one name that have run a job and wait for the next (`isolation="reuse"`)."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from asyncjobs.execution.process import JobProcess

IDLE = 60.0
_LEAVING = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wear:
    """When a warm process has served its time: after so many jobs, seconds, or bytes grown."""

    jobs: int
    seconds: float
    growth: int


class Warm:
    """Warm processes, the one used last first."""

    def __init__(self, wear: Wear) -> None:
        self._wear = wear
        self._waiting: deque[JobProcess] = deque()
        self._leaving: set[JobProcess] = set()
        self._timer: asyncio.TimerHandle | None = None

    def take(self) -> JobProcess | None:
        """Return a process that waits and still lives, or None."""
        while self._waiting:
            process = self._waiting.pop()
            if process.usable and not self._is_worn(process):
                return process
            self._dismiss(process)
        return None

    def keep(self, process: JobProcess) -> None:
        """Take back a process after its job."""
        process.first_rss = process.first_rss or process.peak_rss
        if self._is_worn(process):
            self._dismiss(process)
            return
        self._waiting.append(process)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE, self._look_for_idle)

    async def close(self) -> None:
        """End all processes, and return when they are gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            self._dismiss(self._waiting.pop())
        for each in list(self._leaving):
            if not await each.wait(_LEAVING):
                await each.kill()

    def _is_worn(self, process: JobProcess) -> bool:
        age = asyncio.get_running_loop().time() - process.began
        grown = (process.peak_rss or 0) - (process.first_rss or 0)
        return process.runs >= self._wear.jobs or age > self._wear.seconds or grown > self._wear.growth

    def _look_for_idle(self) -> None:
        """Dismiss what has not been used for a while."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._waiting and now - self._waiting[0].used > IDLE:
            self._dismiss(self._waiting.popleft())
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(IDLE, self._look_for_idle)

    def _dismiss(self, process: JobProcess) -> None:
        """Say that nothing follows: it ends by itself."""
        if process.ended.done():
            process.close()
            return
        self._leaving.add(process)
        process.channel.finish()
        process.ended.add_done_callback(lambda _: self._gone(process))

    def _gone(self, process: JobProcess) -> None:
        self._leaving.discard(process)
        process.close()

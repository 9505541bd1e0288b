"""Internal tasks that are started again when they crash, but not for ever."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from asyncjobs.errors import EngineFailed
from asyncjobs.telemetry import Events, TaskCrashed

RESTARTS = 5
WITHIN_SECONDS = 60.0
FIRST_PAUSE = 0.05


async def supervise(name: str, run: Callable[[], Awaitable[None]], *, events: Events) -> None:
    """Run `run` until it returns; start it again when it raises, each time after a longer pause.

    Raises:
        EngineFailed: it crashed more than 5 times within a minute.
    """
    loop = asyncio.get_running_loop()
    crashes: deque[float] = deque()
    while True:
        try:
            return await run()
        except Exception as caught:
            error: BaseException = caught
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            now = loop.time()
            crashes.append(now)
            while now - crashes[0] > WITHIN_SECONDS:
                crashes.popleft()
            final = len(crashes) > RESTARTS
            events.emit(TaskCrashed(task=name, error=error, final=final))
            if final:
                raise EngineFailed(
                    f"{name} crashed {len(crashes)} times within {WITHIN_SECONDS:g} s, last with "
                    f"{type(error).__name__}: {error}; restart the engine once that is mended"
                ) from error
            await asyncio.sleep(FIRST_PAUSE * 2 ** len(crashes))

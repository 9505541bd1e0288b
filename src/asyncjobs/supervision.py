"""Internal tasks that are started again when they crash, but not for ever."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from asyncjobs.errors import EngineFailed, StoreError
from asyncjobs.telemetry import Events, TaskCrashed, is_shortage

RESTARTS = 5
WITHIN_SECONDS = 60.0
FIRST_PAUSE = 0.05
STORE_PAUSE = 1.0


async def supervise(name: str, run: Callable[[], Awaitable[None]], *, events: Events) -> None:
    """Run `run` until it returns; start it again when it raises, each time after a longer pause.

    Trouble with the store does not count, nor does a shortage of descriptors or memory: both are waited out.

    Raises:
        EngineFailed: it crashed more than 5 times within a minute.
    """
    loop = asyncio.get_running_loop()
    crashes: deque[float] = deque()
    while True:
        try:
            return await run()
        except Exception as caught:
            fault: BaseException = caught
            while isinstance(fault, BaseExceptionGroup) and len(fault.exceptions) == 1:
                fault = fault.exceptions[0]
            if isinstance(fault, StoreError) or is_shortage(fault):
                events.emit(TaskCrashed(task=name, error=fault, final=False))
                await asyncio.sleep(STORE_PAUSE)
                continue
            now = loop.time()
            crashes.append(now)
            while now - crashes[0] > WITHIN_SECONDS:
                crashes.popleft()
            final = len(crashes) > RESTARTS
            events.emit(TaskCrashed(task=name, error=fault, final=final))
            if final:
                raise EngineFailed(
                    f"{name} crashed {len(crashes)} times within {WITHIN_SECONDS:g} s, last with "
                    f"{type(fault).__name__}: {fault}; restart the engine once that is mended"
                ) from fault
            await asyncio.sleep(FIRST_PAUSE * 2 ** len(crashes))

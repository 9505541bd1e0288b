"""The program of a process that submits as fast as it can, and says on stdout what was acknowledged."""

from __future__ import annotations

import asyncio
import time

from crash_faults import say
from crash_jobs import nothing

from asyncjobs import JobClient


async def submit_until(end: float, client: JobClient) -> None:
    while time.monotonic() < end:
        handle = await client.submit(nothing)
        say("acknowledged", handle.id)


async def main(database: str, seconds: str, submitters: str) -> None:
    async with JobClient(database, jobs=[nothing]) as client:
        say("open")
        end = time.monotonic() + float(seconds)
        try:
            await asyncio.gather(*(submit_until(end, client) for _ in range(int(submitters))))
        except Exception as error:
            say("error", repr(error))
    say("closed")

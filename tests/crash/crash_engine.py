"""The program of an engine in a process of its own, which says on stdout what it has reached."""

from __future__ import annotations

import asyncio
import json

import crash_faults
import crash_jobs
from crash_faults import say

from asyncjobs import JobEngine, Settings
from asyncjobs.telemetry import EngineRescued, EngineStarted, Event, JobFinished, JobInterrupted, JobStarted


def tell(event: Event) -> None:
    match event:
        case EngineStarted(engine_id=engine_id):
            say("open", engine_id)
        case _ if crash_faults.silent:
            return
        case EngineRescued(dead_engine_id=dead, count=count):
            say("rescued", dead, count)
        case JobStarted(job=job):
            say("started", job.id, job.attempt)
        case JobInterrupted(job=job):
            say("interrupted", job.id, job.attempt)
        case JobFinished(job=job):
            say("finished", job.id, job.status)


async def tell_of_the_stop(engine: JobEngine) -> None:
    while engine.health.status != "stopping":
        await asyncio.sleep(0.005)
    say("stopping")


async def main(database: str, settings: str, fault: str, *jobs: str) -> None:
    engine = JobEngine(
        database, jobs=[getattr(crash_jobs, name) for name in jobs], settings=Settings(**json.loads(settings))
    )
    engine.subscribe(tell)
    telling = asyncio.create_task(tell_of_the_stop(engine), name="tell of the stop")
    for each in fault.split():
        name, _, argument = each.partition("=")
        getattr(crash_faults, name)(engine, *filter(None, [argument]))
    await engine.run()
    telling.cancel()
    say("stopped")

"""What is heard of engines, and what must be true of their jobs in the end, whatever went wrong meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

from crash_programs import BOUND

from asyncjobs import JobClient, JobEngine, JobStatus
from asyncjobs.telemetry import Event


def heard(engine: JobEngine, kind: type[Event]) -> list[Any]:
    """Return a list that each event of a kind is added to."""
    events: list[Any] = []
    engine.subscribe(lambda event: events.append(event) if isinstance(event, kind) else None)
    return events


async def succeeded_once(client: JobClient, job_ids: list[str], *, bound: float = BOUND) -> int:
    """Check that each of the jobs has ended well, once; return how many attempts were interrupted."""
    jobs = await asyncio.gather(*(client.wait(job_id, timeout=bound) for job_id in job_ids))
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}
    assert {[each.outcome for each in job.attempts].count("succeeded") for job in jobs} == {1}
    assert {each.outcome for job in jobs for each in job.attempts} <= {"succeeded", "interrupted"}
    return sum(len(job.attempts) - 1 for job in jobs)

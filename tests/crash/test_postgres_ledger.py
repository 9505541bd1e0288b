"""The ledger: engines that are killed at random, and a server that restarts, under load on PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

import pytest
from crash_jobs import add_slowly
from crash_programs import BOUND, TEST_SECONDS, Program, Programs, Work

from asyncjobs import Job, JobClient, JobStatus
from postgres import PostgresServer

ENGINES = 3
JOBS = min(3000, int(60 * TEST_SECONDS))


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return postgres.url()


@pytest.mark.soak
async def test_engines_killed_at_random_and_a_server_that_restarts_lose_nothing_and_end_nothing_twice(
    client: JobClient, programs: Programs, postgres: PostgresServer, a_work: Work
) -> None:
    """F83, F08, F30: every submit has one end, and a job runs again only where an attempt was interrupted."""
    file = a_work.folder / "lines"
    engines = [await programs.engine(add_slowly, interruptions=100) for _ in range(ENGINES)]
    submitting = asyncio.create_task(submit_spread(client, file, seconds=TEST_SECONDS))
    restarting = asyncio.create_task(restart_twice(postgres, seconds=TEST_SECONDS))

    kills = await kill_at_random(programs, engines, seconds=TEST_SECONDS)
    submitted = await submitting
    await restarting
    jobs = [await client.wait(job_id, timeout=60 + TEST_SECONDS) for job_id in submitted]

    finished = Counter(line[1] for engine in programs.started for line in engine.said("finished"))
    lines = Counter(file.read_text().split())
    report(jobs, lines, kills)
    assert {job.id async for job in client.iterate(limit=1000)} == set(submitted)
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}
    assert {outcomes(job).count("succeeded") for job in jobs} == {1}
    assert {outcome for job in jobs for outcome in outcomes(job)} <= {"succeeded", "interrupted"}
    assert max(finished.values()) == 1
    assert [job.id for job in jobs if not 1 <= lines[job.id] <= job.attempt] == []
    assert all(job.interruptions <= len(job.attempts) - 1 for job in jobs)


def outcomes(job: Job) -> list[str]:
    return [each.outcome for each in job.attempts]


async def submit_spread(client: JobClient, file: Any, *, seconds: float) -> list[str]:
    """Submit all jobs, spread over the time; return their ids."""
    submitted: list[str] = []
    while len(submitted) < JOBS:
        calls = [add_slowly.bind(file, random.uniform(0.005, 0.05)) for _ in range(20)]
        submitted += [handle.id for handle in await client.submit_many(calls)]
        await asyncio.sleep(seconds * 0.8 * 20 / JOBS)
    return submitted


async def restart_twice(postgres: PostgresServer, *, seconds: float) -> None:
    for mode in ("fast", "immediate"):
        await asyncio.sleep(seconds / 3)
        await asyncio.to_thread(postgres.restart, mode=mode, down=0.5)


async def kill_at_random(programs: Programs, engines: list[Program], *, seconds: float) -> int:
    """Kill one of the engines again and again, and start another; return how many."""
    kills = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(random.uniform(0.2, min(3.0, seconds / 4)))
        at = random.randrange(ENGINES)
        await engines[at].kill()
        kills += 1
        engines[at] = await programs.start_engine(add_slowly, interruptions=100)
    for each in engines:
        await each.says("open", bound=2 * BOUND)
    return kills


def report(jobs: list[Job], lines: Counter[str], kills: int) -> None:
    attempts = Counter(outcome for job in jobs for outcome in outcomes(job))
    print(
        f"{len(jobs)} jobs in {TEST_SECONDS:g} s, {kills} engines killed, the server restarted twice: "
        f"{dict(attempts)}, {sum(job.interruptions for job in jobs)} counted against a budget; "
        f"{sum(lines.values())} runs reached their line, {sum(lines.values()) - len(jobs)} of them again"
    )

"""Engines that are asked to stop: SIGTERM, SIGINT, a second one, and stops at bad moments."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

from crash_jobs import nothing, other_work, work
from crash_programs import BOUND, Programs, Work

from asyncjobs import AsyncJobsError, JobClient, JobEngine, JobStatus, Settings


async def test_a_result_within_the_grace_counts(client: JobClient, programs: Programs, a_work: Work) -> None:
    """F25, D20: the job that ends in time ends as if nothing had happened."""
    handle = await client.submit(work, a_work.folder)
    engine = await programs.engine(work, stop_grace=BOUND)
    await a_work.runs()

    engine.signal(signal.SIGTERM)
    a_work.release()
    code = await engine.ends()

    job = await handle.job()
    assert code == 0
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)


async def test_what_runs_past_the_grace_is_pending_again_and_used_up_nothing(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """F25, D20: interrupted, claimable at once, no budget touched, and the engine exits with 0."""
    handle = await client.submit(work, a_work.folder)
    engine = await programs.engine(work, stop_grace=0.2)
    await a_work.runs()

    engine.signal(signal.SIGTERM)
    code = await engine.ends()

    job = await handle.job()
    assert code == 0
    assert job.status is JobStatus.PENDING
    assert job.run_at <= datetime.now(UTC)
    assert (job.retry_count, job.interruptions) == (0, 0)
    assert [each.outcome for each in job.attempts] == ["interrupted"]


async def test_nothing_is_claimed_after_the_signal(client: JobClient, programs: Programs, a_work: Work) -> None:
    """F25: claims stop at once, though slots are free and jobs come in."""
    await client.submit(work, a_work.folder)
    engine = await programs.engine(work, nothing, stop_grace=BOUND)
    await a_work.runs()
    engine.signal(signal.SIGTERM)
    await engine.says("stopping")

    late = await client.submit(work, a_work.folder)
    late_inline = await client.submit(nothing)
    a_work.release()
    await engine.ends()

    assert (await late.job()).attempt == 0
    assert (await late_inline.job()).attempt == 0


async def test_the_next_engine_takes_what_a_stopped_one_gave_back_at_once(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """F13: with no retries at all, a deploy in the middle uses up nothing."""
    handle = await client.submit(work.using(max_retries=0), a_work.folder)
    first = await programs.engine(work, stop_grace=0.1)
    await a_work.runs(attempt=1)
    first.signal(signal.SIGTERM)
    await first.ends()
    a_work.release()

    await programs.engine(work)

    job = await handle.wait(timeout=BOUND)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert (job.retry_count, job.interruptions) == (0, 0)


async def test_a_second_signal_shortens_the_grace(client: JobClient, programs: Programs, a_work: Work) -> None:
    """F26: the grace would be an hour."""
    handle = await client.submit(work, a_work.folder)
    engine = await programs.engine(work, stop_grace=3600)
    await a_work.runs()
    engine.signal(signal.SIGTERM)
    await engine.says("stopping")

    engine.signal(signal.SIGTERM)
    began = time.monotonic()
    code = await engine.ends()

    print(f"gone {time.monotonic() - began:.2f} s after the second signal")
    assert code == 0
    assert (await handle.job()).status is JobStatus.PENDING


async def test_ctrl_c_in_a_terminal_does_not_reach_the_jobs(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """F26: SIGINT to the whole foreground process group; the job ends by itself, within the grace."""
    handle = await client.submit(work, a_work.folder)
    engine = await programs.engine(work, stop_grace=BOUND)
    await a_work.runs()

    os.killpg(engine.pid, signal.SIGINT)
    await engine.says("stopping")
    a_work.release()
    code = await engine.ends()

    assert code == 0
    assert (await handle.job()).status is JobStatus.SUCCEEDED


async def test_a_stop_leaves_no_process(client: JobClient, programs: Programs, a_work: Work) -> None:
    """D20: neither the interrupted job, nor its grandchild, nor standbys; the fixture looks again."""
    await client.submit(work, a_work.folder, True)
    engine = await programs.engine(work, stop_grace=0.1)
    await a_work.runs(processes=2)

    engine.signal(signal.SIGTERM)
    await engine.ends()

    assert [pid for pid in a_work.processes(attempt=1) if Path(f"/proc/{pid}").exists()] == []


async def test_a_stop_leaves_jobs_of_other_names_alone(client: JobClient, programs: Programs, a_work: Work) -> None:
    """D5 with F25: the engine gives back what is its own."""
    others = await client.submit(other_work, a_work.folder)
    other = await programs.engine(other_work)
    await other.says("started", others.id)
    stopping = await programs.engine(work)

    stopping.signal(signal.SIGTERM)
    await stopping.ends()
    a_work.release()

    job = await others.wait(timeout=BOUND)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)


async def test_a_stop_during_submits_lets_each_return_or_raise(database: str) -> None:
    """F27: none hangs, and what was acknowledged is stored."""
    engine = JobEngine(database, jobs=[nothing])
    acknowledged: list[str] = []
    problems: list[BaseException] = []

    async def submit_on() -> None:
        try:
            while True:
                acknowledged.append((await engine.submit(nothing)).id)
        except AsyncJobsError as error:
            problems.append(error)

    async with engine:
        submitters = [asyncio.create_task(submit_on()) for _ in range(20)]
        while len(acknowledged) < 100:
            await asyncio.sleep(0)
    async with asyncio.timeout(BOUND):
        await asyncio.gather(*submitters)

    assert len(problems) == 20
    async with JobClient(database) as client:
        stored = {job.id async for job in client.iterate()}
    assert stored >= set(acknowledged)


async def test_a_stop_is_bounded_while_ends_cannot_be_written(client: JobClient, programs: Programs) -> None:
    """F28 on SQLite: the job stays RUNNING, and the next engine gives it back."""
    handle = await client.submit(nothing.using(kill_grace=0.1))
    engine = await programs.engine(nothing, fault="cannot_write_ends", stop_grace=0.1)
    await engine.says("not-written")

    engine.signal(signal.SIGTERM)
    code = await engine.ends()
    await programs.engine(nothing)

    assert code == 0
    assert (await handle.wait(timeout=BOUND)).status is JobStatus.SUCCEEDED


async def test_an_engine_that_is_canceled_while_it_stops_ends_at_once(database: str, a_work: Work) -> None:
    """F26 inside a host: the second cancellation is the second signal."""

    async def serve() -> None:
        async with JobEngine(database, jobs=[work], settings=Settings(stop_grace=3600)) as engine:
            await engine.submit(work, a_work.folder)
            await asyncio.Event().wait()

    host = asyncio.create_task(serve())
    await a_work.runs()
    host.cancel()
    await asyncio.sleep(0)
    host.cancel()
    async with asyncio.timeout(BOUND):
        await asyncio.wait([host])

    assert host.cancelled()
    async with JobClient(database) as client:
        [job] = (await client.list()).jobs
    assert job.status is JobStatus.PENDING

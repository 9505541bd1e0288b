"""The ledger: an engine killed again and again under load."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from crash_jobs import add
from crash_programs import Program, Programs, Work, gone

from asyncjobs import JobClient, JobStatus

JOBS = 500
KILLS = 10


async def test_an_engine_killed_ten_times_under_load_loses_nothing_and_ends_nothing_twice(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """F01, F83 in small: every submit has exactly one end, and nothing waits for a while before it runs again."""
    assert await slowest_rerun(client, programs, a_work) < 10


@pytest.mark.quiet
async def test_a_job_runs_again_within_three_seconds_of_the_start_of_the_next_engine(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """F01: the slowest of ten."""
    assert await slowest_rerun(client, programs, a_work) <= 3


async def slowest_rerun(client: JobClient, programs: Programs, a_work: Work) -> float:
    """Kill ten engines under load; check that all is there, and return the longest way to a first rerun."""
    file = a_work.folder / "lines"
    handles = await client.submit_many(add.bind(file, number) for number in range(JOBS))

    reruns: list[float] = []
    for _ in range(KILLS):
        engine = await programs.engine(add)
        await engine.says("finished", times=JOBS // (KILLS + 2))
        reruns += seconds_to_the_first_rerun(engine)
        await engine.kill()
        await gone(programs.engine_ids())
    await programs.engine(add)

    jobs = await asyncio.gather(*(handle.wait(timeout=120) for handle in handles))
    interrupted = sum(job.interruptions for job in jobs)
    print(f"{interrupted} attempts interrupted, first reruns after {min(reruns):.2f} to {max(reruns):.2f} s")
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}
    assert {[each.outcome for each in job.attempts].count("succeeded") for job in jobs} == {1}
    assert [job.result for job in jobs] == list(range(JOBS))
    assert set(file.read_text().split()) == {str(number) for number in range(JOBS)}
    assert interrupted > 0
    return max(reruns)


def seconds_to_the_first_rerun(engine: Program) -> list[float]:
    """Return the time from the start of an engine to its first rerun of an interrupted job, if it rescued any."""
    reruns = (line for line in engine.said("started") if int(line[2]) > 1)
    return [engine.seconds_until(*first) for first in itertools.islice(reruns, 1)]

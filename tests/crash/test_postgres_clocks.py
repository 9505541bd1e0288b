"""Wall clocks that are wrong, or jump while jobs run: nobody is taken for dead, and what is due runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import crash_clocks
import pytest
from crash_ends import succeeded_once
from crash_jobs import count_run, fail_once, nothing, work
from crash_programs import BOUND, Programs, Work

from asyncjobs import Job, JobClient, JobStatus
from asyncjobs.store.clock import TOLERANCE

QUIET = 4.0
"""Seconds in which a false rescue would have come."""
LOOSE_SECONDS = 15.0
FIVE_MINUTES = 300
HOUR = 3600


@pytest.fixture
def database(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have this process read a clock that the test turns."""
    crash_clocks.install(monkeypatch.setattr)
    yield
    crash_clocks.off = 0.0


def seconds_late(job: Job) -> float:
    """Return how long after its time a job started, by the clocks of this process and the server, which are right."""
    assert job.started_at is not None
    return (job.started_at - job.run_at).total_seconds()


@pytest.mark.parametrize("off", [FIVE_MINUTES, -FIVE_MINUTES], ids=["ahead", "behind"])
async def test_engines_whose_clocks_are_off_rescue_nobody_and_run_each_job_when_it_is_due(
    client: JobClient, programs: Programs, a_work: Work, off: int
) -> None:
    """F68: one is ahead and one behind, by five minutes each, as if on two machines."""
    handle = await client.submit(work, a_work.folder)
    owner = await programs.engine(work, nothing, fail_once, fault=f"is_on_machine=one has_clock_off_by={off}")
    await a_work.runs()
    watching = await programs.engine(count_run, fault=f"is_on_machine=two has_clock_off_by={-off}")
    quiet = asyncio.create_task(asyncio.sleep(QUIET))

    submitted = [
        await client.submit(nothing),
        await client.submit(nothing.using(delay=1.5)),
        await client.submit(fail_once.using(retry_delay=1), 0),
        await client.submit(count_run),
        await client.submit(count_run.using(delay=1.5)),
    ]
    jobs = [await each.wait(timeout=BOUND) for each in submitted]
    await quiet
    a_work.release()
    interrupted = await succeeded_once(client, [handle.id])

    late = [seconds_late(job) for job in jobs]
    print(f"clocks off by {off} and {-off} s: started", " ".join(f"{each:.2f}" for each in late), "s late")
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}
    assert -2 * TOLERANCE <= min(late) <= max(late) < LOOSE_SECONDS
    assert [each.outcome for each in jobs[2].attempts] == ["failed", "succeeded"]
    assert interrupted == 0
    assert (owner.said("rescued"), watching.said("rescued")) == ([], [])


@pytest.mark.parametrize("by", [-HOUR, HOUR], ids=["back", "forward"])
async def test_an_engine_whose_clock_jumps_keeps_its_jobs_and_runs_what_is_due(
    client: JobClient, programs: Programs, a_work: Work, by: int
) -> None:
    """F68: by an hour, while a job runs, others wait, and an engine of another machine watches."""
    handle = await client.submit(work, a_work.folder)
    waiting = await client.submit(nothing.using(delay=2))
    far_off = await client.submit(nothing.using(delay=HOUR / 2))
    owner = await programs.engine(work, nothing, fail_once, fault=f"is_on_machine=one has_clock_that_jumps_by={by}")
    watching = await programs.engine(work, fault="is_on_machine=two")
    await owner.says("jumped")
    quiet = asyncio.create_task(asyncio.sleep(QUIET))

    submitted = [await client.submit(nothing), await client.submit(fail_once.using(retry_delay=1), 0), waiting]
    jobs = [await each.wait(timeout=BOUND) for each in submitted]
    await quiet
    a_work.release()
    interrupted = await succeeded_once(client, [handle.id])

    late = [seconds_late(job) for job in jobs]
    print(f"clock turned by {by} s: started", " ".join(f"{each:.2f}" for each in late), "s late")
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}
    assert -2 * TOLERANCE <= min(late) <= max(late) < LOOSE_SECONDS
    assert (await far_off.job()).status is JobStatus.PENDING
    assert interrupted == 0
    assert (owner.said("rescued"), watching.said("rescued")) == ([], [])


@pytest.mark.usefixtures("turned")
@pytest.mark.parametrize("off", [FIVE_MINUTES, -FIVE_MINUTES], ids=["ahead", "behind"])
async def test_what_is_submitted_by_a_clock_that_is_off_is_due_at_once_or_after_its_delay_and_again_when_it_is_retried(
    database: str, programs: Programs, off: int
) -> None:
    """F68: the clock of the one who submits."""
    named = datetime.now(UTC) + timedelta(hours=1)
    crash_clocks.turn(off)
    async with JobClient(database, jobs=[nothing, count_run]) as client:
        first = [await client.submit(nothing), await client.submit(nothing.using(key="one"))]
        ended = await client.submit(count_run)
        delayed = await client.submit(nothing.using(delay=600))
        soon = await client.submit(nothing.using(delay=120))
        at_a_moment = await client.submit(nothing.using(run_at=named))
        await programs.engine(nothing, count_run)

        interrupted = await succeeded_once(client, [each.id for each in [*first, ended]])
        await client.retry(ended.id)
        again = await ended.wait(timeout=BOUND)
        waiting, shortly = await delayed.job(), await soon.job()

        assert interrupted == 0
        assert again.attempt == 2
        assert abs((waiting.run_at - waiting.created_at).total_seconds() + off - 600) < LOOSE_SECONDS
        # Late rather than early, where the clock is ahead by more than the delay.
        assert shortly.status is JobStatus.PENDING
        left = (shortly.run_at - shortly.created_at).total_seconds() + off
        assert 120 - LOOSE_SECONDS < left < max(120, off) + LOOSE_SECONDS
        assert (await at_a_moment.job()).run_at == named

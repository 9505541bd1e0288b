"""The machine's clock is set while jobs wait, and so for all who use the file."""

from __future__ import annotations

from collections.abc import Iterator

import crash_clocks
import pytest
from crash_jobs import nothing, wait_for_release
from crash_programs import BOUND, Work, until

from asyncjobs import JobClient, JobEngine, JobStatus

HOUR = 3600


@pytest.fixture(autouse=True)
def turned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have this process read a clock that the test turns."""
    crash_clocks.install(monkeypatch.setattr)
    yield
    crash_clocks.off = 0.0


async def test_what_waited_when_the_clock_was_turned_back_runs_and_a_delay_is_kept(database: str, a_work: Work) -> None:
    """F68: one job runs meanwhile, and one waits for its slot; what is delayed becomes due by the clock."""
    async with JobEngine(database, jobs=[wait_for_release, nothing]) as engine:
        running = await engine.submit(wait_for_release, a_work.folder)
        waiting = await engine.submit(wait_for_release, a_work.folder)
        await a_work.runs()

        crash_clocks.turn(-HOUR)
        (a_work.folder / "release-1").touch()
        later = await engine.submit(nothing)
        delayed = await engine.submit(nothing.using(delay=600))
        jobs = [await each.wait(timeout=BOUND) for each in (running, waiting, later)]

        assert {(job.status, job.attempt) for job in jobs} == {(JobStatus.SUCCEEDED, 1)}
        assert (await delayed.job()).status is JobStatus.PENDING


async def test_what_waited_while_no_engine_ran_and_the_clock_was_turned_back_runs(database: str) -> None:
    """F68: nobody saw it happen; the newest job tells of it."""
    async with JobClient(database, jobs=[nothing]) as client:
        handle = await client.submit(nothing)
    crash_clocks.turn(-HOUR)

    async with JobEngine(database, jobs=[nothing]) as engine:
        job = await engine.wait(handle.id, timeout=BOUND)

    assert job.status is JobStatus.SUCCEEDED


async def test_what_has_become_due_because_the_clock_was_set_forward_runs_within_seconds(database: str) -> None:
    """F68: as after the sleep of a laptop, in which no timer goes on."""
    async with JobEngine(database, jobs=[nothing]) as engine:
        delayed = await engine.submit(nothing.using(delay=HOUR))
        await until(lambda: engine.health.status == "running")

        crash_clocks.turn(HOUR)
        job = await delayed.wait(timeout=BOUND)

    assert job.status is JobStatus.SUCCEEDED

"""Several processes on one file: who waits, submits and cancels elsewhere, and engines beside each other."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import pytest
from crash_jobs import nothing, work
from crash_programs import BOUND, TEST_SECONDS, Program, Programs, Work
from msgspec.structs import replace

from asyncjobs import JobCanceled, JobClient, JobEngine, JobStatus
from asyncjobs.engine import liveness
from asyncjobs.engine.liveness import Liveness
from asyncjobs.execution.inside import tree
from builders import claim_all, opened


class Looks:
    """Counts how often an engine of this process has looked for dead ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._condition = asyncio.Condition()
        self._count = 0
        original = Liveness.rescue_all

        async def counted(liveness: Liveness) -> None:
            await original(liveness)
            async with self._condition:
                self._count += 1
                self._condition.notify_all()

        monkeypatch.setattr(Liveness, "rescue_all", counted)

    async def pass_by(self, count: int) -> None:
        """Wait for so many more looks."""
        wanted = self._count + count
        async with asyncio.timeout(BOUND + TEST_SECONDS), self._condition:
            await self._condition.wait_for(lambda: self._count >= wanted)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


# --- waiting, submitting, canceling --------------------------------------------------------------


async def test_a_wait_is_woken_by_the_end_of_a_job_in_another_process(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    handle = await client.submit(work, a_work.folder)
    await programs.engine(work)
    await a_work.runs()
    waiting = asyncio.create_task(handle.wait(timeout=BOUND))

    a_work.release()
    job = await waiting
    noticed = time.time()

    assert job.finished_at is not None
    print(f"woken {(noticed - job.finished_at.timestamp()) * 1000:.0f} ms after the end in another process")
    assert job.status is JobStatus.SUCCEEDED
    assert noticed - job.finished_at.timestamp() < 5


@pytest.mark.quiet
async def test_a_wait_is_woken_within_three_tenths_of_a_second_by_the_end_in_another_process(
    client: JobClient, programs: Programs, tmp_path: Path
) -> None:
    """D13: the median of several."""
    await programs.engine(work)

    woken: list[float] = []
    for number in range(9):
        a_work = Work(tmp_path / f"work-{number}")
        handle = await client.submit(work, a_work.folder)
        await a_work.runs()
        waiting = asyncio.create_task(handle.wait(timeout=BOUND))
        a_work.release()
        job = await waiting
        assert job.finished_at is not None
        woken.append(time.time() - job.finished_at.timestamp())

    print("woken", " ".join(f"{each * 1000:.0f}" for each in woken), "ms after the end in another process")
    assert median(woken) <= 0.3


async def test_a_job_submitted_in_another_process_starts_at_once(client: JobClient, programs: Programs) -> None:
    """D13, D14: no whole seconds anywhere, neither before the start nor after the end, and not after a quiet while."""
    await programs.engine(nothing)
    await asyncio.sleep(TEST_SECONDS)

    starts: list[float] = []
    for _ in range(10):
        job = await (await client.submit(nothing)).wait(timeout=BOUND)
        assert job.started_at is not None
        starts.append((job.started_at - job.created_at).total_seconds())

    print(f"started {min(starts) * 1000:.0f} to {max(starts) * 1000:.0f} ms after the submit in another process")
    assert median(starts) < 2


async def test_a_cancel_reaches_a_job_that_runs_in_another_process(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """D13: the record says CANCELED, and the job's process and its grandchild are gone."""
    handle = await client.submit(work, a_work.folder, True)
    await programs.engine(work)
    await a_work.runs(processes=2)

    began = time.monotonic()
    asked = await handle.cancel()
    with pytest.raises(JobCanceled):
        await handle.result(timeout=BOUND)
    took = time.monotonic() - began

    beats = len(a_work.beats())
    print(f"canceled in another process within {took * 1000:.0f} ms")
    assert asked.status is JobStatus.RUNNING
    assert took < 15
    assert len(a_work.beats()) == beats


async def test_a_waiting_job_is_canceled_by_another_process_and_never_runs(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """F19: all slots are taken, the job behind them is canceled, then the slots come free."""
    for _ in range(work.max_workers):
        await client.submit(work, a_work.folder)
    engine = await programs.engine(work)
    await engine.says("started", times=work.max_workers)
    behind = await client.submit(work, a_work.folder)

    canceled = await behind.cancel()
    a_work.release()
    await engine.says("finished", times=work.max_workers)

    assert canceled.status is JobStatus.CANCELED
    assert engine.said("started", behind.id) == []
    assert (await behind.job()).attempt == 0


async def test_two_engines_run_each_job_once(client: JobClient, programs: Programs) -> None:
    """D6, D1c: whoever is quicker has it."""
    engines = [await programs.engine(nothing), await programs.engine(nothing)]

    handles = await client.submit_many(nothing.bind() for _ in range(1000))
    for handle in handles:
        await handle.wait(timeout=BOUND)

    started = Counter(line[1] for engine in engines for line in engine.said("started"))
    print("started by each engine:", [len(engine.said("started")) for engine in engines])
    assert started == {handle.id: 1 for handle in handles}


# --- who is alive --------------------------------------------------------------------------------


async def kept(client: JobClient, job_id: str, owner: Program, a_work: Work) -> None:
    """Check that an engine has kept its job from first to last."""
    a_work.release()
    job = await client.wait(job_id, timeout=BOUND)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    assert [each.engine_id for each in job.attempts] == [owner.said("open")[0][1]]


async def test_a_second_engine_takes_nothing_from_a_living_one(
    client: JobClient, database: str, programs: Programs, a_work: Work, looks: Looks
) -> None:
    """D6: a start-up recovery that resets what a living engine runs would run it twice."""
    handle = await client.submit(work, a_work.folder)
    owner = await programs.engine(work)
    await a_work.runs()

    async with JobEngine(database, jobs=[work]):
        await looks.pass_by(2)
        await kept(client, handle.id, owner, a_work)


async def test_a_stopped_engine_keeps_its_jobs(
    client: JobClient, database: str, programs: Programs, a_work: Work, looks: Looks
) -> None:
    """SIGSTOP is not death, however long it lasts."""
    handle = await client.submit(work, a_work.folder)
    owner = await programs.engine(work)
    await a_work.runs()
    owner.signal(signal.SIGSTOP)

    async with JobEngine(database, jobs=[work]):
        await looks.pass_by(3)
        owner.signal(signal.SIGCONT)
        await kept(client, handle.id, owner, a_work)


@pytest.mark.soak
async def test_an_engine_whose_host_blocks_its_loop_keeps_its_jobs(
    client: JobClient, database: str, programs: Programs, a_work: Work, looks: Looks
) -> None:
    """F61: for ASYNCJOBS_TEST_SECONDS, while a second engine watches."""
    handle = await client.submit(work, a_work.folder)
    owner = await programs.start_engine(work, fault="blocks_its_loop")
    await owner.says("blocked")

    async with JobEngine(database, jobs=[work]):
        await looks.pass_by(int(TEST_SECONDS) - 1)
        meanwhile = await handle.job()
        await owner.says("unblocked", bound=TEST_SECONDS + BOUND)
        await kept(client, handle.id, owner, a_work)

    assert (meanwhile.status, meanwhile.attempt) == (JobStatus.RUNNING, 1)


# --- many writers --------------------------------------------------------------------------------


@pytest.mark.soak
async def test_fifty_writers_in_ten_processes_meet_no_error(client: JobClient, programs: Programs) -> None:
    """F41: nobody ever sees "database is locked", and every acknowledged submit ends SUCCEEDED."""
    await programs.engine(nothing, fault="is_silent")
    writers = [await programs.submitter(seconds=TEST_SECONDS, submitters=5) for _ in range(10)]

    await asyncio.gather(*(writer.ends(bound=TEST_SECONDS + 2 * BOUND) for writer in writers))
    acknowledged = {line[1] for writer in writers for line in writer.said("acknowledged")}
    async with asyncio.timeout(TEST_SECONDS + 2 * BOUND):
        while (await client.list(status=[JobStatus.PENDING, JobStatus.RUNNING], limit=1)).jobs:
            await asyncio.sleep(0.02)

    succeeded = {job.id async for job in client.iterate(status=JobStatus.SUCCEEDED)}
    print(f"{len(acknowledged)} submits acknowledged in {TEST_SECONDS:g} s, {len(acknowledged) / TEST_SECONDS:.0f}/s")
    assert [line for writer in writers for line in writer.said("error")] == []
    assert len(acknowledged) > 0
    assert acknowledged <= succeeded


async def test_a_process_that_outlives_its_engine_keeps_none_of_its_jobs_from_others(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not give them back when it left, such as on a file that somebody kept locked."""
    monkeypatch.setattr(liveness, "LONGEST_DYING_SECONDS", 0.05)
    process = await asyncio.create_subprocess_exec("sleep", "600")
    gone = replace(liveness.this_process("an-engine", [nothing.name], "1"), pid=process.pid)
    gone = replace(gone, pid_started=tree.start_time(process.pid) or 0.0)
    async with JobClient(database) as client:
        handle = await client.submit(nothing)
    async with opened(database) as store:
        await store.register(gone)
        [_] = await claim_all(store, nothing.name, engine_id=gone.id, now=datetime.now(UTC))

    async with JobEngine(database, jobs=[nothing]) as engine:
        job = await engine.wait(handle.id, timeout=BOUND)
        assert engine.health.status == "running"
        assert len(await engine.engines()) == 1
    process.kill()
    await process.wait()

    assert (job.status, job.attempt, job.interruptions) == (JobStatus.SUCCEEDED, 2, 1)

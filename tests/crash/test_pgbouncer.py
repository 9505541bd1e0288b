"""Engines behind a real PgBouncer: found out, refused, and at work by setting."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from crash_databases import sql
from crash_jobs import nothing, process_id, work
from crash_programs import BOUND, Launcher, Programs, Work, gone

from asyncjobs import JobClient, JobEngine, JobStatus, Settings, StoreUnavailable
from asyncjobs.store.postgresql import database as database_module
from pgbouncers import pgbouncer_to
from postgres import PostgresServer

pytestmark = pytest.mark.pgbouncer

POOLED = Settings(pgbouncer=True)
ELSEWHERE = "is_on_machine=elsewhere"


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """The address of a database behind a PgBouncer in transaction mode, with fewer sessions than we have clients."""
    with pgbouncer_to(postgres_url, mode="transaction") as url:
        yield url


@pytest.fixture
async def pooled(database: str) -> AsyncIterator[JobClient]:
    async with JobClient(database, jobs=[nothing, process_id, work], settings=POOLED) as client:
        yield client


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of a tenth, for observers of this process."""
    monkeypatch.setattr(database_module, "LEASE_SECONDS", 3.0)
    monkeypatch.setattr(database_module, "LONGEST_GAP_SECONDS", 2.5)


async def test_transaction_mode_is_found_out_and_refused_with_a_sentence_that_names_the_setting(database: str) -> None:
    """F38"""
    with pytest.raises(StoreUnavailable, match=r"a pooler in transaction mode: set ASYNCJOBS_PGBOUNCER=1"):
        async with JobClient(database):
            pass


async def test_session_mode_is_not_refused(postgres_url: str) -> None:
    """F38: there locks and notifications hold."""
    with pgbouncer_to(postgres_url, mode="session", size=20) as url:
        async with JobEngine(url, jobs=[process_id]) as engine:
            job = await (await engine.submit(process_id)).wait(timeout=BOUND)

    assert job.status is JobStatus.SUCCEEDED


async def test_jobs_of_two_engines_each_run_once_behind_a_pooler(pooled: JobClient, programs: Programs) -> None:
    """F38, F08: submit, run, result, history; many clients share few sessions."""
    for _ in range(2):
        await programs.engine(nothing, process_id, pgbouncer=True)

    handles = await pooled.submit_many([nothing.bind()] * 300)
    handles += [await pooled.submit(process_id.using(key=str(number))) for number in range(20)]
    jobs = [await handle.wait(timeout=BOUND) for handle in handles]
    again = await pooled.submit(process_id.using(key="7"))

    assert {(job.status, job.attempt, len(job.attempts)) for job in jobs} == {(JobStatus.SUCCEEDED, 1, 1)}
    assert again.id == handles[307].id
    assert isinstance(await again.result(timeout=BOUND), int)


async def test_a_running_job_and_a_waiting_one_are_canceled_behind_a_pooler(
    pooled: JobClient, programs: Programs, a_work: Work
) -> None:
    """F38, F20: by the poll, since nobody can be told."""
    running = await pooled.submit(work, a_work.folder)
    waiting = await pooled.submit(work.using(delay=600), a_work.folder)
    await programs.engine(work, pgbouncer=True)
    await a_work.runs()

    await running.cancel()
    canceled = await waiting.cancel()

    assert canceled.status is JobStatus.CANCELED
    assert (await running.wait(timeout=BOUND)).status is JobStatus.CANCELED


async def test_a_session_keeps_nothing_of_ours_behind_a_pooler(pooled: JobClient, database: str) -> None:
    """F38: neither locks nor limits, which would be the next client's."""
    async with JobEngine(database, jobs=[nothing], settings=POOLED) as engine:
        await (await engine.submit(nothing)).wait(timeout=BOUND)

        limits = {await sql(database, "SHOW statement_timeout") for _ in range(8)}
        assert limits == {"0"}
        assert await sql(database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


@pytest.mark.usefixtures("short_lease")
async def test_the_job_of_a_killed_engine_is_rescued_by_its_lease_behind_a_pooler(
    pooled: JobClient, database: str, programs: Programs, a_work: Work
) -> None:
    """F38, F01: and not while it lives, though others watch it for longer than a lease."""
    handle = await pooled.submit(work, a_work.folder)
    owner = await programs.engine(work, pgbouncer=True, fault=ELSEWHERE)
    await a_work.runs(attempt=1)
    async with JobEngine(database, jobs=[work], settings=POOLED):
        await asyncio.sleep(database_module.LEASE_SECONDS + 2)
        before = await handle.job()

        await owner.kill()
        await a_work.runs(attempt=2)
        a_work.release()
        job = await handle.wait(timeout=BOUND)

    assert (before.status, before.attempt) == (JobStatus.RUNNING, 1)
    assert (job.status, job.attempt, job.interruptions) == (JobStatus.SUCCEEDED, 2, 1)


@pytest.mark.usefixtures("short_lease")
async def test_an_outage_longer_than_a_lease_rescues_nobody_falsely_behind_a_pooler(
    postgres: PostgresServer, launcher: Launcher, a_work: Work
) -> None:
    """F38, F30: the owner is the slower to come back, and has the time for it."""
    with pgbouncer_to(postgres.url(), mode="transaction") as url:
        programs = Programs(url, launcher=launcher)
        async with JobEngine(url, jobs=[work], settings=POOLED) as engine:
            owner = await programs.engine(work, pgbouncer=True, fault=ELSEWHERE)
            engine.resize("work", 1)
            handles = [await engine.submit(work, a_work.folder) for _ in range(5)]
            await owner.says("started", times=1)

            owner.signal(signal.SIGSTOP)
            await asyncio.to_thread(postgres.restart, down=database_module.LEASE_SECONDS + 1)
            await asyncio.sleep(1)
            owner.signal(signal.SIGCONT)
            await asyncio.sleep(database_module.LEASE_SECONDS)
            a_work.release()
            jobs = [await handle.wait(timeout=BOUND) for handle in handles]
        await owner.close()
        await gone(programs.engine_ids())

    assert {(job.status, job.attempt) for job in jobs} == {(JobStatus.SUCCEEDED, 1)}

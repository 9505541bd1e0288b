"""Engines behind a real PgBouncer: found out, refused, and at work by setting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from crash_databases import sql
from crash_jobs import nothing, process_id, work
from crash_programs import BOUND, Programs, Work
from sqlalchemy.ext.asyncio import create_async_engine

from asyncjobs import JobClient, JobEngine, JobStatus, Settings, StoreUnavailable
from asyncjobs.store.postgresql import keeping
from pgbouncers import pgbouncer_to

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
    monkeypatch.setattr(keeping, "LEASE_SECONDS", 2.5)


async def test_transaction_mode_is_found_out_and_refused_with_a_sentence_that_names_the_setting(database: str) -> None:
    """F38"""
    with pytest.raises(StoreUnavailable, match=r"a pooler in transaction mode: set ASYNCJOBS_PGBOUNCER=1"):
        async with JobClient(database):
            pass


async def test_transaction_mode_is_found_out_for_an_application_s_own_engine_too(database: str) -> None:
    """F38, F34: with prepared statements, which the other clients of the pooler have by the same names."""
    app = create_async_engine(database.replace("postgresql:", "postgresql+asyncpg:"))

    with pytest.raises(StoreUnavailable, match=r"a pooler in transaction mode: set ASYNCJOBS_PGBOUNCER=1"):
        async with JobClient(app):
            pass
    await app.dispose()


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
        await asyncio.sleep(keeping.LEASE_SECONDS + 1)
        before = await handle.job()

        await owner.kill()
        await a_work.runs(attempt=2)
        a_work.release()
        job = await handle.wait(timeout=BOUND)

    assert (before.status, before.attempt) == (JobStatus.RUNNING, 1)
    assert (job.status, job.attempt, job.interruptions) == (JobStatus.SUCCEEDED, 2, 1)

"""PostgreSQL that goes away, cuts, stalls and refuses, and what becomes of the jobs meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from crash_databases import connected, sql
from crash_ends import heard, succeeded_once
from crash_jobs import count_run, nothing, wait_for_release, work
from crash_programs import BOUND, Programs, Work, until
from sqlalchemy.ext.asyncio import create_async_engine

from asyncjobs import JobClient, JobEngine, JobStatus
from asyncjobs.engine import liveness
from asyncjobs.errors import StoreUnavailable
from asyncjobs.store.postgresql import database as database_module
from asyncjobs.store.postgresql import lines, sessions
from asyncjobs.store.sql import SqlStore
from asyncjobs.telemetry import EngineCutOff, JobFinished, JobStarted
from postgres import PostgresServer
from proxies import Proxy, proxy_to


@pytest.fixture
def database(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    """A proxy in front of the test's database."""
    async with proxy_to(database) as proxy:
        yield proxy


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of a tenth, for the engines that are opened after this."""
    monkeypatch.setattr(database_module, "TRY_SECONDS", 1.0)
    monkeypatch.setattr(sessions, "SESSION", sessions.SESSION.replace("'5s'", "'0.5s'"))


@pytest.fixture
async def cut_engine(proxy: Proxy) -> AsyncIterator[JobEngine]:
    """An engine behind the proxy."""
    async with JobEngine(proxy.url, jobs=[count_run, nothing, wait_for_release, work]) as engine:
        yield engine


# --- answers that are lost -----------------------------------------------------------------------


async def test_an_end_whose_acknowledgement_is_lost_counts_once(
    cut_engine: JobEngine, proxy: Proxy, a_work: Work
) -> None:
    """F04: it is written again, changes nothing, and one finished event is told."""
    finished = heard(cut_engine, JobFinished)
    handle = await cut_engine.submit(wait_for_release, a_work.folder)
    await a_work.runs()
    proxy.cut_the_answer_to(handle.id.encode(), b"SUCCEEDED")

    (a_work.folder / "release-1").touch()
    await proxy.has_cut()
    job = await handle.wait(timeout=BOUND)
    await until(lambda: bool(finished))

    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    assert [each.outcome for each in job.attempts] == ["succeeded"]
    assert [event.job.id for event in finished] == [handle.id]


async def test_a_job_whose_claim_is_committed_and_its_answer_lost_runs_within_seconds(
    cut_engine: JobEngine, client: JobClient, proxy: Proxy
) -> None:
    """F04b: it is stranded under no living engine; the attempt that nobody held is in the history."""
    started = heard(cut_engine, JobStarted)
    proxy.cut_the_answer_with(b"RUNNING", b'"stranded"')

    handle = await client.submit_named("count_run", {}, key='"stranded"')
    await proxy.has_cut()
    lost = time.monotonic()
    job = await handle.wait(timeout=BOUND)

    print(f"ended {time.monotonic() - lost:.1f} s after the answer to its claim was lost")
    assert job.status is JobStatus.SUCCEEDED
    assert [each.outcome for each in job.attempts] == ["interrupted", "succeeded"]
    assert [(event.job.id, event.job.attempt) for event in started] == [(handle.id, 2)]
    assert (job.retry_count, job.interruptions) == (0, 0)


async def test_what_nobody_holds_is_looked_for_again_soon_when_the_look_itself_fails(
    cut_engine: JobEngine, client: JobClient, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F04b, F30: the database goes away once more, before the lost claim was found; not half a minute later."""
    failed: list[str] = []
    running = SqlStore.running

    async def fails_once(store: SqlStore, engine_id: str) -> Any:
        if not failed:
            failed.append(engine_id)
            raise StoreUnavailable("not now")
        return await running(store, engine_id)

    monkeypatch.setattr(SqlStore, "running", fails_once)
    proxy.cut_the_answer_with(b"RUNNING", b'"stranded"')

    handle = await client.submit_named("count_run", {}, key='"stranded"')
    await proxy.has_cut()
    lost = time.monotonic()
    job = await handle.wait(timeout=2 * BOUND)

    assert [each.outcome for each in job.attempts] == ["interrupted", "succeeded"]
    assert len(failed) == 1
    assert time.monotonic() - lost < liveness.HELD_SECONDS - 10


async def test_a_submit_whose_acknowledgement_is_lost_returns_and_the_job_is_there_once(
    client: JobClient, proxy: Proxy
) -> None:
    """F04 for a submission."""
    async with JobClient(proxy.url, jobs=[nothing]) as cut_client:
        await cut_client.submit(nothing)
        proxy.cut_the_answer_to(b"PGCOPY", b"nothing")

        handle = await cut_client.submit(nothing)
        await proxy.has_cut()

    assert len((await client.list()).jobs) == 2
    assert (await client.get(handle.id)).status is JobStatus.PENDING


async def test_an_engine_whose_connections_are_all_cut_keeps_its_jobs(
    cut_engine: JobEngine, proxy: Proxy, a_work: Work
) -> None:
    """F04, F61: once, and then again and again for a while."""
    cut_off = heard(cut_engine, EngineCutOff)
    handle = await cut_engine.submit(wait_for_release, a_work.folder)
    await a_work.runs()

    for _ in range(20):
        proxy.cut_all()
        await asyncio.sleep(0.05)
    (a_work.folder / "release-1").touch()
    job = await handle.wait(timeout=BOUND)

    assert (job.status, job.attempt, cut_off) == (JobStatus.SUCCEEDED, 1, [])


async def test_an_engine_that_is_refused_for_a_while_goes_on_afterwards(
    cut_engine: JobEngine, client: JobClient, proxy: Proxy
) -> None:
    """F30: neither open connections nor new ones."""
    proxy.refuses = True
    proxy.cut_all()
    handle = await client.submit(count_run)
    await asyncio.sleep(2)

    proxy.refuses = False
    back = time.monotonic()
    job = await handle.wait(timeout=BOUND)

    print(f"at work {time.monotonic() - back:.1f} s after it could connect again")
    assert job.status is JobStatus.SUCCEEDED


@pytest.mark.soak
async def test_connections_that_are_terminated_each_second_lose_nothing(
    database: str, programs: Programs, a_work: Work, seconds: float
) -> None:
    """F31: every connection of engine and submitter, for ASYNCJOBS_TEST_SECONDS; full speed afterwards."""
    engine = await programs.engine(nothing)
    acknowledged: list[str] = []
    refused: list[Exception] = []

    async def submit_on(client: JobClient) -> None:
        while True:
            try:
                acknowledged.append((await client.submit(nothing)).id)
            except StoreUnavailable as error:
                refused.append(error)
            await asyncio.sleep(0.01)

    async with JobClient(database, jobs=[nothing]) as client, connected(database) as killer:
        submitters = [asyncio.create_task(submit_on(client)) for _ in range(3)]
        terminated = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(1)
            terminated += await killer.fetchval(_TERMINATE_OTHERS)
        for each in submitters:
            each.cancel()
        await asyncio.wait(submitters)
        interrupted = await succeeded_once(client, acknowledged)
        began = time.monotonic()
        await succeeded_once(client, [each.id for each in await client.submit_many([nothing.bind()] * 500)])
        took = time.monotonic() - began

    print(
        f"{terminated} connections terminated in {seconds:g} s; {len(acknowledged)} submits, {len(refused)} refused; "
        f"{interrupted} claims whose answer was lost; then 500 jobs in {took:.2f} s"
    )
    assert refused == []
    assert terminated > 0
    assert not engine.ended


_TERMINATE_OTHERS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


# --- silence -------------------------------------------------------------------------------------


async def test_a_half_open_connection_that_listens_is_noticed_and_nothing_is_missed(
    cut_engine: JobEngine, client: JobClient, proxy: Proxy
) -> None:
    """F32: what was submitted meanwhile has run, and the engine listens again."""
    assert await seconds_to_notice(client, proxy) <= BOUND


@pytest.mark.quiet
async def test_a_half_open_connection_that_listens_is_noticed_within_fifteen_seconds(
    cut_engine: JobEngine, client: JobClient, proxy: Proxy
) -> None:
    """F32"""
    assert await seconds_to_notice(client, proxy) <= 15


async def seconds_to_notice(client: JobClient, proxy: Proxy) -> float:
    """Swallow what is said to a listening connection; return how long after that the engine listens on another."""
    await proxy.hears(b"LISTEN")
    proxy.swallow(b"LISTEN")
    began = time.monotonic()

    missed = await client.submit(count_run)
    await missed.wait(timeout=BOUND)
    ran = time.monotonic() - began
    await proxy.hears(b"LISTEN", times=2)
    noticed = time.monotonic() - began
    job = await (await client.submit(count_run)).wait(timeout=BOUND)

    assert job.started_at is not None
    told = (job.started_at - job.created_at).total_seconds()
    print(f"ran {ran:.1f} s after the cut, noticed after {noticed:.1f} s, then told within {told * 1000:.0f} ms")
    return noticed


async def test_an_engine_all_of_whose_connections_are_half_open_is_at_work_again(
    cut_engine: JobEngine, client: JobClient, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F32, F36 for every connection: a turn and a read have their time limit, too, here a shorter one."""
    monkeypatch.setattr(lines, "CALL_SECONDS", 1.5)
    proxy.swallow()
    began = time.monotonic()

    handle = await client.submit(count_run)
    job = await handle.wait(timeout=90)

    print(f"ended {time.monotonic() - began:.1f} s after all connections had become half-open")
    assert job.status is JobStatus.SUCCEEDED


async def test_a_cancel_reaches_a_job_of_another_engine_while_notifications_are_down(
    cut_engine: JobEngine, client: JobClient, proxy: Proxy, a_work: Work
) -> None:
    """F20, D13: by the poll, while nobody has noticed yet that nothing is heard."""
    handle = await client.submit(work, a_work.folder)
    await a_work.runs()
    await proxy.hears(b"LISTEN")
    proxy.swallow(b"LISTEN")

    began = time.monotonic()
    await handle.cancel()
    job = await handle.wait(timeout=BOUND)

    print(f"canceled {time.monotonic() - began:.1f} s after it was asked for, with no notification")
    assert job.status is JobStatus.CANCELED
    assert time.monotonic() - began < 10


async def test_many_large_jobs_that_nobody_reads_are_there_once_over_the_next_connection(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F32, for more than what the sockets' buffers hold."""
    monkeypatch.setattr(lines, "CALL_SECONDS", 1.5)
    async with JobClient(database) as client:
        await client.submit(nothing)
        pids = await sql(
            database,
            "SELECT array_agg(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(BOUND):
                await client.submit_many([work.bind(Path("x" * 10_000)) for _ in range(800)])
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    assert await sql(database, "SELECT count(*) FROM asyncjobs.jobs") == 801


# --- refusals ------------------------------------------------------------------------------------


async def test_a_server_that_is_read_only_for_a_while_costs_no_job(postgres: PostgresServer, a_work: Work) -> None:
    """F33: as after a fail-over that left us with the standby; nothing is lost, failed or run twice."""
    async with JobEngine(postgres.url(), jobs=[work, count_run]) as engine:
        running = await engine.submit(work, a_work.folder)
        await a_work.runs()
        waiting = await engine.submit(count_run.using(delay=1))
        await sql(postgres.url(), "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")

        a_work.release()  # its end can't be written now
        submitted = asyncio.create_task(engine.submit(count_run))
        await asyncio.sleep(2)
        before = await running.job()
        await sql(
            postgres.url(),
            "SET default_transaction_read_only = off",
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        )
        back = time.monotonic()
        await succeeded_once(engine, [running.id, waiting.id, (await submitted).id])

    print(f"all ended {time.monotonic() - back:.1f} s after it could be written again")
    assert before.status is JobStatus.RUNNING
    assert a_work.processes(attempt=2) == set()


async def test_an_application_that_has_used_up_its_pool_does_not_stop_the_engine(database: str) -> None:
    """F34: the engine takes the arguments of the application's `AsyncEngine`, and none of its connections."""
    app = create_async_engine(database.replace("postgresql:", "postgresql+asyncpg:"), pool_size=1, max_overflow=0)
    async with app.connect() as the_only_one, JobEngine(app, jobs=[nothing]) as engine:
        ids = [(await engine.submit(nothing)).id for _ in range(20)]
        await succeeded_once(engine, ids)

        assert app.sync_engine.pool.checkedout() == 1
        await the_only_one.rollback()
    await app.dispose()


async def test_jobs_of_two_engines_in_a_serializable_database_each_end_once(database: str, programs: Programs) -> None:
    """F35: serialization failures are tried again, and are no job's failure."""
    async with JobClient(database, jobs=[nothing]) as client:
        await sql(database, *_on_this_database("default_transaction_isolation", "'serializable'"))
        engines = [await programs.engine(nothing), await programs.engine(nothing)]

        handles = await client.submit_many([nothing.bind()] * 600)
        interrupted = await succeeded_once(client, [handle.id for handle in handles])

    print("started by each:", [len(engine.said("started")) for engine in engines], f"{interrupted} interrupted")
    assert interrupted == 0


async def test_the_end_of_a_job_that_is_the_victim_of_a_deadlock_is_written_again(
    cut_engine: JobEngine, database: str, a_work: Work
) -> None:
    """F35: the database chooses our turn as its victim, each of whose ends counts all the same."""
    first, second = [await cut_engine.submit(work, a_work.folder) for _ in range(2)]
    await until(lambda: len(a_work.processes(attempt=1)) == 2)
    async with connected(database) as other, other.transaction():
        await other.execute("SET LOCAL deadlock_timeout = '60s'")
        lock = "SELECT 1 FROM asyncjobs.jobs WHERE id = $1 FOR UPDATE"
        await other.execute(lock, second.id)

        a_work.release()
        await _until_somebody_waits(database)
        await other.execute(lock, first.id)

    await succeeded_once(cut_engine, [first.id, second.id])
    assert a_work.processes(attempt=2) == set()


@pytest.mark.usefixtures("short_limits")
async def test_a_call_that_waits_for_a_lock_has_its_time_limit(cut_engine: JobEngine, database: str) -> None:
    """F36: claims and submits come back with an error while the table is locked, and work afterwards."""
    cut_off = heard(cut_engine, EngineCutOff)
    async with connected(database) as other, other.transaction():
        await other.execute("LOCK TABLE asyncjobs.jobs IN ACCESS EXCLUSIVE MODE")

        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await cut_engine.submit(nothing)
        refused = time.monotonic() - began
        with pytest.raises(StoreUnavailable):
            await cut_engine.get("00000000-0000-7000-8000-000000000000")

    job = await (await cut_engine.submit(nothing)).wait(timeout=BOUND)
    print(f"refused after {refused:.1f} s")
    assert (job.status, cut_off) == (JobStatus.SUCCEEDED, [])


@pytest.mark.usefixtures("short_limits")
async def test_a_submit_that_waits_for_anothers_transaction_stops_nobody_else(
    cut_engine: JobEngine, client: JobClient, database: str
) -> None:
    """F36, D8: an application's open transaction holds a key; who wants the same waits, others don't."""
    handle = await client.submit(nothing.using(key="taken", delay=600))
    async with connected(database) as other, other.transaction():
        await other.execute("UPDATE asyncjobs.jobs SET key = 'mine' WHERE id = $1", handle.id)

        answers = await asyncio.gather(
            cut_engine.submit(nothing.using(key="mine")),
            *(cut_engine.submit(nothing) for _ in range(20)),
            return_exceptions=True,
        )

    assert isinstance(answers[0], StoreUnavailable)
    await succeeded_once(cut_engine, [each.id for each in answers[1:]])  # type: ignore[union-attr]


async def test_a_stop_is_bounded_while_the_database_is_down(
    postgres: PostgresServer, launcher: Any, a_work: Work
) -> None:
    """F28: the job ends with its engine, and the next engine gives its row back; all bounds are a tenth here."""
    programs = Programs(postgres.url(), launcher=launcher)
    async with JobClient(postgres.url(), jobs=[work]) as client:
        handle = await client.submit(work, a_work.folder)
        engine = await programs.engine(work, fault="has_short_graces", stop_grace=0.2)
        await a_work.runs()
        await asyncio.to_thread(postgres.stop)

        began = time.monotonic()
        engine.signal(signal.SIGTERM)
        code = await engine.ends(bound=60)
        took = time.monotonic() - began
        await asyncio.to_thread(postgres.start)
        a_work.release()
        second = await programs.engine(work)
        interrupted = await succeeded_once(client, [handle.id])
        await second.close()

    print(f"stopped within {took:.1f} s while the database was down")
    assert (code, interrupted) == (0, 1)
    assert took < 30


async def test_an_engine_whose_role_has_lost_its_grants_degrades_and_recovers(
    cut_engine: JobEngine, database: str
) -> None:
    """F40: submit raises and says what to do; once it is granted, the same engine works on."""
    role = "plain_role"
    await sql(database, f"DROP ROLE IF EXISTS {role}", f"CREATE ROLE {role} LOGIN")
    await sql(database, f"GRANT USAGE ON SCHEMA asyncjobs TO {role}", *_granted(role))
    async with JobEngine(database.replace("postgres@", f"{role}@"), jobs=[count_run]) as engine:
        early = await engine.submit(count_run)
        await early.wait(timeout=BOUND)
        await sql(database, f"REVOKE INSERT, UPDATE ON ALL TABLES IN SCHEMA asyncjobs FROM {role}")

        with pytest.raises(StoreUnavailable, match=r"permission denied.*grant the role what it needs"):
            await engine.submit(count_run)
        meanwhile = engine.health.status
        await sql(database, *_granted(role))
        granted = time.monotonic()
        job = await (await engine.submit(count_run)).wait(timeout=BOUND)

    print(f"at work {time.monotonic() - granted:.1f} s after the grant")
    assert (job.status, meanwhile) == (JobStatus.SUCCEEDED, "running")
    await sql(database, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_row_level_security_that_allows_it_keeps_no_job_out(database: str) -> None:
    """COPY is not allowed then."""
    role = "role_with_policies"
    await sql(database, f"DROP ROLE IF EXISTS {role}", f"CREATE ROLE {role} LOGIN")
    async with JobClient(database):
        await sql(
            database,
            f"GRANT USAGE ON SCHEMA asyncjobs TO {role}",
            *_granted(role),
            "ALTER TABLE asyncjobs.jobs ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY everything ON asyncjobs.jobs USING (true) WITH CHECK (true)",
        )
    async with JobClient(database.replace("postgres@", f"{role}@")) as client:
        handle = await client.submit(nothing)
        await client.submit_many([nothing.bind()] * 30)

        assert (await handle.job()).status is JobStatus.PENDING
    assert await sql(database, "SELECT count(*) FROM asyncjobs.jobs") == 31
    await sql(database, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def _granted(role: str) -> list[str]:
    return [
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA asyncjobs TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA asyncjobs TO {role}",
    ]


def _on_this_database(setting: str, value: str) -> list[str]:
    setting_here = (
        f"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {setting} = {value.replace(chr(39), chr(39) * 2)}'"
    )
    return [f"{setting_here}, current_database()); END $$"]


async def _until_somebody_waits(database: str) -> None:
    """Wait until a session of this database waits for a row's lock."""
    async with connected(database) as looking, asyncio.timeout(BOUND):
        while not await looking.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            await asyncio.sleep(0.01)

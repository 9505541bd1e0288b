"""A server that dies for good, and its standby that takes over: engines and clients reach both by one address."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from crash_databases import connected, sql
from crash_ends import succeeded_once
from crash_jobs import add, nothing, work
from crash_programs import BOUND, Programs, Work

from asyncjobs import JobClient
from asyncjobs.errors import StoreUnavailable
from postgres import PostgresServer
from proxies import Proxy, proxy_to

JOBS = 100
QUIET = 4.0
"""Seconds in which a false rescue would have come."""


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A copy without which the primary acknowledges nothing."""
    with PostgresServer(follows=primary) as server:
        asyncio.run(acknowledge_together(primary))
        yield server


async def acknowledge_together(primary: PostgresServer) -> None:
    await sql(primary.url(), "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    async with connected(primary.url()) as looking, asyncio.timeout(BOUND):
        while await looking.fetchval("SELECT sync_state FROM pg_stat_replication") != "sync":
            await asyncio.sleep(0.01)


@pytest.fixture
async def proxy(primary: PostgresServer, standby: PostgresServer) -> AsyncIterator[Proxy]:
    """The address that leads to the primary, until it is told otherwise."""
    async with proxy_to(primary.url()) as proxy:
        yield proxy


@pytest.fixture
def database(proxy: Proxy) -> str:
    return proxy.url


class Submitter:
    """Submits for as long as it is told to, and keeps what was acknowledged."""

    def __init__(self, client: JobClient, file: Path) -> None:
        self._client = client
        self._file = file
        self._closing = False
        self.acknowledged: list[str] = []
        self._task = asyncio.create_task(self._submit(), name="submit")

    async def _submit(self) -> None:
        while not self._closing:
            try:
                self.acknowledged.append((await self._client.submit(add, self._file, len(self.acknowledged))).id)
            except StoreUnavailable:
                continue  # nothing was promised
            await asyncio.sleep(0.005)

    async def acknowledges(self, count: int) -> None:
        """Wait for so many more."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(BOUND):
            while len(self.acknowledged) < wanted:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self._closing = True
        await self._task


async def test_a_standby_that_is_promoted_has_all_that_was_acknowledged_and_each_job_ends_once(
    client: JobClient,
    programs: Programs,
    proxy: Proxy,
    primary: PostgresServer,
    standby: PostgresServer,
    a_work: Work,
) -> None:
    """F33, F30: killed under load, with a job that runs all the time, while an engine of another machine watches."""
    file = a_work.folder / "lines"
    running = await client.submit(work, a_work.folder)
    owner = await programs.engine(work, add, fault="is_on_machine=one")
    watching = await programs.engine(nothing, fault="is_on_machine=two")
    await a_work.runs()
    submitter = Submitter(client, file)
    await submitter.acknowledges(JOBS)

    await asyncio.to_thread(primary.kill)
    killed = time.monotonic()
    await asyncio.to_thread(standby.promote)
    proxy.leads_to(standby.url())
    promoted, before = time.monotonic(), len(owner.said("finished"))
    await owner.says("finished", times=before + 20)
    at_work = time.monotonic() - promoted
    await submitter.acknowledges(JOBS)
    await submitter.close()
    await asyncio.sleep(QUIET)
    a_work.release()
    interrupted = await succeeded_once(client, [running.id, *submitter.acknowledged])

    lines = Counter(file.read_text().split())
    print(
        f"{promoted - killed:.1f} s without a server, at work {at_work:.1f} s after the switch; "
        f"{len(submitter.acknowledged)} acknowledged, {interrupted} attempts interrupted"
    )
    assert at_work <= 15
    assert a_work.processes(attempt=2) == set()
    assert (owner.said("rescued"), watching.said("rescued")) == ([], [])
    assert sum(lines.values()) <= len(submitter.acknowledged) + interrupted
    assert set(lines) == set(map(str, range(len(submitter.acknowledged))))


async def test_a_standby_that_is_reached_before_it_is_promoted_costs_no_job(
    client: JobClient,
    programs: Programs,
    proxy: Proxy,
    primary: PostgresServer,
    standby: PostgresServer,
    a_work: Work,
) -> None:
    """F33: for some seconds all can be read and nothing written; nobody is taken for dead for what can't be written."""
    running = await client.submit(work, a_work.folder)
    waiting = await client.submit(nothing.using(delay=1))
    owner = await programs.engine(work, nothing, fault="is_on_machine=one")
    watching = await programs.engine(nothing, fault="is_on_machine=two")
    await a_work.runs()

    await asyncio.to_thread(primary.kill)
    proxy.leads_to(standby.url())
    submitted = asyncio.create_task(client.submit(nothing), name="submit")
    await proxy.hears(b"UPDATE", b"engines", times=4)  # each has tried it on the primary, and now on the standby
    await asyncio.sleep(QUIET)
    before = await running.job()
    await asyncio.to_thread(standby.promote)
    promoted = time.monotonic()
    await succeeded_once(client, [waiting.id, (await submitted).id])
    at_work = time.monotonic() - promoted
    a_work.release()
    interrupted = await succeeded_once(client, [running.id])

    print(f"all ended {at_work:.1f} s after the standby was promoted")
    assert before.attempt == 1
    assert at_work <= 15
    assert interrupted == 0
    assert (owner.said("rescued"), watching.said("rescued")) == ([], [])


async def test_what_was_read_on_a_standby_is_read_on_the_primary_as_soon_as_that_can_be_reached(
    client: JobClient, proxy: Proxy, primary: PostgresServer, standby: PostgresServer
) -> None:
    """F33: no connection stays with a server that lags behind, though it answers."""
    await client.submit(nothing)
    proxy.leads_to(standby.url())
    proxy.cut_all()
    while_read_only = await client.list()
    await sql(standby.url(), "SELECT pg_wal_replay_pause()")

    proxy.leads_to(primary.url())
    handle = await client.submit(nothing)
    jobs = await asyncio.gather(*(handle.job() for _ in range(10)))

    assert len(while_read_only.jobs) == 1
    assert {job.id for job in jobs} == {handle.id}

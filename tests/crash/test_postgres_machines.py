"""Engines on other machines, which are killed, cut off or merely slow, and who runs their jobs then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from crash_databases import sql
from crash_jobs import nothing, stubborn_work, work
from crash_machines import Machine, NamedMachine, another_machine
from crash_programs import BOUND, TEST_SECONDS, Launcher, Programs, Work, gone

from asyncjobs import JobClient, JobStatus
from postgres import Databases, PostgresServer

HERE = "is_on_machine=here"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine | NamedMachine]:
    with another_machine() as machine:
        yield machine


@pytest.fixture(scope="module")
def server(machine: Machine | NamedMachine) -> Iterator[PostgresServer]:
    """A server that the other machine can reach."""
    with PostgresServer(settings={"listen_addresses": "*"}) as server:
        with (server.folder / "data" / "pg_hba.conf").open("a") as access:
            access.write(f"host all all {machine.address}/24 trust\n")
        asyncio.run(sql(server.url(), "SELECT pg_reload_conf()"))
        yield server


@pytest.fixture
def database(server: PostgresServer) -> Iterator[str]:
    databases = Databases(server.url())
    url = databases.create()
    yield url
    databases.drop(url)


@pytest.fixture
async def there(database: str, machine: Machine | NamedMachine, launcher: Launcher) -> AsyncIterator[Programs]:
    """Programs that reach the database over the other machine's network."""
    programs = Programs(database.replace("127.0.0.1", machine.address), launcher=launcher)
    yield programs
    await asyncio.gather(*(each.close() for each in programs.started))
    await gone(programs.engine_ids())


async def test_the_job_of_an_engine_that_is_killed_on_another_machine_starts_again_within_seconds(
    client: JobClient, programs: Programs, there: Programs, machine: Machine | NamedMachine, a_work: Work
) -> None:
    """F01, F02, D2: nobody here can look at its process; its lock is freed, and it is not seen any more."""
    handle = await client.submit(work, a_work.folder)
    owner = await there.engine(work, fault=f"is_on_machine={machine.name}")
    await a_work.runs(attempt=1)
    await programs.engine(work, fault=HERE)

    await owner.kill()
    killed = time.monotonic()
    await a_work.runs(attempt=2)
    took = time.monotonic() - killed
    a_work.release()
    job = await handle.wait(timeout=BOUND)

    print(f"began again elsewhere {took:.1f} s after the kill")
    assert took <= 20
    assert (job.status, job.interruptions) == (JobStatus.SUCCEEDED, 1)
    assert a_work.last_beat(attempt=1) < a_work.first_beat(attempt=2)


@pytest.mark.machines
async def test_the_job_of_an_engine_that_is_cut_off_starts_again_after_that_has_ended_its_own_attempt(
    client: JobClient, programs: Programs, there: Programs, machine: Machine | NamedMachine, a_work: Work
) -> None:
    """F02, F32 for a whole machine, though the job does not end when asked to; mended, the engine works on."""
    handle = await client.submit(stubborn_work, a_work.folder)
    owner = await there.engine(stubborn_work, nothing, fault=f"is_on_machine={machine.name}")
    await a_work.runs(attempt=1)
    watching = await programs.engine(stubborn_work, fault=HERE)

    machine.cut()
    cut, cut_ns = time.monotonic(), time.monotonic_ns()
    await a_work.runs(attempt=2)
    took = time.monotonic() - cut
    a_work.release()
    job = await handle.wait(timeout=BOUND)
    await watching.kill()
    machine.mend()
    mended = time.monotonic()
    later = await (await client.submit(nothing)).wait(timeout=BOUND)

    ended = (a_work.last_beat(attempt=1) - cut_ns) / 1e9
    print(
        f"the cut engine ended its attempt after {ended:.1f} s, another began after {took:.1f} s; "
        f"at work {time.monotonic() - mended:.1f} s after the cable was mended"
    )
    assert took <= 30
    assert (job.status, job.interruptions) == (JobStatus.SUCCEEDED, 1)
    assert a_work.last_beat(attempt=1) < a_work.first_beat(attempt=2)
    assert later.attempts[0].engine_id == owner.said("open")[0][1]


@pytest.mark.soak
async def test_an_engine_whose_host_blocks_its_loop_keeps_its_jobs_on_another_machine_too(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """F61: for ASYNCJOBS_TEST_SECONDS, while an engine of another machine watches."""
    handle = await client.submit(work, a_work.folder)
    watching = await programs.engine(nothing, fault=HERE)
    owner = await programs.start_engine(work, fault="blocks_its_loop")
    await owner.says("blocked")

    await owner.says("unblocked", bound=TEST_SECONDS + BOUND)
    a_work.release()
    job = await handle.wait(timeout=BOUND)

    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    assert watching.said("rescued") == []

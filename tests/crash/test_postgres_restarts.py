"""A PostgreSQL that restarts, is killed or is down for a while: who is at work again, and who is taken for dead."""

from __future__ import annotations

import asyncio
import time

import pytest
from crash_ends import heard, succeeded_once
from crash_jobs import add, add_inline, nothing, wait_for_release, work
from crash_programs import BOUND, TEST_SECONDS, Programs, Work

from asyncjobs import JobClient, JobDefinition, JobEngine, JobStatus
from asyncjobs.engine import engine as engine_module
from asyncjobs.telemetry import EngineCutOff
from postgres import PostgresServer
from proxies import proxy_to

LOOSE_SECONDS = 15.0
TIGHT_SECONDS = 5.0
"""How soon after a restart an engine is at work again where the machine has little else to do."""
QUIET = 4.0
"""Seconds in which a false rescue would have come."""
DOWN_SECONDS = min(20.0, TEST_SECONDS)


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return postgres.url()


# --- at work again -------------------------------------------------------------------------------


async def seconds_to_work(
    client: JobClient,
    programs: Programs,
    postgres: PostgresServer,
    a_work: Work,
    *,
    how: str,
    definition: JobDefinition[..., int] = add_inline,
    count: int = 2000,
) -> float:
    """Restart the server under load; return how long after it was back jobs ended again, all of which end once."""
    file = a_work.folder / "lines"
    handles = await client.submit_many(definition.bind(file, number) for number in range(count))
    engine = await programs.engine(definition)
    await engine.says("finished", times=50)

    await asyncio.to_thread(restart, postgres, how=how)
    back, before = time.monotonic(), len(engine.said("finished"))
    await engine.says("finished", times=before + 20)
    took = time.monotonic() - back
    interrupted = await succeeded_once(client, [handle.id for handle in handles])

    lines = file.read_text().split()
    print(f"{how}: at work {took:.1f} s after the server was back; {interrupted} attempts interrupted")
    assert before < count
    assert engine.said("rescued") == []
    assert set(lines) == set(map(str, range(count)))
    assert len(lines) <= count + interrupted
    return took


def restart(postgres: PostgresServer, *, how: str) -> None:
    match how:
        case "killed":  # its first process, which the others notice; it is started at once
            postgres.kill(only_first=True)
            postgres.start()
        case _:
            postgres.restart(mode=how, down=0.5)


@pytest.mark.parametrize("how", ["fast", "immediate", "killed"])
async def test_an_engine_is_at_work_again_after_a_restart_of_the_server_and_each_job_ends_once(
    client: JobClient, programs: Programs, postgres: PostgresServer, a_work: Work, how: str
) -> None:
    """F30: under the load of 20 slots, so in the middle of claims and ends."""
    assert await seconds_to_work(client, programs, postgres, a_work, how=how) <= LOOSE_SECONDS


@pytest.mark.quiet
@pytest.mark.parametrize("how", ["fast", "immediate", "killed"])
async def test_an_engine_is_at_work_again_within_seconds_of_a_restart_of_the_server(
    client: JobClient, programs: Programs, postgres: PostgresServer, a_work: Work, how: str
) -> None:
    """F30: with processes, too."""
    took = await seconds_to_work(client, programs, postgres, a_work, how=how, definition=add, count=300)

    assert took <= TIGHT_SECONDS


# --- down for a while ----------------------------------------------------------------------------


async def test_a_restart_of_the_server_rescues_nobody_falsely(
    client: JobClient, programs: Programs, postgres: PostgresServer, a_work: Work
) -> None:
    """F30, F68: two engines that watch each other as if on two machines; what runs is not interrupted."""
    await nobody_is_rescued(client, programs, postgres, a_work, down=1.0)


@pytest.mark.soak
async def test_a_server_that_is_down_for_twenty_seconds_costs_no_attempt(
    client: JobClient, programs: Programs, postgres: PostgresServer, a_work: Work
) -> None:
    """F30, F61: for ASYNCJOBS_TEST_SECONDS, at most 20."""
    await nobody_is_rescued(client, programs, postgres, a_work, down=DOWN_SECONDS)


async def nobody_is_rescued(
    client: JobClient, programs: Programs, postgres: PostgresServer, a_work: Work, *, down: float
) -> None:
    """Check that two engines keep their jobs while the server is away, and work on afterwards."""
    jobs = [await client.submit(work, a_work.folder) for _ in range(work.max_workers + 1)]
    engines = [await programs.engine(work, nothing, fault=f"is_on_machine={name}") for name in ("one", "two")]
    for each in engines:
        await each.says("started")

    await asyncio.to_thread(postgres.restart, down=down)
    await asyncio.sleep(QUIET)
    later = await client.submit(nothing)
    await succeeded_once(client, [later.id])
    a_work.release()
    interrupted = await succeeded_once(client, [each.id for each in jobs])

    print(f"down for {down:g} s: {interrupted} attempts interrupted")
    assert interrupted == 0
    assert [each.said("rescued") + each.said("interrupted") for each in engines] == [[], []]


async def test_a_server_that_is_down_cuts_an_engine_off_later_than_one_that_can_not_be_reached(
    client: JobClient, database: str, postgres: PostgresServer, a_work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F30, F32: while it is down it lets nobody take us for dead; behind a cut cable it may."""
    monkeypatch.setattr(engine_module, "CUT_OFF_SECONDS", 1.5)
    monkeypatch.setattr(engine_module, "CUT_OFF_DOWN_SECONDS", 60.0)
    async with proxy_to(database) as proxy:
        down, unreached = JobEngine(database, jobs=[wait_for_release]), JobEngine(proxy.url, jobs=[nothing])
        cut_off, cut_off_there = heard(down, EngineCutOff), heard(unreached, EngineCutOff)
        handle = await client.submit(wait_for_release, a_work.folder)
        async with down, unreached:
            await a_work.runs()
            proxy.refuses = True
            await asyncio.to_thread(postgres.stop)
            async with asyncio.timeout(BOUND):
                while not cut_off_there:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(1)
            await asyncio.to_thread(postgres.start)
            proxy.refuses = False
            (a_work.folder / "release-1").touch()
            job = await handle.wait(timeout=BOUND)

    assert (job.status, job.attempt, cut_off) == (JobStatus.SUCCEEDED, 1, [])

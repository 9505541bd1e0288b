"""Who is dead on PostgreSQL: whose lock is free, and who was not seen for a while, over one unbroken connection."""

import asyncio
import signal
import time
from datetime import timedelta

import asyncpg
import pytest
from msgspec.structs import replace

from asyncjobs.settings import Settings
from asyncjobs.store import open_store
from asyncjobs.store.postgresql import keeping
from asyncjobs.store.postgresql.keeping import QUIET_SECONDS
from builders import NOON, claim_one, insert, make_engine, make_job

BOUND = 20
LIVE = """
import asyncio, contextlib, os, sys
from datetime import timedelta
from asyncjobs.errors import StoreError
from builders import NOON, make_engine, opened

async def live(address, ids, offset):
    async with opened(address) as store:
        now = NOON + timedelta(seconds=offset)
        for each in ids:
            await store.register(make_engine(each, started_at=now, seen_at=now))
        os.write(1, b"held\\n")
        {then}
        while True:
            for each in ids:
                with contextlib.suppress(StoreError):
                    await store.beat(each)
            await asyncio.sleep(0.2)

asyncio.run(live(sys.argv[1], sys.argv[2].split(), float(sys.argv[3])))
"""
ALONE = LIVE.format(then="")
WITH_A_CHILD_THAT_LIVES = LIVE.format(then="if os.fork() == 0: os.write(1, b'forked\\n'); os.read(0, 1); os._exit(0)")
WITH_A_CHILD_THAT_ENDED = LIVE.format(then="os._exit(0) if os.fork() == 0 else os.wait(); os.write(1, b'forked\\n')")


@pytest.fixture
def address(postgres_url):
    return postgres_url


@pytest.fixture
def quickly(monkeypatch):
    """Take for dead who was not seen for a second."""
    monkeypatch.setattr(keeping, "QUIET_SECONDS", 1.0)


@pytest.fixture
def start_engines(store, start_python, address):
    """Register engines whose locks another process holds."""

    async def start(script=ALONE, *, ids="engine-b", clock_off=0.0):
        holder = start_python(script, address, ids, clock_off)
        assert await asyncio.to_thread(holder.stdout.readline) == "held\n"
        return holder

    return start


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


async def seen_dead(store):
    """Look until an engine is seen dead; return who, and after how many seconds."""
    began = time.monotonic()
    async with asyncio.timeout(BOUND):
        while not (sightings := await store.unlocked_engines()):
            await asyncio.sleep(0.1)
    [sighting] = sightings
    return sighting, time.monotonic() - began


async def dead_within(store, seconds):
    """Look for so many seconds; return all that were seen dead."""
    seen = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seen |= {sighting.engine.id for sighting in await store.unlocked_engines()}
        await asyncio.sleep(0.1)
    return seen


async def test_an_engine_that_was_killed_is_seen_dead_within_seconds_with_its_whole_record(store, start_engines):
    """F01"""
    holder = await start_engines()
    kill(holder)

    sighting, took = await seen_dead(store)

    assert replace(sighting.engine, seen_at=NOON) == make_engine("engine-b")
    assert not sighting.lock_gone
    assert QUIET_SECONDS <= took < QUIET_SECONDS + 3


@pytest.mark.soak
async def test_an_engine_that_is_stopped_is_not_taken_for_dead_while_its_connection_lives(
    store, start_engines, seconds
):
    """F61, D6"""
    holder = await start_engines()
    holder.send_signal(signal.SIGSTOP)

    assert await dead_within(store, seconds) == set()


@pytest.mark.usefixtures("quickly")
async def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(store, start_engines):
    """F60b"""
    holder = await start_engines(WITH_A_CHILD_THAT_LIVES)
    assert await asyncio.to_thread(holder.stdout.readline) == "forked\n"
    kill(holder)

    sighting, took = await seen_dead(store)

    assert sighting.engine.id == "engine-b"
    assert took < 4


async def test_nobody_is_taken_for_dead_for_a_child_that_ended_a_clock_or_a_connection_that_broke(
    store, start_engines, address
):
    """F60b, F68, D28: living engines all of them, whose lock is free for a moment or whose times are far off."""
    forked, *_ = await asyncio.gather(
        start_engines(WITH_A_CHILD_THAT_ENDED, ids="forked"),
        start_engines(ids="ahead", clock_off=300),
        start_engines(ids="behind", clock_off=-300),
    )
    assert await asyncio.to_thread(forked.stdout.readline) == "forked\n"
    connection = await asyncpg.connect(address)
    looking = asyncio.create_task(dead_within(store, QUIET_SECONDS + 2))

    for _ in range(3):
        await asyncio.sleep(1)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )

    assert await looking == set()
    assert {engine.id for engine in await store.living()} == {"forked", "ahead", "behind"}
    await connection.close()


@pytest.mark.usefixtures("quickly")
async def test_an_observer_whose_connection_broke_begins_to_watch_anew(store, start_engines, address):
    """F30: after a restart of the server everybody has time to come back."""
    holder = await start_engines()
    kill(holder)
    await dead_within(store, 0.5)
    await store._database._keeper.line.drop()

    _, took = await seen_dead(store)

    assert took >= 1


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("pgbouncer", [False, True], ids=["locks", "leases"])
async def test_nobody_is_taken_for_dead_where_nobody_can_write_that_it_lives(address, monkeypatch, pgbouncer):
    """F33: a standby, say, which is promoted later; from then on everybody has time to be seen."""
    monkeypatch.setattr(keeping, "LEASE_SECONDS", 1.0)
    store = open_store(address, settings=Settings(pgbouncer=pgbouncer))
    await store.open()
    await store.register(make_engine("engine-b"))
    await store._database.let_go("engine-b", for_good=False)
    keeper = store._database._keeper.line

    await keeper.run(lambda driver: driver.execute("SET default_transaction_read_only = on"))
    while_read_only = await dead_within(store, 2)
    await keeper.run(lambda driver: driver.execute("SET default_transaction_read_only = off"))
    sighting, took = await seen_dead(store)

    assert while_read_only == set()
    assert sighting.engine.id == "engine-b"
    assert took >= 0.9
    await store.close()


async def test_an_observer_behind_a_pooler_judges_by_what_it_has_watched_without_a_gap(address, monkeypatch):
    """F38, F61: both were held up together, and the observer is the first to go on."""
    monkeypatch.setattr(keeping, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(keeping, "LONGEST_GAP_SECONDS", 0.5)
    observer, owner = [open_store(address, settings=Settings(pgbouncer=True)) for _ in range(2)]
    await observer.open()
    await owner.open()
    await owner.register(make_engine())
    await owner.beat("engine-a")
    await observer.unlocked_engines()
    await asyncio.sleep(1.5)

    assert await observer.unlocked_engines() == []
    sighting, took = await seen_dead(observer)
    assert (sighting.engine.id, sighting.lock_gone) == ("engine-a", True)
    assert took >= 0.9
    await owner.close()
    await observer.close()


async def test_a_clock_that_is_off_brings_no_job_back_early(store, other_store):
    """F68, D28: the row of an engine, and the times of its jobs, are five minutes and more behind."""
    long_ago = NOON - timedelta(days=3650)
    await other_store.register(make_engine("engine-b", started_at=long_ago, seen_at=long_ago))
    await insert(store, make_job(created_at=long_ago, run_at=long_ago))
    job = await claim_one(other_store, engine_id="engine-b", now=long_ago)

    assert await store.unlocked_engines() == []
    assert [each.id for each in await store.running("engine-b")] == [job.id]

"""How turns end when the store is closed over them, and who is told what."""

import asyncio

import pytest

from asyncjobs.errors import StoreUnavailable
from asyncjobs.store import open_store, turns
from asyncjobs.store.turns import Part, Step, Turn
from builders import insert, make_job, opened, stored

SLOW = Step(
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000000) SELECT max(x) FROM n",
    [()],
    returns=True,
)
BAD = Step("INSERT INTO nowhere VALUES (1)", [()])


def begun(store, *steps):
    return asyncio.ensure_future(store._turns.run(steps, lambda answers: answers))


async def under_way(store):
    while not len(store._turns._under_way):
        await asyncio.sleep(0.001)


@pytest.fixture
async def store(address):
    async with opened(address) as store:
        yield store


async def test_a_store_whose_close_was_cancelled_over_a_turn_that_fails_can_be_opened_again(store):
    calls = [begun(store, SLOW, BAD), begun(store, SLOW)]
    await under_way(store)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)

    closing.cancel()

    async with asyncio.timeout(60):
        answers = await asyncio.gather(closing, *calls, return_exceptions=True)
        await store.open()
        assert len(await insert(store, make_job())) == 1
    assert isinstance(answers[1], StoreUnavailable)


async def test_a_store_whose_close_was_cancelled_before_a_turn_began_can_be_opened_again(store):
    call = asyncio.create_task(insert(store, make_job()))
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)

    closing.cancel()

    async with asyncio.timeout(60):
        await asyncio.gather(closing, call, return_exceptions=True)
        await store.open()
        assert len(await insert(store, make_job())) == 1


async def test_two_who_close_at_once_wait_for_the_same_turn(store, monkeypatch):
    monkeypatch.setattr(turns, "CLOSE_SECONDS", 600.0)
    call = begun(store, SLOW)
    await under_way(store)

    async with asyncio.timeout(60):
        await asyncio.gather(store.close(), store.close())

    assert (await call)[0]


async def test_who_submits_while_a_close_is_cancelled_is_told_what_is_stored(tmp_path):
    jobs = [make_job() for _ in range(3000)]
    store = open_store(f"sqlite:///{tmp_path / 'jobs.db'}")
    await store.open()
    calls = [asyncio.create_task(insert(store, job)) for job in jobs]
    await under_way(store)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)

    closing.cancel()

    async with asyncio.timeout(60):
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.wait([closing])
        await store.open()
    told = [job.id for job, answer in zip(jobs, answers, strict=True) if answer == [job]]
    there = [job.id for job in jobs if await store.get(job.id) is not None]
    await store.close()
    assert told == there


async def test_draining_waits_for_what_was_asked_for_by_a_caller_who_has_gone(store):
    job = make_job()
    await insert(store, job)
    call = begun(store, SLOW, Step("UPDATE jobs SET priority = 9", [()]))
    await under_way(store)
    call.cancel()

    await store.drain()

    assert (await stored(store, job)).priority == 9


def test_no_claim_is_in_a_turn_before_the_ends_whose_slots_it_may_use():
    ends = [Part(number, str, None) for number in range(3)]
    take = Part("take", str, None)

    first, rest = Turn(ends=ends, takes=[take]).split(2)

    assert (first.ends, first.takes) == (ends[:2], [])
    assert (rest.ends, rest.takes) == (ends[2:], [take])

import asyncio

import pytest

from asyncjobs.errors import StoreError, StoreUnavailable
from asyncjobs.model.job import JobStatus
from asyncjobs.settings import Settings
from asyncjobs.store import Bookmark, open_store
from asyncjobs.store.postgresql.turning import TurnRunner
from asyncjobs.store.turns import Step
from builders import (
    EVERY_JOB,
    SUCCEEDED,
    claim_all,
    claim_one,
    finish,
    insert,
    make_chunk,
    make_job,
    make_running,
    opened,
    stored,
    turns_of,
)

BAD_SQL = Step("INSERT INTO nowhere VALUES (1)", [{}])
BAD_PARAMETER = Step("UPDATE jobs SET name = :name WHERE id = 'x'", [{"name": object()}])
BREAKS_A_RULE = Step("UPDATE jobs SET name = NULL", [{}])


async def write(store, *steps):
    return await store._turns.run(steps, lambda answers: answers)


@pytest.mark.parametrize(
    "step", [pytest.param(BAD_SQL, id="bad SQL"), pytest.param(BREAKS_A_RULE, id="a broken constraint")]
)
async def test_a_part_that_fails_fails_its_caller_alone(store, step):
    """D8"""
    held = await claim_one(store, inserted=make_job())
    new = make_job()

    answers = await asyncio.gather(
        insert(store, new), write(store, step), finish(store, held, SUCCEEDED), return_exceptions=True
    )

    assert isinstance(answers[1], StoreUnavailable)
    assert (answers[0], answers[2]) == ([new], JobStatus.SUCCEEDED)
    assert await stored(store, new) == new
    assert (await stored(store, held)).status is JobStatus.SUCCEEDED


async def test_each_part_that_fails_has_an_error_of_its_own(store):
    broken = [Step(f"INSERT INTO nowhere_{number} VALUES (1)", [{}]) for number in range(3)]

    errors = await asyncio.gather(*(write(store, step) for step in broken), return_exceptions=True)

    assert [f"nowhere_{number}" in str(error) for number, error in enumerate(errors)] == [True] * 3


async def test_a_part_that_fails_is_undone_as_a_whole(store):
    """D8"""
    job = make_job()
    await insert(store, job)
    good = Step("UPDATE jobs SET priority = 9", [{}])

    with pytest.raises(StoreUnavailable):
        await write(store, good, BAD_SQL)

    assert await stored(store, job) == job


async def test_the_store_goes_on_after_a_turn_that_failed(store):
    job = make_job()
    with pytest.raises(StoreUnavailable):
        await write(store, BAD_SQL)

    assert await insert(store, job) == [job]


async def test_a_part_that_the_driver_refuses_fails_its_caller_alone(store):
    """D8"""
    new = make_job()

    answers = await asyncio.gather(
        insert(store, new),
        write(store, Step("SELECT :number", [{"number": 2**70}])),
        return_exceptions=True,
    )

    assert answers[0] == [new]


async def test_a_part_with_an_unusable_parameter_fails_its_caller_alone(store):
    """D8"""
    new = make_job()

    answers = await asyncio.gather(insert(store, new), write(store, BAD_PARAMETER), return_exceptions=True)

    assert answers[0] == [new]


async def test_a_fault_in_the_database_layer_is_told_and_the_store_goes_on(store, monkeypatch):
    """F63"""

    def run_turn(*_args):
        raise TypeError("no such thing")

    with monkeypatch.context() as broken:
        broken.setattr("asyncjobs.store.sqlite.writer.run_turn", run_turn)
        broken.setattr(TurnRunner, "run", run_turn)
        with pytest.raises(StoreError, match="TypeError: no such thing"):
            await insert(store, make_job())

    new = make_job()
    assert await insert(store, new) == [new]


async def test_a_thousand_callers_at_once_each_have_their_own_answer(store):
    jobs = [make_job() for _ in range(1500)]

    answers = await asyncio.gather(*(insert(store, job) for job in jobs))

    assert answers == [[job] for job in jobs]


async def test_callers_at_once_share_a_transaction(store, monkeypatch):
    """The first may go alone, and a slow machine may split the rest."""
    turns = turns_of(store, monkeypatch)

    await asyncio.gather(*(insert(store, make_job()) for _ in range(500)))

    assert sum(map(len, turns)) == 500
    assert len(turns) < 50


async def test_a_caller_that_is_cancelled_harms_no_other_of_its_turn(store):
    held = await claim_one(store, inserted=make_job())
    calls = [asyncio.create_task(insert(store, make_job())), asyncio.create_task(finish(store, held, SUCCEEDED))]
    await asyncio.sleep(0)

    calls[0].cancel()

    assert await calls[1] is JobStatus.SUCCEEDED


async def test_reading_does_not_wait_for_a_long_turn(store):
    job = make_job()
    await insert(store, job)
    slow = Step(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000000) SELECT max(x) FROM n",
        [{}],
        returns=True,
    )
    turn = asyncio.create_task(write(store, slow))
    await asyncio.sleep(0)

    await store.get(job.id)

    assert not turn.done()
    await turn


async def test_closing_finishes_what_was_asked_for(address):
    jobs = [make_job() for _ in range(100)]
    async with opened(address) as store:
        calls = [asyncio.create_task(insert(store, job)) for job in jobs]
        await asyncio.sleep(0)

    answers = await asyncio.gather(*calls)

    assert answers == [[job] for job in jobs]
    async with opened(address) as store:
        assert len(await store.page(EVERY_JOB, limit=1000, before=None)) == 100


async def test_closing_twice_does_nothing(address):
    async with opened(address) as store:
        await store.close()

    await store.close()


async def test_a_store_that_was_closed_can_be_opened_again(address):
    job = make_job()
    store = open_store(address, settings=Settings(sqlite_synchronous="FULL"))
    await store.open()
    await insert(store, job)
    await store.close()

    await store.open()

    assert await store.get(job.id) == job
    await store.close()


CALLS = {
    "insert": lambda store: insert(store, make_job()),
    "claim": claim_all,
    "get": lambda store: store.get("x"),
    "page": lambda store: store.page(EVERY_JOB, limit=1, before=None),
    "settled": lambda store: store.settled(["x"]),
    "note": lambda store: store.note(make_running(), [make_chunk()], None),
    "output": lambda store: store.output(Bookmark("x"), limit=1),
    "news": lambda store: store.news([Bookmark("x")]),
    "progress": lambda store: store.progress("x"),
    "changed": lambda store: store.changed(),
    "unlocked_engines": lambda store: store.unlocked_engines(),
}


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in CALLS.items()])
async def test_a_call_after_the_close_is_refused(address, call):
    async with opened(address) as store:
        await insert(store, make_job())

    with pytest.raises(StoreUnavailable):
        await call(store)


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in CALLS.items()])
async def test_a_call_before_the_opening_is_refused(address, call):
    store = open_store(address)

    with pytest.raises(StoreUnavailable):
        await call(store)

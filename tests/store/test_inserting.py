import asyncio
import json

import pytest
from msgspec.structs import fields, replace

from asyncjobs.errors import StoreUnavailable
from asyncjobs.model.job import Job, JobStatus
from asyncjobs.store import Claimed, Submission
from asyncjobs.store.turns import Step
from builders import EVERY_JOB, HOUR, MINUTE, NOON, claim_all, claim_one, ended_job, insert, make_id, make_job, stored

EVERY_FIELD = {
    "name": "thümbnail \U0001f600",
    "params_json": '{"width": 320}',
    "key": "cat.png at 320; '\"\\%_\t",
    "priority": -1000,
    "timeout": 0.1,
    "kill_grace": 2.0000000001,
    "max_retries": 7,
    "retry_delay": 1e-6,
    "retry_max_delay": 86400.5,
    "run_at": NOON.replace(microsecond=123456) + HOUR,
}
UNUSUAL_VALUES = {
    "NUL": "a\0b",
    "lone surrogates": "\ud800 \udfff",
    "an astral character": "\U0001f600",
    "a quote": "'\"",
    "infinities": [float("inf"), float("-inf")],
    "2**64": 2**64,
    "a large negative integer": -(10**300),
    "the smallest float": 5e-324,
    "minus zero": -0.0,
    "1 and 1.0 and true": [1, 1.0, True],
    "many levels": json.loads("[" * 150 + "]" * 150),
    "nothing": None,
}


async def test_a_job_comes_back_as_it_was_inserted(store):
    job = make_job(**EVERY_FIELD)

    await insert(store, job)

    assert await store.get(job.id) == job


@pytest.mark.parametrize("field", [field.name for field in fields(Job)])
async def test_every_field_of_a_claimed_job_is_the_stored_one(store, field):
    claimed = await claim_one(store, inserted=make_job(key="k", timeout=1.5))

    found = await stored(store, claimed)

    assert getattr(found, field) == getattr(claimed, field)


@pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in UNUSUAL_VALUES.items()])
async def test_unusual_params_make_an_exact_round_trip(store, value):
    """F52"""
    job = make_job(params_json=json.dumps({"value": value}))

    await insert(store, job)

    found = await stored(store, job)
    assert found.params_json == job.params_json
    assert repr(found.params) == repr({"value": value})


async def test_nan_in_params_makes_an_exact_round_trip(store):
    """F52"""
    job = make_job(params_json='{"value": [NaN, {"deep": NaN}]}')

    await insert(store, job)

    assert (await stored(store, job)).params_json == '{"value": [NaN, {"deep": NaN}]}'


@pytest.mark.parametrize("size", [200_000, 5_000_000])
async def test_large_params_make_an_exact_round_trip(store, size):
    """D1"""
    job = make_job(params_json=json.dumps({"text": "x" * size}))

    await insert(store, job)

    assert await store.get(job.id) == job


async def test_the_environment_of_a_submission_comes_back_with_its_claim_only(store):
    """F81, D9"""
    job = make_job()
    await insert(store, job, env={"TOKEN": "secret", "UMLAUT": "\xfc\udcff"})

    claim = await store.claim(job.name, limit=1, engine_id="engine-a", now=NOON)

    assert claim.claimed[0].env == {"TOKEN": "secret", "UMLAUT": "\xfc\udcff"}
    assert "secret" not in repr(await store.get(job.id))


async def test_a_job_that_was_never_inserted_is_none(store):
    assert await store.get(make_id()) is None


async def test_inserting_nothing_returns_nothing(store):
    assert await store.insert([]) == []


async def test_jobs_are_returned_in_the_order_given(store):
    jobs = [make_job(key=key) for key in (None, "b", None, "a")]

    assert await insert(store, *jobs) == jobs


async def test_inserting_a_job_again_changes_nothing(store):
    """F46, F64"""
    job = make_job()
    claimed = await claim_one(store, inserted=job)

    await insert(store, replace(job, priority=9))

    assert await stored(store, job) == claimed


async def test_inserting_a_job_with_a_key_again_changes_nothing(store):
    """F64"""
    job = make_job(key="cat.png")
    claimed = await claim_one(store, inserted=job)

    again = await insert(store, job)

    assert again == [claimed]


async def test_inserting_a_job_again_with_a_key_that_it_had_not_harms_nobody(store):
    job = make_job()
    await insert(store, job)

    async with asyncio.timeout(1):
        await insert(store, replace(job, key="cat.png"))

    assert await stored(store, job) == job


async def test_a_job_whose_key_is_taken_is_not_inserted_and_the_other_is_returned(store):
    """F78"""
    first, second = make_job(key="cat.png"), make_job(key="cat.png")
    await insert(store, first)

    answer = await insert(store, second)

    assert answer == [first]
    assert await store.get(second.id) is None


async def test_a_key_is_taken_as_long_as_its_job_is_there_even_when_it_has_ended(store):
    ended = await ended_job(store, key="cat.png")

    [answer] = await insert(store, make_job(key="cat.png"))

    assert answer == replace(ended, attempts=())


async def test_a_key_is_free_again_once_its_job_is_deleted(store):
    await ended_job(store, key="cat.png")
    await store.delete(EVERY_JOB, limit=1)
    job = make_job(key="cat.png")

    assert await insert(store, job) == [job]


async def test_a_key_belongs_to_one_name(store):
    await insert(store, make_job(name="thumbnail", key="cat.png"))
    job = make_job(name="convert", key="cat.png")

    assert await insert(store, job) == [job]


async def test_keys_differ_by_case_and_space(store):
    jobs = [make_job(key=key) for key in ("cat", "Cat", "cat ", " cat")]

    assert await insert(store, *jobs) == jobs


async def test_one_call_with_a_key_twice_makes_one_job(store):
    """F78"""
    first, second = make_job(key="cat.png"), make_job(key="cat.png")

    assert await insert(store, first, second) == [first, first]


async def test_twenty_inserts_of_one_key_at_once_make_one_job(store, other_store):
    """F78"""
    stores = [store, other_store] * 10

    answers = await asyncio.gather(*(insert(each, make_job(key="cat.png")) for each in stores))

    [only] = await store.page(EVERY_JOB, limit=100, before=None)
    assert answers == [[only]] * 20


async def test_many_jobs_are_inserted_all_or_not_at_all(store):
    """D8"""
    jobs = [make_job(), make_job(), make_job(name=None)]

    with pytest.raises(StoreUnavailable):
        await insert(store, *jobs)

    assert await store.page(EVERY_JOB, limit=10, before=None) == []


async def test_ten_thousand_jobs_are_inserted_in_one_call(store):
    """F77"""
    await insert(store, *(make_job() for _ in range(10_000)))

    assert len(await store.page(EVERY_JOB, limit=20_000, before=None)) == 10_000


@pytest.mark.parametrize(("count", "length"), [(1, 1), (127, 1), (130, 1), (3, 10_000)])
async def test_jobs_of_one_call_are_claimed_in_the_order_given(store, count, length):
    jobs = [make_job(params_json=json.dumps("x" * length) if n % 5 == 0 else "{}") for n in range(count)]

    await store.insert([Submission(job, {"A": "b"} if length == 1 and n == 100 else {}) for n, job in enumerate(jobs)])

    claimed = await claim_all(store, limit=1000)
    assert [(job.id, job.params_json) for job in claimed] == [(job.id, job.params_json) for job in jobs]


@pytest.mark.parametrize("in_a_row", [1, 2, 7, 50, 131])
async def test_jobs_of_one_call_come_back_as_each_was_inserted_however_many_in_a_row_are_alike(store, in_a_row):
    jobs = [
        make_job(name=f"job {n // in_a_row % 3}", priority=n // in_a_row, timeout=None if n // in_a_row % 2 else 0.5)
        for n in range(131)
    ]

    await insert(store, *jobs)

    assert await store.page(EVERY_JOB, limit=200, before=None) == jobs[::-1]


async def test_callers_at_once_are_served_in_the_order_in_which_they_came(store):
    """As many as fill several statements of rows; some are there already, some hold a key that is taken."""
    jobs = [make_job(key="cat.png" if n % 50 == 7 else None) for n in range(200)]
    await insert(store, jobs[100])

    answers = await asyncio.gather(*(insert(store, job) for job in jobs))

    assert answers == [[jobs[7] if job.key else job] for job in jobs]
    expected = [jobs[100], *(job for job in jobs if job is not jobs[100] and (job.key is None or job is jobs[7]))]
    claimed = await claim_all(store, limit=1000)
    assert {job.id for job in claimed} == {job.id for job in expected}
    assert [job.id for job in claimed if job.key is None] == [job.id for job in expected if job.key is None]


async def test_an_insert_that_is_cancelled_leaves_the_job_there_or_not_and_can_be_repeated(store):
    """F64"""
    job = make_job()
    call = asyncio.create_task(insert(store, job))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])

    await insert(store, job)

    assert await store.page(EVERY_JOB, limit=10, before=None) == [job]


async def test_an_insert_that_is_cancelled_harms_no_other(store):
    """F64"""
    job = make_job()
    call = asyncio.create_task(insert(store, make_job()))
    other = asyncio.create_task(insert(store, job))
    await asyncio.sleep(0)

    call.cancel()

    assert await other == [job]
    assert await store.get(job.id) == job


@pytest.mark.parametrize(
    "changes",
    [pytest.param({"priority": 2**63}, id="too big a number"), pytest.param({"key": "\ud800"}, id="a surrogate")],
)
async def test_a_job_that_the_database_refuses_harms_no_other(store, changes):
    """D8"""
    fine = make_job()

    await asyncio.gather(insert(store, make_job(**changes)), insert(store, fine), return_exceptions=True)

    assert await store.get(fine.id) == fine


async def test_a_job_is_inserted_once_whatever_the_caller_that_repeats_it(store, other_store):
    """F64"""
    job = make_job()

    await asyncio.gather(*(insert(each, job) for each in (store, other_store, store, other_store)))

    assert await store.page(EVERY_JOB, limit=10, before=None) == [job]


async def test_a_new_job_is_pending_whoever_reads_it(store, other_store):
    job = make_job(run_at=NOON + MINUTE)

    await insert(store, job)

    assert (await stored(other_store, job)).status is JobStatus.PENDING


@pytest.mark.parametrize("record", [Submission, Claimed])
def test_what_carries_an_environment_shows_none_in_its_repr(record):
    """F81"""
    assert "secret" not in repr(record(make_job(), {"TOKEN": "secret"}))


async def test_a_job_whose_key_was_held_by_one_that_is_deleted_before_the_look_is_written_all_the_same(
    store, monkeypatch
):
    """F04"""
    held = await ended_job(store, key="a")
    new = [make_job(key="a"), make_job(key="b")]
    run = store._turns.run

    async def deleting_in_between(steps, read):
        monkeypatch.undo()
        written, looked_up = steps
        deleted = Step("DELETE FROM jobs WHERE id = ?1", [(held.id,)])
        return await run([written, deleted, looked_up], lambda answers: read([answers[0], answers[2]]))

    monkeypatch.setattr(store._turns, "run", deleting_in_between)

    assert [job.id for job in await insert(store, *new)] == [job.id for job in new]
    assert {(await store.get(job.id)).key for job in new} == {"a", "b"}

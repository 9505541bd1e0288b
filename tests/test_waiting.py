import asyncio
import time

import pytest

from asyncjobs.client import looking
from asyncjobs.client.waiting import REMEMBERED_SECONDS, Waiting
from asyncjobs.errors import JobNotFound, NotOpen, StoreUnavailable
from asyncjobs.model.job import JobStatus
from asyncjobs.store import Settled
from builders import make_job


class CountingStore:
    """Holds records by id, and counts the questions."""

    def __init__(self):
        self.jobs = {}
        self.asked = []
        self.failure = None
        self.looked = asyncio.Event()

    def has(self, *jobs):
        self.jobs.update({job.id: job for job in jobs})

    async def settled(self, job_ids):
        self.asked.append(set(job_ids))
        self.looked.set()
        if self.failure is not None:
            raise self.failure
        found = [self.jobs[each] for each in job_ids if each in self.jobs]
        return Settled(
            tuple(job for job in found if job.status.is_final),
            tuple(each for each in job_ids if each not in self.jobs),
        )


@pytest.fixture
def store():
    return CountingStore()


@pytest.fixture
async def waiting(store):
    waiting = Waiting()
    run = asyncio.create_task(waiting.run(store))
    yield waiting
    run.cancel()
    await asyncio.wait([run])


def ended(job_id="job-1"):
    return make_job(id=job_id, status=JobStatus.SUCCEEDED)


def running(job_id="job-1"):
    return make_job(id=job_id, status=JobStatus.RUNNING)


async def begin(waiting, store, *job_ids):
    """Wait for each of the ids, and return once all have been looked up."""
    store.looked.clear()
    waits = [asyncio.create_task(waiting.end_of(job_id)) for job_id in job_ids]
    await store.looked.wait()
    return waits


async def test_a_job_that_ended_before_the_wait_is_returned_at_once(waiting, store):
    """F65"""
    store.has(ended())

    async with asyncio.timeout(1):
        assert await waiting.end_of("job-1") == ended()


async def test_an_end_that_is_told_wakes_every_waiter_of_that_job(waiting, store):
    store.has(running("job-1"), running("job-2"))
    first, second, other = await begin(waiting, store, "job-1", "job-1", "job-2")

    waiting.ended(ended("job-1"))

    assert await asyncio.gather(first, second) == [ended("job-1")] * 2
    assert not other.done()
    other.cancel()


async def test_an_end_that_is_told_costs_no_query(waiting, store):
    store.has(running())
    [wait] = await begin(waiting, store, "job-1")

    waiting.ended(ended())
    await wait

    assert store.asked == [{"job-1"}]


async def test_a_wait_that_follows_at_once_on_the_submit_costs_no_query(waiting, store):
    wait = asyncio.create_task(waiting.end_of("job-1", submitted_at=time.monotonic()))
    await asyncio.sleep(0)

    waiting.ended(ended())

    assert await wait == ended()
    assert store.asked == []


@pytest.fixture
def just_submitted(waiting, monkeypatch):
    """Wait for a job that was submitted just now, whose first look is put off by so many seconds."""

    def wait(job_id, seconds):
        monkeypatch.setattr(looking, "PUT_OFF_SECONDS", seconds)
        return asyncio.create_task(waiting.end_of(job_id, submitted_at=time.monotonic()))

    return wait


async def test_a_job_just_submitted_is_not_looked_up_for_a_while(waiting, store, just_submitted):
    wait = just_submitted("job-1", 60.0)

    for _ in range(10):
        await asyncio.sleep(0)

    assert store.asked == []
    wait.cancel()


async def test_each_job_just_submitted_is_looked_up_when_its_own_while_is_over(waiting, store, just_submitted):
    store.has(ended("job-1"), ended("job-2"), running("job-3"))
    waits = []
    for job_id, seconds in (("job-1", 0.01), ("job-2", 1.0), ("job-3", 60.0)):
        waits.append(just_submitted(job_id, seconds))
        await asyncio.sleep(0)

    async with asyncio.timeout(10):
        assert await waits[0] == ended("job-1")
        assert not waits[1].done()
        assert await waits[1] == ended("job-2")

    assert store.asked == [{"job-1"}, {"job-2"}]
    waits[2].cancel()


async def test_those_who_wait_for_jobs_just_submitted_share_a_timer(waiting, just_submitted, monkeypatch):
    loop = asyncio.get_running_loop()
    timers = []
    monkeypatch.setattr(loop, "call_later", lambda *of: timers.append(of))

    waits = [just_submitted(f"job-{n}", 60.0) for n in range(50)]
    await asyncio.sleep(0)
    for n in range(50):
        waiting.ended(ended(f"job-{n}"))

    assert len(await asyncio.gather(*waits)) == 50
    assert len(timers) == 1


async def test_a_job_submitted_long_ago_is_looked_up_at_once(waiting, store, monkeypatch):
    monkeypatch.setattr(looking, "PUT_OFF_SECONDS", 60.0)
    store.has(ended())

    async with asyncio.timeout(10):
        assert await waiting.end_of("job-1", submitted_at=time.monotonic() - REMEMBERED_SECONDS) == ended()


async def test_an_end_whose_notice_was_lost_is_found_by_the_next_look(waiting, store, monkeypatch):
    """F65"""
    monkeypatch.setattr(looking, "LOOK_AGAIN_SECONDS", 0.01)
    store.has(running())
    [wait] = await begin(waiting, store, "job-1")

    store.has(ended())

    async with asyncio.timeout(1):
        assert await wait == ended()


async def test_an_end_written_elsewhere_is_found_when_a_change_is_noticed(waiting, store):
    """F65"""
    store.has(running())
    [wait] = await begin(waiting, store, "job-1")
    store.has(ended())

    waiting.look_again()

    async with asyncio.timeout(1):
        assert await wait == ended()


async def test_a_change_that_nobody_waits_for_costs_no_query(waiting, store):
    store.has(ended())
    for _ in range(10):
        waiting.look_again()

    await waiting.end_of("job-1")

    assert store.asked == [{"job-1"}]


async def test_a_job_that_is_not_there_is_told(waiting):
    with pytest.raises(JobNotFound, match="job-1"):
        await waiting.end_of("job-1")


async def test_a_job_that_is_deleted_while_it_is_waited_for_is_told(waiting, store):
    store.has(running())
    [wait] = await begin(waiting, store, "job-1")
    store.jobs.clear()

    waiting.look_again()

    with pytest.raises(JobNotFound):
        await wait


async def test_a_missing_job_harms_no_other_waiter(waiting, store):
    store.has(ended("job-2"))

    answers = await asyncio.gather(waiting.end_of("job-1"), waiting.end_of("job-2"), return_exceptions=True)

    assert isinstance(answers[0], JobNotFound)
    assert answers[1] == ended("job-2")


async def test_ten_thousand_waiters_on_ten_thousand_jobs_share_one_query(waiting, store):
    """F65"""
    jobs = [ended(f"job-{number}") for number in range(10_000)]
    store.has(*jobs)

    answers = await asyncio.gather(*(waiting.end_of(job.id) for job in jobs))

    assert answers == jobs
    assert len(store.asked) <= 2


async def test_ten_thousand_waiters_on_one_job_ask_for_it_once(waiting, store):
    """F65"""
    store.has(ended())

    await asyncio.gather(*(waiting.end_of("job-1") for _ in range(10_000)))

    assert store.asked == [{"job-1"}]


async def test_ten_thousand_jobs_that_end_elsewhere_cost_one_more_query(waiting, store):
    """F65"""
    ids = [f"job-{number}" for number in range(10_000)]
    store.has(*(running(job_id) for job_id in ids))
    waits = await begin(waiting, store, *ids)
    store.has(*(ended(job_id) for job_id in ids))

    waiting.look_again()
    await asyncio.gather(*waits)

    assert store.asked == [set(ids), set(ids)]


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind(waiting, store):
    store.has(running())
    [wait] = await begin(waiting, store, "job-1")

    wait.cancel()
    await asyncio.wait([wait])

    assert (waiting._looking._waiters, waiting._looking._unseen) == ({}, set())


async def test_a_waiter_that_is_cancelled_harms_no_other_of_its_job(waiting, store):
    store.has(running())
    cancelled, other = await begin(waiting, store, "job-1", "job-1")
    cancelled.cancel()
    await asyncio.wait([cancelled])

    waiting.ended(ended())

    assert await other == ended()


async def test_a_waiter_leaves_nothing_behind_when_it_is_answered(waiting, store):
    store.has(ended())

    await waiting.end_of("job-1")

    assert (waiting._looking._waiters, waiting._looking._unseen) == ({}, set())


async def test_the_end_of_a_job_that_nobody_waits_for_does_nothing(waiting):
    waiting.ended(ended())

    assert waiting._looking._waiters == {}


async def test_a_failure_wakes_every_waiter(waiting, store):
    store.has(running("job-1"), running("job-2"))
    waits = await begin(waiting, store, "job-1", "job-2")

    waiting.fail(NotOpen("client"))

    errors = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(error) for error in errors] == [NotOpen, NotOpen]


async def test_after_a_failure_nobody_waits_any_more(waiting):
    waiting.fail(NotOpen("client"))

    with pytest.raises(NotOpen):
        await waiting.end_of("job-1")


async def test_who_waits_while_the_store_fails_is_looked_up_once_it_works_again(store, monkeypatch):
    """F65"""
    monkeypatch.setattr(looking, "LOOK_AGAIN_SECONDS", 0.01)
    waiting = Waiting()
    store.has(ended())
    store.failure = StoreUnavailable("down")
    wait = asyncio.create_task(waiting.end_of("job-1"))
    with pytest.raises(StoreUnavailable):
        await waiting.run(store)
    store.failure = None

    run = asyncio.create_task(waiting.run(store))

    async with asyncio.timeout(1):
        assert await wait == ended()
    run.cancel()
    await asyncio.wait([run])


@pytest.mark.parametrize(
    "large", [{"params_json": "0" * 10_001}, {"result_json": "0" * 10_001}], ids=["params", "result"]
)
async def test_of_ends_seen_here_only_small_ones_are_kept_for_who_asks_later(waiting, store, large):
    small = ended("job-1")
    waiting.ended(small)
    waiting.ended(make_job(id="job-2", status=JobStatus.SUCCEEDED, **large))
    store.has(ended("job-2"))

    assert await waiting.end_of("job-1") is small
    assert await waiting.end_of("job-2") == ended("job-2")
    assert store.asked == [{"job-2"}]

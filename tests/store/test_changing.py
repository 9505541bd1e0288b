import pytest
from msgspec.structs import replace

from asyncjobs.model.job import JobError, JobStatus
from asyncjobs.store import JobFilter
from builders import (
    CANCELED,
    EVERY_JOB,
    FAILED,
    HOUR,
    INTERRUPTED,
    MINUTE,
    NOON,
    SECOND,
    SUCCEEDED,
    TIMEOUT,
    claim_all,
    claim_one,
    ended_job,
    finish,
    insert,
    make_id,
    make_job,
    make_transition,
    stored,
)

LATER = NOON + MINUTE
FINAL = [pytest.param(each, id=each.status.lower()) for each in (SUCCEEDED, FAILED, TIMEOUT, CANCELED)]

EVERY_WAY = pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(EVERY_JOB, id="all"),
        pytest.param(JobFilter(finished_before=NOON + HOUR), id="by age"),
        pytest.param(JobFilter(names=["thumbnail"]), id="by name"),
        pytest.param(JobFilter(statuses=[JobStatus.SUCCEEDED]), id="by status"),
    ],
)


async def names_left(store):
    return sorted(job.name for job in await store.page(EVERY_JOB, limit=1000, before=None))


# --- cancel -------------------------------------------------------------------------------------


async def test_a_waiting_job_is_canceled_at_once(store):
    job = make_job()
    await insert(store, job)

    canceled = await store.cancel(job.id, now=LATER)

    assert canceled == await store.get(job.id)
    assert (canceled.status, canceled.finished_at, canceled.attempt) == (JobStatus.CANCELED, LATER, 0)
    assert canceled.error == JobError(kind="canceled", message="canceled before it started")


async def test_the_wish_to_cancel_a_running_job_is_noted(store):
    job = await claim_one(store, inserted=make_job())

    asked = await store.cancel(job.id, now=LATER)

    assert asked == replace(job, cancel_requested_at=LATER)
    assert await store.running("engine-a") == [asked]


async def test_the_first_wish_to_cancel_keeps_its_time(store):
    job = await claim_one(store, inserted=make_job())
    await store.cancel(job.id, now=NOON)

    asked = await store.cancel(job.id, now=LATER)

    assert asked.cancel_requested_at == NOON


@pytest.mark.parametrize("end", FINAL)
async def test_a_job_that_has_ended_cannot_be_canceled(store, end):
    job = await ended_job(store, end)

    answer = await store.cancel(job.id, now=LATER)

    assert answer == job
    assert await stored(store, job) == job


@pytest.mark.parametrize("verb", ["cancel", "retry"])
async def test_a_job_that_is_not_there_is_answered_by_none(store, verb):
    assert await getattr(store, verb)(make_id(), now=NOON) is None


# --- retry --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", FINAL)
async def test_a_retried_job_is_as_new_but_for_its_attempts(store, end):
    job = make_job(key="cat.png", priority=3, timeout=1.5)
    ended = await ended_job(store, end, id=job.id, key="cat.png", priority=3, timeout=1.5)

    retried = await store.retry(ended.id, now=LATER)

    assert retried == replace(job, attempt=1, run_at=LATER, attempts=ended.attempts)


async def test_a_retried_job_has_whole_budgets(store):
    used_up = make_transition(JobStatus.FAILED, retry_count=3, interruptions=10)
    job = await ended_job(store, used_up)

    retried = await store.retry(job.id, now=LATER)

    assert (retried.retry_count, retried.interruptions) == (0, 0)


async def test_a_retried_job_keeps_its_history(store):
    """D21"""
    job = await ended_job(store, FAILED)

    await store.retry(job.id, now=LATER)

    assert (await stored(store, job)).attempts == job.attempts


async def test_a_retried_job_forgets_that_it_was_to_be_canceled(store):
    job = await claim_one(store, inserted=make_job())
    await store.cancel(job.id, now=NOON)
    await finish(store, job, CANCELED)
    await store.retry(job.id, now=LATER)
    again = await claim_one(store, now=LATER)

    status = await finish(store, again, INTERRUPTED)

    assert status is JobStatus.PENDING


async def test_a_retried_job_is_due_now_and_claimed_in_its_turn(store):
    job = await ended_job(store, FAILED, run_at=NOON - HOUR)
    first = make_job(run_at=NOON)
    await insert(store, first)
    await store.retry(job.id, now=LATER)

    claimed = await claim_all(store, now=LATER)

    assert [each.id for each in claimed] == [first.id, job.id]


async def test_a_retry_that_is_written_twice_counts_once(store):
    """F04: its answer was lost, and meanwhile the job has run and failed again."""
    job = await ended_job(store, FAILED)
    await store.retry(job.id, now=LATER)
    await finish(store, await claim_one(store, now=LATER), FAILED, now=LATER)

    again = await store.retry(job.id, now=LATER)

    assert (again.status, again.attempt) == (JobStatus.FAILED, 2)


async def test_a_job_that_waits_is_not_changed_by_a_retry(store):
    job = make_job(run_at=LATER)
    await insert(store, job)

    assert await store.retry(job.id, now=NOON) == job


async def test_a_job_that_runs_is_not_changed_by_a_retry(store):
    job = await claim_one(store, inserted=make_job())

    assert await store.retry(job.id, now=LATER) == job


# --- delete -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", FINAL)
async def test_a_job_that_has_ended_is_deleted(store, end):
    job = await ended_job(store, end)

    deleted = await store.delete(EVERY_JOB, limit=100)

    assert deleted == 1
    assert await store.get(job.id) is None


async def test_a_job_that_was_canceled_while_it_waited_is_deleted(store):
    job = make_job()
    await insert(store, job)
    await store.cancel(job.id, now=NOON)

    assert await store.delete(EVERY_JOB, limit=100) == 1


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(EVERY_JOB, id="no filter"),
        pytest.param(JobFilter(statuses=[JobStatus.PENDING, JobStatus.RUNNING]), id="by status"),
        pytest.param(JobFilter(names=["thumbnail"]), id="by name"),
        pytest.param(JobFilter(finished_before=NOON + HOUR), id="by age"),
    ],
)
async def test_a_job_that_has_not_ended_is_never_deleted(store, wanted):
    waited = await claim_one(store, inserted=make_job())
    await finish(store, waited, INTERRUPTED)
    await claim_one(store)
    await insert(store, make_job())

    deleted = await store.delete(wanted, limit=100)

    assert deleted == 0
    assert await names_left(store) == ["thumbnail", "thumbnail"]


async def test_a_retried_job_is_not_deleted(store):
    job = await ended_job(store)
    await store.retry(job.id, now=LATER)

    assert await store.delete(EVERY_JOB, limit=100) == 0


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        pytest.param(JobFilter(statuses=[JobStatus.FAILED]), ["old", "young"], id="by status"),
        pytest.param(JobFilter(names=["old", "young"]), ["failed"], id="by name"),
        pytest.param(JobFilter(finished_before=NOON + HOUR), ["young"], id="by age"),
        pytest.param(
            JobFilter(finished_before=NOON + 2 * HOUR, statuses=[JobStatus.SUCCEEDED]),
            ["failed", "young"],
            id="by age and status",
        ),
        pytest.param(JobFilter(), [], id="without a filter"),
    ],
)
async def test_jobs_are_deleted_by_filter(store, wanted, left):
    await ended_job(store, name="old", now=NOON)
    await ended_job(store, FAILED, name="failed", now=NOON + HOUR - SECOND)
    await ended_job(store, name="young", now=NOON + 2 * HOUR)

    await store.delete(wanted, limit=100)

    assert await names_left(store) == left


@pytest.mark.parametrize("wanted", [JobFilter(statuses=[]), JobFilter(names=[])], ids=["statuses", "names"])
async def test_an_empty_collection_deletes_nothing(store, wanted):
    """D24"""
    await ended_job(store)

    assert await store.delete(wanted, limit=100) == 0


async def test_params_are_no_filter_for_what_is_deleted(store):
    with pytest.raises(ValueError, match="params"):
        await store.delete(JobFilter(params={"size": 1}), limit=100)


@EVERY_WAY
async def test_a_delete_takes_no_more_than_its_limit(store, wanted):
    """F75"""
    jobs = [await ended_job(store) for _ in range(5)]

    deleted = await store.delete(wanted, limit=3)

    left = [job for job in [await store.get(job.id) for job in jobs] if job is not None]
    assert (deleted, len(left)) == (3, 2)
    assert [job for job in jobs if job in left] == left


@EVERY_WAY
async def test_a_delete_takes_the_history_of_the_same_jobs(store, wanted):
    jobs = [await ended_job(store) for _ in range(5)]

    await store.delete(wanted, limit=3)

    await insert(store, *jobs)
    found = [await stored(store, job) for job in jobs]
    assert sorted(len(job.attempts) for job in found) == [0, 0, 0, 1, 1]


async def test_a_deleted_job_leaves_no_history(store):
    job = await ended_job(store)
    await store.delete(EVERY_JOB, limit=100)

    await insert(store, make_job(id=job.id))

    assert (await stored(store, job)).attempts == ()


# --- settled, running ---------------------------------------------------------------------------


async def test_a_look_at_many_jobs_tells_those_that_ended_and_those_gone(store):
    """F65"""
    ended = [await ended_job(store, end, name=end.status) for end in (SUCCEEDED, FAILED, TIMEOUT, CANCELED)]
    waiting, gone = make_job(name="other"), make_id()
    running = await claim_one(store, inserted=make_job())
    await insert(store, waiting)

    settled = await store.settled([*(job.id for job in ended), waiting.id, running.id, gone])

    assert sorted(settled.ended, key=lambda job: job.id) == [replace(job, attempts=()) for job in ended]
    assert settled.missing == (gone,)


async def test_a_look_at_no_jobs_finds_none(store):
    settled = await store.settled([])

    assert (settled.ended, settled.missing) == ((), ())


async def test_a_look_at_a_hundred_thousand_jobs_works(store):
    """F65"""
    ids = {make_id() for _ in range(100_000)}

    settled = await store.settled(ids)

    assert set(settled.missing) == ids


async def test_the_running_jobs_are_those_of_one_engine(store):
    await claim_one(store, inserted=make_job(name="convert"), engine_id="engine-b")
    await ended_job(store)
    mine = [await claim_one(store, inserted=make_job(name=name)) for name in ("a", "b")]

    running = await store.running("engine-a")

    assert sorted(running, key=lambda job: job.id) == mine


async def test_an_engine_that_runs_nothing_has_no_running_jobs(store):
    job = await claim_one(store, inserted=make_job())
    await finish(store, job, INTERRUPTED)

    assert await store.running("engine-a") == []

import asyncio
from itertools import chain

import pytest
from msgspec.structs import replace

from asyncjobs.model.job import JobStatus
from builders import (
    CANCELED,
    FAILED,
    INTERRUPTED,
    MINUTE,
    NOON,
    RETRIED,
    SECOND,
    SUCCEEDED,
    TIMEOUT,
    claim_all,
    claim_one,
    finish,
    insert,
    make_attempt,
    make_error,
    make_job,
    make_transition,
    stored,
)

LATER = NOON + MINUTE
SNOOZED = make_transition(JobStatus.PENDING, run_at=NOON + SECOND)
FINAL = [pytest.param(each, id=each.status.lower()) for each in (SUCCEEDED, FAILED, TIMEOUT, CANCELED)]
EVERY_END = [*FINAL, pytest.param(INTERRUPTED, id="interrupted"), pytest.param(RETRIED, id="retried")]


@pytest.mark.parametrize("transition", FINAL)
async def test_a_finish_writes_the_status_result_and_error(store, transition):
    job = await claim_one(store, inserted=make_job())

    status = await finish(store, job, transition, now=LATER)

    found = await stored(store, job)
    assert status is found.status is transition.status
    assert (found.result_json, found.error) == (transition.result_json, transition.error)
    assert (found.started_at, found.finished_at) == (NOON, LATER)


@pytest.mark.parametrize("transition", [RETRIED, INTERRUPTED], ids=["retry", "interruption"])
async def test_a_finish_that_gives_the_job_back_leaves_no_trace_of_the_run_in_its_times(store, transition):
    job = await claim_one(store, inserted=make_job())

    status = await finish(store, job, transition)

    found = await stored(store, job)
    assert status is found.status is JobStatus.PENDING
    assert (found.started_at, found.finished_at) == (None, None)


async def test_a_finish_writes_the_budgets(store):
    job = await claim_one(store, inserted=make_job())

    await finish(store, job, make_transition(JobStatus.PENDING, retry_count=2, interruptions=3))

    found = await stored(store, job)
    assert (found.retry_count, found.interruptions) == (2, 3)


async def test_a_retry_moves_the_run_at(store):
    job = await claim_one(store, inserted=make_job())

    await finish(store, job, RETRIED)

    assert (await stored(store, job)).run_at == RETRIED.run_at


async def test_an_interrupted_job_keeps_its_run_at_and_its_place(store):
    """F13"""
    interrupted = await claim_one(store, inserted=make_job())
    await insert(store, make_job())

    await finish(store, interrupted, INTERRUPTED)

    [again] = await claim_all(store, limit=1)
    assert (again.id, again.run_at) == (interrupted.id, interrupted.run_at)


async def test_a_finish_writes_one_row_of_history(store):
    job = await claim_one(store, inserted=make_job())
    attempt = make_attempt(
        job,
        outcome="failed",
        reason="it said\nso",
        host="here",
        pid=2**22,
        exit_code=3,
        signal=9,
        error=make_error(message="\0\ud800\U0001f600", traceback="Traceback…"),
        peak_rss=2**40,
        cpu_time=0.1,
    )

    await store.finish(job, FAILED, attempt=attempt, now=NOON)

    assert (await stored(store, job)).attempts == (attempt,)


@pytest.mark.parametrize("result", ['"\\u0000\\ud800"', "NaN", str(2**100), "null", '""', "-0.0"])
async def test_unusual_results_make_an_exact_round_trip(store, result):
    """F52"""
    job = await claim_one(store, inserted=make_job())

    await finish(store, job, make_transition(JobStatus.SUCCEEDED, result_json=result))

    assert (await stored(store, job)).result_json == result


async def test_each_attempt_keeps_its_own_error_in_the_history(store):
    """D21"""
    errors = [make_error(message=message) for message in ("first", "second")]
    job = await claim_one(store, inserted=make_job())
    await finish(store, job, SNOOZED, outcome="failed", error=errors[0])
    job = await claim_one(store, now=LATER)
    await finish(store, job, SNOOZED, outcome="failed", error=errors[1])
    job = await claim_one(store, now=LATER)
    await finish(store, job, SUCCEEDED)

    found = await stored(store, job)

    assert [(each.attempt, each.error) for each in found.attempts] == [(1, errors[0]), (2, errors[1]), (3, None)]
    assert found.error is None


@pytest.mark.parametrize("transition", EVERY_END)
async def test_writing_an_end_again_is_refused_and_changes_nothing(store, transition):
    """F04"""
    job = await claim_one(store, inserted=make_job())
    await finish(store, job, transition)
    written = await stored(store, job)

    again = await finish(store, job, transition, now=LATER)

    assert again is None
    assert await stored(store, job) == written


@pytest.mark.parametrize("late", EVERY_END)
async def test_a_late_finish_cannot_touch_the_next_attempt(store, late):
    """F05, D7"""
    first = await claim_one(store, inserted=make_job(), engine_id="engine-a")
    await finish(store, first, INTERRUPTED)
    second = await claim_one(store, engine_id="engine-b")

    written = await finish(store, first, late, now=LATER)

    assert written is None
    assert replace(await stored(store, second), attempts=()) == second


async def test_a_late_finish_cannot_touch_the_next_attempt_of_the_same_engine(store):
    """F05"""
    first = await claim_one(store, inserted=make_job(), engine_id="engine-a")
    await finish(store, first, INTERRUPTED)
    second = await claim_one(store, engine_id="engine-a")

    written = await finish(store, first, SUCCEEDED)

    assert written is None
    assert (await stored(store, second)).status is JobStatus.RUNNING


async def test_a_late_finish_leaves_no_row_of_history(store):
    """F05, D7"""
    first = await claim_one(store, inserted=make_job())
    await finish(store, first, INTERRUPTED, outcome="interrupted")
    await claim_one(store)

    await finish(store, first, SUCCEEDED, outcome="succeeded")

    assert [each.outcome for each in (await stored(store, first)).attempts] == ["interrupted"]


async def test_a_late_finish_cannot_touch_a_job_that_waits_again(store):
    """F05"""
    job = await claim_one(store, inserted=make_job())
    await finish(store, job, INTERRUPTED)

    written = await finish(store, job, SUCCEEDED)

    assert written is None
    assert (await stored(store, job)).status is JobStatus.PENDING


async def test_a_late_finish_after_a_manual_retry_is_refused(store):
    """F06"""
    first = await claim_one(store, inserted=make_job())
    await finish(store, first, FAILED)
    await store.retry(first.id, now=LATER)
    second = await claim_one(store, now=LATER)

    written = await finish(store, first, SUCCEEDED)

    assert written is None
    assert (await stored(store, second)).status is JobStatus.RUNNING


async def test_a_late_finish_after_a_snooze_is_refused(store):
    """F06"""
    first = await claim_one(store, inserted=make_job())
    await finish(store, first, SNOOZED)
    second = await claim_one(store, now=LATER)

    written = await finish(store, first, SUCCEEDED)

    assert written is None
    assert (await stored(store, second)).status is JobStatus.RUNNING


async def test_a_failure_reported_by_an_old_owner_leaves_the_result_of_the_new_one(store):
    """F07, D7"""
    old = await claim_one(store, inserted=make_job(), engine_id="engine-a")
    await finish(store, old, INTERRUPTED)
    new = await claim_one(store, engine_id="engine-b")
    await finish(store, new, SUCCEEDED)
    succeeded = await stored(store, new)

    written = await finish(store, old, FAILED, outcome="failed")

    assert written is None
    assert await stored(store, new) == succeeded


@pytest.mark.parametrize(
    "stranger",
    [
        pytest.param({"engine_id": "engine-b"}, id="another engine"),
        pytest.param({"engine_id": None}, id="no engine"),
        pytest.param({"attempt": 2}, id="a later attempt"),
        pytest.param({"attempt": 0}, id="an earlier attempt"),
        pytest.param({"id": "another"}, id="another job"),
    ],
)
async def test_only_the_owner_of_an_attempt_ends_it(store, stranger):
    """D7"""
    job = await claim_one(store, inserted=make_job())

    written = await finish(store, replace(job, **stranger), SUCCEEDED)

    assert written is None
    assert await stored(store, job) == job


async def test_the_ends_of_many_jobs_in_one_turn_are_told_apart(store):
    """D7"""
    held = [await claim_one(store, inserted=make_job()) for _ in range(20)]
    late = [replace(job, engine_id="engine-b") for job in held]
    both = chain.from_iterable(zip(late, held, strict=True))

    answers = await asyncio.gather(*(finish(store, job, SUCCEEDED) for job in both))

    assert answers == [None, JobStatus.SUCCEEDED] * 20
    assert [len((await stored(store, job)).attempts) for job in held] == [1] * 20


async def test_ends_of_every_kind_in_one_turn_leave_what_each_leaves_alone(store):
    """With a wish to cancel noted, and without."""
    ends = [SUCCEEDED, FAILED, INTERRUPTED, TIMEOUT, RETRIED, CANCELED, SNOOZED] * 2

    async def hold_all():
        held = [await claim_one(store, inserted=make_job()) for _ in ends]
        for job in held[len(ends) // 2 :]:
            await store.cancel(job.id, now=NOON)
        return held

    async def left(jobs):
        found = [await stored(store, job) for job in jobs]
        return [replace(job, id="", attempts=tuple(replace(each, job_id="") for each in job.attempts)) for job in found]

    alone, together = await hold_all(), await hold_all()
    apart = [await finish(store, job, end, now=LATER) for job, end in zip(alone, ends, strict=True)]

    at_once = await asyncio.gather(
        *(finish(store, job, end, now=LATER) for job, end in zip(together, ends, strict=True))
    )

    assert at_once == apart
    assert await left(together) == await left(alone)
    assert {job.run_at for job in await left(together) if job.status is JobStatus.PENDING} == {
        NOON,
        SNOOZED.run_at,
        RETRIED.run_at,
    }


@pytest.mark.parametrize("transition", [INTERRUPTED, RETRIED], ids=["interruption", "retry"])
async def test_a_job_that_was_asked_to_cancel_is_canceled_instead_of_given_back(store, transition):
    """F18"""
    job = await claim_one(store, inserted=make_job())
    await store.cancel(job.id, now=NOON)

    status = await finish(store, job, transition, now=LATER)

    found = await stored(store, job)
    assert status is found.status is JobStatus.CANCELED
    assert found.finished_at == LATER


@pytest.mark.parametrize("transition", FINAL)
async def test_a_final_end_stays_what_it_is_although_a_cancel_was_asked_for(store, transition):
    """F18"""
    job = await claim_one(store, inserted=make_job())
    await store.cancel(job.id, now=NOON)

    status = await finish(store, job, transition)

    assert status is (await stored(store, job)).status is transition.status


async def test_a_cancel_that_races_the_end_leaves_one_final_status(store):
    """F18"""
    held = [await claim_one(store, inserted=make_job()) for _ in range(50)]

    answers = await asyncio.gather(
        *(store.cancel(job.id, now=NOON) for job in held[:25]),
        *(finish(store, job, INTERRUPTED) for job in held),
        *(store.cancel(job.id, now=NOON) for job in held[25:]),
    )

    assert {(await stored(store, job)).status for job in held} == {JobStatus.CANCELED}
    assert len(answers) == 100


async def test_an_attempt_whose_reason_has_a_lone_surrogate_is_written(store):
    """F52"""
    job = await claim_one(store, inserted=make_job())

    status = await finish(store, job, CANCELED, outcome="canceled", reason="no such file: \udcff")

    assert status is JobStatus.CANCELED

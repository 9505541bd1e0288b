import asyncio
import random
from itertools import chain

import pytest

from asyncjobs.model.job import JobStatus
from builders import (
    HOUR,
    INTERRUPTED,
    MINUTE,
    NOON,
    RETRIED,
    SECOND,
    claim_all,
    claim_one,
    ended_job,
    finish,
    insert,
    make_id,
    make_job,
    stored,
)

LATER = NOON + MINUTE


async def next_run_at(store, *, limit=100, now=NOON):
    claim = await store.claim("thumbnail", limit=limit, engine_id="engine-a", now=now)
    return claim.next_run_at


async def test_a_claim_makes_a_job_running_under_its_engine(store):
    job = await claim_one(store, inserted=make_job(), engine_id="engine-b", now=LATER)

    assert (job.status, job.engine_id, job.started_at, job.attempt) == (
        JobStatus.RUNNING,
        "engine-b",
        LATER,
        1,
    )


async def test_a_claim_of_nothing_is_empty(store):
    claim = await store.claim("thumbnail", limit=10, engine_id="engine-a", now=NOON)

    assert (claim.claimed, claim.next_run_at) == ((), None)


async def test_a_claim_takes_one_name_only(store):
    await insert(store, make_job(name="convert"))

    assert await claim_all(store, "thumbnail") == []


async def test_a_claim_takes_the_highest_priority_first(store):
    jobs = [make_job(priority=priority) for priority in (0, 5, -1000, 1000)]
    await insert(store, *jobs)

    claimed = await claim_all(store)

    assert [job.priority for job in claimed] == [1000, 5, 0, -1000]


async def test_within_a_priority_a_claim_takes_the_earliest_run_at_first(store):
    jobs = [make_job(run_at=NOON - minutes * MINUTE) for minutes in (1, 3, 2)]
    await insert(store, *jobs)

    claimed = await claim_all(store)

    assert [job.id for job in claimed] == [jobs[1].id, jobs[2].id, jobs[0].id]


async def test_within_an_instant_a_claim_takes_the_first_submitted_first(store):
    last_made, first_made = make_id(LATER), make_id(NOON)
    await insert(store, make_job(id=last_made))
    await insert(store, make_job(id=first_made))

    claimed = await claim_all(store)

    assert [job.id for job in claimed] == [last_made, first_made]


async def test_a_higher_priority_wins_over_an_earlier_run_at(store):
    early, urgent = make_job(run_at=NOON - HOUR), make_job(priority=1)
    await insert(store, early, urgent)

    claimed = await claim_all(store, limit=1)

    assert [job.id for job in claimed] == [urgent.id]


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
async def test_a_claim_takes_the_best_up_to_its_limit(store, limit):
    """F10"""
    jobs = [make_job(priority=-number) for number in range(5)]
    await insert(store, *reversed(jobs))

    claimed = await claim_all(store, limit=limit)

    assert [job.id for job in claimed] == [job.id for job in jobs[:limit]]


async def test_a_claim_leaves_the_others_waiting(store):
    """F10"""
    jobs = [make_job() for _ in range(3)]
    await insert(store, *jobs)

    await claim_all(store, limit=1)

    assert [(await stored(store, job)).status for job in jobs] == ["RUNNING", "PENDING", "PENDING"]


@pytest.mark.parametrize(
    ("late", "claimed"),
    [(-SECOND, 1), (0 * SECOND, 1), (SECOND / 1_000_000, 0), (SECOND, 0)],
    ids=["due before", "due now", "due in a microsecond", "due in a second"],
)
async def test_a_claim_takes_due_jobs_only(store, late, claimed):
    await insert(store, make_job(run_at=NOON + late))

    assert len(await claim_all(store)) == claimed


async def test_an_urgent_job_that_is_not_due_holds_up_no_other(store):
    later, due = make_job(priority=9, run_at=LATER), make_job()
    await insert(store, later, due)

    claimed = await claim_all(store, limit=1)

    assert [job.id for job in claimed] == [due.id]


async def test_a_claim_tells_when_the_next_job_is_due(store):
    await insert(store, make_job(run_at=NOON + HOUR), make_job(run_at=LATER), make_job())

    assert await next_run_at(store) == LATER


async def test_the_next_due_time_is_the_earliest_of_all_priorities(store):
    for priority, run_at in [(9, NOON + HOUR), (0, LATER), (-9, NOON + 2 * HOUR)]:
        await insert(store, make_job(priority=priority, run_at=run_at))

    assert await next_run_at(store) == LATER


async def test_the_next_due_time_is_not_in_the_future_when_more_are_due_than_the_limit(store):
    await insert(store, make_job(run_at=NOON - HOUR), make_job(run_at=NOON - MINUTE))

    assert await next_run_at(store, limit=1) <= NOON


async def test_the_next_due_time_ignores_other_names(store):
    await insert(store, make_job(name="convert", run_at=LATER))

    assert await next_run_at(store) is None


async def test_the_next_due_time_ignores_what_runs_or_has_ended(store):
    await ended_job(store)
    await claim_one(store, inserted=make_job())

    assert await next_run_at(store) is None


@pytest.mark.parametrize("transition", [INTERRUPTED, RETRIED], ids=["interruption", "retry"])
async def test_each_claim_is_a_new_attempt(store, transition):
    first = await claim_one(store, inserted=make_job())
    await finish(store, first, transition)

    second = await claim_one(store, now=LATER)

    assert second.attempt == 2


async def test_attempts_go_on_counting_after_a_manual_retry(store):
    """F06"""
    ended = await ended_job(store)
    await store.retry(ended.id, now=LATER)

    again = await claim_one(store, now=LATER)

    assert again.attempt == 2


async def test_two_stores_on_one_database_claim_disjointly(store, other_store):
    """F08"""
    jobs = [make_job() for _ in range(200)]
    await insert(store, *jobs)
    claims = [claim_all(each, limit=3) for each in [store, other_store] * 40]

    claimed = list(chain.from_iterable(await asyncio.gather(*claims)))

    assert sorted(job.id for job in claimed) == sorted(job.id for job in jobs)


@pytest.mark.parametrize("cancels_first", [True, False], ids=["cancel first", "claim first"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_a_job_that_is_canceled_while_it_is_claimed_is_one_or_the_other(store, other_store, where, cancels_first):
    """F19"""
    jobs = [make_job() for _ in range(200)]
    await insert(store, *jobs)
    canceling = {"here": store, "elsewhere": other_store}[where]
    cancels = [canceling.cancel(job.id, now=NOON) for job in jobs]
    claims = [claim_all(store, limit=1) for _ in jobs]
    pairs = zip(cancels, claims, strict=True) if cancels_first else zip(claims, reversed(cancels), strict=True)

    answers = await asyncio.gather(*chain.from_iterable(pairs))

    records = [each for each in answers if not isinstance(each, list)]
    canceled = {job.id for job in records if job.status is JobStatus.CANCELED}
    claimed = {job.id for each in answers if isinstance(each, list) for job in each}
    assert canceled.isdisjoint(claimed)
    assert canceled | claimed == {job.id for job in jobs}


async def test_a_canceled_job_is_never_claimed(store):
    """F19"""
    job = make_job()
    await insert(store, job)
    await store.cancel(job.id, now=NOON)

    assert await claim_all(store, now=NOON + HOUR) == []


async def test_a_submission_and_the_claim_it_wakes_can_share_a_turn(store):
    """The submission counts as earlier, whichever was asked for first."""
    job = make_job()

    claimed, _ = await asyncio.gather(claim_all(store), insert(store, job))

    assert [each.id for each in claimed] == [job.id]


async def test_what_is_claimed_in_the_turn_of_its_submission_is_as_any_other(store):
    job = make_job(params_json='{"n": 1}')

    claim, _ = await asyncio.gather(
        store.claim("thumbnail", limit=5, engine_id="engine-b", now=LATER), insert(store, job, env={"A": "b"})
    )

    [claimed] = claim.claimed
    assert (claimed.job, claimed.env) == (await stored(store, job), {"A": "b"})
    assert (claimed.job.status, claimed.job.attempt) == (JobStatus.RUNNING, 1)
    assert (claimed.job.engine_id, claimed.job.started_at) == ("engine-b", LATER)


async def test_a_claim_that_shares_a_turn_with_a_delayed_job_tells_when_that_is_due(store):
    due_first, delayed = make_job(run_at=NOON + MINUTE), make_job(run_at=NOON + HOUR)
    await insert(store, due_first)

    claim, _ = await asyncio.gather(
        store.claim("thumbnail", limit=5, engine_id="engine-a", now=NOON), insert(store, delayed)
    )
    later, _ = await asyncio.gather(
        store.claim("convert", limit=5, engine_id="engine-a", now=NOON),
        insert(store, make_job(name="convert", run_at=LATER)),
    )

    assert (claim.claimed, claim.next_run_at) == ((), NOON + MINUTE)
    assert (later.claimed, later.next_run_at) == ((), LATER)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"name": "convert", "limit": 5}, id="of another name"),
        pytest.param({"name": "thumbnail", "limit": 0}, id="of no job"),
        pytest.param({"name": "thumbnail", "limit": 5, "max_running": 1}, id="of a name of which enough run"),
    ],
)
async def test_a_claim_takes_no_new_job_of_its_turn_that_it_would_not_take_later(store, wanted):
    await claim_one(store, inserted=make_job())
    new = make_job()

    claim, _ = await asyncio.gather(store.claim(**wanted, engine_id="engine-b", now=NOON), insert(store, new))

    assert claim.claimed == ()
    assert (await stored(store, new)).status is JobStatus.PENDING


async def test_a_job_that_is_submitted_again_alone_in_the_turn_of_a_claim_is_not_claimed_for_that(store):
    running = await claim_one(store, inserted=make_job())

    claimed, *_ = await asyncio.gather(claim_all(store), insert(store, running))

    assert claimed == []
    assert await stored(store, running) == running


async def test_a_job_that_is_submitted_again_in_the_turn_of_a_claim_is_not_claimed_for_that(store):
    running, other = make_job(), make_job()
    await claim_one(store, inserted=running)

    claimed, *_ = await asyncio.gather(claim_all(store), insert(store, running), insert(store, other))

    assert [job.id for job in claimed] == [other.id]
    assert (await stored(store, running)).attempt == 1


async def test_a_job_that_is_submitted_again_in_the_turn_of_a_claim_keeps_no_other_from_being_claimed(store):
    """It might have taken the other's place: then the claim says that there is more."""
    running, other = make_job(priority=1), make_job()
    await claim_one(store, inserted=running)
    await insert(store, other)

    claim, _ = await asyncio.gather(
        store.claim("thumbnail", limit=1, engine_id="engine-a", now=NOON), insert(store, running)
    )

    assert claim.next_run_at == NOON
    assert [each.job.id for each in claim.claimed] in ([], [other.id])


@pytest.mark.parametrize("seed", range(10))
async def test_a_claim_that_shares_a_turn_with_new_jobs_takes_the_best_of_old_and_new(store, seed):
    """Whatever there is of either, and however many are wanted."""
    chance = random.Random(seed)

    def some(most):
        return [
            make_job(
                name=chance.choice(["thumbnail", "thumbnail", "convert"]),
                priority=chance.randint(-1, 1),
                run_at=NOON + chance.randint(-3, 1) * SECOND,
            )
            for _ in range(chance.randint(1, most))
        ]

    waiting = []
    for _ in range(4):
        new, limit = some(chance.choice([3, 25])), chance.randint(1, 12)

        claimed, *_ = await asyncio.gather(claim_all(store, limit=limit), *(insert(store, job) for job in new))

        waiting += new
        due = [job for job in waiting if job.name == "thumbnail" and job.run_at <= NOON]
        best = sorted(due, key=lambda job: (-job.priority, job.run_at))[:limit]  # stable: first come, first served
        assert [job.id for job in claimed] == [job.id for job in best]
        waiting = [job for job in waiting if job not in best]


async def test_an_end_and_the_claim_of_its_slot_can_share_a_turn(store):
    held = await claim_one(store, inserted=make_job())

    again, _ = await asyncio.gather(claim_all(store), finish(store, held, INTERRUPTED))

    assert [each.attempt for each in again] == [2]


# --- a clock that is set -------------------------------------------------------------------------


async def test_what_was_due_at_once_is_due_although_the_clock_was_turned_back(store):
    """F68: also what was claimed before; whatever has a delay waits until the clock has come to it."""
    given_back, waiting, delayed = await insert(store, make_job(), make_job(), make_job(run_at=NOON + SECOND))
    [first] = await claim_all(store, limit=1)
    await finish(store, first, INTERRUPTED)
    before = NOON - HOUR

    early = await claim_all(store, now=before)
    await store.bring_forward(now=before)
    claimed = await claim_all(store, now=before)

    assert early == []
    assert {job.id for job in claimed} == {given_back.id, waiting.id}
    assert (await stored(store, delayed)).run_at == NOON + SECOND


async def test_to_bring_forward_changes_neither_what_is_due_nor_what_has_ended(store):
    ended = await ended_job(store)
    due = make_job(run_at=NOON - MINUTE)
    await insert(store, due)

    await store.bring_forward(now=NOON - SECOND)

    assert await stored(store, ended) == ended
    assert (await stored(store, due)).run_at == NOON - MINUTE

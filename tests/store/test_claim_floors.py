"""Claims under load begin where the last one took; what lies below is found soon all the same (F37)."""

import asyncio

import pytest

from asyncjobs.store.postgresql.floors import Floors
from asyncjobs.store.turns import Take
from builders import HOUR, INTERRUPTED, MINUTE, NOON, claim_all, finish, insert, make_job

TAKE = Take("thumbnail", limit=2, engine_id="engine-a", now=100)


def row(priority, run_at):
    """A row as a claim brings it, with what floors look at."""
    return ("seq", None, "id", "thumbnail", None, "RUNNING", priority, 1, 0, 0, "engine-a", 0, run_at)


@pytest.fixture
def floors():
    return Floors()


def test_a_name_without_claims_has_no_floors(floors):
    assert floors.of("thumbnail") == ([], [])


def test_after_a_full_claim_the_next_begins_at_the_earliest_that_it_took(floors):
    floors.note(TAKE, [row(0, 7), row(0, 8)], whole=True, seconds=60)

    assert floors.of("thumbnail") == ([0], [7])


def test_each_priority_has_a_floor_of_its_own(floors):
    floors.note(TAKE, [row(9, 50), row(0, 8)], whole=True, seconds=60)

    assert floors.of("thumbnail") == ([9, 0], [50, 8])


def test_other_names_have_their_own(floors):
    floors.note(TAKE, [row(0, 7), row(0, 8)], whole=True, seconds=60)

    assert floors.of("convert") == ([], [])


def test_a_claim_that_finds_less_than_it_could_take_is_followed_by_one_of_everything(floors):
    floors.note(TAKE, [row(0, 7), row(0, 8)], whole=True, seconds=60)

    more = floors.note(TAKE, [row(0, 9)], whole=False, seconds=60)

    assert more
    assert floors.of("thumbnail") == ([], [])


def test_a_claim_of_everything_that_finds_less_than_it_could_take_has_found_all(floors):
    assert not floors.note(TAKE, [row(0, 7)], whole=True, seconds=60)


def test_everything_is_looked_at_again_after_a_while(floors):
    floors.note(TAKE, [row(0, 7), row(0, 8)], whole=True, seconds=0)

    assert floors.of("thumbnail") == ([], [])


async def test_a_job_given_back_below_what_was_claimed_since_is_claimed_next(store):
    jobs = [make_job(run_at=NOON + n * MINUTE) for n in range(40)]
    await insert(store, *jobs)
    first = await claim_all(store, limit=4, now=NOON + HOUR)
    await claim_all(store, limit=4, now=NOON + HOUR)
    await finish(store, first[0], INTERRUPTED)

    async with asyncio.timeout(30):
        claimed: list[str] = []
        while first[0].id not in claimed:
            claimed += [job.id for job in await claim_all(store, limit=4, now=NOON + HOUR)]

    assert len(claimed) == len(set(claimed))


async def test_a_higher_priority_that_is_new_goes_before_what_was_being_claimed(store):
    await insert(store, *(make_job(run_at=NOON + n * MINUTE) for n in range(40)))
    await claim_all(store, limit=4, now=NOON + HOUR)
    urgent = make_job(priority=5, run_at=NOON)
    await insert(store, urgent)

    claimed = await claim_all(store, limit=4, now=NOON + HOUR)

    assert claimed[0].id == urgent.id

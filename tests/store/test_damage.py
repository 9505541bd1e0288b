"""A row that somebody has damaged by hand stops nothing that is about others, and says what is wrong with it."""

import asyncio
import sqlite3

import asyncpg
import pytest

from asyncjobs.errors import StoreCorrupt
from asyncjobs.model.job import JobStatus
from asyncjobs.store import Bookmark, JobFilter
from builders import (
    EVERY_JOB,
    FAILED,
    INTERRUPTED,
    NOON,
    claim_all,
    claim_one,
    ended_job,
    finish,
    insert,
    make_chunk,
    make_engine,
    make_job,
    make_progress,
    stored,
)

IN_JOBS = {
    "an error that is no JSON": "error = '{'",
    "an error that is no dict": "error = '[]'",
    "an error without words": """error = '{"kind": "timeout"}'""",
    "an error of numbers": """error = '{"kind": 1, "message": 2}'""",
    "params that are no JSON": "params = '{'",
    "a result that is no JSON": "result = '{'",
    "a status that is none": "status = 'DONE'",
    "a time beyond every calendar": "finished_at = 4611686018427387904",
}
IN_JOBS_OF_SQLITE = {
    "a timeout in words": "timeout = 'soon'",
    "a number in words": "max_retries = 'many'",
    "a time in words": "created_at = 'noon'",
}
UNREADABLE_ERRORS = [each for name, each in IN_JOBS.items() if name.startswith("an error")]


@pytest.fixture
def damage(address):
    """Change rows as nobody should."""

    def in_file(statement):
        connection = sqlite3.connect(address.removeprefix("sqlite:///"))
        with connection:
            connection.execute(statement)
        connection.close()

    async def change(statement):
        if address.startswith("sqlite"):
            await asyncio.to_thread(in_file, statement)
            return
        connection = await asyncpg.connect(address)
        await connection.execute(f"SET search_path TO asyncjobs; {statement}")
        await connection.close()

    return change


@pytest.fixture(params=[*IN_JOBS.items(), *IN_JOBS_OF_SQLITE.items()], ids=lambda item: item[0])
def damaged_column(request, address):
    name, assignment = request.param
    return assignment if address.startswith("sqlite") or name in IN_JOBS else IN_JOBS["params that are no JSON"]


async def test_a_damaged_row_is_listed_among_the_others(store, damage, damaged_column):
    jobs = [await ended_job(store, FAILED) for _ in range(3)]
    await damage(f"UPDATE jobs SET {damaged_column} WHERE id = '{jobs[1].id}'")

    listed = await store.page(EVERY_JOB, limit=10, before=None)

    assert [job.id for job in listed] == [job.id for job in reversed(jobs)]


async def test_a_damaged_row_is_read_as_far_as_it_goes(store, damage, damaged_column):
    job = await ended_job(store, FAILED)
    await damage(f"UPDATE jobs SET {damaged_column} WHERE id = '{job.id}'")

    found = await stored(store, job)

    assert (found.id, found.name, found.attempt, found.status) == (job.id, job.name, 1, JobStatus.FAILED)


async def test_who_waits_for_a_damaged_job_and_for_others_is_told_of_all_their_ends(store, damage):
    jobs = [await ended_job(store, FAILED) for _ in range(2)]
    await damage(f"UPDATE jobs SET error = '[' WHERE id = '{jobs[0].id}'")

    settled = await store.settled([job.id for job in jobs])

    assert {job.id for job in settled.ended} == {job.id for job in jobs}


@pytest.mark.parametrize("assignment", UNREADABLE_ERRORS)
async def test_a_job_whose_stored_error_is_damaged_is_seen_running_at_its_engine(store, damage, assignment):
    jobs = [await claim_one(store, inserted=make_job()) for _ in range(2)]
    await damage(f"UPDATE jobs SET {assignment} WHERE id = '{jobs[0].id}'")

    running = await store.running("engine-a")

    assert {job.id for job in running} == {job.id for job in jobs}
    assert {job.error.kind for job in running if job.error is not None} == {"damaged"}


async def test_a_job_whose_stored_error_is_damaged_can_be_ended(store, damage):
    job = await claim_one(store, inserted=make_job())
    await damage(f"UPDATE jobs SET error = '{{' WHERE id = '{job.id}'")
    [found] = await store.running("engine-a")

    assert await finish(store, found, INTERRUPTED) is JobStatus.PENDING


@pytest.mark.parametrize("env", ["{", "[]", '{"A": 1}'])
async def test_a_claim_brings_a_damaged_job_beside_the_others_and_says_what_is_wrong(store, damage, env):
    jobs = await insert(store, make_job(), make_job(), env={"A": "1"})
    await damage(f"UPDATE jobs SET env = '{env}' WHERE id = '{jobs[0].id}'")

    claim = await store.claim("thumbnail", limit=10, engine_id="engine-a", now=NOON)

    [broken, sound] = claim.claimed
    assert (sound.job.id, sound.env, sound.damage) == (jobs[1].id, {"A": "1"}, None)
    assert (broken.job.id, broken.env) == (jobs[0].id, {})
    assert f"the variables of job 'thumbnail' ({jobs[0].id})" in broken.damage


@pytest.mark.parametrize("params", ["{", "", "7", "[1]"])
async def test_a_filter_on_params_passes_by_those_that_are_damaged(store, damage, params):
    jobs = await insert(store, make_job(), make_job())
    await damage(f"UPDATE jobs SET params = '{params}' WHERE id = '{jobs[0].id}'")

    found = await store.page(JobFilter(params={"path": "cat.png"}), limit=10, before=None)

    assert [job.id for job in found] == [jobs[1].id]


@pytest.mark.parametrize("params", ['["path": "cat.png"', '[{"path": "cat.png"}]'])
async def test_a_filter_on_params_passes_by_damage_that_has_its_text(store, damage, params):
    [job] = await insert(store, make_job())
    await damage(f"UPDATE jobs SET params = '{params}'")

    assert await store.page(JobFilter(params={"path": "cat.png"}), limit=10, before=None) == []
    assert (await stored(store, job)).params_json == params


async def test_damaged_params_name_their_job_and_where_the_text_is(store, damage):
    [job] = await insert(store, make_job())
    await damage("UPDATE jobs SET params = '{'")
    found = await stored(store, job)

    with pytest.raises(StoreCorrupt, match=rf"params of job 'thumbnail' \({job.id}\) can't be read.*`params_json`"):
        _ = found.params


async def test_a_damaged_result_names_its_job_and_where_the_text_is(store, damage):
    job = await ended_job(store)
    await damage("UPDATE jobs SET result = 'nan,'")
    found = await stored(store, job)

    with pytest.raises(StoreCorrupt, match=rf"result of job 'thumbnail' \({job.id}\) can't be read.*`result_json`"):
        _ = found.result


async def test_damaged_details_of_a_progress_name_their_job(store, damage):
    job = await claim_one(store, inserted=make_job())
    await store.note(job, [], make_progress())
    await damage("UPDATE job_progress SET details = '{'")

    with pytest.raises(StoreCorrupt, match=f"progress of job {job.id} can't be read"):
        await store.progress(job.id)


async def test_the_readers_of_a_damaged_job_and_of_others_are_told(store, damage):
    jobs = [await claim_one(store, inserted=make_job()) for _ in range(2)]
    for job in jobs:
        await store.note(job, [make_chunk()], None)
    await damage(f"UPDATE jobs SET status = 'DONE' WHERE id = '{jobs[0].id}'")

    news = await store.news([Bookmark(job.id) for job in jobs])

    assert [each.status for each in news.values()] == [JobStatus.FAILED, JobStatus.RUNNING]


async def test_an_attempt_whose_error_is_damaged_is_shown_among_its_jobs_attempts(store, damage):
    job = await ended_job(store, FAILED)
    await damage("UPDATE job_attempts SET error = '{'")

    [attempt] = (await stored(store, job)).attempts

    assert (attempt.outcome, attempt.error.kind) == ("succeeded", "damaged")


@pytest.mark.parametrize("names", ["{", "7", ""])
async def test_an_engine_whose_names_are_damaged_is_seen_beside_the_others(store, damage, names):
    await store.register(make_engine("engine-a"))
    await store.register(make_engine("engine-b"))
    await damage(f"UPDATE engines SET names = '{names}' WHERE id = 'engine-a'")

    found = {engine.id: engine.names for engine in await store.engines()}

    assert found == {"engine-a": (), "engine-b": ("thumbnail",)}


@pytest.mark.parametrize("address", ["sqlite"], indirect=True)
async def test_an_engine_whose_process_is_damaged_is_judged_by_its_lock_alone(store, damage):
    await store.register(make_engine("engine-a"))
    await damage("UPDATE engines SET pid = 'none'")

    [engine] = await store.engines()

    assert (engine.host, engine.boot, engine.pid) == ("", "", 0)


@pytest.mark.parametrize("address", ["sqlite"], indirect=True)
async def test_a_due_time_that_is_none_stops_no_claim(store, damage):
    jobs = await insert(store, make_job(), make_job())
    await damage(f"UPDATE jobs SET run_at = 'noon' WHERE id = '{jobs[0].id}'")

    assert [job.id for job in await claim_all(store)] == [jobs[1].id]
    assert await claim_all(store) == []

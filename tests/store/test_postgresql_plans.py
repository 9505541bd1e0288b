"""Each statement takes the index meant for it on PostgreSQL, without statistics and with (F10, F73)."""

import json

import asyncpg
import pytest

from asyncjobs.model.job import JobStatus
from asyncjobs.store import Bookmark, JobFilter, Submission, note_statements, statements
from asyncjobs.store.postgresql import PostgresqlDatabase
from asyncjobs.store.postgresql import statements as postgresql
from asyncjobs.store.postgresql.sessions import SESSION
from asyncjobs.store.rows import (
    attempt_row,
    bookmark_row,
    fence_of,
    fenced_row,
    micros,
    output_row,
    progress_row,
    submission_row,
)
from builders import FAILED, NOON, make_attempt, make_chunk, make_id, make_job, make_progress, make_running, opened

NOW = micros(NOON)
A_JOB = make_running()
DIALECT = PostgresqlDatabase.dialect.fget(None)

FILL = """
INSERT INTO asyncjobs.jobs (id, name, key, status, priority, attempt, retry_count, interruptions, engine_id, created_at,
    run_at, finished_at, kill_grace, max_retries, retry_delay, retry_max_delay, params)
SELECT '01bbe6f9-2600-7000-8000-' || lpad(to_hex(i), 12, '0'), 'name ' || i % 7,
    CASE WHEN i % 5 = 0 THEN 'key ' || i END, status, i % 3, 1, 0, 0, 'engine ' || i % 4, $1::int8 + i, $1::int8 + i,
    CASE WHEN status NOT IN ('PENDING', 'RUNNING') THEN $1::int8 + i END, 2, 3, 15, 60, '{"value": 1}'
FROM (SELECT i, (ARRAY['RUNNING', 'FAILED', 'TIMEOUT', 'CANCELED', 'SUCCEEDED', 'SUCCEEDED'])[i % 20 + 1] AS given
      FROM generate_series(0, 19999) AS i) AS rows, LATERAL (SELECT coalesce(given, 'PENDING') AS status) AS s
"""


def newest(status=None, before=None, **wanted):
    return statements.newest_jobs(JobFilter(**wanted), status=status, limit=100, before=before, dialect=DIALECT)


ONE_END = postgresql.ENDS.parameters([(*fenced_row(A_JOB, FAILED, now=NOON), *attempt_row(make_attempt(A_JOB)))])
ONE_JOB = postgresql.NEW_JOBS.parameters([submission_row(Submission(make_job()))])
TAKE = ("name 1", 8, "engine-a", NOW + 20_000, [], [])
[DELETE] = statements.delete_final(JobFilter(finished_before=NOON), status=JobStatus.FAILED, limit=500, dialect=DIALECT)

SHARED = {
    "get": (statements.job_by_id("a"), "jobs_id"),
    "history": (statements.attempts_of("a"), "job_attempts_pkey"),
    "cancel": (statements.cancel_waiting(job_id="a", error="{}", now=NOW), "jobs_pending"),
    "ask to cancel": (statements.ask_running_to_cancel(job_id="a", now=NOW), "jobs_id"),
    "retry": (statements.retry_final(job_id="a", now=NOW), "jobs_id"),
    "running": (statements.running_under("engine 1"), "jobs_running"),
    "running under nobody": (statements.running_under_nobody(), "jobs_running"),
    "settled: ended": (statements.ended_among('["a", "b"]'), "jobs_id"),
    "settled: missing": (statements.missing_among('["a", "b"]'), "jobs_id"),
    "list": (newest(), "jobs_id"),
    "list from a cursor": (newest(before=make_id()), "jobs_id"),
    "list by name": (newest(names=["name 1"]), "jobs_name"),
    "list of a name that has ended": (newest(JobStatus.FAILED, names=["name 1"]), "jobs_ended"),
    "list of PENDING": (newest(JobStatus.PENDING), "jobs_pending"),
    "list of RUNNING": (newest(JobStatus.RUNNING), "jobs_running"),
    "list of FAILED": (newest(JobStatus.FAILED), "jobs_ended"),
    "list of SUCCEEDED from a cursor": (newest(JobStatus.SUCCEEDED, before=make_id()), "jobs_ended"),
    "delete": (DELETE, "jobs_ended"),
    "delete of history": (DELETE, "job_attempts_pkey"),
    "delete of output": (DELETE, "job_output_pkey"),
    "delete of progress": (DELETE, "job_progress_pkey"),
    "keys": (statements.jobs_in_place([make_running(name="name 1", key="key 5")]), "jobs_key"),
    "write of output": (note_statements.insert_output([output_row(A_JOB, make_chunk())]), "jobs_id"),
    "write of progress": (note_statements.put_progress(progress_row(A_JOB, make_progress())), "jobs_id"),
    "fence of notes": (note_statements.attempt_under_way(fence_of(A_JOB)), "jobs_id"),
    "output": (note_statements.output_from(bookmark_row(Bookmark(A_JOB.id)), limit=50), "job_output_pkey"),
    "news": (note_statements.news_at(json.dumps([bookmark_row(Bookmark("a"))])), "jobs_id"),
    "progress": (note_statements.progress_of("a"), "jobs_id"),
}
STATEMENTS = {name: (step.sql, step.parameters[0], index) for name, (step, index) in SHARED.items()} | {
    "claim": (postgresql.CLAIM, TAKE, "jobs_waiting"),
    "claim with floors": (postgresql.CLAIM, (*TAKE[:4], [0, 1], [NOW, NOW]), "jobs_waiting"),
    "claim's update": (postgresql.CLAIM, TAKE, "jobs_pkey"),
    "end": (postgresql.END_ATTEMPTS, ONE_END, "jobs_id"),
    "end and claim: end": (postgresql.END_AND_CLAIM, (*ONE_END, *TAKE), "jobs_id"),
    "end and claim: claim": (postgresql.END_AND_CLAIM, (*ONE_END, *TAKE), "jobs_waiting"),
    "insert and claim: claim": (postgresql.INSERT_AND_CLAIM, (*ONE_JOB, *TAKE), "jobs_waiting"),
    "insert and claim: update": (postgresql.INSERT_AND_CLAIM, (*ONE_JOB, *TAKE), "jobs_pkey"),
    "how many of a name run": (postgresql.RUNNING_OF, ("name 1",), "jobs_running"),
}


@pytest.fixture(scope="module")
def filled(databases):
    url = databases.create()
    yield url
    databases.drop(url)


@pytest.fixture(scope="module")
def prepared():
    """Which states of the table's statistics were made."""
    return set()


@pytest.fixture(params=["without statistics", "with statistics"])
async def explain(request, filled, prepared):
    """Return the plan of a statement, as a session of ours has it."""
    connection = await asyncpg.connect(filled)
    if "rows" not in prepared:
        async with opened(filled):
            pass
        await connection.execute("ALTER TABLE asyncjobs.jobs SET (autovacuum_enabled = off)")
        await connection.execute(FILL, NOW)
        prepared.add("rows")
    if request.param == "with statistics":
        await connection.execute("ANALYZE")
    await connection.execute(SESSION)

    async def plan(sql, parameters):
        rows = await connection.fetch(f"EXPLAIN {postgresql.qualified(sql, 'asyncjobs')}", *parameters)
        return [row[0] for row in rows]

    yield plan
    await connection.close()


@pytest.mark.parametrize(
    ("sql", "parameters", "index"), [pytest.param(*each, id=name) for name, each in STATEMENTS.items()]
)
async def test_a_statement_takes_the_index_meant_for_it_and_scans_no_table(explain, sql, parameters, index):
    """F73, D23"""
    plan = await explain(sql, parameters)

    assert any(f" using {index} on " in line or f" on {index} " in line for line in plan), "\n".join(plan)
    assert not [line for line in plan if "Seq Scan on jobs" in line or "Seq Scan on job_" in line]


async def test_the_limit_of_a_claim_is_made_once_whatever_the_planner_does(explain):
    """F10: what is due is a part of its own, which the update reads; it can't be run twice or moved into it."""
    plan = await explain(postgresql.CLAIM, TAKE)

    assert "due AS MATERIALIZED" in postgresql.CLAIM
    assert sum(line.strip() == "CTE due" for line in plan) == 1
    assert sum("LockRows" in line for line in plan) == 1

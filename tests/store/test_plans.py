"""Each statement takes the index meant for it, on a table of every status (F10, F73).

SQLite has no statistics here, as in the files of users.
"""

import sqlite3

import pytest
from sqlalchemy.dialects import sqlite

from asyncjobs.model.job import JobStatus
from asyncjobs.store import Bookmark, JobFilter, note_statements, statements
from asyncjobs.store.migrations import migrations
from asyncjobs.store.rows import (
    NEW_JOB,
    bookmark_row,
    fence_of,
    fenced_row,
    micros,
    output_row,
    progress_row,
)
from asyncjobs.store.sqlite import statements as sqlite_statements
from asyncjobs.store.sqlite.connection import plain
from asyncjobs.store.turns import Step
from builders import (
    FAILED,
    HOUR,
    NOON,
    make_chunk,
    make_id,
    make_progress,
    make_running,
)

DIALECT = sqlite.dialect(paramstyle="qmark")
NOW = micros(NOON)
A_JOB = make_running()
ENDED_IN_THE_PAST = JobFilter(finished_before=NOON)

FILL = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 19999)
INSERT INTO jobs (id, name, key, status, priority, attempt, retry_count, interruptions, engine_id, created_at,
    run_at, finished_at, kill_grace, max_retries, retry_delay, retry_max_delay, params)
SELECT printf('01bbe6f9-2600-7000-8000-%012x', i), 'name ' || (i % 7), CASE WHEN i % 5 = 0 THEN 'key ' || i END,
    status, i % 3, 1, 0, 0, 'engine ' || (i % 4), :now + i, :now + i,
    CASE WHEN status IN ('PENDING', 'RUNNING') THEN NULL ELSE :now + i END, 2, 3, 15, 60, '{"value": 1}'
FROM (SELECT i, CASE i % 20 WHEN 0 THEN 'RUNNING' WHEN 1 THEN 'FAILED' WHEN 2 THEN 'TIMEOUT' WHEN 3 THEN 'CANCELED'
    WHEN 4 THEN 'SUCCEEDED' WHEN 5 THEN 'SUCCEEDED' ELSE 'PENDING' END AS status FROM n)
"""


@pytest.fixture(scope="module")
def connection():
    connection = sqlite3.connect(":memory:")
    for _, script in migrations("sqlite"):
        for statement in script:
            connection.execute(statement)
    connection.execute(FILL, {"now": NOW})
    yield connection
    connection.close()


@pytest.fixture
def plan(connection):
    """Return the lines of SQLite's plan for a step."""

    def explain(step):
        sql, spread = plain(step.sql)
        rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", spread(step.parameters[0]))
        return [row[3].replace("COVERING INDEX", "INDEX") for row in rows]

    return explain


def newest(status=None, before=None, **wanted):
    return statements.newest_jobs(JobFilter(**wanted), status=status, limit=100, before=before, dialect=DIALECT)


CLAIM = Step(sqlite_statements.CLAIM.sql, [("name 1", 8, "engine-a", NOW)])
INSERT_BEGUN = sqlite_statements.INSERT_BEGUN.step(
    dict.fromkeys(NEW_JOB) | {"engine_id": "engine-a", "now": NOW, "waiting": "name 1"}
)
FINISH = Step(sqlite_statements.FINISH.sql, [fenced_row(A_JOB, FAILED, now=NOON)])
GIVE_BACK = Step(sqlite_statements.GIVE_BACK.sql, FINISH.parameters)
DELETE_HISTORY, DELETE_OUTPUT, DELETE_PROGRESS, DELETE = statements.delete_final(
    JobFilter(), status=JobStatus.FAILED, limit=500, dialect=DIALECT
)
DELETE_OLD_HISTORY, _, _, DELETE_OLD = statements.delete_final(
    ENDED_IN_THE_PAST, status=JobStatus.FAILED, limit=500, dialect=DIALECT
)
IDS = '["a", "b"]'

PLANS = {
    "claim": (CLAIM, "SEARCH waiting USING INDEX jobs_waiting (name=? AND priority=? AND run_at<?)"),
    "claim's update": (CLAIM, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"),
    "does one of the name wait": (INSERT_BEGUN, "SEARCH jobs USING INDEX jobs_waiting (name=?)"),
    "what runs of a name": (
        sqlite_statements.RUNNING_OF.step({"name": "name 1"}),
        "SCAN jobs USING INDEX jobs_running",
    ),
    "next run_at": (
        sqlite_statements.NEXT_RUN_AT.step({"name": "name 1"}),
        "SEARCH jobs USING INDEX jobs_waiting (name=? AND priority=?)",
    ),
    "finish": (FINISH, "SEARCH jobs USING INDEX jobs_id (id=?)"),
    "give back": (GIVE_BACK, "SEARCH jobs USING INDEX jobs_id (id=?)"),
    "status after it is given back": (
        sqlite_statements.STATUS_NOW.step({"id": "a", "attempt": 1}),
        "SEARCH jobs USING INDEX jobs_id (id=?)",
    ),
    "get": (statements.job_by_id("a"), "SEARCH jobs USING INDEX jobs_id (id=?)"),
    "history": (statements.attempts_of("a"), "SEARCH job_attempts USING PRIMARY KEY (job_id=?)"),
    "cancel": (
        statements.cancel_waiting(job_id="a", error="{}", now=NOW),
        "SEARCH jobs USING INDEX jobs_id (id=?)",
    ),
    "ask to cancel": (
        statements.ask_running_to_cancel(job_id="a", now=NOW),
        "SEARCH jobs USING INDEX jobs_id (id=?)",
    ),
    "retry": (statements.retry_final(job_id="a", now=NOW), "SEARCH jobs USING INDEX jobs_id (id=?)"),
    "running": (statements.running_under("engine 1"), "SEARCH jobs USING INDEX jobs_running (engine_id=?)"),
    "running under nobody": (statements.running_under_nobody(), "SCAN jobs USING INDEX jobs_running"),
    "keys": (
        statements.jobs_in_place([make_running(name="name 1", key="key 1")]),
        "SEARCH jobs USING INDEX jobs_key (name=? AND key=?)",
    ),
    "settled: ended": (statements.ended_among(IDS), "SEARCH jobs USING INDEX jobs_id (id=?)"),
    "settled: missing": (statements.missing_among(IDS), "SEARCH jobs USING INDEX jobs_id (id=?)"),
    "list": (newest(), "SCAN jobs USING INDEX jobs_id"),
    "list from a cursor": (newest(before=make_id()), "SEARCH jobs USING INDEX jobs_id (id<?)"),
    "list by name": (newest(names=["name 1"]), "SEARCH jobs USING INDEX jobs_name (name=?)"),
    "list by name from a cursor": (
        newest(names=["name 1"], before=make_id()),
        "SEARCH jobs USING INDEX jobs_name (name=? AND id<?)",
    ),
    "list of PENDING": (newest(JobStatus.PENDING), "SCAN jobs USING INDEX jobs_pending"),
    "list of PENDING from a cursor": (
        newest(JobStatus.PENDING, before=make_id()),
        "SEARCH jobs USING INDEX jobs_pending (id<?)",
    ),
    "list by time of creation": (
        newest(created_after=NOON, created_before=NOON + HOUR),
        "SEARCH jobs USING INDEX jobs_id (id>? AND id<?)",
    ),
    "delete": (DELETE, "SEARCH jobs USING INDEX jobs_ended (status=?)"),
    "delete by age": (DELETE_OLD, "SEARCH jobs USING INDEX jobs_ended (status=? AND id<?)"),
    "delete's update": (DELETE_OLD, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"),
    "delete of history": (DELETE_OLD_HISTORY, "SEARCH job_attempts USING PRIMARY KEY (job_id=?)"),
    "delete of output": (DELETE_OUTPUT, "SEARCH job_output USING INDEX sqlite_autoindex_job_output_1 (job_id=?)"),
    "delete of progress": (DELETE_PROGRESS, "SEARCH job_progress USING PRIMARY KEY (job_id=?)"),
    "delete of history, its jobs": (DELETE_HISTORY, "SEARCH jobs USING INDEX jobs_ended (status=?)"),
}
PLANS |= {
    "fence of notes": (
        note_statements.attempt_under_way(fence_of(A_JOB)),
        "SEARCH jobs USING INDEX jobs_id (id=?)",
    ),
    "write of output": (
        note_statements.insert_output([output_row(A_JOB, make_chunk())]),
        "SEARCH jobs USING INDEX jobs_id (id=?)",
    ),
    "write of progress": (
        note_statements.put_progress(progress_row(A_JOB, make_progress())),
        "SEARCH jobs USING INDEX jobs_id (id=?)",
    ),
    "output": (
        note_statements.output_from(bookmark_row(Bookmark(A_JOB.id)), limit=50),
        "SEARCH job_output USING INDEX sqlite_autoindex_job_output_1 (job_id=? AND (attempt,seq)>(?,?) AND attempt<?)",
    ),
    "news: jobs": (note_statements.news_at("[{}]"), "SEARCH jobs USING INDEX jobs_id (id=?)"),
    "news: output": (
        note_statements.news_at("[{}]"),
        "SEARCH said USING INDEX sqlite_autoindex_job_output_1 (job_id=? AND (attempt,seq)>(?,?) AND attempt<?)",
    ),
    "progress": (note_statements.progress_of("a"), "SEARCH said USING PRIMARY KEY (job_id=?)"),
    "progress, its job": (note_statements.progress_of("a"), "SEARCH jobs USING INDEX jobs_id (id=?)"),
}
ENDED = [status for status in JobStatus if status.is_final]


@pytest.mark.parametrize(("step", "line"), [pytest.param(*each, id=name) for name, each in PLANS.items()])
def test_a_statement_takes_the_index_meant_for_it(plan, step, line):
    """F73"""
    assert line in plan(step)


@pytest.mark.parametrize("status", ENDED)
def test_a_list_of_an_end_walks_its_part_of_one_index(plan, status):
    """F73, F76"""
    assert plan(newest(status)) == ["SEARCH jobs USING INDEX jobs_ended (status=?)"]


@pytest.mark.parametrize("before", [None, make_id()], ids=["first page", "next page"])
def test_a_list_of_what_runs_sorts_the_rows_of_one_index(plan, before):
    """F73, F76"""
    assert "SCAN jobs USING INDEX jobs_running" in plan(newest(JobStatus.RUNNING, before=before))


@pytest.mark.parametrize("status", ENDED)
def test_the_next_page_of_an_end_begins_at_its_cursor(plan, status):
    """F76"""
    assert plan(newest(status, before=make_id())) == ["SEARCH jobs USING INDEX jobs_ended (status=? AND id<?)"]


@pytest.mark.parametrize(
    "step",
    [pytest.param(step, id=name) for name, (step, line) in PLANS.items() if line.startswith("SEARCH")],
)
def test_no_statement_scans_the_jobs(plan, step):
    """F73, D23"""
    assert [line for line in plan(step) if line.startswith("SCAN jobs")] == []


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(newest(), id="all"),
        pytest.param(newest(names=["name 1"]), id="a name"),
        pytest.param(newest(JobStatus.PENDING), id="PENDING"),
        pytest.param(newest(JobStatus.FAILED), id="FAILED"),
        pytest.param(CLAIM, id="claim"),
        pytest.param(PLANS["output"][0], id="output"),
    ],
)
def test_nothing_is_sorted_that_an_index_has_in_order(plan, step):
    """F73, F76"""
    assert [line for line in plan(step) if "TEMP B-TREE" in line] == []


@pytest.mark.parametrize("end", [pytest.param(FINISH, id="finish"), pytest.param(GIVE_BACK, id="give back")])
def test_the_update_of_an_end_uses_no_other_index_than_the_ids(plan, end):
    assert plan(end) == ["SEARCH jobs USING INDEX jobs_id (id=?)"]

"""The statements as PostgreSQL runs them: those of a turn for all its rows at once, and what the shared ones become.

A turn's rows travel as row sets, which unlike COPY can answer and meet conflicts.
Where rows are found by their id or number, the expected status is written so that no index has it (`status || ''`):
on a table without statistics the planner would walk all rows of that status.
"""

from __future__ import annotations

import re
from functools import lru_cache

from asyncjobs.store.note_statements import NEWS, UNDER_WAY
from asyncjobs.store.postgresql.row_sets import RowSet
from asyncjobs.store.rows import ATTEMPT_COLUMNS, ENDED, JOB_COLUMNS, NEW_JOB
from asyncjobs.store.statements import JOBS_IN_PLACE, QUALIFIED

_TABLES = ("jobs", "job_attempts", "job_output", "job_progress", "engines", "asyncjobs_schema")
NEW_JOBS = RowSet(NEW_JOB)
_NEW = ", ".join(NEW_JOB)
INSERT_JOBS = f"INSERT INTO jobs ({_NEW}) SELECT {_NEW} FROM {NEW_JOBS.sql} ORDER BY n ON CONFLICT DO NOTHING"

# RUNNING under these attempts and this engine → the next status; then the rows of those attempts alone, which
# travel with their ends: to join them again would compare each with each.
ENDS = RowSet(ENDED, said=ATTEMPT_COLUMNS)
_SAID = ENDS.columns[len(ENDED) :]
_END = f"""
wanted AS MATERIALIZED (SELECT * FROM {ENDS.sql}),
ended AS (
    UPDATE jobs SET
        status = CASE WHEN wanted.status = 'PENDING' AND jobs.cancel_requested_at IS NOT NULL
            THEN 'CANCELED' ELSE wanted.status END,
        result = wanted.result, error = wanted.error,
        retry_count = wanted.retry_count, interruptions = wanted.interruptions,
        run_at = coalesce(wanted.run_at, jobs.run_at),
        started_at = CASE WHEN wanted.status = 'PENDING' AND jobs.cancel_requested_at IS NULL
            THEN NULL ELSE jobs.started_at END,
        finished_at = CASE WHEN wanted.status = 'PENDING' AND jobs.cancel_requested_at IS NULL
            THEN NULL ELSE wanted.now END
    FROM wanted
    WHERE jobs.id = wanted.id AND jobs.status || '' = 'RUNNING'
        AND jobs.attempt = wanted.attempt AND jobs.engine_id = wanted.engine_id
    RETURNING wanted.n, jobs.status, {", ".join("wanted." + each for each in _SAID)}
),
kept AS (
    INSERT INTO job_attempts ({", ".join(ATTEMPT_COLUMNS)}) SELECT {", ".join(_SAID)} FROM ended
    ON CONFLICT DO NOTHING
)"""
END_ATTEMPTS = f"WITH {_END} SELECT n, status FROM ended"


def _due(first: int) -> str:
    """Return the parts that find what a claim may take; their parameters begin at a number.

    They are name, limit, engine, now, and the floors (see `floors.py`): priorities, and where to begin in each.

    MATERIALIZED: the planner may neither run the LIMIT twice nor move it. The priorities that wait are found by
    one look into jobs_waiting each, so neither jobs due later nor those of other priorities are walked over.
    """
    name, limit, _, now, priorities, floors = (f"${number}" for number in range(first, first + 6))
    return f"""
level(priority) AS (
    SELECT max(priority) FROM jobs WHERE status = 'PENDING' AND name = {name}
    UNION ALL
    SELECT (SELECT max(priority) FROM jobs
            WHERE status = 'PENDING' AND name = {name} AND priority < level.priority)
    FROM level WHERE level.priority IS NOT NULL
),
due AS MATERIALIZED (
    SELECT waiting.seq, level.priority, waiting.run_at FROM level CROSS JOIN LATERAL (
        SELECT jobs.seq, jobs.run_at FROM jobs
        WHERE jobs.status = 'PENDING' AND jobs.name = {name}
            AND jobs.priority = level.priority AND jobs.run_at <= {now}
            AND jobs.run_at >= coalesce(({floors}::int8[])[array_position({priorities}::int8[], level.priority)], 0)
        ORDER BY jobs.run_at, jobs.seq LIMIT {limit} FOR UPDATE SKIP LOCKED
    ) AS waiting
    LIMIT {limit}
),
later(run_at) AS (
    SELECT min((SELECT min(jobs.run_at) FROM jobs
                WHERE jobs.status = 'PENDING' AND jobs.name = {name}
                    AND jobs.priority = level.priority AND jobs.run_at > {now}))
    FROM level
)"""


def _taken(first: int, found: str) -> str:
    """Return the part that takes what is found, by its `seq`; parameters as those of `_due`."""
    return f"""
taken AS (
    UPDATE jobs SET status = 'RUNNING', attempt = attempt + 1, engine_id = ${first + 2},
        started_at = ${first + 3}, finished_at = NULL
    FROM {found} WHERE jobs.seq = {found}.seq AND jobs.status || '' = 'PENDING'
    RETURNING jobs.seq, jobs.env, {QUALIFIED}
)"""


CLAIM = f"""WITH RECURSIVE {_due(1)}, {_taken(1, "due")}
SELECT later.run_at, taken.* FROM later LEFT JOIN taken ON true"""

# Ends and a claim in one statement: both see the rows as they were before, and no row concerns both.
_AFTER_ENDS = ENDS.count + 1
_TAKEN_COLUMNS = ("seq", "env", *JOB_COLUMNS)
END_AND_CLAIM = f"""WITH RECURSIVE {_END}, {_due(_AFTER_ENDS)}, {_taken(_AFTER_ENDS, "due")}
SELECT ended.n, ended.status, NULL::int8, {", ".join("NULL" for _ in _TAKEN_COLUMNS)} FROM ended
UNION ALL
SELECT NULL, NULL, later.run_at, {", ".join("taken." + each for each in _TAKEN_COLUMNS)}
FROM later LEFT JOIN taken ON true"""

# New jobs and a claim in one statement. What is new can't be updated by the statement that writes it, so those that
# the claim takes, in the order of all that it may take, are written as RUNNING. One that is there already takes
# somebody else's place and is not written: then more may be due now.
_AFTER_JOBS = NEW_JOBS.count + 1
_NAME, _LIMIT, _ENGINE, _NOW_IT_IS = (f"${_AFTER_JOBS + place}" for place in range(4))
_BEGUN = {
    "status": "CASE WHEN best.n IS NULL THEN 'PENDING' ELSE 'RUNNING' END",
    "attempt": "CASE WHEN best.n IS NULL THEN 0 ELSE 1 END",
    "engine_id": f"CASE WHEN best.n IS NOT NULL THEN {_ENGINE} END",
    "started_at": f"CASE WHEN best.n IS NOT NULL THEN {_NOW_IT_IS} END",
}
INSERT_AND_CLAIM = f"""WITH RECURSIVE {_due(_AFTER_JOBS)},
wanted AS MATERIALIZED (SELECT * FROM {NEW_JOBS.sql}),
best AS MATERIALIZED (
    SELECT seq, n FROM (
        SELECT seq, NULL::int8 AS n, priority, run_at FROM due
        UNION ALL
        SELECT NULL, n, priority, run_at FROM wanted WHERE name = {_NAME} AND run_at <= {_NOW_IT_IS}
    ) AS candidates
    ORDER BY priority DESC, run_at, seq, n LIMIT {_LIMIT}
),
{_taken(_AFTER_JOBS, "best")},
written AS (
    INSERT INTO jobs ({", ".join(_BEGUN)}, {_NEW})
    SELECT {", ".join(_BEGUN.values())}, {", ".join("wanted." + each for each in NEW_JOB)}
    FROM wanted LEFT JOIN best ON best.n = wanted.n ORDER BY wanted.n
    ON CONFLICT DO NOTHING
    RETURNING jobs.seq, jobs.env, {QUALIFIED}
),
claimed AS (SELECT * FROM taken UNION ALL SELECT * FROM written WHERE status = 'RUNNING')
SELECT
    CASE WHEN (SELECT count(*) FROM written) < (SELECT count(*) FROM wanted) THEN {_NOW_IT_IS}
    ELSE least(later.run_at, (SELECT min(run_at) FROM wanted WHERE name = {_NAME} AND run_at > {_NOW_IT_IS})) END,
    claimed.*
FROM later LEFT JOIN claimed ON true"""

RUNNING_OF = "SELECT count(*) FROM jobs WHERE status = 'RUNNING' AND name = $1"
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::int8"
SAW = f"UPDATE engines SET seen_at = {_NOW} WHERE id = $1 RETURNING seen_at"
SEEN_LATELY = f"SELECT id FROM engines WHERE seen_at > {_NOW} - $1"

_REWRITTEN = {
    # Nobody ends the attempt before what it said is committed.
    UNDER_WAY.sql: f"{UNDER_WAY.sql} FOR SHARE",
    JOBS_IN_PLACE.sql: f"""
WITH each AS MATERIALIZED (SELECT * FROM json_to_recordset($1::text::json) AS each(id text, name text, key text))
SELECT {QUALIFIED} FROM each JOIN jobs ON jobs.id = each.id
UNION
SELECT {QUALIFIED} FROM each JOIN jobs ON jobs.name = each.name AND jobs.key = each.key
""",
    NEWS.sql: """
SELECT place.ordinality - 1, jobs.status, jobs.attempt, EXISTS (
    SELECT 1 FROM job_output AS said WHERE said.job_id = jobs.id
        AND (said.attempt, said.seq) > (place.attempt, place.seq) AND said.attempt <= place.last
)
FROM ROWS FROM (json_to_recordset($1::text::json) AS (job_id text, attempt int8, seq int8, last int8))
    WITH ORDINALITY AS place(job_id, attempt, seq, last, ordinality)
JOIN jobs ON jobs.id = place.job_id
""",
}


@lru_cache(maxsize=1000)
def qualified(sql: str, schema: str) -> str:
    """Return a statement, shared or of ours, as this database takes it: its tables named with their schema."""
    sql = _REWRITTEN.get(sql, sql)
    sql = re.sub(r"\?(\d+)", r"$\1", sql)
    sql = re.sub(r"CROSS (JOIN \w+(?: AS \w+)? ON)", r"\1", sql)
    sql = re.sub(r"json_each\((\$\d+)\) AS (\w+)", r"json_array_elements_text(\1::text::json) AS \2(value)", sql)
    return re.sub(
        rf"\b(FROM|INTO|UPDATE|JOIN|TABLE|TABLE IF NOT EXISTS|ON)\s+({'|'.join(_TABLES)})\b(?!\.)",
        rf'\1 "{schema}".\2',
        sql,
    )

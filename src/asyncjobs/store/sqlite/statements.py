"""The statements of a turn as SQLite runs them, for one row each; its values are the parameters, in their order."""

from __future__ import annotations

from asyncjobs.store.rows import ENDED, JOB_COLUMNS, NEW_JOB
from asyncjobs.store.statements import Statement

# The priorities that wait, each found by one look into jobs_waiting: neither jobs that are due later
# nor those of other priorities are ever walked over.
_LEVELS = """
WITH RECURSIVE level(priority) AS (
    SELECT max(priority) FROM jobs WHERE status = 'PENDING' AND name = :name
    UNION ALL
    SELECT (SELECT max(priority) FROM jobs
            WHERE status = 'PENDING' AND name = :name AND priority < level.priority)
    FROM level WHERE level.priority IS NOT NULL
)
"""

_TAKEN = ", ".join(("seq", "env", *JOB_COLUMNS))

# A new job that is RUNNING from the beginning, where none of its name waits: one statement, where to write it and to
# claim it are three. No row where one waits or the job is there already.
INSERT_BEGUN = Statement(
    f"""
INSERT INTO jobs ({", ".join(NEW_JOB)}, status, attempt, engine_id, started_at)
SELECT {", ".join(":" + each for each in NEW_JOB)}, 'RUNNING', 1, :engine_id, :now
WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE status = 'PENDING' AND name = :waiting)
ON CONFLICT DO NOTHING
RETURNING {_TAKEN}
""",
    returns=True,
    order=(*NEW_JOB, "engine_id", "now", "waiting"),
)

# PENDING and due → RUNNING under the engine, attempt + 1; rows in no order.
# CROSS JOIN keeps SQLite from turning the loops round; the inner one walks jobs_waiting in order, so
# that LIMIT takes the highest priority, the earliest run_at and the first submitted. The plus sign
# keeps it from looking for the rows by their status instead of by seq.
CLAIM = Statement(
    f"""{_LEVELS}
UPDATE jobs SET status = 'RUNNING', attempt = attempt + 1, engine_id = :engine_id,
    started_at = :now, finished_at = NULL
WHERE +status = 'PENDING' AND seq IN (
    SELECT waiting.seq FROM level CROSS JOIN jobs AS waiting
    WHERE waiting.status = 'PENDING' AND waiting.name = :name
        AND waiting.priority = level.priority AND waiting.run_at <= :now
    LIMIT :limit
)
RETURNING {_TAKEN}
""",
    returns=True,
    order=("name", "limit", "engine_id", "now"),
)

# How many of a name run, on all engines. The plus sign has it look at what runs, not at all jobs of the name.
RUNNING_OF = Statement("SELECT count(*) FROM jobs WHERE status = 'RUNNING' AND +name = :name", returns=True)

# The earliest `run_at` that waits under a name, or NULL.
NEXT_RUN_AT = Statement(
    f"""{_LEVELS}
SELECT min((SELECT min(run_at) FROM jobs
            WHERE status = 'PENDING' AND name = :name AND priority = level.priority))
FROM level
""",
    returns=True,
)

_THE_ATTEMPT = "id = :id AND status = 'RUNNING' AND attempt = :attempt AND engine_id = :engine_id"

# RUNNING under this attempt and engine → a final status.
FINISH = Statement(
    f"""
UPDATE jobs SET status = :status, result = :result, error = :error, retry_count = :retry_count,
    interruptions = :interruptions, finished_at = :now
WHERE {_THE_ATTEMPT}
""",
    order=ENDED,
)

# RUNNING under this attempt and engine → PENDING, or CANCELED where that was asked for meanwhile.
GIVE_BACK = Statement(
    f"""
UPDATE jobs SET
    status = CASE WHEN cancel_requested_at IS NULL THEN 'PENDING' ELSE 'CANCELED' END,
    result = :result, error = :error, retry_count = :retry_count, interruptions = :interruptions,
    run_at = coalesce(:run_at, run_at),
    started_at = CASE WHEN cancel_requested_at IS NULL THEN NULL ELSE started_at END,
    finished_at = CASE WHEN cancel_requested_at IS NULL THEN NULL ELSE :now END
WHERE {_THE_ATTEMPT}
""",
    order=ENDED,
)
STATUS_NOW = Statement("SELECT status FROM jobs WHERE id = :id AND attempt = :attempt", returns=True)

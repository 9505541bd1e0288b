"""Every statement, a function each: what it is called with, and the status that it expects.

Parameters are named (`:id`). The texts are SQLite's; where a database needs another shape, that one
stands beside it under the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, func, literal_column, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from asyncjobs.model.job import FINAL, JobStatus
from asyncjobs.store import JobFilter
from asyncjobs.store.rows import JOB_COLUMNS, canonical_pair, id_bound, micros
from asyncjobs.store.schema import job_attempts, jobs

Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = list[Row]
Counts: TypeAlias = list[int]


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a turn, run once for each of `parameters`.

    It answers with all rows that came back where `returns` is set, else with the number of rows
    changed by each run.
    """

    sql: str
    parameters: Sequence[dict[str, Any]]
    returns: bool = False


FINAL_STATUSES = tuple(sorted(str(status) for status in FINAL))
_COLUMNS = ", ".join(JOB_COLUMNS)
_QUALIFIED = ", ".join(f"jobs.{column}" for column in JOB_COLUMNS)


# --- submit -------------------------------------------------------------------------------------

_INSERTED = (*JOB_COLUMNS, "env")
_INSERT_JOB = (
    f"INSERT INTO jobs ({', '.join(_INSERTED)}) VALUES ({', '.join(':' + each for each in _INSERTED)}) "
    "ON CONFLICT DO NOTHING"
)


def insert_jobs(rows: Sequence[dict[str, Any]]) -> Step:
    """Write jobs; one whose id or key is there already changes nothing."""
    return Step(_INSERT_JOB, rows)


def jobs_with_keys(keys: Sequence[tuple[str, str]]) -> Step:
    """Read the jobs that hold these (name, key) pairs."""
    return Step(
        f"SELECT {_COLUMNS} FROM jobs WHERE name = :name AND key = :key",
        [{"name": name, "key": key} for name, key in keys],
        returns=True,
    )


# --- claim --------------------------------------------------------------------------------------

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

# CROSS JOIN keeps SQLite from turning the loops round; the inner one walks jobs_waiting in order, so
# that LIMIT takes the highest priority, the earliest run_at and the first submitted. The plus sign
# keeps it from looking for the rows by their status instead of by seq.
_CLAIM = f"""{_LEVELS}
UPDATE jobs SET status = 'RUNNING', attempt = attempt + 1, engine_id = :engine_id,
    started_at = :now, finished_at = NULL
WHERE +status = 'PENDING' AND seq IN (
    SELECT waiting.seq FROM level CROSS JOIN jobs AS waiting
    WHERE waiting.status = 'PENDING' AND waiting.name = :name
        AND waiting.priority = level.priority AND waiting.run_at <= :now
    LIMIT :limit
)
RETURNING seq, env, {_COLUMNS}
"""

_NEXT_RUN_AT = f"""{_LEVELS}
SELECT min((SELECT min(run_at) FROM jobs
            WHERE status = 'PENDING' AND name = :name AND priority = level.priority))
FROM level
"""


def claim_jobs(*, name: str, limit: int, engine_id: str, now: int) -> Step:
    """PENDING and due → RUNNING under `engine_id`, attempt + 1; rows in no order."""
    return Step(_CLAIM, [{"name": name, "limit": limit, "engine_id": engine_id, "now": now}], returns=True)


def next_run_at(*, name: str) -> Step:
    """Read the earliest `run_at` that waits under this name, or NULL."""
    return Step(_NEXT_RUN_AT, [{"name": name}], returns=True)


# --- finish -------------------------------------------------------------------------------------

_FINISH = """
UPDATE jobs SET
    status = CASE WHEN :status = 'PENDING' AND cancel_requested_at IS NOT NULL THEN 'CANCELED' ELSE :status END,
    result = :result, error = :error, retry_count = :retry_count, interruptions = :interruptions,
    run_at = coalesce(:run_at, run_at),
    started_at = CASE WHEN :status = 'PENDING' AND cancel_requested_at IS NULL THEN NULL ELSE started_at END,
    finished_at = CASE WHEN :status = 'PENDING' AND cancel_requested_at IS NULL THEN NULL ELSE :now END
WHERE id = :id AND status = 'RUNNING' AND attempt = :attempt AND engine_id = :engine_id
"""
_STATUS_NOW = "SELECT status FROM jobs WHERE id = :id AND attempt = :attempt"

_ATTEMPT_COLUMNS = tuple(column.name for column in job_attempts.columns)
# Right after _FINISH, in its transaction: changes() is 1 if that one changed its row, else 0.
_INSERT_ATTEMPT = (
    f"INSERT OR IGNORE INTO job_attempts ({', '.join(_ATTEMPT_COLUMNS)}) "
    f"SELECT {', '.join(':' + each for each in _ATTEMPT_COLUMNS)} WHERE changes() = 1"
)


def finish_attempt(*, fenced: dict[str, Any], attempt: dict[str, Any]) -> list[Step]:
    """RUNNING under this attempt and engine → the next status; then the attempt's row, if that held.

    A third step reads the status where it may have become another than asked for. (RETURNING would
    say it too, and costs as much as the whole update.)
    """
    steps = [Step(_FINISH, [fenced]), Step(_INSERT_ATTEMPT, [attempt])]
    if fenced["status"] == "PENDING":
        steps.append(Step(_STATUS_NOW, [fenced], returns=True))
    return steps


# --- cancel, retry, delete ----------------------------------------------------------------------


def cancel_waiting(*, job_id: str, error: str, now: int) -> Step:
    """PENDING → CANCELED."""
    return Step(
        "UPDATE jobs SET status = 'CANCELED', finished_at = :now, cancel_requested_at = :now, error = :error "
        "WHERE id = :id AND status = 'PENDING'",
        [{"id": job_id, "now": now, "error": error}],
    )


def ask_running_to_cancel(*, job_id: str, now: int) -> Step:
    """RUNNING stays, with the time of the first wish to cancel it."""
    return Step(
        "UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, :now) "
        "WHERE id = :id AND status = 'RUNNING'",
        [{"id": job_id, "now": now}],
    )


def retry_final(*, job_id: str, now: int) -> Step:
    """A final status → PENDING and due now, its budgets whole again; attempts go on counting."""
    return Step(
        "UPDATE jobs SET status = 'PENDING', run_at = :now, retry_count = 0, interruptions = 0, result = NULL, "
        "error = NULL, engine_id = NULL, started_at = NULL, finished_at = NULL, cancel_requested_at = NULL "
        f"WHERE id = :id AND status IN {FINAL_STATUSES}",
        [{"id": job_id, "now": now}],
    )


def delete_final(wanted: JobFilter, *, limit: int) -> list[Step]:
    """Delete the attempts of up to `limit` final jobs, then those jobs."""
    statuses = FINAL if wanted.statuses is None else [status for status in wanted.statuses if status.is_final]
    chosen = select(jobs.c.seq).where(
        jobs.c.status.in_([literal_column(f"'{status}'") for status in sorted(statuses)]),
        jobs.c.finished_at.is_not(None),
        *_conditions(wanted),
    )
    if wanted.finished_before is not None:
        # What ended before a time was created before it, and jobs_ended is ordered by that.
        chosen = chosen.where(jobs.c.id < id_bound(wanted.finished_before, after=True))
    chosen = chosen.limit(limit)
    ids = select(jobs.c.id).where(jobs.c.seq.in_(chosen.scalar_subquery()))
    return [
        _step(job_attempts.delete().where(job_attempts.c.job_id.in_(ids.scalar_subquery()))),
        _step(jobs.delete().where(jobs.c.seq.in_(chosen.scalar_subquery()))),
    ]


# --- read ---------------------------------------------------------------------------------------


def job_by_id(job_id: str) -> Step:
    """Read one job."""
    return Step(f"SELECT {_COLUMNS} FROM jobs WHERE id = :id", [{"id": job_id}], returns=True)


def attempts_of(job_id: str) -> Step:
    """Read a job's attempts, the first first."""
    return Step(
        f"SELECT {', '.join(_ATTEMPT_COLUMNS)} FROM job_attempts WHERE job_id = :id ORDER BY attempt",
        [{"id": job_id}],
        returns=True,
    )


def ended_among(ids_json: str) -> Step:
    """Read those of the ids that have a final status."""
    return Step(
        f"SELECT {_QUALIFIED} FROM json_each(:ids) CROSS JOIN jobs ON jobs.id = json_each.value "
        f"WHERE jobs.status IN {FINAL_STATUSES}",
        [{"ids": ids_json}],
        returns=True,
    )


def missing_among(ids_json: str) -> Step:
    """Read those of the ids that no job has."""
    return Step(
        "SELECT value FROM json_each(:ids) WHERE value NOT IN (SELECT id FROM jobs WHERE id = value)",
        [{"ids": ids_json}],
        returns=True,
    )


def running_under(engine_id: str) -> Step:
    """Read the jobs that an engine runs, by jobs_running."""
    return Step(
        f"SELECT {_COLUMNS} FROM jobs WHERE status = 'RUNNING' AND engine_id = :engine_id",
        [{"engine_id": engine_id}],
        returns=True,
    )


def newest_jobs(wanted: JobFilter, *, status: JobStatus | None, limit: int, before: str | None) -> Step:
    """Read jobs of one status, or of any, by descending id, which is descending time of creation."""
    statement: Select[Any] = select(*(jobs.c[column] for column in JOB_COLUMNS))
    statement = statement.where(*_conditions(wanted)).order_by(jobs.c.id.desc()).limit(limit)
    if status is not None:
        statement = statement.where(jobs.c.status == literal_column(f"'{status}'"))
        if status.is_final:
            statement = statement.where(jobs.c.finished_at.is_not(None))  # so that jobs_ended serves it
    if before is not None:
        statement = statement.where(jobs.c.id < before)
    return _step(statement, returns=True)


def _conditions(wanted: JobFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.names is not None:
        found.append(jobs.c.name.in_(list(wanted.names)))
    if wanted.created_after is not None:
        # The id begins with the millisecond of creation, and the ids are indexed.
        found += [jobs.c.id >= id_bound(wanted.created_after), jobs.c.created_at >= micros(wanted.created_after)]
    if wanted.created_before is not None:
        found.append(jobs.c.id < id_bound(wanted.created_before, after=True))
        found.append(jobs.c.created_at < micros(wanted.created_before))
    if wanted.finished_after is not None:
        found.append(jobs.c.finished_at >= micros(wanted.finished_after))
    if wanted.finished_before is not None:
        found.append(jobs.c.finished_at < micros(wanted.finished_before))
    # Narrows the rows down by text, since the JSON functions of SQLite refuse NaN and lose big
    # integers; the caller compares the values that are left.
    found += [
        func.instr(jobs.c.params, canonical_pair(name, value)) > 0 for name, value in (wanted.params or {}).items()
    ]
    return found


def _step(statement: ClauseElement, *, returns: bool = False) -> Step:
    compiled = statement.compile(dialect=_named_sqlite(), compile_kwargs={"render_postcompile": True})
    return Step(str(compiled), [dict[str, Any](compiled.params or {})], returns)


@cache
def _named_sqlite() -> Dialect:
    return sqlite.dialect(paramstyle="named")  # type: ignore[no-any-return, no-untyped-call, unused-ignore]


# --- engines ------------------------------------------------------------------------------------

_ENGINE_COLUMNS = "id, host, boot, pid, pid_started, names, version, started_at, seen_at"


def insert_engine(row: dict[str, Any]) -> Step:
    """Write an engine's row."""
    values = ", ".join(":" + column for column in _ENGINE_COLUMNS.split(", "))
    return Step(f"INSERT INTO engines ({_ENGINE_COLUMNS}) VALUES ({values})", [row])


def delete_engine(engine_id: str) -> Step:
    """Delete an engine's row, if no job runs under it any more."""
    return Step(
        "DELETE FROM engines WHERE id = :id AND NOT EXISTS "
        "(SELECT 1 FROM jobs WHERE status = 'RUNNING' AND engine_id = :id)",
        [{"id": engine_id}],
    )


def all_engines() -> Step:
    """Read every engine's row."""
    return Step(f"SELECT {_ENGINE_COLUMNS} FROM engines ORDER BY started_at", [{}], returns=True)

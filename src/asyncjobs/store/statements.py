"""Every statement, a function each: what it is called with, and the status that it expects.

Parameters are named (`:id`). The texts are SQLite's; where a database needs another shape, that one
stands beside it under the same name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import ColumnElement, Select, func, literal_column, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from asyncjobs.model.job import FINAL, Job, JobStatus
from asyncjobs.store import JobFilter
from asyncjobs.store.rows import JOB_COLUMNS, canonical_pair, earliest_id, latest_id, micros
from asyncjobs.store.schema import job_attempts, job_output, job_progress, jobs

Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = list[Row]
Counts: TypeAlias = list[int]


class Step(NamedTuple):
    """One statement of a turn, run once for each of `parameters`.

    It answers with all rows that came back where `returns` is set, else with the number of rows
    changed by each run.
    """

    sql: str
    parameters: Sequence[Row]
    returns: bool = False


class Statement:
    """A statement written with named parameters (`:id`) and sent with numbered ones.

    Numbered ones are bound at a third of the cost: the driver looks each name up anew in each run.
    """

    def __init__(self, text: str, *, returns: bool = False) -> None:
        names: list[str] = []

        def number(found: re.Match[str]) -> str:
            if found[1] not in names:
                names.append(found[1])
            return f"?{names.index(found[1]) + 1}"

        self.sql = re.sub(r":(\w+)", number, text)
        self._returns = returns
        self._in_order: Callable[[dict[str, Any]], Row] = _picker(names)

    def step(self, *rows: dict[str, Any]) -> Step:
        """Return the step that runs it with these parameters, once for each row of them."""
        return Step(self.sql, [self._in_order(row) for row in rows], self._returns)


def _picker(names: Sequence[str]) -> Callable[[dict[str, Any]], Row]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda row: tuple(row[name] for name in names)


FINAL_STATUSES = tuple(sorted(str(status) for status in FINAL))
_COLUMNS = ", ".join(JOB_COLUMNS)
_QUALIFIED = ", ".join(f"jobs.{column}" for column in JOB_COLUMNS)


# --- submit -------------------------------------------------------------------------------------

_INSERTED = (*JOB_COLUMNS, "env")
_INSERT_JOB = Statement(
    f"INSERT INTO jobs ({', '.join(_INSERTED)}) VALUES ({', '.join(':' + each for each in _INSERTED)}) "
    "ON CONFLICT DO NOTHING"
)
_JOB_IN_PLACE = Statement(f"SELECT {_COLUMNS} FROM jobs WHERE id = :id OR (name = :name AND key = :key)", returns=True)


def insert_jobs(rows: Sequence[dict[str, Any]]) -> Step:
    """Write jobs; one whose id or key is there already changes nothing."""
    return _INSERT_JOB.step(*rows)


def jobs_in_place(jobs: Sequence[Job]) -> Step:
    """Read the jobs that have these ids, or hold these names and keys."""
    return _JOB_IN_PLACE.step(*({"id": job.id, "name": job.name, "key": job.key} for job in jobs))


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
_CLAIM = Statement(
    f"""{_LEVELS}
UPDATE jobs SET status = 'RUNNING', attempt = attempt + 1, engine_id = :engine_id,
    started_at = :now, finished_at = NULL
WHERE +status = 'PENDING' AND seq IN (
    SELECT waiting.seq FROM level CROSS JOIN jobs AS waiting
    WHERE waiting.status = 'PENDING' AND waiting.name = :name
        AND waiting.priority = level.priority AND waiting.run_at <= :now
    LIMIT :limit
)
RETURNING seq, env, {_COLUMNS}
""",
    returns=True,
)

_NEXT_RUN_AT = Statement(
    f"""{_LEVELS}
SELECT min((SELECT min(run_at) FROM jobs
            WHERE status = 'PENDING' AND name = :name AND priority = level.priority))
FROM level
""",
    returns=True,
)


def claim_jobs(*, name: str, limit: int, engine_id: str, now: int) -> Step:
    """PENDING and due → RUNNING under `engine_id`, attempt + 1; rows in no order."""
    return _CLAIM.step({"name": name, "limit": limit, "engine_id": engine_id, "now": now})


def next_run_at(*, name: str) -> Step:
    """Read the earliest `run_at` that waits under this name, or NULL."""
    return _NEXT_RUN_AT.step({"name": name})


# --- finish -------------------------------------------------------------------------------------

_FINISH = Statement("""
UPDATE jobs SET
    status = CASE WHEN :status = 'PENDING' AND cancel_requested_at IS NOT NULL THEN 'CANCELED' ELSE :status END,
    result = :result, error = :error, retry_count = :retry_count, interruptions = :interruptions,
    run_at = coalesce(:run_at, run_at),
    started_at = CASE WHEN :status = 'PENDING' AND cancel_requested_at IS NULL THEN NULL ELSE started_at END,
    finished_at = CASE WHEN :status = 'PENDING' AND cancel_requested_at IS NULL THEN NULL ELSE :now END
WHERE id = :id AND status = 'RUNNING' AND attempt = :attempt AND engine_id = :engine_id
""")
_STATUS_NOW = Statement("SELECT status FROM jobs WHERE id = :id AND attempt = :attempt", returns=True)

_ATTEMPT_COLUMNS = tuple(column.name for column in job_attempts.columns)
# Right after _FINISH, in its transaction: changes() is 1 if that one changed its row, else 0.
_INSERT_ATTEMPT = Statement(
    f"INSERT OR IGNORE INTO job_attempts ({', '.join(_ATTEMPT_COLUMNS)}) "
    f"SELECT {', '.join(':' + each for each in _ATTEMPT_COLUMNS)} WHERE changes() = 1"
)


def finish_attempt(*, fenced: dict[str, Any], attempt: dict[str, Any]) -> list[Step]:
    """RUNNING under this attempt and engine → the next status; then the attempt's row, if that held.

    A third step reads the status where it may have become another than asked for. (RETURNING would
    say it too, and costs as much as the whole update.)
    """
    steps = [_FINISH.step(fenced), _INSERT_ATTEMPT.step(attempt)]
    if fenced["status"] == "PENDING":
        steps.append(_STATUS_NOW.step(fenced))
    return steps


# --- cancel, retry, delete ----------------------------------------------------------------------


_CANCEL_WAITING = Statement(
    "UPDATE jobs SET status = 'CANCELED', finished_at = :now, cancel_requested_at = :now, error = :error "
    "WHERE id = :id AND status = 'PENDING'"
)
_ASK_RUNNING = Statement(
    "UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, :now) WHERE id = :id AND status = 'RUNNING'"
)
_RETRY_FINAL = Statement(
    "UPDATE jobs SET status = 'PENDING', run_at = :now, retry_count = 0, interruptions = 0, result = NULL, "
    "error = NULL, engine_id = NULL, started_at = NULL, finished_at = NULL, cancel_requested_at = NULL "
    f"WHERE id = :id AND status IN {FINAL_STATUSES}"
)


def cancel_waiting(*, job_id: str, error: str, now: int) -> Step:
    """PENDING → CANCELED."""
    return _CANCEL_WAITING.step({"id": job_id, "now": now, "error": error})


def ask_running_to_cancel(*, job_id: str, now: int) -> Step:
    """RUNNING stays, with the time of the first wish to cancel it."""
    return _ASK_RUNNING.step({"id": job_id, "now": now})


def retry_final(*, job_id: str, now: int) -> Step:
    """A final status → PENDING and due now, its budgets whole again; attempts go on counting."""
    return _RETRY_FINAL.step({"id": job_id, "now": now})


def delete_final(wanted: JobFilter, *, limit: int) -> list[Step]:
    """Delete what belongs to up to `limit` final jobs, then those jobs."""
    statuses = FINAL if wanted.statuses is None else [status for status in wanted.statuses if status.is_final]
    chosen = select(jobs.c.seq).where(
        jobs.c.status.in_([literal_column(f"'{status}'") for status in sorted(statuses)]),
        jobs.c.finished_at.is_not(None),
        *_conditions(wanted),
    )
    if wanted.finished_before is not None:
        # What ended before a time was created before it, and jobs_ended is ordered by that.
        chosen = chosen.where(jobs.c.id < latest_id(wanted.finished_before))
    chosen = chosen.limit(limit)
    ids = select(jobs.c.id).where(jobs.c.seq.in_(chosen.scalar_subquery()))
    return [
        *(
            _step(table.delete().where(table.c.job_id.in_(ids.scalar_subquery())))
            for table in (job_attempts, job_output, job_progress)
        ),
        _step(jobs.delete().where(jobs.c.seq.in_(chosen.scalar_subquery()))),
    ]


# --- read ---------------------------------------------------------------------------------------


_JOB_BY_ID = Statement(f"SELECT {_COLUMNS} FROM jobs WHERE id = :id", returns=True)
_ATTEMPTS_OF = Statement(
    f"SELECT {', '.join(_ATTEMPT_COLUMNS)} FROM job_attempts WHERE job_id = :id ORDER BY attempt", returns=True
)
_ENDED_AMONG = Statement(
    f"SELECT {_QUALIFIED} FROM json_each(:ids) CROSS JOIN jobs ON jobs.id = json_each.value "
    f"WHERE jobs.status IN {FINAL_STATUSES}",
    returns=True,
)
_MISSING_AMONG = Statement(
    "SELECT value FROM json_each(:ids) WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = value)", returns=True
)
_RUNNING_UNDER = Statement(
    f"SELECT {_COLUMNS} FROM jobs WHERE status = 'RUNNING' AND engine_id = :engine_id", returns=True
)


def job_by_id(job_id: str) -> Step:
    """Read one job."""
    return _JOB_BY_ID.step({"id": job_id})


def attempts_of(job_id: str) -> Step:
    """Read a job's attempts, the first first."""
    return _ATTEMPTS_OF.step({"id": job_id})


def ended_among(ids_json: str) -> Step:
    """Read those of the ids, a JSON list, that have a final status."""
    return _ENDED_AMONG.step({"ids": ids_json})


def missing_among(ids_json: str) -> Step:
    """Read those of the ids, a JSON list, that no job has."""
    return _MISSING_AMONG.step({"ids": ids_json})


def running_under(engine_id: str) -> Step:
    """Read the jobs that an engine runs, by jobs_running."""
    return _RUNNING_UNDER.step({"engine_id": engine_id})


def newest_jobs(wanted: JobFilter, *, status: JobStatus | None, limit: int, before: str | None) -> Step:
    """Read jobs of one status, or of any, by descending id, which is descending time of creation."""
    statement: Select[Any] = select(*(jobs.c[column] for column in JOB_COLUMNS))
    # What runs is few: the plus sign has them sorted, rather than all ids walked to find them in order.
    newest: ColumnElement[str] = literal_column("+id") if status is JobStatus.RUNNING else jobs.c.id
    statement = statement.where(*_conditions(wanted)).order_by(newest.desc()).limit(limit)
    if status is not None:
        statement = statement.where(jobs.c.status == literal_column(f"'{status}'"))
        if status.is_final:
            statement = statement.where(jobs.c.finished_at.is_not(None))  # so that jobs_ended serves it
    if before is not None:
        statement = statement.where(newest < before)
    return _step(statement, returns=True)


def _conditions(wanted: JobFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.names is not None:
        found.append(jobs.c.name.in_(list(wanted.names)))
    if wanted.created_after is not None:
        # The id begins with the millisecond of creation, and the ids are indexed.
        found += [jobs.c.id >= earliest_id(wanted.created_after), jobs.c.created_at >= micros(wanted.created_after)]
    if wanted.created_before is not None:
        found.append(jobs.c.id < latest_id(wanted.created_before))
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
    compiled = statement.compile(dialect=_dialect(), compile_kwargs={"render_postcompile": True})
    values = dict[str, Any](compiled.params or {})
    in_order = getattr(compiled, "positiontup", None) or ()
    return Step(str(compiled), [tuple(values[name] for name in in_order)], returns)


@cache
def _dialect() -> Dialect:
    return sqlite.dialect(paramstyle="qmark")  # type: ignore[no-any-return, no-untyped-call, unused-ignore]


# --- engines ------------------------------------------------------------------------------------

_ENGINE_COLUMNS = "id, host, boot, pid, pid_started, names, version, started_at, seen_at"


_INSERT_ENGINE = Statement(f"INSERT INTO engines ({_ENGINE_COLUMNS}) VALUES (:{_ENGINE_COLUMNS.replace(', ', ', :')})")
_DELETE_ENGINE = Statement(
    "DELETE FROM engines WHERE id = :id "
    "AND NOT EXISTS (SELECT 1 FROM jobs WHERE status = 'RUNNING' AND engine_id = :id)"
)
_ALL_ENGINES = Statement(f"SELECT {_ENGINE_COLUMNS} FROM engines ORDER BY started_at", returns=True)


def insert_engine(row: dict[str, Any]) -> Step:
    """Write an engine's row."""
    return _INSERT_ENGINE.step(row)


def delete_engine(engine_id: str) -> Step:
    """Delete an engine's row, if no job runs under it any more."""
    return _DELETE_ENGINE.step({"id": engine_id})


def all_engines() -> Step:
    """Read every engine's row."""
    return _ALL_ENGINES.step({})

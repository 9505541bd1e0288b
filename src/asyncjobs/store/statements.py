"""The statements that are alike on every database: what each is called with, and the status that it expects.

Each function returns a step, for a turn or a look to run. Parameters are named (`:id`). Those of a turn that gather
(ends, new jobs, claims) have each database's own shape, in a file of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, literal_column, select, tuple_
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from asyncjobs.model.job import FINAL, Job, JobStatus
from asyncjobs.store import JobFilter
from asyncjobs.store.rows import (
    ATTEMPT_COLUMNS,
    JOB_COLUMNS,
    NEW_JOB,
    canonical_pair,
    earliest_id,
    id_prefix,
    latest_id,
    micros,
)
from asyncjobs.store.schema import job_attempts, job_output, job_progress, jobs
from asyncjobs.store.turns import Row, Step


class Statement:
    """A statement written with named parameters (`:id`) and sent with numbered ones.

    Numbered ones are bound at a third of the cost: the driver looks each name up anew in each run. They
    have the `order` given, for rows that are made in it, or that in which they appear.
    """

    def __init__(self, text: str, *, returns: bool = False, order: Sequence[str] = ()) -> None:
        names = list(order)

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
AT_ONCE = 100_000
"""A job whose `run_at` is less than so many microseconds after its creation was submitted without a delay."""
_COLUMNS = ", ".join(JOB_COLUMNS)
QUALIFIED = ", ".join(f"jobs.{column}" for column in JOB_COLUMNS)


# --- submit -------------------------------------------------------------------------------------

INSERT_JOB = Statement(
    f"INSERT INTO jobs ({', '.join(NEW_JOB)}) VALUES ({', '.join(':' + each for each in NEW_JOB)}) "
    "ON CONFLICT DO NOTHING",
    order=NEW_JOB,
)
JOBS_IN_PLACE = Statement(
    f"SELECT {QUALIFIED} FROM json_each(:wanted) AS each CROSS JOIN jobs ON jobs.id = json_extract(each.value, '$.id') "
    "OR (jobs.name = json_extract(each.value, '$.name') AND jobs.key = json_extract(each.value, '$.key'))",
    returns=True,
)


def insert_jobs(rows: Sequence[Row]) -> Step:
    """Write jobs; one whose id or key is there already changes nothing."""
    return Step(INSERT_JOB.sql, rows)


def jobs_in_place(jobs: Sequence[Job]) -> Step:
    """Read the jobs that have these ids, or hold these names and keys."""
    wanted = json.dumps([{"id": job.id, "name": job.name, "key": job.key} for job in jobs])
    return JOBS_IN_PLACE.step({"wanted": wanted})


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
    f"WHERE id = :id AND run_at <> :now AND status IN {FINAL_STATUSES}"
)


# Only if the newest id is of a time to come: else the clock was not turned back, and nothing is walked over.
_BRING_FORWARD = Statement(
    f"UPDATE jobs SET run_at = :now WHERE status = 'PENDING' AND run_at > :now AND run_at - created_at < {AT_ONCE} "
    "AND (SELECT newest.id FROM jobs AS newest ORDER BY newest.id DESC LIMIT 1) > :id"
)


def bring_forward(*, now: int) -> Step:
    """Make due what was due at once when it was submitted."""
    return _BRING_FORWARD.step({"now": now, "id": id_prefix(now // 1000 + 1)})


def cancel_waiting(*, job_id: str, error: str, now: int) -> Step:
    """PENDING → CANCELED."""
    return _CANCEL_WAITING.step({"id": job_id, "now": now, "error": error})


def ask_running_to_cancel(*, job_id: str, now: int) -> Step:
    """RUNNING stays, with the time of the first wish to cancel it."""
    return _ASK_RUNNING.step({"id": job_id, "now": now})


def retry_final(*, job_id: str, now: int) -> Step:
    """A final status → PENDING and due now, its budgets whole again; attempts go on counting.

    Written again, because the answer was lost, it changes nothing: it is known by its time.
    """
    return _RETRY_FINAL.step({"id": job_id, "now": now})


def delete_final(wanted: JobFilter, *, status: JobStatus, limit: int, dialect: Dialect) -> list[Step]:
    """Delete what belongs to up to `limit` jobs of a final status, then those jobs; the last step counts them."""
    chosen = select(jobs.c.seq, jobs.c.id).where(
        jobs.c.status == literal_column(f"'{status}'"),
        jobs.c.finished_at.is_not(None),
        *_conditions(wanted, dialect),
    )
    if wanted.finished_before is not None:
        # What ended before a time was created before it, and jobs_ended is ordered by that.
        chosen = chosen.where(jobs.c.id < latest_id(wanted.finished_before))
    chosen = chosen.order_by(jobs.c.status, jobs.c.id).limit(limit)
    belonging = (job_attempts, job_output, job_progress)
    if dialect.name == "sqlite":  # nobody else writes between these
        found = chosen.subquery()
        return [
            *(_step(table.delete().where(table.c.job_id.in_(select(found.c.id))), dialect) for table in belonging),
            _step(jobs.delete().where(jobs.c.seq.in_(select(found.c.seq))), dialect),
        ]
    # One statement, and the rows locked: others may change them meanwhile.
    locked = chosen.with_for_update(skip_locked=True).cte("chosen")
    gone = [
        table.delete().where(table.c.job_id.in_(select(locked.c.id))).cte(f"gone_{table.name}") for table in belonging
    ]
    return [_step(jobs.delete().where(jobs.c.seq.in_(select(locked.c.seq))).add_cte(*gone), dialect)]


# --- read ---------------------------------------------------------------------------------------


_JOB_BY_ID = Statement(f"SELECT {_COLUMNS} FROM jobs WHERE id = :id", returns=True)
_ATTEMPTS_OF = Statement(
    f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM job_attempts WHERE job_id = :id ORDER BY attempt", returns=True
)
_ENDED_AMONG = Statement(
    f"SELECT {QUALIFIED} FROM json_each(:ids) AS each CROSS JOIN jobs ON jobs.id = each.value "
    f"WHERE jobs.status IN {FINAL_STATUSES}",
    returns=True,
)
_MISSING_AMONG = Statement(
    "SELECT each.value FROM json_each(:ids) AS each WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = each.value)",
    returns=True,
)
_RUNNING_UNDER_NOBODY = Statement(
    f"SELECT {_COLUMNS} FROM jobs WHERE status = 'RUNNING' "
    "AND NOT EXISTS (SELECT 1 FROM engines WHERE engines.id = jobs.engine_id)",
    returns=True,
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


def running_under_nobody() -> Step:
    """Read the jobs that run under an engine without a row, by jobs_running."""
    return _RUNNING_UNDER_NOBODY.step({})


def newest_jobs(
    wanted: JobFilter, *, status: JobStatus | None, limit: int, before: str | None, dialect: Dialect
) -> Step:
    """Read jobs of one status, or of any, by descending id, which is descending time of creation."""
    by_one_name = status is None and wanted.names is not None and len(wanted.names) == 1
    ranged = by_one_name and dialect.name == "postgresql"
    statement: Select[Any] = select(*(jobs.c[column] for column in JOB_COLUMNS))
    statement = statement.where(*_conditions(wanted, dialect, by_name=not ranged))
    newest: ColumnElement[str] = jobs.c.id
    # Ordered by all columns of the index that is to serve it, where only the last of them differs: so that no planner
    # walks all ids instead.
    order: list[ColumnElement[Any]] = []
    if ranged and wanted.names is not None:
        # A range of one name, for PostgreSQL drops a column that equals a constant from the order.
        [name] = wanted.names
        order.append(jobs.c.name.desc())
        statement = statement.where(jobs.c.name >= name, jobs.c.name <= name)
        if before is not None:
            statement = statement.where(tuple_(jobs.c.name, jobs.c.id) < tuple_(literal(name), literal(before)))
    if status is not None:
        statement = statement.where(jobs.c.status == literal_column(f"'{status}'"))
    if status is not None and status.is_final:
        statement = statement.where(jobs.c.finished_at.is_not(None))  # so that jobs_ended serves it
        order.append(jobs.c.status.desc())
    if status is JobStatus.RUNNING:  # those are few: they are sorted
        newest = literal_column("+id" if dialect.name == "sqlite" else "(id || '')")
    if before is not None:
        statement = statement.where(newest < before)
    return _step(statement.order_by(*order, newest.desc()).limit(limit), dialect, returns=True)


def _conditions(wanted: JobFilter, dialect: Dialect, *, by_name: bool = True) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if by_name and wanted.names is not None:
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
    position = func.instr if dialect.name == "sqlite" else func.strpos
    found += [position(jobs.c.params, canonical_pair(name, value)) > 0 for name, value in (wanted.params or {}).items()]
    return found


def _step(statement: ClauseElement, dialect: Dialect, *, returns: bool = False) -> Step:
    compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    values = dict[str, Any](compiled.params or {})
    in_order = getattr(compiled, "positiontup", None) or ()
    return Step(str(compiled), [tuple(values[name] for name in in_order)], returns)


# --- engines ------------------------------------------------------------------------------------

_ENGINE_COLUMNS = "id, host, boot, pid, pid_started, names, version, started_at, seen_at"


_INSERT_ENGINE = Statement(
    f"INSERT INTO engines ({_ENGINE_COLUMNS}) VALUES (:{_ENGINE_COLUMNS.replace(', ', ', :')}) ON CONFLICT DO NOTHING"
)
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

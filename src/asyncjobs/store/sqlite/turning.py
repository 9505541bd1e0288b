"""How a turn is run: all of it between BEGIN IMMEDIATE and COMMIT."""

from __future__ import annotations

import sqlite3
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any

from asyncjobs.store.rows import ATTEMPT_COLUMNS, HOW_IT_ENDED, NEW_JOB, OPTIONS
from asyncjobs.store.sqlite.connection import BEGIN, ManyRows, plain, run_steps, transacted
from asyncjobs.store.sqlite.statements import (
    CLAIM,
    FINISH,
    GIVE_BACK,
    INSERT_BEGUN,
    NEXT_RUN_AT,
    RUNNING_OF,
    STATUS_NOW,
)
from asyncjobs.store.statements import INSERT_JOB
from asyncjobs.store.turns import End, Row, Take, Turn

_INSERT, _ = plain(INSERT_JOB.sql)  # their rows have each value once, in order
_NEW_JOBS = ManyRows("jobs", alike=OPTIONS, own=NEW_JOB[len(OPTIONS) :])
_ATTEMPTS = ManyRows("job_attempts", alike=HOW_IT_ENDED, own=ATTEMPT_COLUMNS[len(HOW_IT_ENDED) :])
_FINISH, _spread_end = plain(FINISH.sql)
_INSERT_BEGUN, _ = plain(INSERT_BEGUN.sql)
_name_of, _run_at_of, _params_of, _env_of = (
    itemgetter(NEW_JOB.index(each)) for each in ("name", "run_at", "params", "env")
)
_LONG = 8192


def run_turn(connection: sqlite3.Connection, turn: Turn) -> list[Any]:
    """Run a turn as one transaction; return what each part brings."""
    if len(turn.inserts) == 1 and len(turn.inserts[0].wanted) == 1 and len(turn) <= 2:
        [row] = turn.inserts[0].wanted
        # Either is a transaction by itself.
        if len(turn) == 1:
            connection.cursor().execute(_INSERT, row)
            return [None]
        if turn.takes and (begun := _begun(connection.cursor(), row, turn.takes[0].wanted)):
            return [None, (begun, None)]
    return transacted(connection, BEGIN, partial(_run_parts, turn))


def _begun(cursor: sqlite3.Cursor, row: Row, take: Take) -> list[Row]:
    """Write a new job as one that is taken, where nothing keeps it from being that; else return no row."""
    name, limit, engine_id, now, max_running = take
    if _name_of(row) != name or _run_at_of(row) > now or limit < 1 or max_running is not None:
        return []
    return cursor.execute(_INSERT_BEGUN, (*row, engine_id, now, name)).fetchall()


def _run_parts(turn: Turn, cursor: sqlite3.Cursor) -> list[Any]:
    brought: list[Any] = _end([part.wanted for part in turn.ends], cursor)
    brought += [run_steps(part.wanted, cursor) for part in turn.steps]
    if turn.inserts:
        _insert(cursor, list(chain.from_iterable([part.wanted for part in turn.inserts])))
        brought += [None] * len(turn.inserts)
    brought += [_take(cursor, part.wanted) for part in turn.takes]
    return brought


def _insert(cursor: sqlite3.Cursor, rows: list[Row]) -> None:
    """Write new jobs, many in each statement; one by one where their texts are long.

    For a statement takes its values under the interpreter's lock, and keeps them until it is run again.
    """
    if any(map(_env_of, rows)) or max(map(len, map(_params_of, rows)), default=0) > _LONG:
        cursor.executemany(_INSERT, rows)
    else:
        _NEW_JOBS.run(cursor, rows)


def _end(ends: list[End], cursor: sqlite3.Cursor) -> list[str | None]:
    """End attempts; all at once where each ends its job and each fence holds, which is nearly always."""
    if len(ends) < 2 or any(end.status == "PENDING" for end in ends):
        return [_end_one(cursor, end) for end in ends]
    cursor.executemany(_FINISH, [_spread_end(end.fenced) for end in ends])
    if cursor.rowcount != len(ends):
        # Nothing else was done in this transaction yet: ends come first.
        cursor.execute("ROLLBACK")
        cursor.execute(BEGIN)
        return [_end_one(cursor, end) for end in ends]
    _ATTEMPTS.run(cursor, [end.attempt for end in ends])
    return [end.status for end in ends]


def _end_one(cursor: sqlite3.Cursor, end: End) -> str | None:
    """End an attempt; return the status that was written, which may be another where PENDING was asked for.

    (RETURNING would say it too, and costs as much as the whole update.)
    """
    gives_back = end.status == "PENDING"
    if not _run(cursor, GIVE_BACK.sql if gives_back else FINISH.sql, end.fenced).rowcount:
        return None
    _ATTEMPTS.run(cursor, [end.attempt])
    if not gives_back:
        return end.status
    [(status,)] = _run(cursor, STATUS_NOW.sql, end.fenced[:2]).fetchall()
    return status  # type: ignore[no-any-return]


def _take(cursor: sqlite3.Cursor, take: Take) -> tuple[list[Row], int | None]:
    name, limit, engine_id, now, max_running = take
    if max_running is not None:  # exact: nobody else writes meanwhile
        [(running,)] = _run(cursor, RUNNING_OF.sql, (name,)).fetchall()
        if max_running - running < limit:
            limit = max(0, max_running - running)
            return _run(cursor, CLAIM.sql, (name, limit, engine_id, now)).fetchall(), None
    rows = _run(cursor, CLAIM.sql, (name, limit, engine_id, now)).fetchall()
    if len(rows) == limit:  # there may be more that are due
        return rows, now
    [(next_run_at,)] = _run(cursor, NEXT_RUN_AT.sql, (name,)).fetchall()
    return rows, next_run_at


def _run(cursor: sqlite3.Cursor, sql: str, row: Row) -> sqlite3.Cursor:
    text, spread = plain(sql)
    return cursor.execute(text, spread(row))

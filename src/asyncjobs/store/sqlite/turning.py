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
from asyncjobs.store.turns import End, Row, Take, Turn

_NEW_JOBS = ManyRows("jobs", alike=OPTIONS, own=NEW_JOB[len(OPTIONS) :], long=("params", "env"))
_ATTEMPTS = ManyRows(
    "job_attempts", alike=HOW_IT_ENDED, own=ATTEMPT_COLUMNS[len(HOW_IT_ENDED) :], long=("reason", "error")
)
_FINISH, _spread_end = plain(FINISH.sql)
_INSERT_BEGUN, _ = plain(INSERT_BEGUN.sql)  # its rows have each value once, in order
_name_of, _run_at_of = itemgetter(NEW_JOB.index("name")), itemgetter(NEW_JOB.index("run_at"))


def run_turn(connection: sqlite3.Connection, turn: Turn) -> list[Any]:
    """Run a turn as one transaction; return what each part brings."""
    if len(turn.inserts) == 1 and len(turn.inserts[0].wanted) == 1 and len(turn) <= 2:
        [row] = turn.inserts[0].wanted
        # Either is a transaction by itself.
        if len(turn) == 1:
            connection.cursor().execute(_NEW_JOBS.one, row)
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
        _NEW_JOBS.run(cursor, list(chain.from_iterable([part.wanted for part in turn.inserts])))
        brought += [None] * len(turn.inserts)
    brought += [_take(cursor, part.wanted) for part in turn.takes]
    return brought


def _end(ends: list[End], cursor: sqlite3.Cursor) -> list[str | None]:
    """End attempts; those that end their jobs all at once where each fence holds, which is nearly always."""
    final = [end for end in ends if end.status != "PENDING"]
    finished = len(final) > 1 and _finished(cursor, final)
    return [end.status if finished and end.status != "PENDING" else _end_one(cursor, end) for end in ends]


def _finished(cursor: sqlite3.Cursor, final: list[End]) -> bool:
    """Write ends that are final; False where a fence does not hold, and then nothing was written."""
    cursor.executemany(_FINISH, [_spread_end(end.fenced) for end in final])
    if cursor.rowcount != len(final):
        # Nothing else was done in this transaction yet: ends come first.
        cursor.execute("ROLLBACK")
        cursor.execute(BEGIN)
        return False
    _ATTEMPTS.run(cursor, [end.attempt for end in final])
    return True


def _end_one(cursor: sqlite3.Cursor, end: End) -> str | None:
    """End an attempt; return the status that was written, which may be another where PENDING was asked for.

    (RETURNING would say it too, and costs as much as the whole update.)
    """
    gives_back = end.status == "PENDING"
    if not _run(cursor, GIVE_BACK.sql if gives_back else FINISH.sql, end.fenced).rowcount:
        return None
    cursor.execute(_ATTEMPTS.one, end.attempt)
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

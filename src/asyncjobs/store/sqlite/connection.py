"""A connection that takes a whole transaction in one call of its thread.

A call through aiosqlite costs a hop to its connection's thread and back, about 0.1 ms, whatever it
does there. So a whole turn is handed over in one call: the connection is made by a factory of ours,
whose `execute` runs all of a `Turn` between BEGIN IMMEDIATE and COMMIT.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from asyncjobs.store.sqlite.statements import CLAIM, FINISH, INSERT_ATTEMPT, NEXT_RUN_AT, RUNNING_OF, STATUS_NOW
from asyncjobs.store.statements import INSERT_JOB
from asyncjobs.store.turns import End, Row, Step, Take, Turn

BEGIN = "BEGIN IMMEDIATE"


Spread = Callable[[Row], Row]


@lru_cache(maxsize=1000)
def plain(sql: str) -> tuple[str, Spread]:
    """Return a statement with a plain `?` for each numbered one, and what spreads its parameters over them.

    sqlite3 warns of numbered ones in Python 3.12 and refuses them in 3.14; named ones cost three times as much.
    """
    places = [int(number) - 1 for number in re.findall(r"\?(\d+)", sql)]
    if places == list(range(len(places))):
        return re.sub(r"\?\d+", "?", sql), _as_it_is
    spread = itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))
    return re.sub(r"\?\d+", "?", sql), spread


def _as_it_is(row: Row) -> Row:
    return row


class Steps(tuple[Step, ...]):
    """Steps that make a transaction of their own."""

    __slots__ = ()


class _Answers:
    """What a transaction brought, in the shape that `execute_fetchall` takes from a cursor."""

    __slots__ = ("_answers",)

    def __init__(self, answers: list[Any]) -> None:
        self._answers = answers

    def fetchall(self) -> list[Any]:
        return self._answers


class TurnConnection(sqlite3.Connection):
    """A connection that takes a whole transaction for the parameters of one `execute`."""

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """Run a statement, or a turn or steps as one transaction that begins with it: all of it, or nothing."""
        run = _RUNS.get(type(parameters))
        if run is None:
            return super().execute(sql, parameters)
        cursor = self.cursor()
        cursor.execute(sql)
        try:
            answers = run(cursor, parameters)
            cursor.execute("COMMIT")
        except BaseException:
            if self.in_transaction:
                cursor.execute("ROLLBACK")
            raise
        return _Answers(answers)


_INSERT, _ = plain(INSERT_JOB.sql)  # their rows have each value once, in order
_INSERT_ATTEMPT, _ = plain(INSERT_ATTEMPT.sql)
_FINISH, _spread_end = plain(FINISH.sql)


def _run_turn(cursor: sqlite3.Cursor, turn: Turn) -> list[Any]:
    brought: list[Any] = _end([part.wanted for part in turn.ends], cursor)
    brought += [_run_steps(cursor, part.wanted) for part in turn.steps]
    if turn.inserts:
        cursor.executemany(_INSERT, [row for part in turn.inserts for row in part.wanted])
        brought += [None] * len(turn.inserts)
    brought += [_take(cursor, part.wanted) for part in turn.takes]
    return brought


def _end(ends: list[End], cursor: sqlite3.Cursor) -> list[str | None]:
    """End attempts, all at once where each fence holds, which is nearly always; else one by one."""
    if len(ends) < 2:
        return [_end_one(cursor, end) for end in ends]
    cursor.executemany(_FINISH, [_spread_end(end.fenced) for end in ends])
    if cursor.rowcount != len(ends):
        # Nothing else was done in this transaction yet: ends come first.
        cursor.execute("ROLLBACK")
        cursor.execute(BEGIN)
        return [_end_one(cursor, end) for end in ends]
    cursor.executemany(_INSERT_ATTEMPT, [end.attempt for end in ends])
    return [_status_written(cursor, end) for end in ends]


def _end_one(cursor: sqlite3.Cursor, end: End) -> str | None:
    if not cursor.execute(_FINISH, _spread_end(end.fenced)).rowcount:
        return None
    cursor.execute(_INSERT_ATTEMPT, end.attempt)
    return _status_written(cursor, end)


def _status_written(cursor: sqlite3.Cursor, end: End) -> str:
    """Return the status that was written, which may be another only where PENDING was asked for.

    (RETURNING would say it too, and costs as much as the whole update.)
    """
    if end.status != "PENDING":
        return end.status
    job_id, attempt = end.attempt[:2]
    [(status,)] = _run(cursor, STATUS_NOW.sql, (job_id, attempt)).fetchall()
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


def _run_steps(cursor: sqlite3.Cursor, steps: Sequence[Step]) -> list[Any]:
    return [_run_step(cursor, step) for step in steps]


def _run_step(cursor: sqlite3.Cursor, step: Step) -> list[Any]:
    sql, spread = plain(step.sql)
    if not step.returns:
        return [cursor.executemany(sql, map(spread, step.parameters)).rowcount]
    rows: list[Any] = []
    for each in step.parameters:
        rows += cursor.execute(sql, spread(each)).fetchall()
    return rows


_RUNS: dict[type, Callable[[sqlite3.Cursor, Any], list[Any]]] = {Turn: _run_turn, Steps: _run_steps}

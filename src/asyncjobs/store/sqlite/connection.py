"""A connection that takes a whole transaction in one call of its thread.

A call through aiosqlite costs a hop to its connection's thread and back, about 0.1 ms, whatever it
does there. So a whole turn is handed over in one call: the connection is made by a factory of ours,
whose `execute` runs all of a `Turn` between BEGIN IMMEDIATE and COMMIT.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from asyncjobs.store.sqlite.statements import CLAIM, FINISH, INSERT_ATTEMPT, NEXT_RUN_AT, RUNNING_OF, STATUS_NOW
from asyncjobs.store.statements import INSERT_JOB
from asyncjobs.store.turns import End, Row, Step, Take, Turn

BEGIN = "BEGIN IMMEDIATE"


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


def _run_turn(cursor: sqlite3.Cursor, turn: Turn) -> list[Any]:
    brought: list[Any] = _end([part.wanted for part in turn.ends], cursor)
    brought += [_run_steps(cursor, part.wanted) for part in turn.steps]
    if turn.inserts:
        cursor.executemany(INSERT_JOB.sql, [row for part in turn.inserts for row in part.wanted])
        brought += [None] * len(turn.inserts)
    brought += [_take(cursor, part.wanted) for part in turn.takes]
    return brought


def _end(ends: list[End], cursor: sqlite3.Cursor) -> list[str | None]:
    """End attempts, all at once where each fence holds, which is nearly always; else one by one."""
    if len(ends) < 2:
        return [_end_one(cursor, end) for end in ends]
    cursor.executemany(FINISH.sql, [end.fenced for end in ends])
    if cursor.rowcount != len(ends):
        # Nothing else was done in this transaction yet: ends come first.
        cursor.execute("ROLLBACK")
        cursor.execute(BEGIN)
        return [_end_one(cursor, end) for end in ends]
    cursor.executemany(INSERT_ATTEMPT.sql, [end.attempt for end in ends])
    return [_status_written(cursor, end) for end in ends]


def _end_one(cursor: sqlite3.Cursor, end: End) -> str | None:
    if not cursor.execute(FINISH.sql, end.fenced).rowcount:
        return None
    cursor.execute(INSERT_ATTEMPT.sql, end.attempt)
    return _status_written(cursor, end)


def _status_written(cursor: sqlite3.Cursor, end: End) -> str:
    """Return the status that was written, which may be another only where PENDING was asked for.

    (RETURNING would say it too, and costs as much as the whole update.)
    """
    if end.status != "PENDING":
        return end.status
    job_id, attempt = end.attempt[:2]
    [(status,)] = cursor.execute(STATUS_NOW.sql, (job_id, attempt)).fetchall()
    return status  # type: ignore[no-any-return]


def _take(cursor: sqlite3.Cursor, take: Take) -> tuple[list[Row], int | None]:
    name, limit, engine_id, now, max_running = take
    if max_running is not None:  # exact: nobody else writes meanwhile
        [(running,)] = cursor.execute(RUNNING_OF.sql, (name,)).fetchall()
        if max_running - running < limit:
            limit = max(0, max_running - running)
            return cursor.execute(CLAIM.sql, (name, limit, engine_id, now)).fetchall(), None
    rows = cursor.execute(CLAIM.sql, (name, limit, engine_id, now)).fetchall()
    [(next_run_at,)] = cursor.execute(NEXT_RUN_AT.sql, (name,)).fetchall()
    return rows, next_run_at


def _run_steps(cursor: sqlite3.Cursor, steps: Sequence[Step]) -> list[Any]:
    return [_run_step(cursor, step) for step in steps]


def _run_step(cursor: sqlite3.Cursor, step: Step) -> list[Any]:
    if not step.returns:
        return [cursor.executemany(step.sql, step.parameters).rowcount]
    rows: list[Any] = []
    for each in step.parameters:
        rows += cursor.execute(step.sql, each).fetchall()
    return rows


_RUNS: dict[type, Callable[[sqlite3.Cursor, Any], list[Any]]] = {Turn: _run_turn, Steps: _run_steps}

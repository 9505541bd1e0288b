"""A connection that hands itself to a function, in its own thread.

A call through aiosqlite costs a hop to its connection's thread and back, about 0.1 ms, whatever it
does there. So a whole transaction is handed over in one call: the connection is made by a factory of
ours, whose `execute` takes a function in place of parameters.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import chain, groupby
from operator import itemgetter, ne
from typing import Any, TypeAlias

from asyncjobs.store.turns import Row, Step

BEGIN = "BEGIN IMMEDIATE"
_SIZES = (64, 32, 16, 8, 4)
"""How many rows a statement writes: few sizes, so that the connection keeps each prepared."""
_FEW_NEIGHBOURS = 4
"""Rows that have so few neighbours like them on average are written with all their values."""
_LONG = 8192
_UNLESS_THERE = "ON CONFLICT DO NOTHING"
Spread: TypeAlias = Callable[[Row], Row]


class OwnConnection(sqlite3.Connection):
    """A connection that does what a function given as the parameters of `execute` does with it."""

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """Run a statement, or the function, which returns a list."""
        if callable(parameters):
            return _Answers(parameters(self))  # pyright: ignore[reportArgumentType]
        return super().execute(sql, parameters)


class _Answers:
    """What a function brought, in the shape that `execute_fetchall` takes from a cursor."""

    __slots__ = ("_answers",)

    def __init__(self, answers: list[Any]) -> None:
        self._answers = answers

    def fetchall(self) -> list[Any]:
        return self._answers


def transacted(connection: sqlite3.Connection, begin: str, run: Callable[[sqlite3.Cursor], list[Any]]) -> list[Any]:
    """Return what `run` brings in a transaction that begins so: all of it is done, or nothing."""
    cursor = connection.cursor()
    cursor.execute(begin)
    try:
        brought = run(cursor)
        cursor.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            cursor.execute("ROLLBACK")
        raise
    return brought


def steps_in_one(connection: sqlite3.Connection, *, begin: str, steps: Sequence[Step]) -> list[list[Any]]:
    """Return the answer of each step; they make a transaction of their own."""
    return transacted(connection, begin, partial(run_steps, steps))


def run_steps(steps: Sequence[Step], cursor: sqlite3.Cursor) -> list[list[Any]]:
    """Return the answer of each step."""
    return [_run_step(cursor, step) for step in steps]


def _run_step(cursor: sqlite3.Cursor, step: Step) -> list[Any]:
    sql, spread = plain(step.sql)
    if not step.returns:
        return [cursor.executemany(sql, map(spread, step.parameters)).rowcount]
    rows: list[Any] = []
    for each in step.parameters:
        rows += cursor.execute(sql, spread(each)).fetchall()
    return rows


class ManyRows:
    """An INSERT of rows, many in each statement, which binds what neighbours have in common once.

    To run a statement for each row costs a third more, and to bind a dozen values of a row as much as to write it. But
    a statement takes its values under the interpreter's lock, and keeps them until it is run again: so rows of long
    texts are written one by one.

    Args:
        table: that has them; a row whose key is there already changes nothing.
        alike: the columns that neighbours mostly have in common, the first of each row.
        own: the others.
        long: those of either that may be long texts.
    """

    def __init__(self, table: str, *, alike: Sequence[str], own: Sequence[str], long: Sequence[str]) -> None:
        columns = (*alike, *own)
        into = f"INSERT INTO {table} ({', '.join(columns)})"
        each, of_own = (f"({', '.join('?' * len(values))})" for values in (columns, own))
        chosen = ", ".join([*("?" * len(alike)), *(f"column{n}" for n in range(1, len(own) + 1))])
        self.one = f"{into} VALUES {each} {_UNLESS_THERE}"
        self._each = [(n, f"{into} VALUES {', '.join([each] * n)} {_UNLESS_THERE}") for n in _SIZES]
        self._neighbours = [
            (n, f"{into} SELECT {chosen} FROM (VALUES {', '.join([of_own] * n)}) WHERE true {_UNLESS_THERE}")
            for n in _SIZES
        ]
        self._alike = itemgetter(slice(len(alike)))
        self._long = [columns.index(name) for name in long]

    def run(self, cursor: sqlite3.Cursor, rows: Sequence[Row]) -> None:
        """Write the rows, in their order."""
        if any(len(row[place] or "") > _LONG for place in self._long for row in rows):
            cursor.executemany(self.one, rows)
            return
        alike = list(map(self._alike, rows))
        if sum(map(ne, alike, alike[1:])) * _FEW_NEIGHBOURS > len(rows):
            self._write(cursor, self._each, (), rows)
            return
        for common, neighbours in groupby(rows, self._alike):
            self._write(cursor, self._neighbours, common, list(neighbours))

    def _write(
        self, cursor: sqlite3.Cursor, statements: list[tuple[int, str]], common: Row, rows: Sequence[Row]
    ) -> None:
        own = itemgetter(slice(len(common), None))
        done = 0
        for size, sql in statements:
            while len(rows) - done >= size:
                cursor.execute(sql, (*common, *chain.from_iterable(map(own, rows[done : done + size]))))
                done += size
        cursor.executemany(self.one, rows[done:])


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


def is_busy(error: BaseException) -> bool:
    """Return whether others keep the file locked."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)

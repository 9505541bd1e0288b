"""How a turn is run: few statements, each with all rows of its kind; one is its own transaction.

New jobs are copied in (COPY), which takes half as long as an INSERT, but has no ON CONFLICT: where one of them is
there already, the turn is run again with an INSERT; also where COPY is not allowed, or can't take a value.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import asyncpg

from asyncjobs.errors import StoreError
from asyncjobs.store.postgresql import statements
from asyncjobs.store.postgresql.floors import Floors
from asyncjobs.store.postgresql.lines import Driver
from asyncjobs.store.postgresql.sessions import Sessions, lock_key
from asyncjobs.store.rows import NEW_JOB
from asyncjobs.store.turns import End, Row, Step, Take, Turn
from asyncjobs.unhurried import unhurried

# A job is there already, since its answer was lost and it was submitted again; row-level security; values out of range.
_NOT_COPIED = (
    asyncpg.UniqueViolationError,
    asyncpg.FeatureNotSupportedError,
    OverflowError,
    TypeError,
    ValueError,
)
_PIECE = 400_000
"""Bytes that are copied at once. From 512 KiB on asyncpg waits to send more: for ever, if nobody reads."""
_ROW = 400
"""More than the bytes of all that is no text in a row."""
LOOK_AGAIN = (10_000, 40_000)
"""After how many microseconds, at least and at most, an engine looks again that met another one's claim."""
FEW = 20
"""So many new jobs are written by the statement that claims some of them; for more the transaction costs less."""


class TurnRunner:
    """Runs turns and reading steps on a connection."""

    def __init__(self, schema: str, sessions: Sessions) -> None:
        self._schema = schema
        self._sessions = sessions
        self._floors = Floors()

    async def run(self, turn: Turn, takes: list[Take], driver: Driver) -> list[Any]:
        """Run a turn with these of its claims, as one transaction; return what each part brings."""
        try:
            return await self._run(turn, takes, driver, copies=not self._sessions.pooled)
        except _NOT_COPIED:
            if not turn.inserts:
                raise
            return await self._run(turn, takes, driver, copies=False)

    async def _run(self, turn: Turn, takes: list[Take], driver: Driver, *, copies: bool) -> list[Any]:
        ends = [part.wanted for part in turn.ends]
        rows = [row for part in turn.inserts for row in part.wanted]
        only_one = len(takes) == 1 and takes[0].max_running is None
        try:
            final = all(end.status != "PENDING" for end in ends)  # else the claim has to see what it gives back
            if ends and final and only_one and not rows and not turn.steps and not self._sessions.pooled:
                return await self._end_and_claim(driver, ends, takes[0])
            if 0 < len(rows) <= FEW and only_one and not ends and not turn.steps and not self._sessions.pooled:
                return await self._insert_and_claim(driver, turn, rows, takes[0])
            pieces = await _pieces(rows) if copies else []
            inserts = len(pieces) or bool(rows)
            count = bool(ends) + inserts + len(takes) + sum(len(part.wanted) for part in turn.steps)
            if count == 1 and (only_one or not takes) and not self._sessions.pooled:
                return await self._run_parts(driver, turn, ends, rows, takes, pieces)
            async with self._sessions.transaction(driver):
                return await self._run_parts(driver, turn, ends, rows, takes, pieces)
        except (asyncpg.DataError, UnicodeEncodeError) as error:
            raise StoreError(f"PostgreSQL can't take a value: {error}") from error

    async def _run_parts(
        self, driver: Driver, turn: Turn, ends: list[End], rows: list[Row], takes: list[Take], pieces: list[list[Row]]
    ) -> list[Any]:
        brought: list[Any] = await self._end(driver, ends) if ends else []
        for part in turn.steps:
            brought.append([await self._run_step(driver, step) for step in part.wanted])
        for piece in pieces:
            await driver.copy_records_to_table("jobs", schema_name=self._schema, columns=NEW_JOB, records=piece)
        if rows and not pieces:
            await driver.execute(self._sql(statements.INSERT_JOBS), *statements.NEW_JOBS.parameters(rows))
        brought += [None] * len(turn.inserts)
        # In the order of their names: two turns that lock the same names never wait for each other.
        in_order = sorted(range(len(takes)), key=lambda at: takes[at].name)
        claimed = {at: await self._claim(driver, takes[at]) for at in in_order}
        return brought + [claimed[at] for at in range(len(takes))]

    async def _end(self, driver: Driver, ends: list[End]) -> list[str | None]:
        found = await driver.fetch(self._sql(statements.END_ATTEMPTS), *_ends(ends))
        return _statuses(ends, found)

    async def _end_and_claim(self, driver: Driver, ends: list[End], take: Take) -> list[Any]:
        floors, began = self._floors.of(take.name), time.monotonic()
        found = await driver.fetch(self._sql(statements.END_AND_CLAIM), *_ends(ends), *take[:4], *floors)
        ended = [row[:2] for row in found if row[0] is not None]
        taken = [row[2:] for row in found if row[0] is None]
        return [*_statuses(ends, ended), self._claimed(taken, take, floors, began)]

    async def _insert_and_claim(self, driver: Driver, turn: Turn, rows: list[Row], take: Take) -> list[Any]:
        floors, began = self._floors.of(take.name), time.monotonic()
        found = await driver.fetch(
            self._sql(statements.INSERT_AND_CLAIM), *statements.NEW_JOBS.parameters(rows), *take[:4], *floors
        )
        return [*([None] * len(turn.inserts)), self._claimed(found, take, floors, began)]

    async def _claim(self, driver: Driver, take: Take) -> tuple[list[Row], int | None]:
        if take.max_running is None:
            return await self._claim_due(driver, take)
        # Exact: one claims of this name at a time. Others look again soon: to wait here would hold up all other names.
        key = lock_key(self._schema, f"name {take.name}")
        if not await driver.fetchval("SELECT pg_try_advisory_xact_lock($1)", key):
            return [], take.now + random.randint(*LOOK_AGAIN)
        running = await driver.fetchval(self._sql(statements.RUNNING_OF), take.name)
        if take.max_running - running >= take.limit:
            return await self._claim_due(driver, take)
        rows, _ = await self._claim_due(driver, take._replace(limit=max(0, take.max_running - running)))
        return rows, None

    async def _claim_due(self, driver: Driver, take: Take) -> tuple[list[Row], int | None]:
        floors, began = self._floors.of(take.name), time.monotonic()
        found = await driver.fetch(self._sql(statements.CLAIM), *take[:4], *floors)
        return self._claimed(found, take, floors, began)

    def _claimed(self, found: Sequence[Any], take: Take, floors: Any, began: float) -> tuple[list[Row], int | None]:
        """Return the rows claimed, and when the next is due: now, if there may be more than was taken."""
        rows = [tuple(row[1:]) for row in found if row[1] is not None]
        more = self._floors.note(take, rows, whole=not floors[0], seconds=time.monotonic() - began)
        return rows, take.now if more or len(rows) == take.limit else found[0][0]

    async def _run_step(self, driver: Driver, step: Step) -> list[Any]:
        sql = self._sql(step.sql)
        if step.returns:
            return [row for each in step.parameters for row in await driver.fetch(sql, *each)]
        if len(step.parameters) != 1:
            await driver.executemany(sql, step.parameters)
            return []
        done: str = await driver.execute(sql, *step.parameters[0])
        return [int(done.rpartition(" ")[2]) if done[-1:].isdigit() else 0]

    async def look(self, steps: Sequence[Step], driver: Driver) -> list[list[Any]]:
        """Run reading steps, which see one state of the database."""
        if len(steps) == 1 and not self._sessions.pooled:
            return [await self._run_step(driver, steps[0])]
        async with self._sessions.transaction(driver, isolation="repeatable_read", readonly=True):
            return [await self._run_step(driver, step) for step in steps]

    def _sql(self, sql: str) -> str:
        return statements.qualified(sql, self._schema)


async def _pieces(rows: Sequence[Row]) -> list[list[Row]]:
    """Return rows in pieces that can be copied; nothing if one of them is too large for that."""
    pieces: list[list[Row]] = []
    room = 0
    for row, size in zip(rows, await unhurried(_size, rows), strict=True):
        if size > _PIECE:
            return []
        if size > room:
            pieces.append([])
            room = _PIECE
        pieces[-1].append(row)
        room -= size
    return pieces


def _size(row: Row) -> int:
    return _ROW + sum(len(each) if each.isascii() else 4 * len(each) for each in row if isinstance(each, str))


def _ends(ends: Sequence[End]) -> list[Any]:
    return statements.ENDS.parameters([end.fenced + end.attempt for end in ends])


def _statuses(ends: Sequence[End], found: Sequence[Any]) -> list[str | None]:
    written: list[str | None] = [None] * len(ends)
    for number, status in found:
        written[number - 1] = status
    return written

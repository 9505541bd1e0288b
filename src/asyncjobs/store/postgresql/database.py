"""What is PostgreSQL's own: how it is opened, how a turn reaches it, who is alive.

    writer ── turns, one at a time                    readers ── everything that only looks
    keeper ── engines' locks, signs of life, looks    hints ───── LISTEN and NOTIFY

Each is a line (see `lines.py`), opened again when it breaks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.ext.asyncio import AsyncEngine

from asyncjobs.errors import StoreAnswerLost, StoreError, StoreUnavailable, StoreUnreachable
from asyncjobs.model.job import EngineRecord
from asyncjobs.store import Change, Sighting
from asyncjobs.store.clock import ServerClock
from asyncjobs.store.postgresql import statements
from asyncjobs.store.postgresql.hints import Hints
from asyncjobs.store.postgresql.keeping import Keeper
from asyncjobs.store.postgresql.lines import Line, Source
from asyncjobs.store.postgresql.migrating import migrate
from asyncjobs.store.postgresql.sessions import Sessions, ask_the_time, channel, refuse_a_pooler
from asyncjobs.store.postgresql.turning import TurnRunner
from asyncjobs.store.turns import Brought, Repeatable, Step, Turn

T = TypeVar("T")
TRY_SECONDS = 10.0
"""How long a turn is tried again before its callers are told that the database is out of reach."""
MIGRATE_SECONDS = 3600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_READERS = 3
_DIALECT: Dialect = PGDialect_asyncpg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call, unused-ignore]


class PostgresqlDatabase:
    """One schema of a database."""

    def __init__(self, address: URL | AsyncEngine, *, schema: str, pgbouncer: bool) -> None:
        self.schema = schema
        self._address = address
        self._sessions = Sessions(pooled=pgbouncer)
        self._source = Source(address, pooled=pgbouncer)
        self._writer = Line(self._source, prepare=self._sessions.limit)
        self._readers = [
            Line(self._source, prepare=self._sessions.limit, leaves_standbys=True) for _ in range(_READERS)
        ]
        self.clock = ServerClock()
        self._keeper = Keeper(self._source, schema=schema, sessions=self._sessions, clock=self.clock)
        self._hints = Hints(self._source, channel=channel(schema), listens=not pgbouncer, clock=self.clock)
        self._turns = TurnRunner(schema, self._sessions)
        self._turns_task: asyncio.Task[None] | None = None
        self._next: tuple[Callable[[], Turn], Callable[[Turn, Brought], None]] | None = None
        self._open = False

    def __str__(self) -> str:
        return f"{self._source} (schema {self.schema})"

    @property
    def dialect(self) -> Dialect:
        """How SQLAlchemy writes statements for it."""
        return _DIALECT

    async def open(self) -> None:
        """Connect, and create or migrate the schema."""
        try:
            if not self._sessions.pooled:
                await self._insist(partial(refuse_a_pooler, self._address, str(self)))
            work = partial(migrate, schema=self.schema, where=str(self), sessions=self._sessions)
            await self._insist(lambda: self._writer.run(work, seconds=MIGRATE_SECONDS))
            await self._insist(lambda: self._writer.run(partial(ask_the_time, self.clock)))
            self._open = True
            self._hints.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Free every engine's lock and disconnect."""
        self._open = False
        if self._turns_task is not None:
            turns, self._turns_task = self._turns_task, None  # cancelled before its first step it would not say so
            turns.cancel()
            await asyncio.wait([turns])
        await self._hints.stop()
        await self._keeper.close()
        for line in (self._writer, *self._readers):
            await line.close()
        await self._source.dispose()

    # --- turns ----------------------------------------------------------------------------------

    def begin(self, take: Callable[[], Turn], ended: Callable[[Turn, Brought], None], *, soon: bool) -> None:
        """Run a turn as one transaction, in a task that begins in the loop's next pass, or has just run another."""
        self._next = take, ended
        if self._turns_task is None:
            self._turns_task = asyncio.create_task(self._run_turns(), name="asyncjobs store turns")

    async def _run_turns(self) -> None:
        while self._next is not None:
            (take, ended), self._next = self._next, None
            turn = take()
            brought: Brought = StoreUnavailable(f"{self} was closed before it had answered")
            try:
                brought = await self._write(turn)
            except StoreError as error:
                brought = error
            except asyncio.CancelledError:
                self._turns_task = None  # what follows needs another
                raise
            except Exception as error:  # a fault of ours: whoever asked is told, and the next turn runs
                brought = StoreError(f"{self} failed: {type(error).__name__}: {error}")
            finally:
                ended(turn, brought)
        self._turns_task = None

    async def _write(self, turn: Turn) -> list[Any]:
        self._insist_on_open()
        lost: StoreAnswerLost | None = None
        deadline = time.monotonic() + TRY_SECONDS
        pause = _FIRST_PAUSE
        while True:
            takes = [] if lost else [part.wanted for part in turn.takes]
            try:
                brought = await self._writer.run(partial(self._turns.run, turn, takes))
                return [*brought, *([lost] * len(turn.takes) if lost else [])]
            except StoreAnswerLost as error:
                lost = error
                if time.monotonic() > deadline:
                    raise
            except StoreUnavailable as error:
                if not isinstance(error, Repeatable | StoreUnreachable) or time.monotonic() > deadline:
                    raise lost or error from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def read(self, steps: Sequence[Step]) -> list[list[Any]]:
        """Run reading steps, beside whatever is being written."""
        self._insist_on_open()
        return await self._insist(lambda: self._reader().run(partial(self._turns.look, steps)))

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Try again what changes nothing the second time, while the database is out of reach."""
        deadline = time.monotonic() + TRY_SECONDS
        pause = _FIRST_PAUSE
        while True:
            try:
                return await call()
            except (Repeatable, StoreUnreachable, StoreAnswerLost):
                if time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _insist_on_open(self) -> None:
        if not self._open:
            raise StoreUnavailable(f"{self} is not open")

    # --- what others do, and who they are -------------------------------------------------------

    def as_sent(self, step: Step) -> Step:
        """Return a step as asyncpg takes it."""
        return step._replace(sql=statements.qualified(step.sql, self.schema))

    def told_at_commit(self, change: Change) -> Sequence[Step]:
        """Return a NOTIFY, which the server sends at the commit."""
        return (self._hints.step(change),)

    def tell_due(self, names: Sequence[str]) -> None:
        """Hint to other processes that jobs of these names wait."""
        self._hints.tell(Change(due=frozenset(names)))

    def tell(self, change: Change) -> None:
        """Hint to other processes what has changed here."""
        self._hints.tell(change)

    async def changed(self) -> Change:
        """Return soon after another process has changed something, or may have."""
        self._insist_on_open()
        return await self._hints.changed()

    async def hold(self, engine_id: str) -> None:
        """Take an engine's lock, on a session of its own."""
        await self._insist(lambda: self._keeper.hold(engine_id))

    async def let_go(self, engine_id: str, *, for_good: bool) -> None:
        """Free an engine's lock if it is held here."""
        await self._keeper.let_go(engine_id)

    async def beat(self, engine_id: str) -> bool:
        """See to an engine's lock, and write that it lives."""
        self._insist_on_open()
        return await self._keeper.beat(engine_id)

    async def unheld(self, engines: Sequence[EngineRecord]) -> list[Sighting]:
        """Return the engines that are dead."""
        self._insist_on_open()
        return await self._keeper.unheld(engines)

    async def living(self, engines: Sequence[EngineRecord]) -> set[str]:
        """Return the ids of the engines that hold their lock, or were seen lately by the database's clock."""
        self._insist_on_open()
        return await self._insist(lambda: self._reader().run(partial(self._keeper.living, engines)))

    def _reader(self) -> Line:
        return min(self._readers, key=lambda line: line.waiting)

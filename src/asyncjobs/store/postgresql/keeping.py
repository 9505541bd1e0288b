"""Who lives: the locks of our engines, their signs of life, and the looks at others'.

All of it over one session, whose every call is short: what is told of others holds only for an unbroken one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from asyncjobs.errors import StoreUnavailable
from asyncjobs.model.job import EngineRecord
from asyncjobs.store import Sighting
from asyncjobs.store.clock import ServerClock
from asyncjobs.store.postgresql import statements
from asyncjobs.store.postgresql.lines import Driver, Line, Source
from asyncjobs.store.postgresql.sessions import Sessions, lock_key
from asyncjobs.store.records import instant

BEAT_SECONDS = 3.0
QUIET_SECONDS = 3.0
"""An engine whose lock is free and that has not been seen for so long is dead."""
LEASE_SECONDS = 30.0
"""The same where there are no locks, behind PgBouncer."""
LONGEST_GAP_SECONDS = 10.0
"""Between two looks there; after a longer one nobody can tell for how long an engine has been quiet."""
READ_ONLY_SECONDS = 20.0
"""How long a session that holds locks is kept on a server that has become read-only."""
# So that a cut cable frees the locks after some 20 s, and not before: by then whoever is cut off has ended its jobs.
_KEPT_ALIVE = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 10; "
    "SET tcp_user_timeout = 20000; SET statement_timeout = '5s'"
)
_HELD_LOCKS = (
    "SELECT (classid::int8 << 32) | objid::int8 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 "
    "AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@dataclass(slots=True)
class _Seen:
    """What an engine's row said when it was first seen so, by our monotonic clock."""

    at: int
    since: float


class Keeper:
    """The locks and signs of life of the engines of one process, and its look at those of others."""

    def __init__(self, source: Source, *, schema: str, sessions: Sessions, clock: ServerClock) -> None:
        self._schema = schema
        self._clock = clock
        self._sessions = sessions
        self.line = Line(source, prepare=self._begin)
        self._where = f"{source} (schema {schema})"
        self._locks: dict[str, int] = {}
        self._taken: set[int] = set()
        """Those of our locks that the session has."""
        self._read_only_since: float | None = None
        self._seen: dict[str, _Seen] = {}
        self._seen_over: Driver = None
        self._looked = 0.0

    async def close(self) -> None:
        """Free every lock."""
        self._locks.clear()
        await self.line.close()

    async def hold(self, engine_id: str) -> None:
        """Take an engine's lock."""
        self._locks[engine_id] = self._key(engine_id)
        await self.line.run(self._take_locks)

    async def _begin(self, driver: Driver) -> None:
        self._taken.clear()
        if not self._sessions.pooled:
            await driver.execute(_KEPT_ALIVE)

    async def _take_locks(self, driver: Driver) -> None:
        """Take those of our engines' locks that this session does not have.

        A lock may be held yet by the session before, whose end the server has not noticed: nobody takes us for
        dead meanwhile, and the next sign of life tries again.
        """
        if self._sessions.pooled:
            return
        for key in set(self._locks.values()) - self._taken:
            if await driver.fetchval("SELECT pg_try_advisory_lock($1)", key):
                self._taken.add(key)

    async def let_go(self, engine_id: str) -> None:
        """Free an engine's lock if it is held here."""
        key = self._locks.pop(engine_id, None)
        if key in self._taken and self.line.driver is not None:
            self._taken.discard(key)
            await self.line.run(
                lambda driver: driver.execute("SELECT pg_advisory_unlock($1)", key), seconds=BEAT_SECONDS
            )

    async def beat(self, engine_id: str) -> bool:
        """See to an engine's lock, and write that it lives."""

        async def say(driver: Driver) -> bool:
            await self._take_locks(driver)
            try:
                async with self._sessions.one(driver):
                    began = time.monotonic()
                    saw = await driver.fetchval(statements.qualified(statements.SAW, self._schema), engine_id)
            except asyncpg.ReadOnlySQLTransactionError as error:
                await self._bear_read_only()
                raise StoreUnavailable(f"{self._where}: {error}") from error
            self._read_only_since = None
            if saw is not None:
                self._clock.agree(instant(saw), round_trip=time.monotonic() - began)
            return saw is not None

        return await self.line.run(say, seconds=BEAT_SECONDS)

    async def _bear_read_only(self) -> None:
        """Keep the session for a while: while nobody can be seen, its locks are all that tells who lives."""
        now = time.monotonic()
        if self._read_only_since is None:
            self._read_only_since = now
        elif now - self._read_only_since > READ_ONLY_SECONDS:
            self._read_only_since = None
            await self.line.drop()  # there may be another server by now, which can be written

    async def unheld(self, engines: Sequence[EngineRecord]) -> list[Sighting]:
        """Return the engines that are dead: their lock is free, and they were not seen for a while.

        Both are judged over one unbroken connection and by our own monotonic clock: after a restart of the
        server everybody has time to come back, and nobody's wall clock counts. Where nobody can write that
        it lives, as on a standby, nobody is judged, and everybody has that time once it can be written.
        """
        read_only, held = await self.line.run(self._look, seconds=BEAT_SECONDS)
        now = time.monotonic()
        if read_only:
            self._seen_over = None
            return []
        if self.line.driver is not self._seen_over or (
            self._sessions.pooled and now - self._looked > LONGEST_GAP_SECONDS
        ):
            self._seen_over = self.line.driver
            self._seen = {}
        self._looked = now
        needed = LEASE_SECONDS if self._sessions.pooled else QUIET_SECONDS
        dead: list[Sighting] = []
        seen: dict[str, _Seen] = {}
        for engine in engines:
            key = self._key(engine.id)
            if key in held or engine.id in self._locks:
                continue
            at = int(engine.seen_at.timestamp() * 1_000_000)
            before = self._seen.get(engine.id)
            seen[engine.id] = before if before is not None and before.at == at else _Seen(at, now)
            if now - seen[engine.id].since >= needed:
                dead.append(Sighting(engine, lock_gone=self._sessions.pooled))
        self._seen = seen
        return dead

    async def living(self, engines: Sequence[EngineRecord], driver: Driver) -> set[str]:
        """Return the ids of the engines that hold their lock, or were seen lately by the database's clock."""
        lately = int((LEASE_SECONDS if self._sessions.pooled else QUIET_SECONDS) * 1_000_000)
        async with self._sessions.one(driver):
            seen = await driver.fetch(statements.qualified(statements.SEEN_LATELY, self._schema), lately)
            held = await self._held_locks(driver)
        return {row[0] for row in seen} | {each.id for each in engines if self._key(each.id) in held}

    async def _look(self, driver: Driver) -> tuple[bool, set[int]]:
        """Return whether nothing can be written here, and the locks that anybody holds."""
        async with self._sessions.one(driver):
            read_only = await driver.fetchval("SELECT current_setting('transaction_read_only')") == "on"
            return read_only, await self._held_locks(driver)

    async def _held_locks(self, driver: Driver) -> set[int]:
        return set() if self._sessions.pooled else {row[0] for row in await driver.fetch(_HELD_LOCKS)}

    def _key(self, engine_id: str) -> int:
        return lock_key(self._schema, f"engine {engine_id}")

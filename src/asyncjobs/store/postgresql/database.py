"""What is PostgreSQL's own: how it is opened, how a turn reaches it, who is alive.

    writer ── turns, one at a time                    readers ── everything that only looks
    keeper ── engines' locks, signs of life, looks    news ────── LISTEN and NOTIFY

Each is a line (see `lines.py`), opened again when it breaks. A turn is few statements, each carrying all
rows of its kind; where it is one statement, that is its own transaction.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.ext.asyncio import AsyncEngine

from asyncjobs.errors import SchemaMismatch, StoreAnswerLost, StoreError, StoreUnavailable, StoreUnreachable
from asyncjobs.model.job import EngineRecord
from asyncjobs.store import Change, Sighting
from asyncjobs.store.migrations import migrations
from asyncjobs.store.postgresql import statements
from asyncjobs.store.postgresql.floors import Floors
from asyncjobs.store.postgresql.lines import Driver, Line, Source, refusal
from asyncjobs.store.postgresql.news import News
from asyncjobs.store.turns import End, Repeatable, Row, Step, Take, Turn
from asyncjobs.threads import in_thread

T = TypeVar("T")
TRY_SECONDS = 10.0
"""How long a turn is tried again before its callers are told that the database is out of reach."""
MIGRATE_SECONDS = 3600.0
BEAT_SECONDS = 3.0
QUIET_SECONDS = 3.0
"""An engine whose lock is free and that has not been seen for so long is dead."""
LEASE_SECONDS = 30.0
"""The same where there are no locks, behind PgBouncer."""
LONGEST_GAP_SECONDS = 10.0
"""Between two looks there; after a longer one nobody can tell for how long an engine has been quiet."""
READ_ONLY_SECONDS = 20.0
"""How long a session that holds locks is kept on a server that has become read-only."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_READERS = 3
_DIALECT: Dialect = PGDialect_asyncpg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call, unused-ignore]


@dataclass(slots=True)
class _Seen:
    """What an engine's row said when it was first seen so, by our monotonic clock."""

    at: int
    since: float


class PostgresqlDatabase:
    """One schema of a database."""

    def __init__(self, address: URL | AsyncEngine, *, schema: str, pgbouncer: bool) -> None:
        self.schema = schema
        self._address = address
        self._pooled = pgbouncer
        self._source = Source(address, pooled=pgbouncer)
        self._writer = Line(self._source, prepare=self._limit)
        self._readers = [Line(self._source, prepare=self._limit) for _ in range(_READERS)]
        self._keeper = Line(self._source, prepare=self._begin_keeping)
        self._news = News(self._source, channel=_channel(schema), listens=not pgbouncer)
        self._floors = Floors()
        self._locks: dict[str, int] = {}
        self._taken: set[int] = set()
        """Those of our locks that the keeper's session has."""
        self._read_only_since: float | None = None
        self._seen: dict[str, _Seen] = {}
        self._seen_over: Driver = None
        self._looked = 0.0
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
            if not self._pooled:
                await self._insist(self._refuse_a_pooler, seconds=TRY_SECONDS)
            await self._insist(lambda: self._writer.run(self._migrate, seconds=MIGRATE_SECONDS), seconds=TRY_SECONDS)
            self._open = True
            self._news.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Free every engine's lock and disconnect."""
        self._open = False
        self._locks.clear()
        await self._news.stop()
        for line in (self._keeper, self._writer, *self._readers):
            await line.close()
        await self._source.dispose()

    async def _refuse_a_pooler(self) -> None:
        """Find out whether each transaction may meet another session: then locks and LISTEN would hold nowhere.

        Such a pooler gives the session of an idle client to the next one.
        """
        plain = Source(self._address, pooled=True)
        one, other = Line(plain), Line(plain)

        async def session(driver: Driver) -> int:
            async with driver.transaction():
                return await driver.fetchval("SELECT pg_backend_pid()")  # type: ignore[no-any-return]

        async def keeps_its_own(driver: Driver) -> bool:
            async with driver.transaction():
                taken = await driver.fetchval("SELECT pg_backend_pid()")
                return taken != before and await one.run(session) == before

        try:
            before = await one.run(session)
            if not await other.run(keeps_its_own):
                raise StoreUnavailable(
                    f"{self} is reached through a pooler in transaction mode: set ASYNCJOBS_PGBOUNCER=1, "
                    "or connect to the server itself"
                )
        finally:
            for line in (one, other):
                await line.close()
            await plain.dispose()

    async def _limit(self, driver: Driver) -> None:
        """Have the server end what goes on when we have stopped waiting for it."""
        if not self._pooled:
            await driver.execute(SESSION)

    @asynccontextmanager
    async def _transaction(self, driver: Driver, **options: Any) -> AsyncGenerator[None]:
        """Open a transaction; behind a pooler, where a session is nobody's own, it has limits of its own."""
        async with driver.transaction(**options):
            if self._pooled:
                await driver.execute(_LIMITS_HERE)
            yield

    @asynccontextmanager
    async def _one_session(self, driver: Driver) -> AsyncGenerator[None]:
        """Have what follows meet one session: behind a pooler that takes a transaction."""
        if self._pooled:
            async with self._transaction(driver):
                yield
        else:
            yield

    # --- turns ----------------------------------------------------------------------------------

    async def write(self, turn: Turn) -> list[Any]:
        """Run a turn as one transaction; return what each part brings."""
        self._insist_on_open()
        lost: StoreAnswerLost | None = None
        deadline = time.monotonic() + TRY_SECONDS
        pause = _FIRST_PAUSE
        while True:
            takes = [] if lost else [part.wanted for part in turn.takes]
            try:
                brought = await self._writer.run(partial(self._run_turn, turn, takes))
                return [*brought, *([lost] * len(turn.takes) if lost else [])]
            except StoreAnswerLost as error:
                lost = error
                if time.monotonic() > deadline:
                    raise
            except StoreUnavailable as error:
                if not isinstance(error, Repeatable | StoreUnreachable) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _run_turn(self, turn: Turn, takes: list[Take], driver: Driver) -> list[Any]:
        ends = [part.wanted for part in turn.ends]
        rows = [row for part in turn.inserts for row in part.wanted]
        only_one = len(takes) == 1 and takes[0].max_running is None
        try:
            final = all(end.status != "PENDING" for end in ends)  # else the claim has to see what it gives back
            if ends and final and only_one and not rows and not turn.steps and not self._pooled:
                return await self._end_and_claim(driver, ends, takes[0])
            count = bool(ends) + bool(rows) + len(takes) + sum(len(part.wanted) for part in turn.steps)
            if count == 1 and (only_one or not takes) and not self._pooled:
                return await self._run_parts(driver, turn, ends, rows, takes)
            async with self._transaction(driver):
                return await self._run_parts(driver, turn, ends, rows, takes)
        except asyncpg.DataError as error:
            raise StoreError(f"{self} can't take a value: {error}") from error

    async def _run_parts(
        self, driver: Driver, turn: Turn, ends: list[End], rows: list[Row], takes: list[Take]
    ) -> list[Any]:
        brought: list[Any] = await self._end(driver, ends) if ends else []
        for part in turn.steps:
            brought.append([await self._run_step(driver, step) for step in part.wanted])
        if rows:
            await driver.execute(self._sql(statements.INSERT_JOBS), *_columns(rows))
        brought += [None] * len(turn.inserts)
        # In the order of their names: two turns that lock the same names never wait for each other.
        in_order = sorted(range(len(takes)), key=lambda at: takes[at].name)
        claimed = {at: await self._claim(driver, takes[at]) for at in in_order}
        return brought + [claimed[at] for at in range(len(takes))]

    async def _end(self, driver: Driver, ends: list[End]) -> list[str | None]:
        found = await driver.fetch(self._sql(statements.END_ATTEMPTS), *_end_columns(ends))
        return _statuses(ends, found)

    async def _end_and_claim(self, driver: Driver, ends: list[End], take: Take) -> list[Any]:
        floors, began = self._floors.of(take.name), time.monotonic()
        found = await driver.fetch(self._sql(statements.END_AND_CLAIM), *_end_columns(ends), *take[:4], *floors)
        ended = [row[:2] for row in found if row[0] is not None]
        taken = [row[2:] for row in found if row[0] is None]
        return [*_statuses(ends, ended), self._claimed(taken, take, floors, began)]

    async def _claim(self, driver: Driver, take: Take) -> tuple[list[Row], int | None]:
        if take.max_running is None:
            return await self._claim_due(driver, take)
        # Exact: whoever claims of this name waits here until the claim before is committed.
        await driver.execute("SELECT pg_advisory_xact_lock($1)", _lock_key(self.schema, f"name {take.name}"))
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

    async def read(self, steps: Sequence[Step]) -> list[list[Any]]:
        """Run reading steps, beside whatever is being written."""
        self._insist_on_open()

        async def look(driver: Driver) -> list[list[Any]]:
            if len(steps) == 1 and not self._pooled:
                return [await self._run_step(driver, steps[0])]
            async with self._transaction(driver, isolation="repeatable_read", readonly=True):
                return [await self._run_step(driver, step) for step in steps]

        return await self._insist(lambda: self._reader().run(look), seconds=TRY_SECONDS)

    async def _insist(self, call: Callable[[], Awaitable[T]], *, seconds: float) -> T:
        """Try again what changes nothing the second time, while the database is out of reach."""
        deadline = time.monotonic() + seconds
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

    def _sql(self, sql: str) -> str:
        return statements.qualified(sql, self.schema)

    # --- the schema -----------------------------------------------------------------------------

    async def _migrate(self, driver: Driver) -> None:
        """Bring the schema up to date in one transaction; of several starters one does it."""
        steps = await in_thread(migrations, "postgresql", name="asyncjobs migrations")
        known = steps[-1][0]
        async with self._one_session(driver):
            version = await self._version(driver)
        if version > known:
            raise SchemaMismatch(version, known, str(self))
        if version == known:
            return  # a role that may create nothing gets here, too
        try:
            async with driver.transaction():
                await driver.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
                await driver.execute("SELECT pg_advisory_xact_lock($1)", _lock_key(self.schema, "migration"))
                await self._create_schema(driver)
                version = await driver.fetchval(self._sql("SELECT max(version) FROM asyncjobs_schema")) or 0
                for number, script in steps:
                    if number > version:
                        for statement in script:
                            await driver.execute(self._sql(statement))
                        applied = (number, time.time_ns() // 1000)
                        await driver.execute(self._sql("INSERT INTO asyncjobs_schema VALUES ($1, $2)"), *applied)
        except (asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError) as error:
            raise StoreUnavailable(f"{self} has other tables by our names ({error}): choose another schema") from error
        except asyncpg.PostgresError as error:
            raise refusal(error, str(self)) from error

    async def _create_schema(self, driver: Driver) -> None:
        # Not by IF NOT EXISTS alone, which asks for the right to create even what is there.
        if not await driver.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", self.schema):
            await driver.execute(f'CREATE SCHEMA "{self.schema}"')
        await driver.execute(
            self._sql("CREATE TABLE IF NOT EXISTS asyncjobs_schema (version BIGINT PRIMARY KEY, applied_at BIGINT)")
        )

    async def _version(self, driver: Driver) -> int:
        # From the table of tables: `to_regclass` may answer from before another starter made them.
        if not await driver.fetchval(_HAS_VERSION, self.schema):
            return 0
        return await driver.fetchval(self._sql("SELECT max(version) FROM asyncjobs_schema")) or 0

    # --- what others do, and who they are -------------------------------------------------------

    def written(self, sql: str) -> str:
        """Return a shared statement as this database takes it."""
        return self._sql(sql)

    def told_at_commit(self, change: Change) -> Sequence[Step]:
        """Return a NOTIFY, which the server sends at the commit."""
        return (self._news.step(change),)

    def tell(self, change: Change) -> None:
        """Hint to other processes what has changed here."""
        self._news.tell(change)

    async def changed(self) -> Change:
        """Return soon after another process has changed something, or may have."""
        self._insist_on_open()
        return await self._news.changed()

    async def hold(self, engine_id: str) -> None:
        """Take an engine's lock, on a session of its own."""
        self._locks[engine_id] = _lock_key(self.schema, f"engine {engine_id}")
        await self._insist(lambda: self._keeper.run(self._take_locks), seconds=TRY_SECONDS)

    async def _begin_keeping(self, driver: Driver) -> None:
        self._taken.clear()
        if not self._pooled:
            await driver.execute(_KEPT_ALIVE)

    async def _take_locks(self, driver: Driver) -> None:
        """Take those of our engines' locks that this session does not have.

        A lock may be held yet by the session before, whose end the server has not noticed: nobody takes us for
        dead meanwhile, and the next sign of life tries again.
        """
        if self._pooled:
            return
        for key in set(self._locks.values()) - self._taken:
            if await driver.fetchval("SELECT pg_try_advisory_lock($1)", key):
                self._taken.add(key)

    async def let_go(self, engine_id: str, *, for_good: bool) -> None:
        """Free an engine's lock if it is held here."""
        key = self._locks.pop(engine_id, None)
        if key in self._taken and self._keeper.driver is not None:
            self._taken.discard(key)
            await self._keeper.run(
                lambda driver: driver.execute("SELECT pg_advisory_unlock($1)", key), seconds=BEAT_SECONDS
            )

    async def beat(self, engine_id: str) -> bool:
        """See to an engine's lock, and write that it lives."""
        self._insist_on_open()

        async def say(driver: Driver) -> bool:
            await self._take_locks(driver)
            try:
                async with self._one_session(driver):
                    done: str = await driver.execute(self._sql(statements.SAW), engine_id)
            except asyncpg.ReadOnlySQLTransactionError as error:
                await self._bear_read_only()
                raise StoreUnavailable(f"{self}: {error}") from error
            self._read_only_since = None
            return done.endswith("1")

        return await self._keeper.run(say, seconds=BEAT_SECONDS)

    async def _bear_read_only(self) -> None:
        """Keep the session for a while: while nobody can be seen, its locks are all that tells who lives."""
        now = time.monotonic()
        if self._read_only_since is None:
            self._read_only_since = now
        elif now - self._read_only_since > READ_ONLY_SECONDS:
            self._read_only_since = None
            await self._keeper.drop()  # there may be another server by now, which can be written

    async def unheld(self, engines: Sequence[EngineRecord]) -> list[Sighting]:
        """Return the engines that are dead: their lock is free, and they were not seen for a while.

        Both are judged over one unbroken connection and by our own monotonic clock: after a restart of the
        server everybody has time to come back, and nobody's wall clock counts.
        """
        self._insist_on_open()
        held = set() if self._pooled else await self._keeper.run(_held_locks, seconds=BEAT_SECONDS)
        now = time.monotonic()
        if self._keeper.driver is not self._seen_over or (self._pooled and now - self._looked > LONGEST_GAP_SECONDS):
            self._seen_over = self._keeper.driver
            self._seen = {}
        self._looked = now
        needed = LEASE_SECONDS if self._pooled else QUIET_SECONDS
        dead: list[Sighting] = []
        seen: dict[str, _Seen] = {}
        for engine in engines:
            key = _lock_key(self.schema, f"engine {engine.id}")
            if key in held or engine.id in self._locks:
                continue
            at = int(engine.seen_at.timestamp() * 1_000_000)
            before = self._seen.get(engine.id)
            seen[engine.id] = before if before is not None and before.at == at else _Seen(at, now)
            if now - seen[engine.id].since >= needed:
                dead.append(Sighting(engine, lock_gone=self._pooled))
        self._seen = seen
        return dead

    async def living(self, engines: Sequence[EngineRecord]) -> set[str]:
        """Return the ids of the engines that hold their lock, or were seen lately by the database's clock."""
        self._insist_on_open()
        lately = LEASE_SECONDS if self._pooled else QUIET_SECONDS

        async def look(driver: Driver) -> tuple[set[int], set[str]]:
            async with self._one_session(driver):
                seen = await driver.fetch(self._sql(statements.SEEN_LATELY), int(lately * 1_000_000))
                return set() if self._pooled else await _held_locks(driver), {row[0] for row in seen}

        held, seen = await self._insist(lambda: self._reader().run(look), seconds=TRY_SECONDS)
        return seen | {each.id for each in engines if _lock_key(self.schema, f"engine {each.id}") in held}

    def _reader(self) -> Line:
        return min(self._readers, key=lambda line: line.waiting)


# Plans are made once: each statement has one good one, by its indexes, and to make it anew takes as long as to
# run it. One that is made while a table is empty would else scan it until its statistics are made.
SESSION = (
    "SET statement_timeout = '55s'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '60s'; "
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off; "
    "SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
)
_LIMITS_HERE = "SET LOCAL statement_timeout = '55s'; SET LOCAL lock_timeout = '5s'"
# So that a cut cable frees the locks after some 20 s, and not before: by then whoever is cut off has ended its jobs.
_KEPT_ALIVE = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 10; "
    "SET tcp_user_timeout = 20000; SET statement_timeout = '5s'"
)


_HAS_VERSION = (
    "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace "
    "WHERE n.nspname = $1 AND c.relname = 'asyncjobs_schema')"
)


async def _held_locks(driver: Driver) -> set[int]:
    rows = await driver.fetch(
        "SELECT (classid::int8 << 32) | objid::int8 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 "
        "AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return {row[0] for row in rows}


def _lock_key(schema: str, what: str) -> int:
    """Return the number of an advisory lock: a hash, since there are no names for them."""
    return int.from_bytes(hashlib.sha256(f"asyncjobs {schema} {what}".encode()).digest()[:8], "big", signed=True)


def _channel(schema: str) -> str:
    """Return the channel of a schema's news, below the 63 bytes of a name."""
    name = f"asyncjobs_{schema}"
    return name if len(name) < 64 else "asyncjobs_" + hashlib.sha256(schema.encode()).hexdigest()[:40]


def _columns(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True))


def _end_columns(ends: Sequence[End]) -> list[tuple[Any, ...]]:
    return [*_columns([end.fenced for end in ends]), *_columns([end.attempt for end in ends])]


def _statuses(ends: Sequence[End], found: Sequence[Any]) -> list[str | None]:
    written: list[str | None] = [None] * len(ends)
    for number, status in found:
        written[number - 1] = status
    return written

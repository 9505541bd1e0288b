"""What our sessions are like, and whose they are: behind PgBouncer in transaction mode, nobody's."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from asyncjobs.errors import StoreUnavailable
from asyncjobs.store.clock import ServerClock
from asyncjobs.store.postgresql.lines import Driver, Line, Source

# Plans are made once: each statement has one good one, by its indexes, and to make it anew takes as long as to
# run it. One that is made while a table is empty would else scan it until its statistics are made.
SESSION = (
    "SET statement_timeout = '55s'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '60s'; "
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off; "
    "SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; "
    "SET default_transaction_isolation = 'read committed'"  # a claim sees what was committed while it waited for a lock
)
_LIMITS_HERE = (
    "SET LOCAL statement_timeout = '55s'; SET LOCAL lock_timeout = '5s'; "
    "SET LOCAL idle_in_transaction_session_timeout = '60s'"
)


class Sessions:
    """How the sessions of one database are used; `pooled` where each transaction may meet another one."""

    def __init__(self, *, pooled: bool) -> None:
        self.pooled = pooled

    async def limit(self, driver: Driver) -> None:
        """Have the server end what goes on when we have stopped waiting for it."""
        if not self.pooled:
            await driver.execute(SESSION)

    @asynccontextmanager
    async def transaction(self, driver: Driver, **options: Any) -> AsyncGenerator[None]:
        """Open a transaction; behind a pooler, where a session is nobody's own, it has limits of its own."""
        async with driver.transaction(**{"isolation": "read_committed", **options}):
            if self.pooled:
                await driver.execute(_LIMITS_HERE)
            yield

    @asynccontextmanager
    async def one(self, driver: Driver) -> AsyncGenerator[None]:
        """Have what follows meet one session: behind a pooler that takes a transaction."""
        if self.pooled:
            async with self.transaction(driver):
                yield
        else:
            yield


async def refuse_a_pooler(address: URL | AsyncEngine, where: str) -> None:
    """Find out whether each transaction may meet another session: then locks and LISTEN would hold nowhere.

    Such a pooler gives the session of an idle client to the next one.

    Raises:
        StoreUnavailable: it does.
    """
    plain = Source(address, pooled=True)
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
                f"{where} is reached through a pooler in transaction mode: set ASYNCJOBS_PGBOUNCER=1, "
                "or connect to the server itself"
            )
    finally:
        for line in (one, other):
            await line.close()
        await plain.dispose()


async def ask_the_time(clock: ServerClock, driver: Driver) -> None:
    """Set a clock by the server's."""
    began = time.monotonic()
    [row] = await driver.fetch("SELECT clock_timestamp()")
    clock.agree(row[0], round_trip=time.monotonic() - began)


def lock_key(schema: str, what: str) -> int:
    """Return the number of an advisory lock: a hash, since there are no names for them."""
    return int.from_bytes(hashlib.sha256(f"asyncjobs {schema} {what}".encode()).digest()[:8], "big", signed=True)


def channel(schema: str) -> str:
    """Return the channel of a schema's hints, below the 63 bytes of a name."""
    name = f"asyncjobs_{schema}"
    return name if len(name) < 64 else "asyncjobs_" + hashlib.sha256(schema.encode()).hexdigest()[:40]

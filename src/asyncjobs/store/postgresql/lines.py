"""`Line`: one connection to PostgreSQL, opened when it is needed and again after it broke.

    run ─> (open) ─> work, within its time ─> answer
                        └ broken, or out of time ─> dropped; the next call opens a new one

Whatever goes wrong is told apart by what may have been done, since only that decides who may try again:
`StoreUnreachable` and `Repeatable` mean nothing, `StoreAnswerLost` all or nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from asyncjobs.errors import StoreAnswerLost, StoreDown, StoreError, StoreUnavailable, StoreUnreachable
from asyncjobs.store.turns import Repeatable

T = TypeVar("T")
Driver = Any  # asyncpg.Connection; asyncpg is not typed
OPEN_SECONDS = 5.0
CALL_SECONDS = 60.0
CLOSE_SECONDS = 1.0
# The kernel ends a connection whose other side has been silent for so long (`man 7 tcp`).
_IDLE_SECONDS, _BETWEEN_SECONDS, _PROBES, _UNACKNOWLEDGED_MILLISECONDS = 5, 5, 3, 15_000

_BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,  # shut down, crashed, or not up yet
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
_REFUSED = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)
# Behind PgBouncer a prepared statement may be somebody else's, or nobody's: none has a name.
_UNPREPARED = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}
_AGAIN = (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)


class Source:
    """Where connections come from: a URL, or the arguments of an application's own engine, never its pool."""

    def __init__(self, address: URL | AsyncEngine, *, pooled: bool) -> None:
        self.pooled = pooled
        self._address = address
        self._engine: AsyncEngine | None = None

    def __str__(self) -> str:
        url = self._address if isinstance(self._address, URL) else self._address.url
        return url.render_as_string(hide_password=True)

    async def connect(self, *, until: float) -> AsyncConnection:
        """Open a connection before `until`, by the loop's clock."""
        if self._engine is None:
            self._engine = self._new_engine()
            event.listen(self._engine.sync_engine.pool, "connect", _note_opening, insert=True)
        async with asyncio.timeout_at(until):
            with _terminated_at(until) as opening:
                _opening.set(opening)
                return await self._engine.connect()

    def _new_engine(self) -> AsyncEngine:
        if isinstance(self._address, URL):
            return create_async_engine(
                self._address, poolclass=NullPool, connect_args=_UNPREPARED if self.pooled else {}
            )
        # Its pool's way to connect, listeners included, and neither its connections nor its limits.
        theirs = self._address.sync_engine.pool
        ours = NullPool(theirs._creator, dialect=self._address.sync_engine.dialect, _dispatch=theirs.dispatch)
        return create_async_engine(self._address.url, pool=ours)

    async def dispose(self) -> None:
        """Close what is idle."""
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None


class Line:
    """One connection; a call at a time. `prepare` is run on each new one before it is used.

    One that `leaves_standbys` is opened anew for each call as long as it reaches a standby, where what was written
    last may not be yet: during a fail-over an address may lead there, and later to the primary.
    """

    def __init__(
        self,
        source: Source,
        *,
        prepare: Callable[[Driver], Awaitable[None]] | None = None,
        leaves_standbys: bool = False,
    ) -> None:
        self._source = source
        self._prepare = prepare
        self._leaves_standbys = leaves_standbys
        self._held: AsyncConnection | None = None
        self._driver: Driver = None
        self._turn = asyncio.Lock()
        self.waiting = 0
        """How many calls wait or run."""

    @property
    def driver(self) -> Driver:
        """The connection, while it is open and works; else None."""
        return None if self._driver is None or self._driver.is_closed() else self._driver

    async def run(self, work: Callable[[Driver], Awaitable[T]], *, seconds: float | None = None) -> T:
        """Have the work done on the connection, opened first if need be, within `seconds` of now, by default 60.

        Raises:
            StoreUnreachable: no connection could be opened, or the calls before took too long.
            StoreDown: nobody can open one: the server is not up.
            Repeatable: the database has rolled it back.
            StoreAnswerLost: it took longer than `seconds`, or the connection broke meanwhile.
            StoreError: the database refuses it.
        """
        until = asyncio.get_running_loop().time() + (CALL_SECONDS if seconds is None else seconds)
        self.waiting += 1
        try:
            try:
                async with asyncio.timeout_at(until):
                    await self._turn.acquire()
            except TimeoutError as error:
                raise StoreUnreachable(f"{self._source} was busy for too long") from error
            try:
                return await self._run(work, until=until)
            finally:
                self._turn.release()
        finally:
            self.waiting -= 1

    async def _run(self, work: Callable[[Driver], Awaitable[T]], *, until: float) -> T:
        driver = self.driver
        if driver is None or (self._leaves_standbys and _is_on_a_standby(driver)):
            driver = await self._opened(until=until)
        try:
            with _terminated_at(until, driver):
                return await work(driver)
        except _AGAIN as error:
            raise Repeatable(f"{self._source}: {error}") from error
        except asyncpg.ReadOnlySQLTransactionError as error:  # a fail-over has left us with the standby
            await self.drop()
            raise Repeatable(f"{self._source}: {error}") from error
        except _BROKEN as error:
            await self.drop()
            raise StoreAnswerLost(f"{self._source} does not answer: {_words(error)}") from error
        except asyncpg.PostgresError as error:
            raise refusal(error, str(self._source)) from error
        except asyncio.CancelledError:
            await self._recover(driver)
            raise

    async def _recover(self, driver: Driver) -> None:
        """Whoever asked has gone: nothing of a transaction that it left open may stay."""
        if driver.is_closed() or driver.is_in_transaction():
            await self.drop()

    async def _opened(self, *, until: float) -> Driver:
        await self.drop()
        until = min(until, asyncio.get_running_loop().time() + OPEN_SECONDS)
        try:
            self._held = await self._source.connect(until=until)
            self._driver = (await self._held.get_raw_connection()).driver_connection
            _watch_over(self._driver)
            if self._prepare is not None:
                with _terminated_at(until, self._driver):
                    await self._prepare(self._driver)
        except BaseException as error:
            await self.drop()
            if isinstance(error, Exception):
                raise _unreachable(error, str(self._source)) from error
            raise
        return self._driver

    async def drop(self) -> None:
        """Give the connection up without a word to the other side; twice is once."""
        held, self._held = self._held, None
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.terminate()
        if held is not None:
            try:
                await held.invalidate()
                await held.close()
            except Exception:
                return  # it is broken, which is why it is given up

    async def close(self) -> None:
        """Say goodbye and disconnect; the database does not let us wait for long."""
        driver = self.driver
        if driver is not None:
            try:
                with _terminated_at(asyncio.get_running_loop().time() + CLOSE_SECONDS, driver):
                    await driver.close()
            except (*_BROKEN, asyncpg.PostgresError):
                pass  # it is broken: nobody is there to say goodbye to
        await self.drop()


def _is_on_a_standby(driver: Driver) -> bool:
    # The server tells of it unasked, and of its promotion, since PostgreSQL 14.
    return getattr(driver.get_settings(), "in_hot_standby", "off") == "on"


@contextmanager
def _terminated_at(until: float, *drivers: Driver) -> Generator[list[Driver]]:
    """Terminate connections whose work is not done by then; others may be added to the list meanwhile.

    To cancel the work is not enough: asyncpg then waits for the server to confirm that it has stopped, and a
    transaction for its rollback, for ever where nobody answers.
    """
    terminated = list(drivers)

    def terminate() -> None:
        for driver in terminated:
            driver.terminate()

    timer = asyncio.get_running_loop().call_at(until, terminate)
    try:
        yield terminated
    finally:
        timer.cancel()


_opening: ContextVar[list[Driver]] = ContextVar("asyncjobs_opening")


def _note_opening(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    """Note a connection before it is asked anything: SQLAlchemy asks the first for the server's version."""
    _opening.get().append(connection.driver_connection)


def refusal(error: asyncpg.PostgresError, where: str) -> StoreError:
    """Return what the database refuses as an error that says what to do."""
    words = str(error)
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StoreUnavailable(
            f"{where}: {words}: grant the role what it needs, or run asyncjobs.store.migrate(url) as one that has it"
        )
    if isinstance(error, asyncpg.DuplicatePreparedStatementError | asyncpg.InvalidSQLStatementNameError):
        return StoreUnavailable(
            f"{where} is reached through a pooler in transaction mode: set ASYNCJOBS_PGBOUNCER=1, and give the "
            f"application's own engine statement_cache_size=0 and prepared_statement_cache_size=0 ({words})"
        )
    if isinstance(error, asyncpg.InsufficientResourcesError):
        return StoreUnavailable(f"{where}: {words}: free some space or connections")
    return StoreUnavailable(f"{where}: {words}")


def _unreachable(error: Exception, where: str) -> StoreError:
    cause: BaseException = getattr(error, "orig", None) or error  # SQLAlchemy wraps what the driver says
    cause = cause.__cause__ or cause if not isinstance(cause, (*_REFUSED, asyncpg.PostgresError)) else cause
    if isinstance(cause, StoreError):
        return cause
    if isinstance(cause, asyncpg.PostgresError) and not isinstance(cause, _REFUSED):
        return refusal(cause, where)
    kind = StoreDown if _is_down(cause) else StoreUnreachable
    return kind(f"{where} can't be reached: {_words(cause)}")


def _is_down(cause: BaseException) -> bool:
    """Whether somebody has answered that there is no server now: it is starting or ending, or its port is closed."""
    if isinstance(cause, ConnectionRefusedError | FileNotFoundError | asyncpg.CannotConnectNowError):
        return True
    # A name with several addresses: asyncio tells what each of them said, in words alone.
    tried = str(cause).count("[Errno ")
    return tried > 0 and str(cause).count(f"[Errno {errno.ECONNREFUSED}]") == tried


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


# --- the sockets --------------------------------------------------------------------------------

_every: weakref.WeakSet[Any] = weakref.WeakSet()


def _watch_over(driver: Driver) -> None:
    """Have the kernel notice a cut cable, and a forked child let go of the connection."""
    transport = driver._transport  # asyncpg has no other way to it; a test guards this
    _every.add(transport)
    end = transport.get_extra_info("socket")
    if end is None or end.family == socket.AF_UNIX:
        return
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _IDLE_SECONDS),
        ("TCP_KEEPINTVL", _BETWEEN_SECONDS),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED_MILLISECONDS),
    ):
        if hasattr(socket, name):
            end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _forget_all() -> None:
    """In a forked child: let go of every connection, whose locks would else outlive our parent.

    Its descriptor is pointed elsewhere rather than closed, since its number is still known in many places.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for transport in list(_every):
        end = transport.get_extra_info("socket")
        if end is not None and end.fileno() >= 0:
            os.dup2(nowhere, end.fileno(), inheritable=False)
    os.close(nowhere)


os.register_at_fork(after_in_child=_forget_all)

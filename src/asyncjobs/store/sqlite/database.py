"""What is SQLite's own: how it is opened, how a turn reaches it, how others' writes are noticed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from asyncjobs.errors import SchemaMismatch, StoreBusy, StoreCorrupt, StoreError, StoreUnavailable
from asyncjobs.model.job import EngineRecord
from asyncjobs.store import ANYTHING, Change, Sighting
from asyncjobs.store.clock import MachineClock
from asyncjobs.store.migrations import migrations
from asyncjobs.store.sqlite import file_systems
from asyncjobs.store.sqlite.checkpoints import PAGE_BYTES, PAGES_AT_MOST, Checkpoints
from asyncjobs.store.sqlite.connection import BEGIN, OwnConnection, is_busy, plain, steps_in_one
from asyncjobs.store.sqlite.locks import EngineLocks
from asyncjobs.store.sqlite.writer import BUSY_SECONDS, LONGEST_BUSY_SECONDS, Writer
from asyncjobs.store.turns import Brought, Step, Turn
from asyncjobs.threads import in_thread

WATCH_SECONDS = 0.1
_RACY_NANOSECONDS = 20_000_000
_DIALECT: Dialect = sqlite.dialect(paramstyle="qmark")  # type: ignore[no-untyped-call, unused-ignore]


class SqliteDatabase:
    """One SQLite file: connections that write, read and make checkpoints, and the locks of engines beside it."""

    def __init__(self, path: str, *, synchronous: str) -> None:
        self.path = Path(path).absolute()
        self.locks = EngineLocks(self.path)
        self.clock = MachineClock()
        self._log = self.path.with_name(self.path.name + "-wal")
        self._synchronous = synchronous
        self._engine: AsyncEngine | None = None
        self._held: list[AsyncConnection] = []
        self._writer: Writer | None = None
        self._reader: aiosqlite.Connection | None = None
        self._checkpoints: Checkpoints | None = None
        self._data_version = 0
        self._wal_seen: tuple[int, int] | None = None

    def __str__(self) -> str:
        return str(self.path)

    async def open(self) -> None:
        """Open the connections, and create or migrate the schema."""
        await in_thread(self._find_path, name="asyncjobs path")
        self._engine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(self.path)),
            poolclass=NullPool,
            connect_args={"factory": OwnConnection, "isolation_level": None, "timeout": BUSY_SECONDS},
        )
        try:
            connection = await self._connect()
            await self._insist(partial(self._prepare, connection))
            await self._insist(partial(self._migrate, connection))
            await self._insist(partial(self._prove_writable, connection))
            self._writer = Writer(connection, translated=self.translated, written=self._count)
            self._reader = await self._connect()
            self._checkpoints = Checkpoints(self._writer, await self._connect())
        except BaseException as error:
            await self.close()
            if isinstance(error, OSError):  # such as no descriptor left
                raise self.translated(error) from error
            raise

    @property
    def dialect(self) -> Dialect:
        """How SQLAlchemy writes statements for it."""
        return _DIALECT

    def _find_path(self) -> None:
        """Follow links: the locks of one file are in one folder, whichever name it was opened by."""
        self.path = Path(os.path.realpath(self.path))
        self.locks = EngineLocks(self.path)
        self._log = self.path.with_name(self.path.name + "-wal")
        if not self.path.parent.is_dir():
            raise StoreUnavailable(f"the folder {self.path.parent} does not exist: create it first")
        if self.path.is_dir():
            raise StoreUnavailable(f"{self.path} is a folder: name a file in it, such as {self.path / 'jobs.db'}")
        kind = file_systems.kind_of(self.path.parent)
        if kind in file_systems.NETWORK:
            raise StoreUnavailable(
                f"{self.path} is on a network file system ({kind}), where SQLite can't keep jobs safe: put it on a "
                "disk of this machine, or use PostgreSQL"
            )

    async def close(self) -> None:
        """Close the connections; the last process to do so folds the log into the file."""
        self.locks.let_go_all()
        writer, self._writer, self._reader = self._writer, None, None
        async with AsyncExitStack() as closing:  # all of it, though we be cancelled over one
            if self._engine is not None:
                closing.push_async_callback(self._engine.dispose)
            for connection in self._held:
                closing.push_async_callback(connection.close)
            if writer is not None:
                closing.push_async_callback(writer.close)
            if self._checkpoints is not None:
                closing.push_async_callback(self._checkpoints.close)
            self._engine, self._checkpoints, self._held = None, None, []

    def begin(self, take: Callable[[], Turn], ended: Callable[[Turn, Brought], None], *, soon: bool) -> None:
        """Run a turn as one transaction."""
        if self._writer is None:
            raise StoreUnavailable(f"{self} is closed")
        if soon:
            asyncio.get_running_loop().call_soon(self._writer.begin, take, ended)
        else:
            self._writer.begin(take, ended)

    async def read(self, steps: Sequence[Step]) -> list[list[Any]]:
        """Run reading steps as one transaction, beside whatever is being written."""
        if self._reader is None:
            raise StoreUnavailable(f"{self} is closed")
        try:
            return await _in_one(self._reader, "BEGIN", steps)
        except Exception as error:
            raise self.translated(error) from error

    def as_sent(self, step: Step) -> Step:
        """Return a step as sqlite3 takes it."""
        sql, spread = plain(step.sql)
        return Step(sql, list(map(spread, step.parameters)), step.returns)

    def told_at_commit(self, change: Change) -> Sequence[Step]:
        """Return nothing: others see by the file that something was written."""
        return ()

    def tell_due(self, names: Sequence[str]) -> None:
        """Do nothing: others see by the file that something was written."""

    def tell(self, change: Change) -> None:
        """Do nothing: others see by the file that something was written."""

    async def changed(self) -> Change:
        """Return when another process has committed something."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._log_moved() and await self._others_committed():
                return ANYTHING

    async def hold(self, engine_id: str) -> None:
        """Take an engine's lock."""
        await in_thread(self.locks.hold, engine_id, name="asyncjobs lock")

    async def let_go(self, engine_id: str, *, for_good: bool) -> None:
        """Free an engine's lock; its file stays, as long as its row does."""
        await in_thread(self.locks.remove if for_good else self.locks.let_go, engine_id, name="asyncjobs unlock")

    async def beat(self, engine_id: str) -> bool:
        """Do nothing: the lock says that an engine lives."""
        return True

    async def unheld(self, engines: Sequence[EngineRecord]) -> list[Sighting]:
        """Return the engines whose locks nobody holds: they are dead, at once."""
        looked = [(engine, self.locks.is_free(engine.id)) for engine in engines]
        return [Sighting(engine, lock_gone=free is None) for engine, free in looked if free is not False]

    async def living(self, engines: Sequence[EngineRecord]) -> set[str]:
        """Return the ids of the engines whose locks somebody holds."""
        return {engine.id for engine in engines if self.locks.is_free(engine.id) is False}

    def _log_moved(self) -> bool:
        try:
            # In the loop: 2 µs, and a thread to do it in would cost fifty times as much.
            stat = self._log.stat()
        except OSError:
            return True
        # Times of files move in steps of some milliseconds: a write within the step just seen would
        # look like no write at all, so a log written that lately counts as moved again.
        seen = (stat.st_mtime_ns, stat.st_size)
        racy = time.time_ns() - stat.st_mtime_ns < _RACY_NANOSECONDS + WATCH_SECONDS * 1e9
        moved = racy or seen != self._wal_seen
        self._wal_seen = seen
        return moved

    async def _others_committed(self) -> bool:
        if self._writer is None:
            raise StoreUnavailable(f"{self} is closed")
        [(version,)] = await self._writer.run("PRAGMA data_version")
        before, self._data_version = self._data_version, version
        return version != before  # type: ignore[no-any-return]

    def _count(self, rows: int) -> None:
        checkpoints = self._checkpoints  # in the thread that writes: `close` may be at work
        if checkpoints is not None:
            checkpoints.count(rows)

    async def _connect(self) -> aiosqlite.Connection:
        assert self._engine is not None
        try:
            connection = await self._engine.connect()
        except Exception as error:
            raise self.translated(getattr(error, "orig", None) or error) from error
        self._held.append(connection)
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert isinstance(driver, aiosqlite.Connection)
        return driver

    async def _insist(self, step: Any) -> None:
        """Repeat a step of opening while other processes that open the file keep it busy."""
        deadline = time.monotonic() + LONGEST_BUSY_SECONDS
        while True:
            try:
                await step()
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise self.translated(error) from error
                await asyncio.sleep(0.02)
            else:
                return

    async def _prepare(self, connection: aiosqlite.Connection) -> None:
        if sqlite3.sqlite_version_info < (3, 35):
            raise StoreUnavailable(f"SQLite 3.35 or newer is needed, this Python has {sqlite3.sqlite_version}")
        await connection.execute_fetchall(f"PRAGMA synchronous = {self._synchronous}")
        await connection.execute_fetchall(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file
        await connection.execute_fetchall(f"PRAGMA wal_autocheckpoint = {PAGES_AT_MOST}")
        [(mode,)] = await connection.execute_fetchall("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise StoreUnavailable(
                f"{self} can't be used in WAL mode (it stays in {mode!r}): put it on a local file system"
            )

    async def _migrate(self, connection: aiosqlite.Connection) -> None:
        """Bring the schema up to date in one transaction; of several starters one does it."""
        steps = await in_thread(migrations, "sqlite", name="asyncjobs migrations")
        known = steps[-1][0]
        version = await self._version(connection)
        if version > known:
            raise SchemaMismatch(version, known, str(self))
        if version == known:
            return
        script = [
            Step(
                "CREATE TABLE IF NOT EXISTS asyncjobs_schema "
                "(version INTEGER NOT NULL PRIMARY KEY, applied_at INTEGER NOT NULL)",
                [()],
            )
        ]
        for number, statements in steps:
            if number <= version:
                continue
            # The insert comes first: it fails where another starter has been quicker.
            script.append(
                Step(
                    "INSERT INTO asyncjobs_schema VALUES (?, ?)",
                    [(number, time.time_ns() // 1000)],
                )
            )
            script += [Step(statement, [()]) for statement in statements]
        try:
            await _in_one(connection, BEGIN, script)
        except sqlite3.IntegrityError:
            await self._migrate(connection)

    async def _prove_writable(self, connection: aiosqlite.Connection) -> None:
        await _in_one(connection, BEGIN, [Step("DELETE FROM asyncjobs_schema WHERE version < 0", [()])])

    async def _version(self, connection: aiosqlite.Connection) -> int:
        found = await connection.execute_fetchall("SELECT 1 FROM sqlite_master WHERE name = 'asyncjobs_schema'")
        if not found:
            return 0
        [(version,)] = await connection.execute_fetchall("SELECT max(version) FROM asyncjobs_schema")
        return version or 0

    def translated(self, error: BaseException) -> StoreError:
        """Return what the driver said as an error that says what to do."""
        if isinstance(error, StoreError):
            return error
        if isinstance(error, OverflowError | ValueError):  # such as a number of more than 64 bits
            return StoreError(f"{self} can't take a value: {error}")
        if not isinstance(error, sqlite3.Error | OSError):  # a fault of ours
            return StoreError(f"{self} failed: {type(error).__name__}: {error}")
        words = str(error)
        if "not a database" in words or "malformed" in words:
            return StoreCorrupt(
                f"{self} is not a usable SQLite database ({words}): restore it from a backup, recover it with "
                f"`sqlite3 {self.path.name} .recover`, or move it away to begin anew"
            )
        if "readonly" in words or "unable to open" in words:
            return StoreUnavailable(
                f"{self} can't be written ({words}): the file and its folder must be writable by this user"
            )
        if "already exists" in words:
            return StoreUnavailable(
                f"{self} has other tables by our names ({words}): give the jobs a file of their own"
            )
        if is_busy(error):
            return StoreBusy(
                f"{self} was kept locked by another transaction for {LONGEST_BUSY_SECONDS:g} s: commit or end "
                "it first; what is to be part of it is submitted by client.within(...)"
            )
        return StoreUnavailable(f"{self}: {words}")


async def _in_one(connection: aiosqlite.Connection, begin: str, steps: Sequence[Step]) -> list[list[Any]]:
    run = partial(steps_in_one, begin=begin, steps=steps)
    return await connection.execute_fetchall("", run)  # type: ignore[return-value]

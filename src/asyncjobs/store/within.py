"""Jobs written inside an application's own transaction: they exist if and only if it commits.

An `AsyncSession` or `AsyncConnection` of either database, or an asyncpg connection that has begun one. The
statements are those of a turn; only who runs them differs.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from asyncjobs.errors import InvalidOptions, StoreUnavailable
from asyncjobs.store.database import Database
from asyncjobs.store.turns import Step

Run = Callable[[Step], Awaitable[list[Any]]]
"""Runs a step; returns its rows, where it has any."""


_DRIVERS = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}


async def runner_of(transaction: Any, database: Database) -> Run:
    """Return what runs statements in a transaction of the application's.

    Raises:
        InvalidOptions: that is none, none that has begun, or one of another kind of database.
        StoreUnavailable: its connection can't be used.
    """
    if isinstance(transaction, AsyncSession):
        with _refusals():
            transaction = await transaction.connection()
    if isinstance(transaction, AsyncConnection):
        theirs = transaction.dialect
        if (theirs.name, theirs.driver) != (database.dialect.name, _DRIVERS[database.dialect.name]):
            raise InvalidOptions(
                f"within() takes a transaction on the jobs' own database: this one is on {theirs.name} by "
                f"{theirs.driver}, the jobs are in {database} by {_DRIVERS[database.dialect.name]}"
            )
        with _refusals():
            raw = await transaction.get_raw_connection()
        if _commits_each_statement(transaction, raw):
            raise InvalidOptions("within() needs a transaction: this connection commits each statement (AUTOCOMMIT)")
        return _by_sqlalchemy(transaction)
    if database.dialect.name == "postgresql" and hasattr(transaction, "is_in_transaction"):
        if not transaction.is_in_transaction():
            raise InvalidOptions("within() needs a transaction: put it inside `async with connection.transaction():`")
        return _by_asyncpg(transaction)
    raise InvalidOptions(
        "within() takes an AsyncSession, an AsyncConnection, or on PostgreSQL an asyncpg connection, "
        f"not {transaction!r}"
    )


async def run_within(transaction: Any, database: Database, steps: Sequence[Step]) -> list[list[Any]]:
    """Run steps in a transaction of the application's, and return the rows of each.

    Raises:
        InvalidOptions: see `runner_of`.
        StoreUnavailable: the database refuses one; what becomes of the transaction is up to its owner.
    """
    run = await runner_of(transaction, database)
    return [await run(database.as_sent(step)) for step in steps]


@contextmanager
def _refusals() -> Generator[None]:
    """Say what the database refuses, whichever way it was asked."""
    refused: tuple[type[Exception], ...] = (SQLAlchemyError, *_driver_errors())
    try:
        yield
    except refused as error:
        raise StoreUnavailable(
            f"the transaction of within() failed: {getattr(error, 'orig', None) or error}"
        ) from error


def _driver_errors() -> tuple[type[Exception], ...]:
    asyncpg = sys.modules.get("asyncpg")  # it is there, where a connection of its is
    return () if asyncpg is None else (asyncpg.PostgresError, asyncpg.InterfaceError)


def _commits_each_statement(connection: AsyncConnection, raw: Any) -> bool:
    if connection.dialect.name == "postgresql":
        return bool(raw.dbapi_connection.autocommit)
    driver = raw.driver_connection
    return connection.in_transaction() and driver.isolation_level is None and not driver.in_transaction


def _by_sqlalchemy(connection: AsyncConnection) -> Run:
    async def run(step: Step) -> list[Any]:
        with _refusals():
            if not step.returns:
                await connection.exec_driver_sql(step.sql, list(step.parameters))
                return []
            found = [await connection.exec_driver_sql(step.sql, each) for each in step.parameters]
        return [tuple(row) for each in found for row in each]

    return run


def _by_asyncpg(connection: Any) -> Run:
    async def run(step: Step) -> list[Any]:
        with _refusals():
            if not step.returns:
                await connection.executemany(step.sql, step.parameters)
                return []
            return [row for each in step.parameters for row in await connection.fetch(step.sql, *each)]

    return run

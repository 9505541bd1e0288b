"""Jobs written inside an application's own transaction: they exist if and only if it commits.

An `AsyncSession` or `AsyncConnection` of either database, or an asyncpg connection that has begun one. The
statements are those of a turn; only who runs them differs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from asyncjobs.errors import InvalidOptions, StoreUnavailable
from asyncjobs.store.database import Database
from asyncjobs.store.turns import Step

Run = Callable[[Step], Awaitable[list[Any]]]
"""Runs a step; returns its rows, where it has any."""


async def runner_of(transaction: Any, database: Database) -> Run:
    """Return what runs statements in a transaction of the application's.

    Raises:
        InvalidOptions: that is none, none that has begun, or one of another database.
    """
    if isinstance(transaction, AsyncSession):
        transaction = await transaction.connection()
    if isinstance(transaction, AsyncConnection):
        if transaction.dialect.name != database.dialect.name:
            raise InvalidOptions(
                f"within() takes a transaction on the jobs' own database: this one is on {transaction.dialect.name}, "
                f"the jobs are in {database}"
            )
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


def _by_sqlalchemy(connection: AsyncConnection) -> Run:
    async def run(step: Step) -> list[Any]:
        try:
            if not step.returns:
                await connection.exec_driver_sql(step.sql, list(step.parameters))
                return []
            found = [await connection.exec_driver_sql(step.sql, each) for each in step.parameters]
        except DBAPIError as error:
            raise StoreUnavailable(f"the transaction of within() failed: {error.orig or error}") from error
        return [tuple(row) for each in found for row in each]

    return run


def _by_asyncpg(connection: Any) -> Run:
    async def run(step: Step) -> list[Any]:
        if not step.returns:
            await connection.executemany(step.sql, step.parameters)
            return []
        return [row for each in step.parameters for row in await connection.fetch(step.sql, *each)]

    return run

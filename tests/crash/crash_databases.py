"""What a test does to a PostgreSQL behind the engine's back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """Open a connection of the test's own."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def sql(url: str, *statements: str) -> Any:
    """Run statements, each in a transaction of its own; return the value of the last."""
    async with connected(url) as connection:
        return [await connection.fetchval(each) for each in statements][-1]

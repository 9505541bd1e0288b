"""The schema, brought up to date by whoever opens it first."""

from __future__ import annotations

import time

import asyncpg

from asyncjobs.errors import SchemaMismatch, StoreUnavailable
from asyncjobs.store.migrations import migrations
from asyncjobs.store.postgresql import statements
from asyncjobs.store.postgresql.lines import Driver, refusal
from asyncjobs.store.postgresql.sessions import Sessions, lock_key
from asyncjobs.threads import in_thread

_VERSIONS = "CREATE TABLE IF NOT EXISTS asyncjobs_schema (version BIGINT PRIMARY KEY, applied_at BIGINT)"
_VERSION = "SELECT max(version) FROM asyncjobs_schema"
_NOTE_VERSION = "INSERT INTO asyncjobs_schema VALUES ($1, $2)"
_HAS_VERSION = (
    "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace "
    "WHERE n.nspname = $1 AND c.relname = 'asyncjobs_schema')"
)


async def migrate(driver: Driver, *, schema: str, where: str, sessions: Sessions) -> None:
    """Bring the schema up to date in one transaction; of several starters one does it."""
    encoding = driver.get_settings().server_encoding
    if encoding not in ("UTF8", "SQL_ASCII"):
        raise StoreUnavailable(
            f"{where} keeps text as {encoding}, not all there is: make the database with ENCODING 'UTF8'"
        )
    steps = await in_thread(migrations, "postgresql", name="asyncjobs migrations")
    known = steps[-1][0]
    async with sessions.one(driver):
        version = await _version(driver, schema)
    if version > known:
        raise SchemaMismatch(version, known, where)
    if version == known:
        return  # a role that may create nothing gets here, too
    try:
        async with driver.transaction(isolation="read_committed"):
            await driver.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
            await driver.execute("SELECT pg_advisory_xact_lock($1)", lock_key(schema, "migration"))
            await _create_schema(driver, schema)
            version = await driver.fetchval(statements.qualified(_VERSION, schema)) or 0
            for number, script in steps:
                if number > version:
                    for statement in script:
                        await driver.execute(statements.qualified(statement, schema))
                    applied = (number, time.time_ns() // 1000)
                    await driver.execute(statements.qualified(_NOTE_VERSION, schema), *applied)
    except (asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError) as error:
        raise StoreUnavailable(f"{where} has other tables by our names ({error}): choose another schema") from error
    except asyncpg.PostgresError as error:
        raise refusal(error, where) from error


async def _create_schema(driver: Driver, schema: str) -> None:
    # Not by IF NOT EXISTS alone, which asks for the right to create even what is there.
    if not await driver.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", schema):
        await driver.execute(f'CREATE SCHEMA "{schema}"')
    await driver.execute(statements.qualified(_VERSIONS, schema))


async def _version(driver: Driver, schema: str) -> int:
    # From the table of tables: `to_regclass` may answer from before another starter made them.
    if not await driver.fetchval(_HAS_VERSION, schema):
        return 0
    return await driver.fetchval(statements.qualified(_VERSION, schema)) or 0

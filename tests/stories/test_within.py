"""Jobs inside the application's own transaction, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import story_jobs
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from asyncjobs import (
    InvalidOptions,
    InvalidParams,
    JobClient,
    JobEngine,
    JobNotFound,
    JobStatus,
    StoreBusy,
    StoreUnavailable,
)
from asyncjobs.store.sqlite import database as sqlite_database

Start = Callable[..., Awaitable[Any]]
ALWAYS = "CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)"


def of_an_application(url: str) -> str:
    """Return the address as an application writes it."""
    return url.replace("sqlite:", "sqlite+aiosqlite:").replace("postgresql:", "postgresql+asyncpg:")


@pytest.fixture
async def application(url: str) -> AsyncIterator[AsyncEngine]:
    """An application's own engine on the same database, with a table of its own."""
    engine = create_async_engine(of_an_application(url))
    async with engine.begin() as connection:
        await connection.execute(text(ALWAYS))
    yield engine
    await engine.dispose()


async def orders(application: AsyncEngine) -> int:
    async with application.connect() as connection:
        return (await connection.execute(text("SELECT count(*) FROM orders"))).scalar_one()  # type: ignore[no-any-return]


async def test_a_job_and_a_row_commit_together_and_the_job_runs(engine: JobEngine, application: AsyncEngine) -> None:
    async with application.begin() as connection:
        await connection.execute(text("INSERT INTO orders (id, what) VALUES (1, 'tea')"))
        handle = await engine.within(connection).submit(story_jobs.add, 2, 3)

    assert await handle.result(timeout=30) == 5
    assert await orders(application) == 1


async def test_a_session_of_the_application_takes_jobs(engine: JobEngine, application: AsyncEngine) -> None:
    async with AsyncSession(application) as session, session.begin():
        await session.execute(text("INSERT INTO orders (id, what) VALUES (1, 'tea')"))
        handle = await engine.within(session).submit(story_jobs.add, 2, 3)

    assert await handle.result(timeout=30) == 5


async def test_a_rollback_leaves_no_job(engine: JobEngine, application: AsyncEngine) -> None:
    async with application.connect() as connection:
        await connection.execute(text("INSERT INTO orders (id, what) VALUES (1, 'tea')"))
        handle = await engine.within(connection).submit(story_jobs.add, 2, 3)
        await connection.rollback()

    with pytest.raises(JobNotFound):
        await handle.job()
    assert await orders(application) == 0


async def test_nobody_sees_a_job_before_the_commit(start: Start, engine: JobEngine, application: AsyncEngine) -> None:
    async with application.connect() as connection:
        handle = await engine.within(connection).submit(story_jobs.add, 2, 3)

        with pytest.raises(JobNotFound):
            await handle.job()

        await connection.commit()

    assert await handle.result(timeout=30) == 5


async def test_many_jobs_commit_together(engine: JobEngine, application: AsyncEngine) -> None:
    async with application.begin() as connection:
        handles = await engine.within(connection).submit_many([story_jobs.add.bind(n, 1) for n in range(50)])

    assert [await handle.result(timeout=30) for handle in handles] == [n + 1 for n in range(50)]


async def test_a_job_by_name_commits_with_the_transaction(engine: JobEngine, application: AsyncEngine) -> None:
    async with application.begin() as connection:
        handle = await engine.within(connection).submit_named("add", {"a": 2, "b": 3})

    assert await handle.result(timeout=30) == 5


async def test_a_key_that_is_taken_brings_the_job_that_has_it(engine: JobEngine, application: AsyncEngine) -> None:
    first = await engine.submit(story_jobs.add.using(key="order 1"), 2, 3)

    async with application.begin() as connection:
        again = await engine.within(connection).submit(story_jobs.add.using(key="order 1"), 4, 5)

    assert again.id == first.id


async def test_an_engine_of_another_process_runs_what_a_client_commits(
    start: Start, engine: JobEngine, application: AsyncEngine
) -> None:
    client: JobClient = await start(kind=JobClient)

    async with application.begin() as connection:
        handle = await client.within(connection).submit(story_jobs.add, 2, 3)

    assert await handle.result(timeout=30) == 5


async def test_what_is_no_transaction_is_refused(engine: JobEngine) -> None:
    with pytest.raises(InvalidOptions, match="within\\(\\) takes an AsyncSession"):
        await engine.within("no transaction").submit(story_jobs.add, 2, 3)


async def test_arguments_are_checked_before_the_transaction_is_touched(
    engine: JobEngine, application: AsyncEngine
) -> None:
    async with application.begin() as connection:
        with pytest.raises(InvalidParams, match="parameter 'a'"):
            await engine.within(connection).submit(story_jobs.add)  # type: ignore[call-arg]

        handle = await engine.within(connection).submit(story_jobs.add, 2, 3)

    assert await handle.result(timeout=30) == 5


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_submit_beside_a_write_transaction_of_its_own_is_told_of_within(
    engine: JobEngine, application: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_database, "LONGEST_BUSY_SECONDS", 0.05)
    async with application.connect() as connection:
        await connection.execute(text("INSERT INTO orders (id, what) VALUES (1, 'tea')"))

        with pytest.raises(StoreBusy, match=r"client\.within"):
            await engine.submit(story_jobs.add, 2, 3)

        await connection.rollback()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_transaction_on_another_file_is_refused(engine: JobEngine, tmp_path: Any) -> None:
    elsewhere = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/other.db")
    async with elsewhere.connect() as connection:
        with pytest.raises(StoreUnavailable, match="no such table"):
            await engine.within(connection).submit(story_jobs.add, 2, 3)
    await elsewhere.dispose()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_transaction_on_another_kind_of_database_is_refused(engine: JobEngine, tmp_path: Any) -> None:
    elsewhere = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/other.db")
    async with elsewhere.connect() as connection:
        with pytest.raises(InvalidOptions, match="this one is on sqlite"):
            await engine.within(connection).submit(story_jobs.add, 2, 3)
    await elsewhere.dispose()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_an_asyncpg_connection_takes_jobs_in_its_transaction(engine: JobEngine, url: str) -> None:
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        handle = await engine.within(connection).submit(story_jobs.add, 2, 3)
        many = await engine.within(connection).submit_many([story_jobs.add.bind(n, 1) for n in range(3)])
    await connection.close()

    assert await handle.result(timeout=30) == 5
    assert await asyncio.gather(*(each.result(timeout=30) for each in many)) == [1, 2, 3]


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_an_asyncpg_connection_without_a_transaction_is_refused(engine: JobEngine, url: str) -> None:
    connection = await asyncpg.connect(url)

    with pytest.raises(InvalidOptions, match="needs a transaction"):
        await engine.within(connection).submit(story_jobs.add, 2, 3)

    await connection.close()


async def test_a_connection_that_commits_each_statement_is_refused(
    engine: JobEngine, application: AsyncEngine, url: str
) -> None:
    autocommit = create_async_engine(of_an_application(url), isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.begin()
        with pytest.raises(InvalidOptions, match="AUTOCOMMIT"):
            await engine.within(connection).submit(story_jobs.add, 2, 3)
    await autocommit.dispose()

    assert (await engine.list()).jobs == ()


async def test_a_connection_that_is_closed_is_told(engine: JobEngine, application: AsyncEngine) -> None:
    async with application.connect() as connection:
        await connection.execute(text("SELECT 1"))

    with pytest.raises(StoreUnavailable, match=r"within\(\) failed"):
        await engine.within(connection).submit(story_jobs.add, 2, 3)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_what_the_database_refuses_in_an_asyncpg_transaction_is_told(engine: JobEngine, url: str) -> None:
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    with pytest.raises(asyncpg.DivisionByZeroError):
        await connection.execute("SELECT 1 / 0")

    with pytest.raises(StoreUnavailable, match="transaction is aborted"):
        await engine.within(connection).submit(story_jobs.add, 2, 3)

    await transaction.rollback()
    await connection.close()


async def test_a_job_committed_in_a_transaction_is_like_any_other(engine: JobEngine, application: AsyncEngine) -> None:
    async with application.begin() as connection:
        handle = await engine.within(connection).submit(story_jobs.add.using(priority=3), 2, 3)

    job = await handle.wait(timeout=30)

    assert (job.status, job.priority, job.params) == (JobStatus.SUCCEEDED, 3, {"a": 2, "b": 3})

"""The schema on PostgreSQL: `schema.py` says what the migrations make, and who may do what (F39, F79)."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from asyncjobs.errors import SchemaMismatch, StoreUnavailable
from asyncjobs.model.job import JobStatus
from asyncjobs.store import migrate, open_store
from asyncjobs.store.migrations import migrations
from asyncjobs.store.schema import metadata
from builders import SUCCEEDED, claim_one, finish, insert, make_chunk, make_job, make_progress, opened, stored

COLUMNS = """
SELECT table_name, ordinal_position, column_name, data_type, collation_name, is_nullable, is_identity
FROM information_schema.columns WHERE table_schema = $1 ORDER BY table_name, ordinal_position
"""
INDEXES = """
SELECT indexname, replace(indexdef, schemaname || '.', '') FROM pg_indexes
WHERE schemaname = $1 AND tablename <> 'asyncjobs_schema' ORDER BY indexname
"""


@pytest.fixture
async def admin(postgres_url):
    """A connection of the database's owner."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("query", [pytest.param(COLUMNS, id="columns"), pytest.param(INDEXES, id="indexes")])
async def test_the_declared_tables_are_those_of_the_migrations(postgres_url, admin, query):
    await migrate(f"{postgres_url}?schema=migrated")
    await admin.execute("CREATE SCHEMA declared")
    engine = create_async_engine(postgres_url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.begin() as connection:
        await connection.execute(text("SET search_path TO declared"))
        await connection.run_sync(metadata.create_all)
    await engine.dispose()

    migrated, declared = await admin.fetch(query, "migrated"), await admin.fetch(query, "declared")

    kept = [row for row in migrated if row[0] != "asyncjobs_schema"]
    assert [tuple(row) for row in kept] == [tuple(row) for row in declared if row[0] != "asyncjobs_schema"]


def test_migrations_are_numbered_from_1_without_a_gap_as_on_sqlite():
    numbers = [number for number, _ in migrations("postgresql")]

    assert numbers == list(range(1, len(numbers) + 1)) == [number for number, _ in migrations("sqlite")]


async def test_migrating_again_changes_nothing(postgres_url, admin):
    """F79"""
    await migrate(postgres_url)
    before = await admin.fetch("SELECT * FROM asyncjobs.asyncjobs_schema")

    await migrate(postgres_url)

    assert await admin.fetch("SELECT * FROM asyncjobs.asyncjobs_schema") == before


async def test_many_may_migrate_at_once(postgres_url):
    """F79"""
    await asyncio.gather(*(migrate(postgres_url) for _ in range(8)))

    async with opened(postgres_url) as store:
        await insert(store, make_job())


async def test_a_migration_that_was_cut_off_half_way_leaves_nothing(postgres_url, admin):
    """F79"""
    await admin.execute("CREATE SCHEMA asyncjobs; CREATE TABLE asyncjobs.engines (x int)")  # the last table of all

    with pytest.raises(StoreUnavailable, match="other tables by our names"):
        await migrate(postgres_url)

    assert await admin.fetchval("SELECT to_regclass('asyncjobs.jobs')") is None


async def test_a_newer_schema_is_refused_with_what_to_do(postgres_url, admin):
    """F39"""
    await migrate(postgres_url)
    await admin.execute("INSERT INTO asyncjobs.asyncjobs_schema VALUES (99, 0)")

    with pytest.raises(SchemaMismatch, match="pip install --upgrade asyncjobs-engine"):
        await migrate(postgres_url)


async def test_applications_share_a_database_by_schemas_of_their_own(postgres_url):
    async with opened(f"{postgres_url}?schema=one") as one, opened(f"{postgres_url}?schema=two") as two:
        job = make_job()
        await insert(one, job)

        assert await two.get(job.id) is None
        assert await one.get(job.id) == job


@pytest.fixture
async def role(postgres_url, admin):
    """The address of the database for a role that may create nothing."""
    name = "worker_" + postgres_url.rpartition("_")[2]
    await admin.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    await admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_role_without_rights_to_create_runs_against_a_migrated_schema(postgres_url, admin, role):
    await migrate(postgres_url)
    await admin.execute(
        f"GRANT USAGE ON SCHEMA asyncjobs TO {role}; "
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA asyncjobs TO {role}"
    )

    async with opened(postgres_url.replace("postgres@", f"{role}@")) as store:
        held = await claim_one(store, inserted=make_job())
        await store.note(held, [make_chunk()], make_progress())
        await finish(store, held, SUCCEEDED)

        assert (await stored(store, held)).status is JobStatus.SUCCEEDED


async def test_a_role_without_rights_to_create_is_told_what_to_do_about_an_empty_database(postgres_url, role):
    store = open_store(postgres_url.replace("postgres@", f"{role}@"))

    with pytest.raises(StoreUnavailable, match=r"asyncjobs\.store\.migrate\(url\)"):
        await store.open()


async def test_the_schema_can_be_a_setting(postgres_url, admin, monkeypatch):
    monkeypatch.setenv("ASYNCJOBS_SCHEMA", "chosen")

    await migrate(postgres_url)

    assert await admin.fetchval("SELECT count(*) FROM chosen.jobs") == 0

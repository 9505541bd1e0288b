"""The PostgreSQL that tests run on: what is promised of it, so that no other test is about it."""

import asyncio
import os
import time
from pathlib import Path

import asyncpg
import pytest

from postgres import PostgresServer, database_of


async def execute(url, *statements):
    connection = await asyncpg.connect(url)
    try:
        return [await connection.fetchval(statement) for statement in statements][-1]
    finally:
        await connection.close()


def processes_in(folder):
    """Return the ids of the processes whose working folder is in this one, as that of every server process is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink().is_relative_to(folder):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def test_a_test_has_an_empty_database_of_its_own(postgres_url, databases):
    other = databases.create()

    await execute(postgres_url, "CREATE TABLE things (id bigint)")

    assert database_of(other) != database_of(postgres_url)
    assert await execute(other, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    databases.drop(other)


async def test_a_database_can_begin_as_the_copy_of_another(postgres_url, databases):
    await execute(postgres_url, "CREATE TABLE things (id bigint)")

    copy = databases.create(template=database_of(postgres_url))

    assert await execute(copy, "SELECT count(*) FROM things") == 0
    databases.drop(copy)


async def test_a_database_is_dropped_under_its_connections(databases):
    url = databases.create()
    connection = await asyncpg.connect(url)

    databases.drop(url)

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")


async def test_a_server_listens_on_tcp_and_on_a_socket(postgres):
    for url in (postgres.url(), postgres.socket_url()):
        assert await execute(url, "SELECT 1") == 1


@pytest.mark.parametrize("end", ["fast", "immediate", "kill"])
async def test_what_was_committed_outlives_every_end_of_a_server(postgres, end):
    await execute(postgres.url(), "CREATE TABLE things (id bigint)", "INSERT INTO things VALUES (1)")

    await asyncio.to_thread(postgres.kill if end == "kill" else lambda: postgres.stop(mode=end))

    assert postgres.pid is None
    with pytest.raises(OSError):
        await execute(postgres.url(), "SELECT 1")
    await asyncio.to_thread(postgres.start)
    assert await execute(postgres.url(), "SELECT count(*) FROM things") == 1


async def test_a_server_is_restarted_at_its_address_with_sessions_open(postgres):
    connection = await asyncpg.connect(postgres.url())

    await asyncio.to_thread(postgres.restart)

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    assert await execute(postgres.url(), "SELECT 1") == 1


async def test_a_durable_server_syncs():
    with PostgresServer(durable=True) as server:
        assert await execute(server.url(), "SHOW fsync") == "on"
        assert await execute(server.url(), "SHOW synchronous_commit") == "on"


def test_a_closed_server_leaves_neither_process_nor_folder():
    server = PostgresServer()
    here = processes_in(server.folder)

    server.close()
    server.close()

    assert here
    assert processes_in(server.folder) == []
    assert not server.folder.exists()


def test_a_server_goes_with_whoever_started_it(start_python):
    process = start_python(
        "from postgres import PostgresServer; import sys\nprint(PostgresServer().folder, flush=True)\nsys.stdin.read()"
    )
    folder = Path(process.stdout.readline().strip())

    process.kill()

    deadline = time.monotonic() + 20
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not folder.exists()
    assert processes_in(folder) == []


def test_a_server_is_no_descendant_of_ours(postgres):
    from asyncjobs.execution.inside import tree

    assert postgres.pid not in {each.pid for each in tree.descendants(os.getpid())}

import asyncio
import contextlib
import sqlite3

import aiosqlite
import pytest

from asyncjobs.errors import StoreError
from asyncjobs.store.sqlite import checkpoints
from asyncjobs.store.sqlite.checkpoints import Checkpoints
from asyncjobs.store.sqlite.connection import OwnConnection
from asyncjobs.store.sqlite.writer import Writer
from builders import insert, make_job, opened


class Beside:
    """The connection that copies, as far as a test lets it."""

    def __init__(self):
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.times = 0
        self.error = None
        self.interrupted = False

    async def execute_fetchall(self, sql):
        self.times += 1
        self.begun.set()
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return [(0, 0, 0)]

    async def interrupt(self):
        self.interrupted = True


@pytest.fixture
def store_file(tmp_path):
    return tmp_path / "jobs.db"


@pytest.fixture
def every_tenth(monkeypatch):
    """Copy after ten turns of one row."""
    monkeypatch.setattr(checkpoints, "PAGES", 10 * checkpoints.PAGES_A_TURN)


@pytest.fixture
async def writer(tmp_path):
    async with aiosqlite.connect(tmp_path / "jobs.db", isolation_level=None, factory=OwnConnection) as connection:
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0", "CREATE TABLE row (value)"):
            await connection.execute_fetchall(statement)
        writer = Writer(connection, translated=StoreError, written=lambda rows: None)
        yield writer
        await writer.close()


async def write(writer, copying, *, times):
    for _ in range(times):
        await writer.run("INSERT INTO row VALUES (zeroblob(3000))")
        [(rows,)] = await writer.run("SELECT total_changes()")
        copying.count(rows)


def times_begun(log):
    """How often the log has begun anew, as its header says ("Checkpoint sequence number" in the file format)."""
    return int.from_bytes(log.read_bytes()[12:16], "big")


async def test_a_log_that_is_written_on_and_on_begins_anew_again_and_again(store_file, every_tenth):
    log = store_file.with_name(store_file.name + "-wal")
    async with opened(f"sqlite:///{store_file}") as store:
        await insert(store, make_job())
        before = times_begun(log)

        async with asyncio.timeout(60):
            while times_begun(log) < before + 3:
                await insert(store, make_job())


async def test_a_new_file_has_small_pages_and_an_old_one_keeps_its_own(store_file, tmp_path):
    sizes = []
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.execute("CREATE TABLE theirs (value)")
    for each in (store_file, tmp_path / "old.db"):
        async with opened(f"sqlite:///{each}") as store:
            await insert(store, make_job())
        with contextlib.closing(sqlite3.connect(each)) as connection:
            sizes += connection.execute("PRAGMA page_size").fetchone()

    assert sizes == [checkpoints.PAGE_BYTES, 4096]


async def test_turns_go_on_while_the_log_is_copied_and_one_copy_is_made_at_a_time(writer, every_tenth):
    beside = Beside()
    copying = Checkpoints(writer, beside)

    await write(writer, copying, times=10)
    await beside.begun.wait()
    await write(writer, copying, times=40)

    assert beside.times == 1
    beside.go_on.set()
    await copying.close()


async def test_what_was_written_during_a_copy_is_copied_by_the_writer(tmp_path, writer, every_tenth):
    beside = Beside()
    copying = Checkpoints(writer, beside)
    await write(writer, copying, times=10)
    await beside.begun.wait()
    await write(writer, copying, times=5)

    beside.go_on.set()

    async with asyncio.timeout(60):
        while (tmp_path / "jobs.db").stat().st_size < 15 * 3000:
            await asyncio.sleep(0.005)
    await copying.close()


async def test_a_copy_that_is_under_way_is_interrupted_at_the_end(writer, every_tenth):
    beside = Beside()
    copying = Checkpoints(writer, beside)
    await write(writer, copying, times=10)
    await beside.begun.wait()

    async with asyncio.timeout(60):
        await copying.close()

    assert beside.interrupted


async def test_a_copy_that_fails_is_made_again_when_as_much_is_written(writer, every_tenth):
    beside = Beside()
    beside.error = sqlite3.OperationalError("disk I/O error")
    beside.go_on.set()
    copying = Checkpoints(writer, beside)

    await write(writer, copying, times=10)
    await beside.begun.wait()
    await write(writer, copying, times=30)
    await copying.close()

    assert beside.times > 1


async def test_a_reader_that_stays_in_an_old_log_stops_nothing(store_file, every_tenth):
    async with opened(f"sqlite:///{store_file}") as store:
        await insert(store, make_job())
        with contextlib.closing(sqlite3.connect(store_file)) as reader:
            reader.execute("BEGIN")
            seen = reader.execute("SELECT count(*) FROM jobs").fetchone()

            for _ in range(100):
                await insert(store, make_job())

            assert reader.execute("SELECT count(*) FROM jobs").fetchone() == seen
        with contextlib.closing(sqlite3.connect(store_file)) as reader:
            assert reader.execute("SELECT count(*) FROM jobs").fetchone() == (101,)

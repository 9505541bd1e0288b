import asyncio
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from asyncjobs.errors import SchemaMismatch, SettingsError, StoreCorrupt, StoreUnavailable
from asyncjobs.settings import Settings
from asyncjobs.store import open_store
from asyncjobs.store.sqlite import file_systems
from builders import EVERY_JOB, insert, make_job, opened

# Root may write everywhere, so what it may not is asked for by a process that is nobody.
OPEN_AS_NOBODY = """
import asyncio, json, os, sys
from pathlib import Path
from builders import insert, make_job, opened

async def attempt(path, *, then):
    try:
        async with opened(f"sqlite:///{path}") as store:
            await then(store)
            return "opened"
    except Exception as error:
        return f"{type(error).__name__}: {error}"

async def nothing(store): ...
async def write(store): await insert(store, make_job())

async def prepare(folder):
    for name in ("file", "folder"):
        (folder / name).mkdir()
        assert await attempt(folder / name / "jobs.db", then=write) == "opened"
    (folder / "empty").mkdir()
    (folder / "file" / "jobs.db").chmod(0o444)
    (folder / "file").chmod(0o777)
    (folder / "folder" / "jobs.db").chmod(0o666)
    (folder / "folder").chmod(0o555)
    (folder / "empty").chmod(0o555)

async def main(folder):
    await prepare(folder)
    if os.getuid() == 0:
        os.setuid(65534)
    answers = {name: await attempt(folder / name / "jobs.db", then=nothing) for name in ("file", "folder", "empty")}
    print(json.dumps(answers))

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def folder_of_nobody():
    """A folder that every user may enter, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="asyncjobs-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def answers_to_nobody(folder_of_nobody, run_python):
    """What a user hears who may not write the file, or its folder."""
    return json.loads(run_python(OPEN_AS_NOBODY, folder_of_nobody))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.db"


async def fill(path):
    async with opened(f"sqlite:///{path}") as store:
        await insert(store, *(make_job(params_json=json.dumps({"text": "x" * 500})) for _ in range(500)))


async def open_and_close(path):
    async with opened(f"sqlite:///{path}"):
        pass


def pragma(path, name):
    with sqlite3.connect(path) as connection:
        [(value,)] = connection.execute(f"PRAGMA {name}")
    connection.close()
    return value


async def test_the_file_is_in_wal_mode(path):
    async with opened(f"sqlite:///{path}"):
        assert pragma(path, "journal_mode") == "wal"


@pytest.mark.parametrize(("synchronous", "level"), [("NORMAL", 1), ("FULL", 2)])
async def test_the_connection_that_writes_has_the_level_of_synchronous_asked_for(path, synchronous, level):
    """F46"""
    store = open_store(f"sqlite:///{path}", settings=Settings(sqlite_synchronous=synchronous))
    await store.open()

    found = await store._database._writer.run("PRAGMA synchronous")

    await store.close()
    assert found == [(level,)]


async def test_opening_again_keeps_what_is_there(path):
    job = make_job()
    async with opened(f"sqlite:///{path}") as store:
        await insert(store, job)

    async with opened(f"sqlite:///{path}") as store:
        assert await store.get(job.id) == job


async def test_closing_leaves_the_file_alone_behind(path):
    await fill(path)

    assert [each.name for each in path.parent.iterdir()] == ["jobs.db"]


async def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(StoreUnavailable, match=r"the folder .*/absent does not exist: create it first"):
        await open_and_close(tmp_path / "absent" / "jobs.db")


async def test_a_folder_instead_of_a_file_is_refused(tmp_path):
    with pytest.raises(StoreUnavailable, match="is a folder"):
        await open_and_close(tmp_path)


async def test_a_file_on_a_network_file_system_is_refused_with_what_to_do(monkeypatch):
    """F47. Of all kinds the kernel's own is there everywhere: here it counts as one of those."""
    proc = Path("/proc")
    monkeypatch.setattr(file_systems, "NETWORK", {file_systems.kind_of(proc)})

    with pytest.raises(
        StoreUnavailable, match=r"network file system \(proc\).*: put it on a disk of this machine, or use"
    ):
        await open_and_close(proc / "jobs.db")


@pytest.mark.parametrize(
    "name",
    [
        "empty",
        "file",
        "folder",
    ],
)
def test_what_this_user_cannot_write_is_refused_at_the_opening(answers_to_nobody, name):
    """F45"""
    assert answers_to_nobody[name].startswith("StoreUnavailable: ")
    assert "must be writable by this user" in answers_to_nobody[name]


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"\0" * 5000, b"SQLite format 3\0" + b"x" * 5000])
async def test_a_file_that_is_no_database_is_refused_with_what_to_do(path, content):
    """F48"""
    path.write_bytes(content)

    with pytest.raises(StoreCorrupt, match=r"restore it from a backup, recover it .* or move it away"):
        await open_and_close(path)


async def test_a_file_that_is_no_database_stays_as_it_is(path):
    """F48"""
    path.write_bytes(b"garbage" * 1000)

    with pytest.raises(StoreCorrupt):
        await open_and_close(path)

    assert path.read_bytes() == b"garbage" * 1000


async def test_a_file_cut_off_in_the_middle_is_refused_with_what_to_do(path):
    """F48"""
    await fill(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(StoreCorrupt, match="restore it from a backup"):
        await open_and_close(path)


async def test_damage_inside_the_file_is_told_by_the_call_that_meets_it(path):
    """F48"""
    await fill(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: 4096 * 12] + b"\xff" * (len(whole) - 4096 * 12))

    async with opened(f"sqlite:///{path}") as store:
        with pytest.raises(StoreCorrupt, match="restore it from a backup"):
            await store.page(EVERY_JOB, limit=1000, before=None)


async def test_an_empty_file_is_taken_for_a_new_one(path):
    path.touch()

    await fill(path)

    assert pragma(path, "user_version") == 0


async def test_a_newer_schema_is_refused_with_the_command_that_helps(path):
    """F39"""
    await fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO asyncjobs_schema VALUES (99, 0)")
    connection.close()

    with pytest.raises(SchemaMismatch, match=r"version 99.*pip install --upgrade asyncjobs-engine") as caught:
        await open_and_close(path)

    assert (caught.value.found, caught.value.known) == (99, 1)


async def test_tables_of_another_application_by_our_names_are_refused_and_kept(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE jobs (mine TEXT)")
    connection.close()

    with pytest.raises(StoreUnavailable, match="other tables by our names"):
        await open_and_close(path)

    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("jobs",)]
    connection.close()


async def test_tables_of_another_application_by_other_names_are_left_alone(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders AS SELECT 7 AS number")
    connection.close()

    await fill(path)

    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT number FROM orders").fetchall() == [(7,)]
    connection.close()


async def test_another_transaction_that_holds_the_file_for_a_while_is_waited_for(path):
    """F41"""
    async with opened(f"sqlite:///{path}") as store:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        job = make_job()
        call = asyncio.create_task(insert(store, job))
        await asyncio.wait([call], timeout=0.3)
        assert not call.done()

        holder.execute("COMMIT")

        assert await call == [job]
        holder.close()


async def test_a_transaction_that_holds_the_file_for_ever_is_an_error_that_says_so(path, monkeypatch):
    """F41"""
    monkeypatch.setattr("asyncjobs.store.sqlite.database.BUSY_SECONDS", 0.01)
    monkeypatch.setattr("asyncjobs.store.sqlite.database.LONGEST_BUSY_SECONDS", 0.05)
    async with opened(f"sqlite:///{path}") as store:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreUnavailable, match="kept locked by another transaction"):
            await insert(store, make_job())

        holder.close()


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("sqlite:////var/jobs.db", "/var/jobs.db"),
        ("sqlite+aiosqlite:////var/a b.db", "/var/a b.db"),
    ],
)
def test_a_url_names_its_file(address, path):
    assert str(open_store(address)._database) == path


@pytest.mark.parametrize(
    ("address", "words"),
    [
        pytest.param("", "not a database URL", id="empty"),
        pytest.param("jobs.db", "not a database URL", id="a path"),
        pytest.param("sqlite://", "in memory", id="no file"),
        pytest.param("sqlite:///:memory:", "in memory", id="memory"),
        pytest.param("sqlite:///jobs.db?mode=ro", "no options here: mode", id="options"),
        pytest.param("postgresql+psycopg2://host/db", "is not async", id="a driver that blocks"),
        pytest.param("postgresql://host/db?schema=a.b", "schema takes one name", id="no name of a schema"),
        pytest.param("mysql://host/db", "mysql is not supported", id="MySQL"),
        pytest.param(None, "takes a URL", id="none"),
        pytest.param(7, "takes a URL", id="a number"),
        pytest.param(Path("jobs.db"), "takes a URL", id="a Path"),
    ],
)
def test_an_address_that_names_no_file_is_refused(address, words):
    with pytest.raises(SettingsError, match=words):
        open_store(address)

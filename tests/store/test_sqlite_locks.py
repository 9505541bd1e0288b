"""The locks of engines on one SQLite file."""

import signal

import pytest

from asyncjobs.errors import StoreUnavailable
from asyncjobs.store import Sighting, statements
from asyncjobs.store.rows import engine_row
from builders import claim_one, make_engine, make_job, opened

# Light, so that it starts fast: it takes the lock alone, and the test writes the engine's row.
HOLD_A_LOCK = """
import os, sys
from pathlib import Path
from asyncjobs.store.sqlite.locks import EngineLocks

locks = EngineLocks(Path(sys.argv[1]))
locks.hold("engine-b")
{then}
os.write(1, b"held\\n")
sys.stdin.read()
"""
LIVE = HOLD_A_LOCK.format(then="")
WITH_A_CHILD_THAT_ENDED = HOLD_A_LOCK.format(then="os._exit(0) if os.fork() == 0 else os.wait()")
WITH_A_CHILD_THAT_LIVES = HOLD_A_LOCK.format(then="os.fork()")


@pytest.fixture
def address(tmp_path):
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
def start_engine(store, start_python, tmp_path):
    """Register `engine-b`, whose lock another process holds."""

    async def start(script=LIVE):
        holder = start_python(script, tmp_path / "jobs.db")
        assert holder.stdout.readline() == "held\n"
        await store._turns.run([statements.insert_engine(engine_row(make_engine("engine-b")))], lambda _answers: None)
        return holder

    return start


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


async def test_a_living_engine_of_another_process_is_locked(store, start_engine):
    """D6"""
    await start_engine()

    assert await store.unlocked_engines() == []


async def test_an_engine_is_locked_by_whichever_name_its_file_was_opened(store, start_engine, tmp_path):
    await start_engine()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(tmp_path / "jobs.db")

    async with opened(f"sqlite:///{link}") as linked:
        assert await linked.unlocked_engines() == []


async def test_an_engine_that_was_killed_is_seen_at_once_with_its_whole_record(store, start_engine):
    """F01"""
    holder = await start_engine()
    kill(holder)

    assert await store.unlocked_engines() == [Sighting(make_engine("engine-b"), lock_gone=False)]


async def test_an_engine_that_is_stopped_is_not_taken_for_dead(store, start_engine):
    """F61, D6"""
    holder = await start_engine()
    holder.send_signal(signal.SIGSTOP)

    assert await store.unlocked_engines() == []


async def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(store, start_engine):
    """F60b"""
    holder = await start_engine(WITH_A_CHILD_THAT_LIVES)
    assert holder.stdout.readline() == "held\n"  # by both of them

    kill(holder)

    [sighting] = await store.unlocked_engines()

    assert sighting.engine.id == "engine-b"


async def test_a_forked_child_that_ends_does_not_free_the_lock_of_its_parent(store, start_engine):
    """F60b"""
    await start_engine(WITH_A_CHILD_THAT_ENDED)

    assert await store.unlocked_engines() == []


async def test_a_lock_whose_file_was_deleted_is_gone(store, start_engine, tmp_path):
    await start_engine()
    (tmp_path / "jobs.db-engines" / "engine-b").unlink()

    [sighting] = await store.unlocked_engines()

    assert sighting.lock_gone


async def test_looking_at_a_lock_does_not_take_it(store, other_store, start_engine):
    holder = await start_engine()
    kill(holder)
    await store.unlocked_engines()

    assert len(await other_store.unlocked_engines()) == 1


async def test_a_dead_engine_is_seen_until_it_is_unregistered(store, start_engine):
    holder = await start_engine()
    kill(holder)

    await store.unregister("engine-b")

    assert await store.unlocked_engines() == []


async def test_an_engine_under_which_jobs_still_run_stays_to_be_rescued(store):
    """F04b"""
    await store.register(make_engine())
    job = await claim_one(store, inserted=make_job())

    await store.unregister("engine-a")

    [sighting] = await store.unlocked_engines()
    assert sighting.engine.id == job.engine_id


async def test_a_lock_that_cannot_be_taken_is_an_error_that_names_its_folder(store, tmp_path):
    (tmp_path / "jobs.db-engines").write_text("in the way")

    with pytest.raises(StoreUnavailable, match=r"jobs\.db-engines must be a folder that this user can write"):
        await store.register(make_engine())


async def test_the_folder_of_locks_goes_with_the_last_engine(store, tmp_path):
    await store.register(make_engine())

    await store.unregister("engine-a")

    assert not (tmp_path / "jobs.db-engines").exists()

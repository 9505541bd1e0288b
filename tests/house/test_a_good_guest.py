"""What an engine does to the program that hosts it: nothing that it does not undo."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from blockbuster import blockbuster_ctx
from house_servers import BOUND, processes_with, served

from asyncjobs import JobClient, JobEngine, JobStatus, Settings, job

HERE = Path(__file__).parent


@job(max_workers=2)
def in_a_process(number: int) -> int:
    return number


@job(max_workers=2, isolation="inline")
async def in_the_loop(number: int) -> int:
    return number


@job(max_workers=2, isolation="inline")
def in_a_thread(number: int) -> int:
    return number


JOBS = [in_a_process, in_the_loop, in_a_thread]


async def run_one_of_each(engine: JobEngine) -> None:
    handles = [await engine.submit(each, 1) for each in JOBS]
    assert [await handle.result(timeout=BOUND) for handle in handles] == [1, 1, 1]


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def descriptors() -> list[str]:
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{entry} {os.readlink(f'/proc/self/fd/{entry}')}")
        except FileNotFoundError:
            continue  # that of this very listing
    return sorted(found)


async def test_an_engine_leaves_no_thread_child_or_descriptor_behind(tmp_path: Path) -> None:
    before, threads = (descriptors(), children()), set(threading.enumerate())

    async with JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=JOBS) as engine:
        await run_one_of_each(engine)
    after, left = (descriptors(), children()), set(threading.enumerate()) - threads

    assert after == before
    for thread in left:  # it has said that it is done, and may be at its last step
        thread.join(timeout=5)
        assert not thread.is_alive()


async def test_an_engine_does_not_wait_for_a_place_in_the_hosts_executor(tmp_path: Path) -> None:
    """The host may have filled it with work of its own that lasts."""
    host_is_done = threading.Event()

    async def open_run_and_close() -> None:
        async with JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=JOBS) as engine:
            await run_one_of_each(engine)

    with ThreadPoolExecutor(max_workers=1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        executor.submit(host_is_done.wait)
        using = asyncio.create_task(open_run_and_close())
        _, waiting = await asyncio.wait([using], timeout=10)
        host_is_done.set()
        await using

    assert waiting == set()


async def test_an_engine_leaves_no_task_behind(tmp_path: Path) -> None:
    before = asyncio.all_tasks()

    async with JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=JOBS) as engine:
        await run_one_of_each(engine)

    assert asyncio.all_tasks() == before


async def test_an_engine_that_was_stopped_leaves_no_file_but_the_database(tmp_path: Path) -> None:
    async with JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=JOBS) as engine:
        await run_one_of_each(engine)

    assert [path.name for path in tmp_path.iterdir()] == ["jobs.db"]


async def test_an_engine_in_a_host_installs_no_signal_handler(tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    async with JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=JOBS) as engine:
        await run_one_of_each(engine)
        meanwhile = {number: signal.getsignal(number) for number in signal.valid_signals()}
        wakeup = signal.set_wakeup_fd(-1)

    assert meanwhile == before
    assert wakeup == -1


# A few calls on local files, once at opening or closing, and a look at the log's times ten times a
# second: each takes microseconds, less than a hop to a thread.
SHORT_CALLS = {
    "asyncjobs/store/sqlite/database.py": {"open", "_migrate", "_log_moved"},
    "asyncjobs/store/sqlite/locks.py": {"hold", "release"},
    "asyncjobs/execution/inside/tree.py": {"boot_id"},
}


async def test_no_verb_blocks_the_hosts_loop(tmp_path: Path) -> None:
    """D34: every call to the database and to a process is awaited."""
    closed = JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=JOBS)  # looks for a pyproject.toml

    with blockbuster_ctx("asyncjobs") as buster:
        for call in buster.functions.values():
            for file, functions in SHORT_CALLS.items():
                call.can_block_in(file, functions)
        async with closed as engine:
            await run_one_of_each(engine)
            handle = await engine.submit(in_a_process.using(delay=3600), 2)
            await handle.job()
            await engine.list()
            await handle.cancel()
            await engine.retry(handle.id)
            await handle.cancel()
            await engine.delete()


async def test_the_hosts_loop_turns_while_a_thousand_jobs_are_submitted_and_run(tmp_path: Path) -> None:
    """D34: the longest that anybody else had to wait; printed, the bound is generous."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - began)

    async with JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=JOBS) as engine:
        ticking = asyncio.create_task(tick())
        handles = await engine.submit_many(in_the_loop.bind(number) for number in range(1000))
        await asyncio.gather(*(handle.result(timeout=BOUND) for handle in handles))
        ticking.cancel()

    print(f"the loop was held up for {longest * 1000:.0f} ms at most")
    assert longest < 1.0


async def test_a_web_server_that_stops_during_jobs_leaves_no_process(tmp_path: Path) -> None:
    """F29 in part: its job, the job's grandchild in another session and the standbys are gone."""
    database, mark = f"sqlite:///{tmp_path}/jobs.db", tmp_path / "mark"
    with (
        served("house_app:app", app_dir=HERE, environ={"HOUSE_DATABASE": database, "HOUSE_MARK": str(mark)}) as server,
        httpx.Client(base_url=server.url, timeout=BOUND) as web,
    ):
        job_id = web.post("/jobs").json()["id"]
        while not mark.exists():
            time.sleep(0.01)
        server.process.terminate()
        server.process.communicate(timeout=BOUND)

    async with JobClient(database) as client:
        record = await client.get(job_id)
    assert processes_with(f"HOUSE_DATABASE={database}") == []
    assert record.status is JobStatus.PENDING
    assert (record.interruptions, record.retry_count) == (0, 0)


async def test_a_web_server_that_is_killed_leaves_only_what_the_next_one_sweeps(tmp_path: Path) -> None:
    """F29 in part: two servers one after another, the first with `kill -9`."""
    database, mark = f"sqlite:///{tmp_path}/jobs.db", tmp_path / "mark"
    with (
        served("house_app:app", app_dir=HERE, environ={"HOUSE_DATABASE": database, "HOUSE_MARK": str(mark)}) as server,
        httpx.Client(base_url=server.url, timeout=BOUND) as web,
    ):
        job_id = web.post("/jobs").json()["id"]
        while not mark.exists():
            time.sleep(0.01)
    left = set(processes_with(f"HOUSE_DATABASE={database}"))

    async with JobEngine(database, jobs=JOBS, settings=Settings(stop_grace=0)) as engine:
        while (await engine.get(job_id)).status is JobStatus.RUNNING:
            await asyncio.sleep(0.01)

    print(f"{len(left)} processes were left by the kill")
    assert processes_with(f"HOUSE_DATABASE={database}") == []

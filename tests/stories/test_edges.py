"""Where two things meet: odd ids, a cancelled start, a retry that somebody waits for, a stop that can't write."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import story_jobs

from asyncjobs import (
    DefinitionError,
    InvalidOptions,
    JobClient,
    JobEngine,
    JobNotFound,
    JobStatus,
    NotOpen,
    Settings,
    StoreCorrupt,
    StoreUnavailable,
    job,
)
from asyncjobs.telemetry import Event, JobFinished, SlotHeld
from asyncjobs.unhurried import AT_ONCE

Start = Callable[..., Awaitable[JobEngine]]
released = threading.Event()
another_released = threading.Event()


@job(isolation="inline", timeout=0.05)
def hold_a_thread() -> None:
    released.wait(60)


@job(isolation="inline", timeout=0.05)
def hold_another_thread() -> None:
    another_released.wait(60)


@pytest.mark.parametrize(
    "odd", ["a\0b", "\ud800", UUID(int=7), 7, None], ids=["nul", "surrogate", "uuid", "int", "none"]
)
async def test_what_is_no_id_is_not_found_and_harms_nobody(engine: JobEngine, odd: object) -> None:
    for call in (engine.get, engine.wait, engine.cancel, engine.retry):
        with pytest.raises(JobNotFound):
            await call(odd)  # type: ignore[operator]

    assert await (await engine.submit(story_jobs.add_inline, 1)).result(timeout=30) == 3


async def test_an_id_may_be_given_as_a_uuid(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.add_inline, 1)

    assert (await engine.wait(UUID(handle.id), timeout=30)).id == handle.id  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [JobClient, JobEngine])
async def test_a_start_that_is_cancelled_ends_as_cancelled(url: str, kind: type[JobClient]) -> None:
    opening = asyncio.create_task(kind(url).__aenter__())
    await asyncio.sleep(0)
    opening.cancel()

    await asyncio.wait([opening])

    assert opening.cancelled()


async def test_a_wait_that_meets_a_retry_returns_the_last_end(start: Start) -> None:
    engine = await start()
    other = await start(kind=JobClient)
    handle = await engine.submit(story_jobs.fail, "twice")
    await handle.wait(timeout=30)

    await other.retry(handle.id)
    record = await handle.wait(timeout=30)

    assert record.status is JobStatus.FAILED


async def test_a_deleted_job_is_not_found_any_more(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.add_inline, 1)
    await handle.wait(timeout=30)

    await engine.delete()

    with pytest.raises(JobNotFound):
        await handle.result(timeout=30)


async def test_a_stop_does_not_wait_for_a_thread_and_its_job_ends_once(url: str) -> None:
    released.clear()
    ends: list[Event] = []
    engine = JobEngine(url, jobs=[hold_a_thread], settings=Settings(stop_grace=60))
    engine.subscribe(lambda event: ends.append(event) if isinstance(event, JobFinished) else None)
    async with asyncio.timeout(30), engine:
        handle = await engine.submit(hold_a_thread)
        await handle.wait()

    released.set()
    assert len(ends) == 1


async def test_a_slot_that_is_held_by_what_can_not_be_ended_is_told_and_counted(start: Start) -> None:
    """F24, with a thread: an unkillable process is handled alike."""
    another_released.clear()
    engine = await start(jobs=[hold_another_thread, story_jobs.add_inline])
    held: asyncio.Queue[Event] = asyncio.Queue()
    engine.subscribe(lambda event: held.put_nowait(event) if isinstance(event, SlotHeld) else None)
    handle = await engine.submit(hold_another_thread)

    record = await handle.wait(timeout=30)
    async with asyncio.timeout(30):
        told = await held.get()

    assert (record.status, told.job.id) == (JobStatus.TIMEOUT, handle.id)  # type: ignore[union-attr]
    assert engine.health.stuck == 1
    assert await (await engine.submit(story_jobs.add_inline, 1)).result(timeout=30) == 3
    another_released.set()
    while engine.health.stuck:
        await asyncio.sleep(0.005)


async def test_an_engine_that_could_not_write_its_end_frees_its_lock(
    start: Start, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = tmp_path / "blocker"
    blocker.touch()

    def refuse(take: Any, ended: Any, *, soon: bool) -> None:
        asyncio.get_running_loop().call_soon(ended, take(), StoreUnavailable("disk I/O error"))

    first = JobEngine(url, jobs=[story_jobs], settings=Settings(stop_grace=0, kill_grace=0))
    async with first:
        handle = await first.submit(story_jobs.wait_for, blocker)
        while not blocker.with_suffix(".running").exists():
            await asyncio.sleep(0.005)
        monkeypatch.setattr(first._store._database, "begin", refuse)  # type: ignore[attr-defined]
    blocker.unlink()

    second = await start()

    assert (await second.wait(handle.id, timeout=30)).status is JobStatus.SUCCEEDED


async def test_a_path_with_signs_of_a_url_names_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "what?#%20"
    folder.mkdir()
    monkeypatch.chdir(folder)

    async with JobClient("sqlite:///jobs.db"):
        assert (folder / "jobs.db").exists()

    assert [each.name for each in tmp_path.iterdir()] == [folder.name]


async def test_one_definition_needs_no_list(url: str) -> None:
    async with JobEngine(url, jobs=story_jobs.add_inline) as engine:
        assert await (await engine.submit(story_jobs.add_inline, 1)).result(timeout=30) == 3


def test_an_environment_for_an_inline_job_is_refused() -> None:
    with pytest.raises(DefinitionError, match="env"):
        job(isolation="inline", env={"A": "b"})(story_jobs.not_a_job)
    with pytest.raises(InvalidOptions, match="env"):
        story_jobs.add_inline.using(env={"A": "b"})


async def test_what_can_not_be_called_is_no_listener(url: str) -> None:
    with pytest.raises(InvalidOptions, match="subscribe takes a function of one event, not 3"):
        JobEngine(url, jobs=[story_jobs]).subscribe(3)  # type: ignore[arg-type]


async def test_odd_times_are_refused_with_a_sentence(engine: JobEngine) -> None:
    with pytest.raises(InvalidOptions, match="older_than"):
        await engine.delete(older_than=1e12)
    with pytest.raises(InvalidOptions, match="timeout"):
        await engine.wait("x", timeout="5")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptions, match="timeout"):
        await engine.wait("x", timeout=float("nan"))


async def test_a_wait_that_meets_the_close_says_that_the_job_is_kept(url: str) -> None:
    async with JobClient(url, jobs=story_jobs.add_inline) as client:
        handle = await client.submit(story_jobs.add_inline, 1)
        waiting = asyncio.create_task(handle.result())
        await asyncio.sleep(0)

    with pytest.raises(NotOpen, match="it was closed; the job is kept"):
        await waiting


async def test_a_wait_may_be_as_long_as_one_likes(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.add_inline, 1)

    assert await handle.result(timeout=float("inf")) == 3
    assert (await handle.wait(timeout=10**400)).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("kind", [JobClient, JobEngine])
async def test_a_misspelt_variable_is_warned_of_once_when_a_client_opens(
    start: Start, kind: type[JobClient], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASYNCJOBS_MAX_PROCESES", "3")
    monkeypatch.setenv("ASYNCJOBS_KILL_GRACE", "1")

    client = await start(kind=kind)
    await (await client.submit(story_jobs.add_inline, 1, 2)).cancel()

    assert [record.getMessage() for record in caplog.records if "variable" in record.getMessage()] == [
        "the variable ASYNCJOBS_MAX_PROCESES names no setting and is ignored: did you mean ASYNCJOBS_MAX_PROCESSES?"
    ]


def damage(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


async def test_damaged_jobs_end_with_a_word_on_that_and_the_others_run(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with JobClient(url, jobs=[story_jobs]) as client:
        add = story_jobs.add_inline
        handles = await client.submit_many([add.bind(number, 1) for number in range(4)])
        damaged = {handles[0].id: "env = '{'", handles[1].id: "params = '{'", handles[2].id: "timeout = 'soon'"}
        for job_id, assignment in damaged.items():
            await asyncio.to_thread(damage, tmp_path / "jobs.db", f"UPDATE jobs SET {assignment} WHERE id = '{job_id}'")

    async with JobEngine(url, jobs=[story_jobs]) as engine:
        ends = [await engine.wait(handle.id, timeout=30) for handle in handles]

    assert [end.status for end in ends] == [*[JobStatus.FAILED] * 3, JobStatus.SUCCEEDED]
    assert [end.error and end.error.kind for end in ends] == ["damaged", "params", "damaged", None]


async def test_a_dead_engine_is_rescued_though_the_error_of_one_of_its_jobs_is_damaged(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with JobClient(url, jobs=[story_jobs]) as client:
        handles = await client.submit_many([story_jobs.add_inline.bind(number, 1) for number in range(2)])
        for change in (
            "UPDATE jobs SET status = 'RUNNING', attempt = 1, engine_id = 'dead', error = '{'",
            "INSERT INTO engines VALUES ('dead', 'elsewhere', 'boot', 1, 1.0, '[', '0.1', 0, 0)",
        ):
            await asyncio.to_thread(damage, tmp_path / "jobs.db", change)

    async with JobEngine(url, jobs=[story_jobs]) as engine:
        ends = [await engine.wait(handle.id, timeout=30) for handle in handles]

    assert [(end.status, end.attempt, end.result) for end in ends] == [
        (JobStatus.SUCCEEDED, 2, 1),
        (JobStatus.SUCCEEDED, 2, 2),
    ]


@pytest.mark.parametrize("by_name", [True, False], ids=["converted by its annotation", "plain"])
async def test_a_damaged_result_is_told_by_the_handle(tmp_path: Path, by_name: bool) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with JobEngine(url, jobs=[story_jobs]) as engine:
        handle = await engine.submit(story_jobs.add_inline, 1, 2)
        await handle.wait(timeout=30)
    await asyncio.to_thread(damage, tmp_path / "jobs.db", "UPDATE jobs SET result = '{'")

    async with JobClient(url, jobs=[story_jobs] if by_name else []) as client:
        with pytest.raises(StoreCorrupt, match=f"result of job 'add_inline' \\({handle.id}\\) can't be read"):
            await client.handle(handle.id).result(timeout=30)


async def test_many_jobs_submitted_at_once_leave_the_loop_to_others(tmp_path: Path) -> None:
    """Of a thing that is done for each of them, a few hundred are done in one go."""
    turns = 0
    told: Counter[int] = Counter()

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with JobClient(f"sqlite:///{tmp_path}/jobs.db", jobs=[story_jobs]) as client:
        client.subscribe(lambda _: told.update([turns]))
        others = asyncio.create_task(turn())
        handles = await client.submit_many([story_jobs.add.bind(number) for number in range(2000)])
        others.cancel()

    assert len(handles) == told.total() == 2000
    assert max(told.values()) <= AT_ONCE


@pytest.mark.parametrize("keys", [False, True], ids=["plain", "with keys"])
async def test_many_jobs_submitted_to_an_idle_engine_are_all_run(url: str, keys: bool) -> None:
    async with JobEngine(url, jobs=[story_jobs]) as engine:
        await asyncio.sleep(0.2)  # its workers have looked, and wait
        options = [{"key": str(number)} if keys else {} for number in range(2000)]

        handles = await engine.submit_many([story_jobs.add_inline.using(**each).bind(1) for each in options])

        async with asyncio.timeout(60):
            assert [await handle.result() for handle in handles] == [3] * 2000


async def test_many_jobs_whose_submit_is_canceled_are_run_or_not_there(tmp_path: Path) -> None:
    async with JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=[story_jobs]) as engine:
        await asyncio.sleep(0.2)  # its workers have looked, and wait
        calls = [story_jobs.add_inline.bind(number) for number in range(2000)]
        submitting = asyncio.create_task(engine.submit_many(calls))
        turns = engine._store._turns  # type: ignore[attr-defined]
        while not turns._gathered.inserts and not turns._under_way.inserts:
            await asyncio.sleep(0)

        submitting.cancel()
        await asyncio.wait([submitting])

        async with asyncio.timeout(60):
            while (await engine.list(status="SUCCEEDED", limit=1000)).cursor is None:
                await asyncio.sleep(0.01)
            while (await engine.list(status=["PENDING", "RUNNING"], limit=1)).jobs:
                await asyncio.sleep(0.01)


if sys.version_info >= (3, 12):

    @pytest.mark.parametrize("isolation", ["fork", "spawn", "reuse", "inline"])
    async def test_a_host_may_have_tasks_that_begin_at_once(url: str, isolation: str) -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

        async with JobEngine(url, jobs=[story_jobs.add], settings=Settings(isolation=isolation)) as engine:
            handles = [await engine.submit(story_jobs.add, n) for n in range(3)]
            results = [await handle.result(timeout=60) for handle in handles]

        assert results == [2, 3, 4]

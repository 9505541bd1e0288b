"""Waiting, canceling, retrying, listing and deleting."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import story_jobs

from asyncjobs import InvalidOptions, JobCanceled, JobClient, JobEngine, JobStatus, Retry
from asyncjobs.telemetry import Event, JobFinished, JobOutput, JobStarted, JobSubmitted

Start = Callable[..., Awaitable[JobEngine]]


async def seen(file: Path) -> None:
    while not file.exists():
        await asyncio.sleep(0.005)


@pytest.fixture
def blocker(tmp_path: Path) -> Path:
    file = tmp_path / "blocker"
    file.touch()
    return file


async def test_waiting_for_a_job_that_has_ended_returns_at_once(engine: JobEngine) -> None:
    """F65."""
    handle = await engine.submit(story_jobs.add_inline, 1)
    await handle.wait(timeout=30)

    assert await handle.result(timeout=30) == 3
    assert await engine.handle(handle.id).result(timeout=30) == 3


async def test_a_client_beside_the_engine_is_woken_by_its_ends(start: Start) -> None:
    client = await start(kind=JobClient)
    handle = await client.submit(story_jobs.add_inline, 1)
    waiting = asyncio.create_task(handle.result(timeout=30))

    await start()

    assert await waiting == 3


async def test_a_waiting_job_is_canceled_at_once_and_never_runs(start: Start, tmp_path: Path) -> None:
    client = await start(kind=JobClient)
    handle = await client.submit(story_jobs.note, tmp_path / "ran", "yes")

    record = await handle.cancel()
    engine = await start()
    await (await engine.submit(story_jobs.note, tmp_path / "other", "yes")).wait(timeout=30)

    assert record.status is JobStatus.CANCELED
    assert not (tmp_path / "ran").exists()
    with pytest.raises(JobCanceled):
        await handle.result(timeout=30)


async def test_a_running_job_is_asked_to_end_and_tidies_up(engine: JobEngine, tmp_path: Path) -> None:
    file = tmp_path / "state"
    handle = await engine.submit(story_jobs.tidy_up.using(kill_grace=10), file)
    await seen(file)

    asked = await handle.cancel()
    record = await handle.wait(timeout=30)

    assert asked.status is JobStatus.RUNNING
    assert record.status is JobStatus.CANCELED
    assert file.read_text() == "tidied"


async def test_a_client_cancels_what_another_process_would_run(start: Start, blocker: Path) -> None:
    client = await start(kind=JobClient)
    await start()
    handle = await client.submit(story_jobs.wait_for, blocker)
    await seen(blocker.with_suffix(".running"))

    await handle.cancel()

    assert (await handle.wait(timeout=30)).status is JobStatus.CANCELED


async def test_canceling_a_job_that_has_ended_changes_nothing(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.add_inline, 1)
    before = await handle.wait(timeout=30)

    assert await handle.cancel() == (await engine.get(handle.id))
    assert (await handle.job()) == before


@pytest.mark.parametrize("round_", range(20))
async def test_a_cancel_that_races_the_end_has_one_winner(engine: JobEngine, round_: int) -> None:
    """F18."""
    handle = await engine.submit(story_jobs.add_inline, 1)

    told, record = await asyncio.gather(handle.cancel(), handle.wait(timeout=30))

    assert record.status in (JobStatus.CANCELED, JobStatus.SUCCEEDED)
    assert told.status in (record.status, JobStatus.RUNNING)
    assert (await handle.job()).status is record.status


async def test_a_retried_job_runs_again_and_keeps_its_history(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.fail, "first")
    await handle.wait(timeout=30)

    again = await engine.retry(handle.id)
    record = await handle.wait(timeout=30)

    assert again.status is JobStatus.PENDING
    assert [each.attempt for each in record.attempts] == [1, 2]
    assert record.attempt == 2


@pytest.mark.parametrize("error", ["listed", "subclass", "nested", "transient", "retry"])
async def test_transient_errors_are_retried(engine: JobEngine, tmp_path: Path, error: str) -> None:
    """D21: a listed class, its subclasses and nested classes; the history keeps each error."""
    handle = await engine.submit(story_jobs.flaky, tmp_path / "tries", error, 3)

    record = await handle.wait(timeout=30)

    assert (record.status, record.result, record.retry_count) == (JobStatus.SUCCEEDED, 3, 2)
    assert [each.outcome for each in record.attempts] == ["failed", "failed", "succeeded"]
    assert all(each.error is not None for each in record.attempts[:2])
    assert record.error is None


async def test_other_errors_are_not_retried(engine: JobEngine, tmp_path: Path) -> None:
    record = await (await engine.submit(story_jobs.flaky, tmp_path / "tries", "other", 2)).wait(timeout=30)

    assert (record.status, record.attempt) == (JobStatus.FAILED, 1)


async def test_retries_end_after_max_retries(engine: JobEngine, tmp_path: Path) -> None:
    record = await (await engine.submit(story_jobs.flaky, tmp_path / "tries", "listed", 99)).wait(timeout=30)

    assert (record.status, record.attempt, record.retry_count) == (JobStatus.FAILED, 3, 2)


async def test_a_retry_is_never_early(engine: JobEngine, tmp_path: Path) -> None:
    """D22: seconds in fractions, per job, with jitter that only lengthens."""
    slow = story_jobs.flaky.using(retry_delay=0.3, retry_max_delay=0.3)
    record = await (await engine.submit(slow, tmp_path / "tries", "listed", 3)).wait(timeout=30)

    first, second, third = record.attempts
    assert (second.started_at - first.finished_at).total_seconds() >= 0.3
    assert (third.started_at - second.finished_at).total_seconds() >= 0.3


@pytest.mark.parametrize(
    "definition", [story_jobs.sleep_on_the_first_attempt, story_jobs.crash_on_the_first_attempt], ids=lambda d: d.name
)
async def test_timeouts_and_crashes_are_retried_where_asked(engine: JobEngine, definition) -> None:
    """D22."""
    assert await (await engine.submit(definition)).result(timeout=30) == 2


async def test_a_job_can_cancel_itself(engine: JobEngine) -> None:
    record = await (await engine.submit(story_jobs.give_up, "no sense")).wait(timeout=30)

    assert record.status is JobStatus.CANCELED
    assert record.error is not None
    assert record.error.message == "no sense"


def test_retry_takes_a_timedelta_too() -> None:
    from datetime import timedelta

    assert Retry(after=timedelta(seconds=90)).after == 90.0


@pytest.mark.parametrize("after", ["5", True, [1], float("nan"), float("inf"), 1e12], ids=str)
def test_a_retry_at_a_time_that_is_none_says_so(after: Any) -> None:
    with pytest.raises(ValueError, match=r"Retry\(after=\.\.\.\) takes"):
        Retry(after=after)


async def test_lists_take_filters_and_pages(engine: JobEngine) -> None:
    handles = [await engine.submit(story_jobs.add_inline, n) for n in range(7)]
    await engine.submit(story_jobs.fail, "x")
    for handle in handles:
        await handle.wait(timeout=30)

    first = await engine.list(name="add_inline", status="SUCCEEDED", limit=4)
    second = await engine.list(name="add_inline", status=["SUCCEEDED"], limit=4, cursor=first.cursor)
    wanted = await engine.list(params={"a": 3})

    assert [each.id for each in first.jobs + second.jobs] == [each.id for each in reversed(handles)]
    assert second.cursor is None
    assert [each.params for each in wanted.jobs] == [{"a": 3}]
    assert [each.id async for each in engine.iterate(limit=2, name="add_inline")] == [
        each.id for each in reversed(handles)
    ]
    assert (await engine.list(status=[])).jobs == ()


@pytest.mark.parametrize(
    "filters",
    [
        {"limit": 0},
        {"limit": 1001},
        {"status": "DONE"},
        {"cursor": "x"},
        {"created_after": 3},
        {"params": [1]},
        {"name": 3},
    ],
    ids=lambda filters: next(iter(filters)),
)
async def test_a_filter_that_can_not_be_used_is_refused_by_name(engine: JobEngine, filters) -> None:
    with pytest.raises(InvalidOptions, match=next(iter(filters))):
        await engine.list(**filters)


async def test_only_jobs_that_ended_are_deleted(engine: JobEngine, blocker: Path) -> None:
    """D24: an empty filter matches nothing."""
    ended = await engine.submit(story_jobs.add_inline, 1)
    running = await engine.submit(story_jobs.wait_for, blocker)
    await ended.wait(timeout=30)

    assert await engine.delete(status=[]) == 0
    assert await engine.delete(name="fail") == 0
    assert await engine.delete(older_than=3600) == 0
    with pytest.raises(InvalidOptions):
        await engine.delete(status="RUNNING")
    assert await engine.delete() == 1
    assert [each.id for each in (await engine.list()).jobs] == [running.id]
    blocker.unlink()


async def test_every_step_is_an_event_and_a_line_of_log(engine: JobEngine, caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    engine.subscribe(events.append)
    caplog.set_level(logging.INFO, "asyncjobs")

    handle = await engine.submit(story_jobs.talk)
    await handle.wait(timeout=30)

    kinds = [type(each) for each in events]
    assert [kinds[0], kinds[1], kinds[-1]] == [JobSubmitted, JobStarted, JobFinished]
    printed = {(each.stream, each.text) for each in events if isinstance(each, JobOutput)}
    assert printed == {("stdout", "to stdout\n"), ("stderr", "to stderr\n")}
    assert any(f"talk {handle.id} attempt 1 SUCCEEDED" in line for line in caplog.messages)


async def test_an_engine_stops_within_its_grace_and_gives_jobs_back(start: Start, url: str, blocker: Path) -> None:
    """F13: with max_retries=0 an interruption uses nothing up."""
    first = JobEngine(url, jobs=[story_jobs.wait_for])
    async with first:
        handle = await first.submit(story_jobs.wait_for.using(max_retries=0, kill_grace=0.1), blocker)
        await seen(blocker.with_suffix(".running"))
        pid = int(blocker.with_suffix(".running").read_text())
        first._hurry()

    client = await start(kind=JobClient)
    left = await client.get(handle.id)
    blocker.unlink()
    await start()
    record = await client.wait(handle.id, timeout=30)

    assert not os.path.exists(f"/proc/{pid}")
    assert (left.status, left.retry_count, left.interruptions) == (JobStatus.PENDING, 0, 0)
    assert [each.outcome for each in record.attempts] == ["interrupted", "succeeded"]


async def test_a_result_within_the_stop_grace_counts(start: Start, url: str, blocker: Path) -> None:
    async with JobEngine(url, jobs=[story_jobs.wait_for]) as engine:
        handle = await engine.submit(story_jobs.wait_for, blocker)
        await seen(blocker.with_suffix(".running"))
        asyncio.get_running_loop().call_later(0.05, blocker.unlink)

    client = await start(kind=JobClient)
    assert (await client.get(handle.id)).status is JobStatus.SUCCEEDED


async def test_a_second_engine_takes_nothing_from_the_first(start: Start, blocker: Path) -> None:
    first = await start()
    handle = await first.submit(story_jobs.wait_for, blocker)
    await seen(blocker.with_suffix(".running"))

    second = await start()
    await (await second.submit(story_jobs.add_inline, 1)).wait(timeout=30)
    blocker.unlink()

    assert (await handle.wait(timeout=30)).attempt == 1

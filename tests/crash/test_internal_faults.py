"""What goes wrong inside a living engine: its own tasks that raise, answers that are lost, writes that fail."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from crash_jobs import count_run, nothing, runs, wait_for_release, work
from crash_programs import BOUND, Work

from asyncjobs import EngineFailed, JobClient, JobEngine, JobStatus, StoreUnavailable, supervision
from asyncjobs.client.waiting import Waiting
from asyncjobs.engine import liveness
from asyncjobs.engine.liveness import Liveness
from asyncjobs.engine.worker import Worker
from asyncjobs.execution import Ended
from asyncjobs.execution.inline import InlineRunner
from asyncjobs.model.outcome import Succeeded
from asyncjobs.store.sql import SqlStore
from asyncjobs.telemetry import LeaseLost, TaskCrashed
from builders import claim_all, opened

TASKS = [
    pytest.param(Worker, "_claim", id="a worker"),
    pytest.param(Waiting, "run", id="waiting"),
    pytest.param(Liveness, "rescue_all", id="watching engines"),
    pytest.param(JobEngine, "_watch", id="watching"),
]


def raises(times: float, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return what raises so many times, then does what it is to do."""
    calls = iter(range(10**9))

    async def raising(*arguments: Any, **named: Any) -> Any:
        if next(calls) < times:
            raise RuntimeError("patched to crash")
        return await original(*arguments, **named)

    return raising


def patch(monkeypatch: pytest.MonkeyPatch, where: type, method: str, *, times: float) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(where, method, raises(times, getattr(where, method)))


@pytest.mark.parametrize(("where", "method"), TASKS)
async def test_an_internal_task_that_raises_is_started_again(
    database: str, monkeypatch: pytest.MonkeyPatch, where: type, method: str
) -> None:
    """F63: three times within a minute are forgiven, and told."""
    patch(monkeypatch, where, method, times=3)
    events: list[Any] = []

    async with JobEngine(database, jobs=[nothing]) as engine:
        engine.subscribe(events.append)
        job = await (await engine.submit(nothing)).wait(timeout=BOUND)

        assert job.status is JobStatus.SUCCEEDED
        assert engine.health.status == "running"
    assert all(not event.final for event in events if isinstance(event, TaskCrashed))


@pytest.mark.parametrize(("where", "method"), TASKS)
async def test_an_internal_task_that_keeps_crashing_fails_the_engine_loudly(
    database: str, monkeypatch: pytest.MonkeyPatch, where: type, method: str
) -> None:
    """F63: its health says so, and `run` raises."""
    patch(monkeypatch, where, method, times=float("inf"))
    engine = JobEngine(database, jobs=[nothing])

    with pytest.raises(EngineFailed, match="patched to crash"):
        async with asyncio.timeout(BOUND):
            await engine.run()

    assert engine.health.status == "failed"
    assert engine.health.problem is not None
    assert "patched to crash" in engine.health.problem


async def test_who_waits_on_an_engine_that_fails_is_told(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """F63: no wait goes on for ever, and no submit is taken any more."""
    engine = JobEngine(database, jobs=[nothing])

    async def use() -> None:
        async with engine:
            handle = await engine.submit(nothing.using(delay=3600))
            waiting = asyncio.create_task(handle.wait(timeout=BOUND))
            await asyncio.sleep(0)
            patch(monkeypatch, Liveness, "rescue_all", times=float("inf"))
            with pytest.raises(EngineFailed):
                await waiting
            with pytest.raises(EngineFailed):
                await engine.submit(nothing)

    with pytest.raises(EngineFailed):
        await use()


async def test_a_failed_engine_gives_its_jobs_back_and_another_runs_them(
    database: str, monkeypatch: pytest.MonkeyPatch, a_work: Work
) -> None:
    """F63: failing is a stop, not a loss."""

    async def fail() -> None:
        async with JobEngine(database, jobs=[work]) as engine:
            handle = await engine.submit(work, a_work.folder)
            await a_work.runs(attempt=1)
            patch(failing, Liveness, "rescue_all", times=float("inf"))
            await handle.wait(timeout=BOUND)

    with monkeypatch.context() as failing, pytest.raises(EngineFailed):
        await fail()
    a_work.release()

    async with JobEngine(database, jobs=[work]) as engine:
        [job] = (await engine.list()).jobs
        ended = await engine.wait(job.id, timeout=BOUND)
    assert (ended.status, ended.attempt, ended.interruptions) == (JobStatus.SUCCEEDED, 2, 0)


async def test_a_worker_that_crashes_strands_none_of_its_attempts(
    database: str, monkeypatch: pytest.MonkeyPatch, a_work: Work
) -> None:
    """F63: what ran under it is interrupted, and runs again under its successor."""
    async with JobEngine(database, jobs=[work]) as engine:
        handle = await engine.submit(work, a_work.folder)
        await a_work.runs(attempt=1)

        patch(monkeypatch, Worker, "_claim", times=1)
        await engine.submit(work, a_work.folder)
        await a_work.runs(attempt=2)
        a_work.release()

        job = await handle.wait(timeout=BOUND)
        assert job.status is JobStatus.SUCCEEDED
        assert [each.outcome for each in job.attempts] == ["interrupted", "succeeded"]
        assert job.interruptions == 0


async def test_what_a_worker_has_claimed_and_not_begun_when_it_crashes_is_begun_by_its_successor(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F63: its engine lives and holds it, so nobody else would."""
    original = Worker._start
    crashed: list[Worker] = []

    def start_and_crash(worker: Worker, *arguments: Any) -> None:
        original(worker, *arguments)
        if not crashed:
            crashed.append(worker)
            raise RuntimeError("patched to crash")

    monkeypatch.setattr(Worker, "_start", start_and_crash)

    async with JobEngine(database, jobs=[nothing]) as engine:
        job = await (await engine.submit(nothing)).wait(timeout=BOUND)

    assert crashed
    assert (job.status, job.attempt, len(job.attempts)) == (JobStatus.SUCCEEDED, 1, 1)


async def test_a_job_that_was_claimed_as_its_engine_died_and_after_the_rescue_runs_within_seconds(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F01: it is RUNNING under an engine that nobody knows."""
    monkeypatch.setattr(liveness, "STRAY_SECONDS", 0.0)
    monkeypatch.setattr(liveness, "HELD_SECONDS", 0.05)
    async with JobClient(database) as client:
        handle = await client.submit(nothing)
    async with opened(database) as store:
        [_] = await claim_all(store, nothing.name, engine_id="an-engine-that-is-gone", now=datetime.now(UTC))

    async with JobEngine(database, jobs=[nothing]) as engine:
        job = await engine.wait(handle.id, timeout=BOUND)

    assert [each.outcome for each in job.attempts] == ["interrupted", "succeeded"]
    assert (job.status, job.interruptions) == (JobStatus.SUCCEEDED, 1)


async def test_a_job_whose_claim_was_answered_by_an_error_runs_within_seconds(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F04b: it is RUNNING under an engine that lives and holds it not."""
    original = SqlStore.claim
    lost: list[Any] = []

    async def losing_answers(store: SqlStore, *arguments: Any, **named: Any) -> Any:
        claim = await original(store, *arguments, **named)
        if claim.claimed and not lost:
            lost.append(claim)
            raise StoreUnavailable("the answer was lost")
        return claim

    monkeypatch.setattr(SqlStore, "claim", losing_answers)
    async with JobEngine(database, jobs=[nothing]) as engine:
        began = time.monotonic()
        job = await (await engine.submit(nothing)).wait(timeout=BOUND)

    print(f"ran {time.monotonic() - began:.2f} s after a claim whose answer was lost")
    assert lost
    assert job.status is JobStatus.SUCCEEDED
    assert [each.outcome for each in job.attempts] == ["interrupted", "succeeded"]
    assert job.interruptions == 0


async def test_an_end_whose_answer_was_lost_is_written_again_to_no_harm(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F04 on SQLite: one attempt, one end, and the waiter is told of it."""
    original = SqlStore.finish
    lost: list[Any] = []

    async def losing_answers(store: SqlStore, *arguments: Any, **named: Any) -> Any:
        status = await original(store, *arguments, **named)
        if not lost:
            lost.append(status)
            raise StoreUnavailable("the answer was lost")
        return status

    monkeypatch.setattr(SqlStore, "finish", losing_answers)
    async with JobEngine(database, jobs=[nothing]) as engine:
        job = await (await engine.submit(nothing)).wait(timeout=BOUND)

    assert lost == [JobStatus.SUCCEEDED]
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    assert [each.outcome for each in job.attempts] == ["succeeded"]


async def test_jobs_that_end_before_the_claiming_code_goes_on_are_handled(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F11: the attempt is over at its first step."""

    async def over_at_once(*_: Any, **__: Any) -> Ended:
        return Ended(Succeeded("null"))

    monkeypatch.setattr(InlineRunner, "run", over_at_once)
    async with JobEngine(database, jobs=[nothing]) as engine:
        handles = await engine.submit_many(nothing.bind() for _ in range(300))

        for handle in handles:
            job = await handle.wait(timeout=BOUND)
            assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
        assert engine.health.running == 0


async def test_a_worker_that_lost_its_job_cannot_write_over_the_next_attempt(
    database: str, tmp_path: Path, a_work: Work
) -> None:
    """D7, F05: somebody resets the row by hand, as MLflow's recovery did, and another engine runs it."""
    events: list[Any] = []
    async with JobEngine(database, jobs=[wait_for_release]) as loser, JobEngine(database, jobs=[wait_for_release]):
        loser.subscribe(events.append)
        handle = await loser.submit(wait_for_release, a_work.folder)
        await a_work.runs(attempt=1)
        reset_by_hand(tmp_path / "jobs.db")
        await a_work.runs(attempt=2)

        (a_work.folder / "release-1").touch()
        await lost_lease(events)
        between = await handle.job()
        (a_work.folder / "release-2").touch()
        job = await handle.wait(timeout=BOUND)

    assert (between.status, between.attempt, between.result) == (JobStatus.RUNNING, 2, None)
    assert (job.status, job.result) == (JobStatus.SUCCEEDED, 2)


async def test_an_end_that_is_late_and_can_not_be_looked_up_is_not_called_lost(
    database: str, tmp_path: Path, a_work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the one that was written, its answer lost: nobody knows."""
    events: list[Any] = []
    async with JobEngine(database, jobs=[wait_for_release]) as engine:
        engine.subscribe(events.append)
        await engine.submit(wait_for_release, a_work.folder)
        await a_work.runs(attempt=1)
        reset_by_hand(tmp_path / "jobs.db")
        with monkeypatch.context() as failing:
            failing.setattr(SqlStore, "get", unreachable)

            (a_work.folder / "release-1").touch()
            async with asyncio.timeout(BOUND):
                while not any(isinstance(event, TaskCrashed) for event in events):
                    await asyncio.sleep(0.005)
        (a_work.folder / "release-2").touch()

    assert not any(isinstance(event, LeaseLost) for event in events)


async def unreachable(*_: Any) -> None:
    raise StoreUnavailable("out of reach")


def reset_by_hand(file: Path) -> None:
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("UPDATE jobs SET status = 'PENDING', engine_id = NULL")
    connection.close()


async def lost_lease(events: list[Any]) -> None:
    async with asyncio.timeout(BOUND):
        while not any(isinstance(event, LeaseLost) for event in events):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("refused", [0, 2], ids=["the first row", "a later row"])
async def test_a_submit_whose_transaction_fails_leaves_no_row_and_raises(
    client: JobClient, tmp_path: Path, refused: int
) -> None:
    """D8: one transaction, so there is no half of it that a restart could find."""
    refuse_priority(tmp_path / "jobs.db", refused)

    with pytest.raises(StoreUnavailable, match="disk full"):
        await client.submit_many([nothing.using(priority=each).bind() for each in range(3)])

    assert (await client.list()).jobs == ()


def refuse_priority(file: Path, priority: int) -> None:
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(
            f"CREATE TRIGGER refuse BEFORE INSERT ON jobs WHEN NEW.priority = {priority} "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    connection.close()


async def test_a_submit_that_fails_fails_no_other_that_shared_its_transaction(
    client: JobClient, tmp_path: Path
) -> None:
    """D8: submits at the same moment share a commit, and each sees its own error only."""
    refuse_priority(tmp_path / "jobs.db", 1)

    answers = await asyncio.gather(
        *(client.submit(nothing.using(priority=each)) for each in range(3)), return_exceptions=True
    )

    assert [isinstance(each, StoreUnavailable) for each in answers] == [False, True, False]
    assert {job.priority for job in (await client.list()).jobs} == {0, 2}


async def test_a_cancel_that_races_the_end_leaves_one_end_and_the_waiter_sees_it(database: str) -> None:
    """F18: 300 rounds, at whatever moment the cancel comes."""
    async with JobEngine(database, jobs=[count_run]) as engine:
        ends: list[Any] = []
        engine.subscribe(lambda event: ends.append(event.job) if type(event).__name__ == "JobFinished" else None)
        for round_ in range(300):
            handle = await engine.submit(count_run)
            waiting = asyncio.create_task(handle.wait(timeout=BOUND))
            for _ in range(round_ % 30):
                await asyncio.sleep(0)
            asked = await handle.cancel()
            seen = await waiting

            stored = await handle.job()
            assert seen.status is stored.status
            assert stored.status in (JobStatus.SUCCEEDED, JobStatus.CANCELED)
            assert asked.status in (stored.status, JobStatus.RUNNING)
            assert [end.status for end in ends if end.id == handle.id] == [stored.status]


async def test_a_job_never_runs_after_cancel_has_returned_canceled(database: str) -> None:
    """F19: the cancel races the claim, many at once."""
    async with JobEngine(database, jobs=[count_run]) as engine:
        handles = await engine.submit_many(count_run.bind() for _ in range(500))
        answers = await asyncio.gather(*(handle.cancel() for handle in handles))
        ends = await asyncio.gather(*(handle.wait(timeout=BOUND) for handle in handles))

    canceled = [end for asked, end in zip(answers, ends, strict=True) if asked.status is JobStatus.CANCELED]
    print(f"{len(canceled)} of {len(handles)} were canceled before they were claimed")
    assert [end.id for end in canceled if end.status is not JobStatus.CANCELED or runs[end.id]] == []

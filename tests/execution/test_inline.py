"""What is particular to jobs in the engine's own process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import jobs_for_tests as jobs
import light_jobs
from bench import Bench, until

from asyncjobs.model.outcome import Canceled, Failed, Succeeded, TimedOut


async def test_a_thread_past_its_timeout_is_settled_at_once_and_busy_until_it_returns(inline: Bench, marks: Path):
    ended = await inline.run(jobs.sleep_until, marks, timeout=0.05)
    was_busy = ended.busy is not None and not ended.busy.done()
    (marks / "enough").touch()
    assert ended.busy is not None
    await ended.busy

    assert ended.outcome == TimedOut()
    assert was_busy


async def test_a_thread_that_is_asked_to_end_is_settled_at_once_and_busy_until_it_returns(inline: Bench, marks: Path):
    asked = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(inline.run(jobs.sleep_until, marks, asked=asked))
    await until((marks / "began").exists)

    asked.set_result(Canceled())
    ended = await running
    (marks / "enough").touch()
    assert ended.busy is not None
    await ended.busy

    assert ended.outcome == Canceled()


async def test_a_coroutine_that_swallows_its_cancellation_is_settled_after_the_grace(inline: Bench, marks: Path):
    ended = await inline.run(jobs.swallow_cancellation, marks, timeout=0.02, kill_grace=0.05)
    was_busy = ended.busy is not None and not ended.busy.done()
    (marks / "enough").touch()
    assert ended.busy is not None
    await ended.busy

    assert ended.outcome == TimedOut()
    assert was_busy


async def test_environment_variables_are_refused_without_showing_their_values(inline: Bench):
    ended = await inline.run(light_jobs.nothing, env={"TOKEN": "secret"})

    assert isinstance(ended.outcome, Failed)
    assert ended.outcome.error.kind == "params"
    assert "TOKEN" in ended.outcome.error.message
    assert "secret" not in ended.outcome.error.message


async def test_a_canceled_run_leaves_its_thread_alone(inline: Bench, marks: Path):
    running = asyncio.create_task(inline.run(jobs.sleep_until, marks))
    await until((marks / "began").exists)

    running.cancel()
    await asyncio.wait([running])
    (marks / "enough").touch()

    assert running.cancelled()


async def test_a_run_that_is_canceled_at_once_leaves_no_coroutine_running(inline: Bench, marks: Path):
    running = asyncio.create_task(inline.run(jobs.sleep_async, marks))
    await asyncio.sleep(0)

    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()
    assert "an inline job" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_the_first_step_of_a_coroutine_is_one_of_its_own_task(inline: Bench):
    ended = await inline.run(jobs.bounds_in_its_first_step)

    assert ended.outcome == Succeeded('["an inline job", "timed out", "canceled"]')


async def test_an_attempt_has_no_process(inline: Bench):
    ended = await inline.run(light_jobs.nothing)

    assert ended.process.pid is None

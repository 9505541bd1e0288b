"""What is particular to a warm process: it runs one job after another, until it is worn."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import jobs_for_tests as jobs
import light_jobs
import pytest
from bench import ENGINE, Bench, alive, until

from asyncjobs import Settings
from asyncjobs.execution.runner import ProcessRunner
from asyncjobs.model.outcome import Failed, Succeeded


async def pid_after(bench: Bench, definition=light_jobs.nothing, *arguments: object, **options: object) -> int | None:
    return (await bench.run(definition, *arguments, **options)).process.pid


def with_settings(**settings: object) -> Bench:
    return Bench(ProcessRunner("reuse", engine_id=ENGINE, settings=Settings(**settings)), "reuse")


async def test_the_same_process_runs_the_next_job(reuse: Bench):
    assert await pid_after(reuse) == await pid_after(reuse)


async def test_an_exception_does_not_wear_a_process_out(reuse: Bench):
    first = await reuse.run(jobs.fail, "once")
    second = await reuse.run(jobs.fail, "twice")

    assert isinstance(first.outcome, Failed)
    assert first.process.pid == second.process.pid


async def test_a_process_is_replaced_after_its_share_of_jobs():
    """F60"""
    bench = with_settings(reuse_jobs=2)

    seen = [await pid_after(bench) for _ in range(4)]
    await bench.runner.close()

    assert seen[0] == seen[1] != seen[2] == seen[3]


async def test_a_process_is_replaced_at_its_age():
    """F60"""
    bench = with_settings(reuse_seconds=1)

    young = [await pid_after(bench) for _ in range(2)]
    old = await pid_after(bench, jobs.burn, 1.1)
    after = await pid_after(bench, jobs.burn, 0.0)
    await bench.runner.close()

    assert young[0] == young[1]
    assert old != after


async def test_a_process_that_has_grown_is_replaced():
    """F60"""
    bench = with_settings(reuse_growth_bytes=20_000_000)

    small = [await pid_after(bench, jobs.keep_memory, 1000) for _ in range(2)]
    grown = await pid_after(bench, jobs.keep_memory, 50_000_000)
    after = await pid_after(bench, jobs.keep_memory, 1000)
    await bench.runner.close()

    assert small[0] == small[1] == grown != after


async def test_a_job_that_leaves_a_thread_is_its_process_last(reuse: Bench, tmp_path: Path):
    """F60"""
    first = await reuse.run(jobs.leave_thread, tmp_path / "written")
    second = await pid_after(reuse, jobs.leave_thread, tmp_path / "again")

    assert first.outcome == Succeeded('"done"')
    assert first.process.pid != second


@pytest.mark.parametrize("end", ["sleep", "exit", "crash", "mute"])
async def test_a_process_that_did_not_end_its_job_well_is_replaced(reuse: Bench, end: str):
    """F60"""
    first = await pid_after(reuse, jobs.end_by, "return")

    middle = await reuse.run(jobs.end_by, end, timeout=0.5, kill_grace=0.1)
    second = await pid_after(reuse, jobs.end_by, "return")

    assert middle.process.pid is not None
    assert first != second


async def test_a_jobs_own_variables_are_gone_for_the_next(reuse: Bench):
    one = await reuse.run(jobs.environment, "FOR_THIS_JOB", env={"FOR_THIS_JOB": "secret"})
    other = await reuse.run(jobs.environment, "FOR_THIS_JOB")

    assert one.process.pid == other.process.pid
    assert (one.outcome, other.outcome) == (Succeeded('"secret"'), Succeeded("null"))


async def test_output_belongs_to_the_job_that_printed_it(reuse: Bench):
    await reuse.run(jobs.print_lines, 1)
    first = dict(reuse.printed)
    await reuse.run(jobs.print_lines, 2)

    assert first["stdout"] == "line 0\n"
    assert reuse.printed["stdout"] == "line 0\nline 0\nline 1\n"


async def test_output_without_a_line_end_belongs_to_the_job_that_printed_it(reuse: Bench):
    await reuse.run(jobs.print_unfinished, "one")
    first = dict(reuse.printed)
    await reuse.run(jobs.print_unfinished, "two")

    assert first["stdout"] == "one"
    assert reuse.printed["stdout"] == "onetwo"


async def test_a_warm_process_says_something_in_its_next_job_too(reuse: Bench):
    ends = [await reuse.run(jobs.say_from_threads, 1) for _ in range(2)]

    assert ends[0].process.pid == ends[1].process.pid
    assert [each.completed for each in reuse.told].count(20) == 2


async def test_a_process_is_not_used_again_past_its_deadline(reuse: Bench):
    """Its template may be about to end it: here the engine's loop sees the reply too late."""
    warm = await pid_after(reuse)
    running = asyncio.create_task(reuse.run(light_jobs.nothing, timeout=0.3, kill_grace=0.0))
    await asyncio.sleep(0)  # the request is sent
    time.sleep(0.32)

    ended = await running
    again = await reuse.run(light_jobs.nothing)

    assert (ended.outcome, ended.process.pid) == (Succeeded("null"), warm)
    assert again.outcome == Succeeded("null")
    assert again.process.pid != warm


async def test_what_a_job_left_running_is_gone_before_the_next(reuse: Bench, marks: Path):
    ended = await reuse.run(jobs.leave_processes, marks, "daemon")

    assert ended.process.leftovers == 1
    assert not alive(int((marks / "pids").read_text()))


async def test_a_warm_process_that_died_is_replaced(reuse: Bench):
    import os
    import signal

    first = await pid_after(reuse)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: not alive(first))

    assert (await reuse.run(light_jobs.nothing)).outcome == Succeeded("null")

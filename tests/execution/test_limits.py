"""Limits that the kernel keeps, and how an attempt tells which one it has met."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

import jobs_for_tests as jobs
import pytest
from bench import Bench, alive, pids_in, until

from asyncjobs import job
from asyncjobs.model.outcome import Crashed, Failed, Succeeded

MEBIBYTE = 1024 * 1024


async def test_a_job_above_its_memory_limit_gets_a_memory_error(process: Bench):
    """F56"""
    limited = job(memory_limit=100 * MEBIBYTE)(jobs.take_memory.function)

    ended = await process.run(limited, 300 * MEBIBYTE)

    assert isinstance(ended.outcome, Failed)
    assert ended.outcome.error.class_name == "MemoryError"
    assert ended.process.limit == f"memory limit of {100 * MEBIBYTE} bytes reached"


async def test_a_job_may_use_its_memory_limit_whatever_its_module_has_taken(process: Bench):
    limited = job(memory_limit=300 * MEBIBYTE)(jobs.take_memory.function)

    ended = await process.run(limited, 200 * MEBIBYTE)

    assert ended.outcome == Succeeded(str(200 * MEBIBYTE))
    assert ended.process.limit is None


async def test_a_job_above_its_cpu_limit_is_killed_and_told_apart(process: Bench):
    """F55"""
    ended = await process.run(job(cpu_limit=1)(jobs.burn.function), 600.0)

    assert isinstance(ended.outcome, Crashed)
    assert ended.outcome.reason.startswith("cpu limit of 1 s reached: killed by signal 24 (SIGXCPU)")
    assert ended.process.signal == signal.SIGXCPU


async def test_the_cpu_limit_is_counted_for_each_job(process: Bench):
    limited = job(cpu_limit=1)(jobs.burn.function)

    ends = [(await process.run(limited, 0.6)).outcome for _ in range(3)]

    assert all(isinstance(end, Succeeded) for end in ends)


async def test_a_job_has_so_many_descriptors_and_so_much_niceness(process: Bench):
    """F56"""
    ended = await process.run(job(open_files=64, nice=5)(jobs.own_limits.function))

    assert isinstance(ended.outcome, Succeeded)
    assert json.loads(ended.outcome.result_json) == [64, 5]


@pytest.mark.parametrize("session_each", [False, True], ids=["in its session", "each in its own"])
async def test_a_fork_bomb_is_killed_above_its_process_limit(process: Bench, marks: Path, session_each: bool):
    """F56"""
    ended = await process.run(job(process_limit=20)(jobs.fork_bomb.function), marks, session_each)

    assert isinstance(ended.outcome, Crashed)
    assert ended.outcome.reason.startswith("process limit of 20 reached: killed by signal 9 (SIGKILL) without a reply")
    await until(lambda: not any(map(alive, pids_in(marks))))


async def test_a_job_may_have_as_many_processes_as_its_limit_says(process: Bench):
    limited = job(process_limit=3)(jobs.start_processes.function)

    within, beyond = await process.run(limited, 3), await process.run(limited, 4)

    assert within.outcome == Succeeded("2")
    assert isinstance(beyond.outcome, Crashed)
    assert beyond.outcome.reason.startswith("process limit of 3 reached")


async def test_without_limits_a_job_has_those_of_its_engine(process: Bench):
    ended = await process.run(jobs.own_limits)

    assert isinstance(ended.outcome, Succeeded)
    mine = [resource.getrlimit(resource.RLIMIT_NOFILE)[0], os.getpriority(os.PRIO_PROCESS, 0)]
    assert json.loads(ended.outcome.result_json) == mine


@pytest.mark.parametrize("limits", [{"memory_limit": 100 * MEBIBYTE}, {"cpu_limit": 30}], ids=["memory", "cpu"])
async def test_a_limit_that_is_over_leaves_the_one_that_was_there(process: Bench, tmp_path: Path, limits):
    before = resource.getrlimit(resource.RLIMIT_AS)
    given = 6 * 1024 * MEBIBYTE
    resource.setrlimit(resource.RLIMIT_AS, (given, before[1]))
    try:
        await process.run(job(**limits)(jobs.note_limit_at_exit.function), tmp_path / "limit")
        await process.runner.close()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

    assert (tmp_path / "limit").read_text() == str(given)

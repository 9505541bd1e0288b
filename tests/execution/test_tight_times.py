"""How soon all of a job is gone: for a machine that has nothing else to do. Looser, without times, in test_hosts.py."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import jobs_for_tests as jobs
import pytest
from bench import Bench, alive, engine_of_its_own, pids_in, until

from asyncjobs.execution.inside import tree
from asyncjobs.model.outcome import Succeeded, TimedOut

pytestmark = pytest.mark.quiet
ROUNDS = 3
"""The best counts: what else the machine does is no part of the promise."""


async def seconds_until_gone(*pids: int) -> float:
    began = time.monotonic()
    await until(lambda: not any(map(alive, pids)))
    return time.monotonic() - began


async def text_in(file: Path) -> str:
    await until(lambda: file.exists() and file.read_text())
    return file.read_text()


def folders(parent: Path) -> list[Path]:
    made = [parent / str(number) for number in range(ROUNDS)]
    for each in made:
        each.mkdir()
    return made


async def test_a_job_that_spins_in_c_and_ignores_sigterm_is_gone_at_its_time(process: Bench, tmp_path: Path):
    """F21, F22: timeout and grace are 1 s each; the next job of that name runs right after."""
    took: list[tuple[float, float, float]] = []
    for marks in folders(tmp_path):
        began = time.monotonic()
        ended = await process.run(jobs.spin_with_daemon, marks, timeout=1.0, kill_grace=1.0)
        to_end = time.monotonic() - began
        daemon_gone = await seconds_until_gone(*pids_in(marks))
        after = time.monotonic()
        following = await process.run(jobs.spin_with_daemon, marks, kwargs={"spin": False})
        took.append((to_end, daemon_gone, time.monotonic() - after))
        assert (ended.outcome, following.outcome) == (TimedOut(), Succeeded("null"))

    print(f"{process.isolation}: TIMEOUT, daemon dead, next job after", [tuple(round(s, 3) for s in t) for t in took])
    assert min(to_end for to_end, _, _ in took) <= 2.2
    assert min(daemon_gone for _, daemon_gone, _ in took) <= 0.5
    assert min(following for _, _, following in took) <= 0.5


@pytest.mark.parametrize("isolation", ["fork", "spawn", "reuse"])
async def test_it_is_gone_at_its_time_while_the_loop_of_its_engine_is_blocked(tmp_path: Path, isolation: str):
    """F21, F22"""
    took: list[tuple[float, float]] = []
    for marks in folders(tmp_path):
        with engine_of_its_own(isolation, marks, "spins", "blocked") as host:
            began_at = float(await text_in(marks / "blocked"))
            await seconds_until_gone(int((marks / "job").read_text()))
            to_end = time.time() - began_at
            took.append((to_end, await seconds_until_gone(*pids_in(marks))))
            (marks / "unblock").touch()
            assert (await asyncio.to_thread(host.communicate))[0] == "TimedOut\n"

    print(f"{isolation}, loop blocked: job dead, its daemon after", [tuple(round(s, 3) for s in t) for t in took])
    assert min(to_end for to_end, _ in took) <= 2.2
    assert min(daemon_gone for _, daemon_gone in took) <= 0.5


@pytest.mark.parametrize("isolation", ["fork", "spawn", "reuse"])
@pytest.mark.parametrize("job", ["spins", "cleared"])
async def test_a_second_after_the_kill_of_an_engine_no_process_of_any_job_is_left(
    tmp_path: Path, isolation: str, job: str
):
    """F02, D10"""
    took: list[float] = []
    for marks in folders(tmp_path):
        with engine_of_its_own(isolation, marks, job) as host:
            await until((marks / "began").exists)
            below = {each.pid for each in tree.descendants(host.pid)} | set(pids_in(marks))
            host.kill()
            took.append(await seconds_until_gone(*below))

    print(f"{isolation}, {job}: nothing left after", [round(each, 3) for each in took])
    assert min(took) <= 1.0

"""What a job's processes do when their engine is killed, blocked, or loses its template."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import jobs_for_tests as jobs
import light_jobs
import pytest
from bench import ENGINE, Bench, alive, engine_of_its_own, pids_in, until

from asyncjobs.execution import NotStarted
from asyncjobs.execution.inside import tree
from asyncjobs.model.outcome import Canceled, Interrupted, Succeeded

ISOLATIONS = pytest.mark.parametrize("isolation", ["fork", "spawn", "reuse"])


def template_of(job: int) -> int:
    process = tree.read_process(job)
    assert process is not None
    return process.ppid


def our_templates() -> list[int]:
    """Return our children that are templates."""
    found = [each.pid for each in tree.descendants(os.getpid()) if each.ppid == os.getpid()]
    return [pid for pid in found if f"={ENGINE}.".encode() in environment_of(pid)]


def environment_of(pid: int) -> bytes:
    """Return the variables of a process, none if it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@ISOLATIONS
@pytest.mark.parametrize("job", ["ignores", "setsid", "daemon", "cleared"])
async def test_an_engine_killed_outright_leaves_no_process(tmp_path: Path, isolation: str, job: str):
    """F02, D10"""
    with engine_of_its_own(isolation, tmp_path, job) as host:
        await until((tmp_path / "began").exists)
        below = {each.pid for each in tree.descendants(host.pid)}
        if job != "ignores":
            below |= set(pids_in(tmp_path))

        host.kill()
        await asyncio.to_thread(host.wait)

        assert len(below) >= 2
        await until(lambda: not any(map(alive, below)))


@ISOLATIONS
async def test_a_deadline_is_kept_while_the_engines_loop_is_blocked(tmp_path: Path, isolation: str):
    with engine_of_its_own(isolation, tmp_path, "spins", "blocked") as host:
        await until((tmp_path / "blocked").exists)
        job, daemon = int((tmp_path / "job").read_text()), pids_in(tmp_path)[0]

        await until(lambda: not alive(job) and not alive(daemon))
        (tmp_path / "unblock").touch()
        said = await asyncio.to_thread(host.communicate)

        assert said[0] == "TimedOut\n"


async def test_a_killed_template_interrupts_its_jobs_and_sweeps_what_they_left(process: Bench, marks: Path):
    running = asyncio.create_task(process.run(jobs.leave_processes, marks, "daemon", True))
    await until((marks / "began").exists)

    for template in our_templates():
        os.kill(template, signal.SIGKILL)
    ended = await running
    again = await process.run(light_jobs.nothing)

    assert isinstance(ended.outcome, Interrupted)
    assert ended.outcome.vanished
    assert not alive(pids_in(marks)[0])
    assert again.outcome == Succeeded("null")


async def test_a_sigterm_for_all_processes_leaves_the_template_to_its_engine(process: Bench, marks: Path):
    """F13: as a service manager sends it to each process of a service."""
    running = asyncio.create_task(process.run(jobs.sleep_until, marks))
    await until((marks / "began").exists)

    for template in our_templates():
        os.kill(template, signal.SIGTERM)
    beside = await process.run(light_jobs.nothing)
    (marks / "enough").touch()

    assert beside.outcome == Succeeded("null")
    assert (await running).outcome == Succeeded('"late"')


async def test_templates_that_keep_dying_are_started_after_a_pause(process: Bench, monkeypatch):
    monkeypatch.setattr("asyncjobs.execution.supply.FIRST_PAUSE", 30.0)
    for _ in range(2):
        assert isinstance((await process.run(jobs.kill_parent)).outcome, Interrupted)

    with pytest.raises(NotStarted, match="its template keeps ending"):
        await process.run(jobs.kill_parent)


async def test_a_template_that_hangs_is_killed_with_its_jobs(process: Bench, marks: Path, monkeypatch):
    """F24"""
    monkeypatch.setattr("asyncjobs.execution.process.KILL_BOUND", 0.1)
    monkeypatch.setattr("asyncjobs.execution.templates.ANSWER_BOUND", 0.1)
    asked = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(process.run(jobs.ignore_sigterm, marks, asked=asked, kill_grace=0.1))
    await until((marks / "began").exists)
    for template in our_templates():
        os.kill(template, signal.SIGSTOP)

    asked.set_result(Canceled())
    ended = await running

    assert ended.outcome == Canceled()
    assert ended.busy is None
    assert (await process.run(light_jobs.nothing)).outcome == Succeeded("null")

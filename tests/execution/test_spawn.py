"""What is particular to a fresh interpreter per job: its start, its standbys, its main module."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from pathlib import Path

import jobs_for_tests as jobs
import light_jobs
import pytest
from bench import ENGINE, Bench, until

from asyncjobs.execution import NotStarted
from asyncjobs.execution import attempt as attempt_module
from asyncjobs.execution import supply as supply_module
from asyncjobs.execution import templates as templates_module
from asyncjobs.execution.inside import tree
from asyncjobs.model.outcome import Crashed, Failed, Succeeded


def children() -> set[int]:
    """Return our processes below our templates: other tests have theirs."""
    return {each.pid for each in tree.descendants(os.getpid()) if is_ours(each.pid) and is_ours(each.ppid)}


def is_ours(pid: int) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{tree.TOKEN_VARIABLE}={ENGINE}".encode() in environ


async def standbys_after_a_run(spawn: Bench) -> set[int]:
    await spawn.run(light_jobs.nothing)
    await until(children)
    return children()


# Standbys


async def test_nothing_is_started_before_the_first_run(spawn: Bench):
    await asyncio.sleep(0)

    assert children() == set()


async def test_after_a_run_a_process_waits_for_the_next(spawn: Bench):
    waiting = await standbys_after_a_run(spawn)

    ended = await spawn.run(light_jobs.nothing)

    assert ended.process.pid in waiting


async def test_a_standby_found_dead_is_replaced(spawn: Bench):
    for pid in await standbys_after_a_run(spawn):
        os.kill(pid, signal.SIGKILL)

    ended = await spawn.run(light_jobs.nothing)

    assert ended.outcome == Succeeded("null")


async def test_a_standby_that_dies_with_its_request_unread_is_replaced(spawn: Bench, monkeypatch):
    waiting = await standbys_after_a_run(spawn)
    for pid in waiting:
        os.kill(pid, signal.SIGSTOP)
    running = asyncio.create_task(spawn.run(light_jobs.nothing))
    await until(lambda: len(children() - waiting) > 0 or len(children()) >= len(waiting))

    for pid in waiting:
        os.kill(pid, signal.SIGKILL)
    ended = await running

    assert ended.outcome == Succeeded("null")
    assert ended.process.pid not in waiting


async def test_standbys_end_when_nothing_has_run_for_a_while(spawn: Bench, monkeypatch):
    monkeypatch.setattr(supply_module, "IDLE", 0.05)
    await standbys_after_a_run(spawn)

    await until(lambda: not children())


async def test_attempts_that_run_long_keep_no_process_from_waiting_for_the_next(spawn: Bench, marks, monkeypatch):
    monkeypatch.setattr(supply_module, "LONG_RUN", 0.0)
    running = [asyncio.create_task(spawn.run(jobs.sleep_until, marks)) for _ in range(supply_module._processors())]
    await until((marks / "began").exists)

    await spawn.run(light_jobs.nothing)

    await until(lambda: len(children()) > len(running))
    (marks / "enough").touch()
    await asyncio.gather(*running)


async def test_close_ends_the_standbys(spawn: Bench):
    await standbys_after_a_run(spawn)

    await spawn.runner.close()

    assert children() == set()


async def test_close_ends_a_standby_that_does_not_listen(spawn: Bench):
    for pid in await standbys_after_a_run(spawn):
        os.kill(pid, signal.SIGSTOP)

    await spawn.runner.close()

    assert children() == set()


async def test_a_job_imports_little_beside_its_module(spawn: Bench):
    """D15"""
    ended = await spawn.run(light_jobs.modules)

    assert isinstance(ended.outcome, Succeeded)
    dear = {"json", "typing", "asyncio", "threading", "signal", "os", "logging", "traceback", "asyncjobs.codec"}
    assert not dear & set(json.loads(ended.outcome.result_json))


async def test_site_is_run_only_where_an_editable_install_needs_it(spawn: Bench, monkeypatch):
    finder = type("EditableFinder", (), {"__module__": "__editable___package_finder", "find_spec": lambda *_: None})
    without = await spawn.run(light_jobs.modules)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder])

    with_it = await spawn.run(light_jobs.modules)

    assert isinstance(without.outcome, Succeeded)
    assert isinstance(with_it.outcome, Succeeded)
    assert '"site"' not in without.outcome.result_json
    assert '"site"' in with_it.outcome.result_json


# Starts that fail


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM])
async def test_want_of_resources_is_no_attempt(spawn: Bench, monkeypatch, number):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", refuse)

    with pytest.raises(NotStarted, match=os.strerror(number)):
        await spawn.run(light_jobs.nothing)


async def test_want_of_descriptors_is_no_attempt_and_leaks_none(spawn: Bench):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_before = sorted(os.listdir("/proc/self/fd"))
    taken: list[int] = []
    refused = 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(12):
            os.close(taken.pop())
            try:
                await spawn.run(light_jobs.nothing)
            except NotStarted:
                refused += 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in taken:
            os.close(each)
    await spawn.runner.close()

    assert 3 < refused < 12
    await until(lambda: sorted(os.listdir("/proc/self/fd")) == open_before)


async def test_a_process_that_can_not_be_watched_is_no_attempt_and_is_not_left(spawn: Bench, monkeypatch):
    """asyncio watches with a thread for each process, from Python 3.12 on with a descriptor."""
    start = threading.Thread.start

    def refuse_a_thread(thread: threading.Thread) -> None:
        if thread.name.startswith("asyncio-waitpid"):
            raise RuntimeError("can't start new thread")
        start(thread)

    def refuse_a_descriptor(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(threading.Thread, "start", refuse_a_thread)
    monkeypatch.setattr(os, "pidfd_open", refuse_a_descriptor)

    with pytest.raises(NotStarted, match=r"thread|Too many open files"):
        await spawn.run(light_jobs.nothing)
    await until(lambda: not children())


async def test_a_missing_interpreter_is_no_attempt(spawn: Bench, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    with pytest.raises(NotStarted, match="/nowhere/python"):
        await spawn.run(light_jobs.nothing)


async def test_an_interpreter_that_can_not_be_executed_fails_the_attempt_in_one_sentence(
    process: Bench, monkeypatch, tmp_path: Path
):
    python = tmp_path / "python"
    python.touch(mode=0o644)
    monkeypatch.setattr(sys, "executable", str(python))

    ended = await process.run(light_jobs.nothing)

    assert isinstance(ended.outcome, Failed)
    assert ended.outcome.error.kind == "environment"
    assert ended.outcome.error.message == f"{python} can't be executed: Permission denied"


async def test_an_interpreter_that_can_be_executed_no_more_fails_the_attempt_though_its_template_runs(
    spawn: Bench, monkeypatch, tmp_path: Path
):
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    for pid in await standbys_after_a_run(spawn):
        python.unlink(missing_ok=True)
        python.touch(mode=0o644)
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(NotStarted, match="PermissionError"):
        await spawn.run(light_jobs.nothing)
    ended = await spawn.run(light_jobs.nothing)

    assert isinstance(ended.outcome, Failed)


async def test_an_interpreter_that_does_not_come_up_is_no_attempt(spawn: Bench, monkeypatch):
    monkeypatch.setattr(templates_module, "_CHILD", "/nowhere/child.py")

    with pytest.raises(NotStarted, match="FileNotFoundError"):
        await spawn.run(light_jobs.nothing)


# Processes that resist


async def test_a_reply_counts_though_its_process_does_not_exit(spawn: Bench, monkeypatch, tmp_path: Path):
    reply = b'{"ok": true, "stays": false, "leftovers": 0}'
    child = tmp_path / "child.py"
    child.write_text(
        textwrap.dedent(f"""
        import os, time
        def main(channel, parent):
            os.read(channel, 100_000)
            os.write(channel, ({len(reply)}).to_bytes(4, "big") + (1).to_bytes(4, "big") + {reply!r} + b"7")
            time.sleep(600)
        """)
    )
    monkeypatch.setattr(templates_module, "_CHILD", str(child))
    monkeypatch.setattr(attempt_module, "_EXIT_BOUND", 0.05)

    ended = await spawn.run(light_jobs.nothing, kill_grace=0.05)

    assert ended.outcome == Succeeded("7")
    assert ended.process.signal == signal.SIGKILL


async def test_a_reply_followed_by_another_exit_code_does_not_count(spawn: Bench, monkeypatch, tmp_path: Path):
    reply = b'{"ok": true, "stays": false, "leftovers": 0}'
    child = tmp_path / "child.py"
    child.write_text(
        textwrap.dedent(f"""
        import os
        def main(channel, parent):
            os.read(channel, 100_000)
            os.write(channel, ({len(reply)}).to_bytes(4, "big") + (1).to_bytes(4, "big") + {reply!r} + b"7")
            os._exit(4)
        """)
    )
    monkeypatch.setattr(templates_module, "_CHILD", str(child))

    ended = await spawn.run(light_jobs.nothing)

    assert ended.outcome == Crashed(reason="exited with code 4 after its reply")


async def test_a_reply_above_the_limit_is_a_crash(spawn: Bench, monkeypatch, tmp_path: Path):
    child = tmp_path / "child.py"
    child.write_text(
        textwrap.dedent("""
        import os
        def main(channel, parent):
            os.read(channel, 100_000)
            os.write(channel, (2).to_bytes(4, "big") + (6_000_001).to_bytes(4, "big") + b"{}")
            os.read(channel, 1)
        """)
    )
    monkeypatch.setattr(templates_module, "_CHILD", str(child))

    ended = await spawn.run(light_jobs.nothing)

    assert isinstance(ended.outcome, Crashed)
    assert ended.outcome.reason.startswith("garbage on the control channel: a payload of 6000001 bytes")


async def test_a_host_that_forks_keeps_no_standby_alive(spawn: Bench):
    await standbys_after_a_run(spawn)
    copy = os.fork()
    if copy == 0:
        signal.pause()
        os._exit(0)

    await spawn.runner.close()
    left = children() - {copy}
    os.kill(copy, signal.SIGKILL)
    os.waitpid(copy, 0)

    assert left == set()

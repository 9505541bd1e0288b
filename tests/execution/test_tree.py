"""Processes by /proc: who lives, who descends from whom, and how they end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from asyncjobs.execution.inside import tree

SLEEP = "import time; print('x', flush=True); time.sleep(600)"
FAMILY = (
    "import subprocess, sys, time;"
    "p = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600)'],"
    "    start_new_session=True);"
    "print(p.pid, flush=True); time.sleep(600)"
)
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start_one(code: str = SLEEP, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        if process.poll() is None:
            tree.kill_descendants(process.pid)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def started(pid: int) -> float:
    start = tree.start_time(pid)
    assert start is not None
    return start


def test_a_process_is_known_by_pid_and_start_time(start: Start):
    pid = start().pid

    assert tree.is_alive(pid, started(pid))
    assert not tree.is_alive(pid, started(pid) + 1)


def test_a_zombie_is_not_alive(start: Start):
    process = start("pass")
    start_time = started(process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert not tree.is_alive(process.pid, start_time)


def test_a_process_that_is_gone_has_no_start_time(start: Start):
    process = start("pass")
    process.wait()

    assert tree.start_time(process.pid) is None


def test_a_program_with_spaces_and_parentheses_in_its_name_is_read(tmp_path, start: Start):
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "600"])

    found = tree.read_process(process.pid)
    process.kill()
    process.wait()

    assert found is not None
    assert found.ppid == os.getpid()


def test_descendants_are_found_through_sessions(start: Start):
    process = start(FAMILY)
    grandchild = int(first_line(process))

    assert [each.pid for each in tree.descendants(process.pid)] == [grandchild]


def test_a_tree_is_killed_with_what_left_its_session(start: Start):
    process = start(FAMILY)
    grandchild = int(first_line(process))
    its_start = started(grandchild)

    count = tree.kill_tree(process.pid, started(process.pid))
    process.wait()

    assert count == 1
    assert process.returncode == -9
    assert not wait_for(lambda: tree.is_alive(grandchild, its_start))


def test_a_stranger_with_a_reused_pid_is_not_killed(start: Start):
    """F59"""
    process = start()

    count = tree.kill_tree(process.pid, started(process.pid) - 1)

    assert count == 0
    assert process.poll() is None


def test_a_stranger_with_a_reused_pid_is_not_signalled(start: Start):
    """F59"""
    process = start()
    known = tree.read_process(process.pid)
    assert known is not None
    known.started -= 1

    assert not tree.send(known, 9)
    assert process.poll() is None


def test_a_sweep_kills_what_has_the_token(start: Start):
    one = start(ASYNCJOBS_PROCESS="token-1.7")
    first_line(one)

    assert tree.sweep("token-1.7") == 1
    assert one.wait() == -9


def test_a_sweep_by_prefix_kills_all_of_an_engine(start: Start):
    family = [start(ASYNCJOBS_PROCESS=f"token-1.{number}") for number in range(2)]
    for each in family:
        first_line(each)

    assert tree.sweep("token-1") == 2


@pytest.mark.parametrize("token", ["token-11.7", "token-1x", "another"])
def test_a_sweep_leaves_strangers_alone(start: Start, token):
    stranger = start(ASYNCJOBS_PROCESS=token)
    first_line(stranger)

    assert tree.sweep("token-1") == 0
    assert stranger.poll() is None


def test_a_sweep_spares_the_caller_and_its_ancestors(start: Start):
    code = "import sys; sys.path[:0] = {path!r}; from asyncjobs.execution.inside import tree; print(tree.sweep('mine'))"
    caller = start(code.format(path=sys.path), ASYNCJOBS_PROCESS="mine.1")

    assert first_line(caller) == "0"


def test_a_boot_has_a_name():
    assert len(tree.boot_id()) > 30
    assert tree.boot_id() == tree.boot_id()


def wait_for(condition: Callable[[], bool]) -> bool:
    """Wait until the condition turns false; return its last value."""
    import time

    deadline = time.monotonic() + 10
    while condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def test_a_process_that_is_hidden_from_us_is_not_taken_for_gone(monkeypatch):
    """As others' processes are where `/proc` is mounted with `hidepid`."""
    monkeypatch.setattr(tree, "_read", lambda path: b"")

    assert tree.is_alive(os.getppid(), 1.0)
    assert tree.is_alive(1, 1.0)


def test_a_process_that_is_gone_is_not_alive():
    process = subprocess.Popen(["true"])
    process.wait()

    assert not tree.is_alive(process.pid, 1.0)

"""Processes and their descendants, by `/proc`: who is alive, and how a whole tree is ended.

Killing a tree is stop, walk, kill: a stopped process can't fork, so a walk that finds nothing new
has found all. Nobody is signalled by his pid alone: a process is its pid and its start time, and the
signal goes through a pidfd opened before that start time was compared (`man 2 pidfd_open`).

What escaped its tree (its parent was killed first) still has the variable `ASYNCJOBS_PROCESS` in its
environment, and `sweep` finds it by that. Where there is no `/proc` (macOS) only process groups are
killed.

A job's process loads this file by path: standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Any, TypeVar

    T = TypeVar("T")

TOKEN_VARIABLE = "ASYNCJOBS_PROCESS"
LINUX = sys.platform == "linux"
_TICKS = os.sysconf("SC_CLK_TCK")
_DEAD = ("Z", "X", "x")


class Process:
    """A line of the process table; `started` is in seconds since boot, `cpu_time` in seconds."""

    __slots__ = ("cpu_time", "pgid", "pid", "ppid", "session", "started", "state")

    def __init__(self, pid: int, stat: bytes) -> None:
        # The name of the program stands in parentheses and may itself contain spaces and parentheses.
        fields = stat[stat.rindex(b")") + 2 :].split()
        self.pid = pid
        self.state = fields[0].decode()
        self.ppid = int(fields[1])
        self.pgid = int(fields[2])
        self.session = int(fields[3])
        self.cpu_time = sum(map(int, fields[11:15])) / _TICKS
        self.started = int(fields[19]) / _TICKS

    @property
    def dead(self) -> bool:
        """Whether it has ended and only waits for its parent to take note."""
        return self.state in _DEAD


def read_process(pid: int) -> Process | None:
    """Return the process of this pid, or None when there is none (or no `/proc`)."""
    stat = _read(f"/proc/{pid}/stat")
    return Process(pid, stat) if stat else None


def start_time(pid: int) -> float | None:
    """Return when the process started, in seconds since boot; None when it is gone.

    Where there is no `/proc` it is 0.0 for every process that exists.
    """
    if LINUX:
        process = read_process(pid)
        return None if process is None else process.started
    return 0.0 if _exists(pid) else None


def is_alive(pid: int, started: float) -> bool:
    """Return whether the process of this pid and start time runs: not gone, reused or a zombie."""
    if not LINUX:
        return _exists(pid)
    process = read_process(pid)
    if process is None:
        return _exists(pid)  # others' processes may be hidden from us (`hidepid` in `man 5 proc`)
    return process.started == started and not process.dead


def boot_id() -> str:
    """Return what this boot of this machine and the process's pid namespace are known by.

    Containers share their host's boot, but a pid of one means nothing in another.
    """
    boot = _read("/proc/sys/kernel/random/boot_id").decode().strip()
    try:
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return boot


def descendants(pid: int) -> list[Process]:
    """Return the living children of a process, their children and so on, parents first."""
    return _descendants({pid})


def kill_tree(pid: int, started: float) -> int:
    """Kill the process of this pid and start time with all its descendants; return how many those were.

    It returns when the signals are sent; the processes may need a moment to be gone.
    """
    if not LINUX:
        kill_group(pid)
        return 0
    root = read_process(pid)
    if root is None or root.started != started:
        return 0
    send(root, signal.SIGSTOP)
    below = _stop_descendants(pid, ())
    _kill_all([root, *below])
    return len(below)


def before_others(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function ahead of all other processes, if we may (as root): among many that compute we'd wait long."""
    try:
        policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (OSError, AttributeError):
        return function(*arguments)
    try:
        return function(*arguments)
    finally:
        os.sched_setscheduler(0, policy, priority)


def kill_group(pid: int) -> None:
    """Kill the processes of a group, where there are any."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def kill_descendants(pid: int, *, keep: Collection[int] = ()) -> int:
    """Kill what descends from a process, not the process itself nor those in `keep`; return how many."""
    below = _stop_descendants(pid, keep)
    _kill_all(below)
    return len(below)


def kill_orphans(pid: int, *, spared: Collection[int]) -> int:
    """Kill the children of a process, but for those in `spared`, with all below them; return how many.

    It waits until they are gone, at most for a second.
    """
    killed: dict[int, Process] = {}
    while True:
        roots = [
            each
            for each in _processes()
            if each.ppid == pid and not each.dead and each.pid not in spared and each.pid not in killed
        ]
        if not roots:
            _wait_for(killed.values(), seconds=1.0)
            return len(killed)
        for root in roots:
            send(root, signal.SIGSTOP)
        found = [each for root in roots for each in (root, *_stop_descendants(root.pid, ()))]
        _kill_all(found)
        killed.update((each.pid, each) for each in found)


def sweep(token: str, *, seconds: float = 5.0) -> int:
    """Kill every process whose environment has the token, and wait until they are gone.

    Meant are `ASYNCJOBS_PROCESS=<token>` and `ASYNCJOBS_PROCESS=<token>.<anything>`, never the caller
    or its ancestors. It blocks, at most for `seconds`, so it belongs into a thread.

    Returns:
        How many were killed.
    """
    wanted = token.encode()
    spared = _ancestry()
    killed: set[tuple[int, float]] = set()
    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        found = [each for each in _with_token(wanted) if each.pid not in spared]
        for each in found:
            if send(each, signal.SIGKILL):
                killed.add((each.pid, each.started))
        if not found or time.monotonic() > deadline:
            return len(killed)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def send(process: Process, number: int) -> bool:
    """Send a signal to exactly this process; return whether it was there and took it."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):  # an old kernel or Python, or no descriptor left
        handle = -1
    try:
        now = read_process(process.pid)
        if now is None or now.started != process.started or now.dead:
            return False
        if handle >= 0:
            signal.pidfd_send_signal(handle, number)
        else:
            os.kill(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle >= 0:
            os.close(handle)
    return True


def _stop_descendants(pid: int, keep: Collection[int]) -> list[Process]:
    known = {pid}
    stopped: list[Process] = []
    while True:
        fresh = [each for each in _descendants(known) if each.pid not in keep]
        if not fresh:
            return stopped
        for each in fresh:
            send(each, signal.SIGSTOP)
            known.add(each.pid)
            stopped.append(each)


def _kill_all(processes: list[Process]) -> None:
    # Children first: a parent's death may make a stopped group an orphaned one, which the kernel
    # lets go on (SIGHUP, SIGCONT); by then they must have their SIGKILL.
    for each in reversed(processes):
        send(each, signal.SIGKILL)


def _wait_for(processes: Iterable[Process], *, seconds: float) -> None:
    """Wait until all of these are over."""
    deadline = time.monotonic() + seconds
    for each in processes:
        while is_alive(each.pid, each.started) and time.monotonic() < deadline:
            time.sleep(0.0005)


def _descendants(roots: set[int]) -> list[Process]:
    children: dict[int, list[Process]] = {}
    for process in _processes():
        if not process.dead:
            children.setdefault(process.ppid, []).append(process)
    found: list[Process] = []
    layer = set(roots)
    seen = set(roots)
    while layer:
        below = [child for pid in layer for child in children.get(pid, ()) if child.pid not in seen]
        found += below
        layer = {each.pid for each in below}
        seen |= layer
    return found


def _processes() -> Iterable[Process]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            process = read_process(int(name))
            if process is not None:
                yield process


def _with_token(token: bytes) -> list[Process]:
    if not LINUX:
        return []
    found: list[Process] = []
    variable = TOKEN_VARIABLE.encode() + b"="
    for process in _processes():
        environment = b"\0" + _read(f"/proc/{process.pid}/environ")
        start = environment.find(b"\0" + variable)
        if start >= 0:
            value = environment[start + 1 + len(variable) :].partition(b"\0")[0]
            if value == token or value.startswith(token + b"."):
                found.append(process)
    return found


def _ancestry() -> set[int]:
    pids: set[int] = set()
    pid = os.getpid()
    while pid and pid not in pids:
        pids.add(pid)
        process = read_process(pid)
        pid = 0 if process is None else process.ppid
    return pids


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(path: str) -> bytes:
    """Return what a file of `/proc` says; nothing when its process is gone or not ours to read."""
    try:
        # Non-blocking only in name: /proc answers from memory.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError, NotADirectoryError):
        return b""
    try:
        pieces = []
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
    except (ProcessLookupError, PermissionError, FileNotFoundError):
        return b""
    finally:
        os.close(descriptor)
    return b"".join(pieces)

"""What goes wrong in the engine processes of these tests, by name; each is given the engine before it opens."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crash_clocks
from crash_jobs import nothing

from asyncjobs import JobEngine, StoreUnavailable
from asyncjobs.engine import engine as engine_module
from asyncjobs.engine import liveness, worker
from asyncjobs.execution.runner import ProcessRunner
from asyncjobs.store import turns
from asyncjobs.store.sql import SqlStore
from asyncjobs.telemetry import EngineStarted, Event, JobStarted


def say(*words: object) -> None:
    """Print a line in one write, which the keeper's lines and a forked child's can't come into."""
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


_CLONE_NEWNET = 0x40000000
silent = False
"""Whether the engine says no more than that it is open: a line for each of many jobs costs CPU."""


def is_silent(_engine: JobEngine) -> None:
    global silent
    silent = True


def when(engine: JobEngine, kind: type[Event], do: Callable[[], None]) -> None:
    """Do something in the engine's loop each time that such an event happens."""
    engine.subscribe(lambda event: do() if isinstance(event, kind) else None)


async def die(*_arguments: Any, **_named: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_on_machine(_engine: JobEngine, name: str) -> None:
    """Have the engine be elsewhere: nobody here may look at its process to tell whether it lives."""
    liveness.socket.gethostname = lambda: name
    namespace = Path("/run/netns", name)
    if namespace.exists():
        libc = ctypes.CDLL(None, use_errno=True)
        with namespace.open() as opened:
            assert libc.setns(opened.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def dies_before_the_child_starts(_engine: JobEngine) -> None:
    ProcessRunner.run = die


def dies_before_the_end_is_written(_engine: JobEngine) -> None:
    SqlStore.finish = die


def cannot_write_ends(_engine: JobEngine) -> None:
    async def unavailable(*_arguments: Any, **_named: Any) -> None:
        say("not-written")
        raise StoreUnavailable("not now")

    engine_module.KILL_SECONDS = 0.5
    SqlStore.finish = unavailable


def has_short_graces(_engine: JobEngine) -> None:
    """Wait a tenth as long for a database that is down, when stopping."""
    engine_module.KILL_SECONDS = engine_module.LEAVE_SECONDS = turns.CLOSE_SECONDS = 0.5
    worker.LAST_WRITE_SECONDS = 0.2


def blocks_its_loop(engine: JobEngine) -> None:
    def block() -> None:
        say("blocked")
        time.sleep(float(os.environ.get("ASYNCJOBS_TEST_SECONDS", "5")))
        say("unblocked")

    when(engine, JobStarted, block)


def has_clock_off_by(_engine: JobEngine, seconds: str) -> None:
    crash_clocks.install()
    crash_clocks.turn(float(seconds))


def has_clock_that_jumps_by(engine: JobEngine, seconds: str) -> None:
    """Have it jump once, when the first job has begun."""
    crash_clocks.install()

    def jump() -> None:
        if not crash_clocks.off:
            crash_clocks.turn(float(seconds))
            say("jumped")

    when(engine, JobStarted, jump)


def forks_a_child_by_os_fork(engine: JobEngine) -> None:
    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
            os._exit(0)
        say("forked", pid)

    when(engine, EngineStarted, fork)


def forks_a_child_by_multiprocessing(engine: JobEngine) -> None:
    def fork() -> None:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        say("forked", child.pid)

    when(engine, EngineStarted, fork)


def is_used_in_a_forked_child(engine: JobEngine) -> None:
    verbs: dict[str, Callable[[], Any]] = {
        "submit": lambda: engine.submit(nothing),
        "get": lambda: engine.get("x"),
        "wait": lambda: engine.wait("x"),
        "list": lambda: engine.list(),
        "cancel": lambda: engine.cancel("x"),
        "retry": lambda: engine.retry("x"),
        "delete": lambda: engine.delete(),
    }

    def use() -> None:
        for verb, call in verbs.items():
            began = time.monotonic()
            try:
                asyncio.run(call())
            except Exception as error:
                say("forked-child", verb, type(error).__name__, time.monotonic() - began)

    def fork() -> None:
        child = multiprocessing.get_context("fork").Process(target=use)
        child.start()
        child.join()

    when(engine, EngineStarted, fork)

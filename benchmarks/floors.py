"""What the machine can do at best at this moment: each figure is measured beside its floor."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import sys
import time
from pathlib import Path

import aiosqlite

from asyncjobs import codec, jsonvalues
from asyncjobs.execution.inside import child, wire

CREATE = "CREATE TABLE floor (id TEXT PRIMARY KEY, payload TEXT)"
INSERT = "INSERT INTO floor VALUES (?, ?)"
PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL")


def raw_inserts(folder: Path, count: int = 3000) -> float:
    """Return single inserts, each committed, a second: the `sqlite3` module, no loop, no thread."""
    connection = sqlite3.connect(folder / f"floor-{time.time_ns()}.db", isolation_level=None)
    for statement in (*PRAGMAS, CREATE):
        connection.execute(statement)
    began = time.perf_counter()
    for n in range(count):
        connection.execute(INSERT, (f"{n:036d}", "{}"))
    rate = count / (time.perf_counter() - began)
    connection.close()
    return rate


async def aiosqlite_inserts(folder: Path, count: int = 1000) -> float:
    """Return single autocommit inserts a second through aiosqlite."""
    async with aiosqlite.connect(folder / f"floor-{time.time_ns()}.db", isolation_level=None) as connection:
        for statement in (*PRAGMAS, CREATE):
            await connection.execute(statement)
        began = time.perf_counter()
        for n in range(count):
            await connection.execute(INSERT, (f"{n:036d}", "{}"))
        return count / (time.perf_counter() - began)


# What a job's process loads, the job's module included, as it loads it: ours by path, from their bytecode.
CHILD_IMPORTS = f"""
from _frozen_importlib_external import SourceFileLoader
import sys, _ctypes
def load(name, path):
    module = type(sys)(name)
    module.__file__ = path
    sys.modules[name] = module
    SourceFileLoader(name, path).exec_module(module)
load("_asyncjobs_wire", {wire.__file__!r})
load("_asyncjobs_jsonvalues", {jsonvalues.__file__!r})
load("_asyncjobs_codec", {codec.__file__!r})
load("_asyncjobs_child_floor", {child.__file__!r})
sys.path[:] = {[path for path in sys.path if path]!r}
import jobs
"""


async def bare_interpreters(code: str, count: int = 100, at_once: int = 8) -> float:
    """Return bare interpreters started and ended a second, `at_once` of them at a time."""
    left = iter(range(count))

    async def starter() -> None:
        for _ in left:
            process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", code)
            if await process.wait():
                raise RuntimeError("the floor's own process failed")

    began = time.perf_counter()
    await asyncio.gather(*(starter() for _ in range(at_once)))
    return count / (time.perf_counter() - began)


_FORKS = """
import os, sys, time
ballast = bytes(5_000_000)  # 10 MB in all
count = int(sys.argv[1])
began = time.perf_counter()
for _ in range(count):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
print(count / (time.perf_counter() - began))
"""


async def bare_forks(count: int = 300) -> float:
    """Return forks a second of a process of 10 MB, each ended and waited for before the next."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _FORKS, str(count), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return float(said)


async def echoes(count: int = 2000) -> float:
    """Return round trips a second over a socketpair to a process that echoes, one after another."""
    near, far = socket.socketpair()
    code = "import socket, sys\ns = socket.socket(fileno=int(sys.argv[1]))\nwhile d := s.recv(100): s.send(d)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", code, str(far.fileno()), pass_fds=(far.fileno(),)
    )
    far.close()
    reader, writer = await asyncio.open_unix_connection(sock=near)
    began = time.perf_counter()
    for _ in range(count):
        writer.write(b"x")
        await reader.readexactly(1)
    rate = count / (time.perf_counter() - began)
    writer.close()
    await writer.wait_closed()
    await process.wait()
    return rate

"""An engine with nothing in it, on our own store: `bare.py` measures it beside ours.

It claims and ends jobs by our turns and statements, and runs each in a task of its own: `inline` in another one, by a
message to a process that waits (`reuse`), or in a copy of a template, with pipes for what it prints (`fork`). It
checks, times, tells, watches and recovers nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import jobs

from asyncjobs import Settings
from asyncjobs.client.submission import submission_of
from asyncjobs.store.addresses import database_at
from asyncjobs.store.rows import JOB_COLUMNS, submission_row
from asyncjobs.store.turns import End, Row, Take, Turns

Work = Callable[[str], Awaitable[str]]
_FOUND = ("seq", "env", *JOB_COLUMNS)
_ECHO = """
import json, socket, sys
end = socket.socket(fileno=int(sys.argv[1]))
while asked := end.recv(65536):
    end.send(json.dumps(json.loads(asked)["n"]).encode())
"""

_TEMPLATE = """
import json, os, signal, socket, sys
control = socket.socket(fileno=int(sys.argv[1]))
woken, wake = os.pipe()
for each in (woken, wake):
    os.set_blocking(each, False)
signal.signal(signal.SIGCHLD, lambda *_: None)
signal.set_wakeup_fd(wake)
import select
poll = select.poll()
for each in (control.fileno(), woken):
    poll.register(each, select.POLLIN)
numbers = {}
while True:
    for ready, _ in poll.poll():
        if ready == woken:
            os.read(woken, 4096)
            while numbers:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if not pid:
                    break
                control.send(b"%d,%d,%d;" % (numbers.pop(pid), status, usage.ru_maxrss))
            continue
        asked, fds, _, _ = socket.recv_fds(control, 8, 3)
        if not asked:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.set_wakeup_fd(-1)
            os.dup2(fds[1], 1)
            os.dup2(fds[2], 2)
            os.write(fds[0], json.dumps(json.loads(os.read(fds[0], 65536))["n"]).encode())
            os._exit(0)
        numbers[pid] = int(asked)
        for each in fds:
            os.close(each)
"""


async def inline(params: str) -> str:
    """Run the no-op job in a task of its own."""
    task = asyncio.create_task(_no_op(**json.loads(params)))
    await asyncio.sleep(0)
    return json.dumps(task.result())


async def _no_op(n: int) -> int:
    return n


@asynccontextmanager
async def warm(slots: int) -> AsyncIterator[Work]:
    """Give what has one of so many processes run the no-op job."""
    loop = asyncio.get_running_loop()
    waiting: dict[int, asyncio.Future[bytes]] = {}
    free: list[socket.socket] = []
    processes: list[asyncio.subprocess.Process] = []

    def readable(end: socket.socket) -> None:
        waiting.pop(end.fileno()).set_result(end.recv(65536))

    async def work(params: str) -> str:
        end = free.pop()
        answer = waiting[end.fileno()] = loop.create_future()
        end.send(params.encode())
        try:
            return (await answer).decode()
        finally:
            free.append(end)

    for _ in range(slots):
        near, far = socket.socketpair()
        near.setblocking(False)
        processes.append(
            await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", _ECHO, str(far.fileno()), pass_fds=(far.fileno(),)
            )
        )
        far.close()
        loop.add_reader(near, readable, near)
        free.append(near)
    for _ in range(200):  # until each is up
        await asyncio.gather(*(work('{"n": 1}') for _ in range(slots)))
    yield work
    for near in free:
        loop.remove_reader(near)
        near.close()
    for process in processes:
        await process.wait()


@asynccontextmanager
async def forking() -> AsyncIterator[Work]:
    """Give what has a copy of a template run the no-op job."""
    loop = asyncio.get_running_loop()
    ended: dict[int, asyncio.Future[int]] = {}
    numbers = itertools.count(10_000_000)
    control, far = socket.socketpair()
    template = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _TEMPLATE, str(far.fileno()), pass_fds=(far.fileno(),)
    )
    far.close()
    control.setblocking(False)
    unread = b""

    def readable() -> None:
        nonlocal unread
        *whole, unread = (unread + control.recv(65536)).split(b";")
        for each in whole:
            number, status, _ = map(int, each.split(b","))
            ended.pop(number).set_result(status)

    async def work(params: str) -> str:
        number = next(numbers)
        near, channel = socket.socketpair()
        (stdout, its_stdout), (stderr, its_stderr) = os.pipe(), os.pipe()
        near.send(params.encode())
        ended[number] = end = loop.create_future()
        socket.send_fds(control, [b"%d" % number], [channel.fileno(), its_stdout, its_stderr])
        channel.close()
        os.close(its_stdout)
        os.close(its_stderr)
        try:
            assert await end == 0
            assert os.read(stdout, 65536) == os.read(stderr, 65536) == b""
            return near.recv(65536).decode()
        finally:
            near.close()
            os.close(stdout)
            os.close(stderr)

    loop.add_reader(control, readable)
    for _ in range(20):  # until it is up
        await work('{"n": 1}')
    yield work
    loop.remove_reader(control)
    control.close()
    await template.wait()


async def bare_drain(url: str, name: str, count: int, slots: int, work: Work) -> float:
    """Return jobs a second of `count` that wait under a name, run by a bare engine."""
    async with bare_turns(url) as turns:
        return await _drained(turns, name, count, slots, work)


async def _drained(turns: Turns, name: str, count: int, slots: int, work: Work) -> float:
    wake = asyncio.Event()
    free, ended = slots, 0

    async def attempt(row: Any) -> None:
        nonlocal free, ended
        job = dict(zip(_FOUND, row, strict=True))
        result = await work(job["params"])
        free += 1
        wake.set()
        await end(turns, job, result)
        ended += 1

    began = time.perf_counter()
    async with asyncio.TaskGroup() as attempts:
        left = count
        while left:
            wake.clear()
            wanted = Take(name, free, "bare", time.time_ns() // 1000)
            rows, _ = await turns.take(wanted, lambda brought: brought)
            free -= len(rows)
            left -= len(rows)
            for row in rows:
                attempts.create_task(attempt(row))
            if not free:
                await wake.wait()
    rate = count / (time.perf_counter() - began)
    assert ended == count
    return rate


async def nothing_but_turns(url: str, count: int, slots: int) -> float:
    """Return jobs a second, of new ones, that turns alone claim and end: one after another, no job is run."""
    held: Sequence[Row] = ()
    async with bare_turns(url) as turns:
        await turns.insert(new_rows(count), bool)
        began = time.perf_counter()
        left = count
        while left:
            wanted = Take(jobs.inline.name, slots, "bare", time.time_ns() // 1000)
            ends = (end(turns, dict(zip(_FOUND, row, strict=True)), "1") for row in held)
            *_, (rows, _) = await asyncio.gather(*ends, turns.take(wanted, lambda brought: brought))
            left -= len(held)
            held = rows
        return count / (time.perf_counter() - began)


async def end(turns: Turns, job: dict[str, Any], result: str) -> None:
    """Write that a job has succeeded."""
    who, now = (job["id"], job["attempt"]), time.time_ns() // 1000
    said = ("succeeded", None, "bare", "host", None, None, None, *who, now, now, None, None, None)
    fenced = (*who, "bare", "SUCCEEDED", result, None, 0, 0, None, now)
    written = await turns.end(End(fenced, said, "SUCCEEDED"), str)
    assert written == "SUCCEEDED"


@asynccontextmanager
async def bare_turns(url: str) -> AsyncIterator[Turns]:
    """Open a database, and run turns on it."""
    database = database_at(url, Settings())
    await database.open()
    turns = Turns(database)
    turns.start()
    yield turns
    await turns.stop()
    await database.close()


def new_rows(count: int) -> list[Row]:
    """Return the rows of so many new jobs."""
    made = (submission_of(jobs.inline, f'{{"n": {n}}}', settings=Settings()) for n in range(count))
    return list(map(submission_row, made))


async def bare_submits(url: str, count: int, at_once: int) -> float:
    """Return rows of new jobs a second, made before; so many calls under way at a time."""
    rows = new_rows(count)
    async with bare_turns(url) as turns:
        began = time.perf_counter()
        if at_once == 1:
            for row in rows:
                await turns.insert([row], bool)
        for at in range(0, 0 if at_once == 1 else count, at_once):
            await asyncio.gather(*(turns.insert([row], bool) for row in rows[at : at + at_once]))
        return count / (time.perf_counter() - began)


async def bare_bulk(url: str, count: int) -> float:
    """Return rows of new jobs a second, made before; a thousand in each call."""
    rows = new_rows(count)
    async with bare_turns(url) as turns:
        began = time.perf_counter()
        for at in range(0, count, 1000):
            await turns.insert(rows[at : at + 1000], bool)
        return count / (time.perf_counter() - began)


async def bare_latency(url: str, count: int, pause: float) -> float:
    """Return the milliseconds in the middle that the two turns of an idle job take: new and claimed, then ended."""
    taken = []
    async with bare_turns(url) as turns:
        for row in new_rows(count):
            began = time.perf_counter()
            wanted = Take(jobs.inline.name, 8, "bare", time.time_ns() // 1000)
            _, (claimed, _) = await asyncio.gather(
                turns.insert([row], bool), turns.take(wanted, lambda brought: brought)
            )
            [job] = claimed
            await end(turns, dict(zip(_FOUND, job, strict=True)), "1")
            taken.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(pause)
    return statistics.median(taken)

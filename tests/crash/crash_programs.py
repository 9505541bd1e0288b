"""Processes of the tests': how they are started, waited for and ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
BOUND = 30.0
"""Seconds after which a wait has failed; never how long anything should take."""

TEST_SECONDS = float(os.environ.get("ASYNCJOBS_TEST_SECONDS", "5"))


class Launcher:
    """The process that starts the others; see `crash_launcher.py`."""

    def __init__(self, bytecode: Path) -> None:
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._requests, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            self._process = subprocess.Popen(
                [sys.executable, str(FOLDER / "crash_launcher.py"), str(far.fileno())],
                stdin=subprocess.DEVNULL,
                env={**environ, "PYTHONPYCACHEPREFIX": str(bytecode)},
                pass_fds=[far.fileno()],
            )

    async def start(self, *command: str) -> Program:
        reader, writer = os.pipe()
        socket.send_fds(self._requests, [json.dumps(command).encode()], [writer])
        os.close(writer)
        program = Program(reader)
        await program.says("pid")
        return program

    def close(self) -> None:
        self._requests.close()
        self._process.wait(BOUND)


class Program:
    """A process in a session of its own; its lines on stdout say what it has reached."""

    def __init__(self, reader: int) -> None:
        self.begun = time.monotonic()
        self.ended = False
        self.lines: dict[str, list[list[str]]] = {}
        self._times: dict[tuple[str, ...], float] = {}
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read(reader), name="read what a program says")

    async def _read(self, reader: int) -> None:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb", 0)
        )
        while not self.ended:
            line = (await stream.readline()).decode().split()
            assert line, "the keeper has ended before its program"
            self.lines.setdefault(line[0], []).append(line)
            self._times[tuple(line)] = time.monotonic()
            self.ended = line[0] == "exit"
            async with self._news:
                self._news.notify_all()
        transport.close()

    @property
    def pid(self) -> int:
        return int(self.said("pid")[0][1])

    def said(self, first: str, *words: str) -> list[list[str]]:
        """Return the lines that begin with these words."""
        return [line for line in self.lines.get(first, ()) if line[1 : len(words) + 1] == list(words)]

    async def says(self, *words: str, times: int = 1, bound: float = BOUND) -> list[str]:
        """Wait for so many lines that begin with these words; return the rest of the last of them."""
        async with asyncio.timeout(bound), self._news:
            await self._news.wait_for(lambda: len(self.said(*words)) >= times or self.ended)
        found = self.said(*words)
        assert len(found) >= times, f"it ended and never said {words!r}, but {self.lines!r:.1000}"
        return found[times - 1][len(words) :]

    def seconds_until(self, *words: str) -> float:
        """Return how long after its start the process said this line."""
        return self._times[words] - self.begun

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if not self.ended:
            self.signal(signal.SIGKILL)
        await self.ends()

    async def ends(self, bound: float = BOUND) -> int:
        """Wait for its end; return its exit code."""
        async with asyncio.timeout(bound):
            await asyncio.shield(self._reading)
        return int(self.said("exit")[0][1])

    async def close(self) -> None:
        await self.kill()
        for forked in self.said("forked"):
            end_process(int(forked[1]))
        await self._reading


class Programs:
    """The processes of one test, on one database."""

    def __init__(self, database: str, *, launcher: Launcher) -> None:
        self._database = database
        self._launcher = launcher
        self.started: list[Program] = []

    async def engine(self, *jobs: Any, fault: str = "", **settings: Any) -> Program:
        """Start an engine; return once it is open."""
        engine = await self.start_engine(*jobs, fault=fault, **settings)
        await engine.says("open")
        return engine

    async def start_engine(self, *jobs: Any, fault: str = "", **settings: Any) -> Program:
        return await self._start("engine", self._database, json.dumps(settings), fault, *(each.name for each in jobs))

    async def submitter(self, *, seconds: float, submitters: int) -> Program:
        return await self._start("submitter", self._database, str(seconds), str(submitters))

    async def _start(self, *command: str) -> Program:
        program = await self._launcher.start(*command)
        self.started.append(program)
        return program

    def engine_ids(self) -> list[str]:
        return [line[1] for program in self.started for line in program.said("open") if len(line) > 1]


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that nobody tells of."""
    async with asyncio.timeout(BOUND):
        while not true():
            await asyncio.sleep(0.005)


async def gone(engine_ids: list[str]) -> None:
    """Wait until no process of these engines' jobs is there: what the kernel has killed needs a moment."""
    await until(lambda: not processes_of(engine_ids))


def processes_of(engine_ids: list[str]) -> list[int]:
    """Return the processes that jobs of these engines, or their standbys, have left running."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        tokens = [each.partition(b"=")[2].decode() for each in variables if each.startswith(b"ASYNCJOBS_PROCESS=")]
        if any(token.partition(".")[0] in engine_ids for token in tokens):
            found.append(int(entry.name))
    return found


def end_process(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Work:
    """The folder in which a `work` job writes its beats, and where it is told to end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def release(self) -> None:
        """Let the job, and each later attempt of it, return."""
        (self.folder / "release").touch()

    def beats(self) -> list[tuple[int, int, int]]:
        """Return the beats so far: attempt, pid, monotonic nanoseconds."""
        file = self.folder / "beats"
        lines = file.read_text().splitlines() if file.exists() else []
        whole = [line.split() for line in lines if line.count(" ") == 2]
        return [(int(attempt), int(pid), int(at)) for attempt, pid, at in whole]

    def processes(self, attempt: int) -> set[int]:
        return {pid for each, pid, _ in self.beats() if each == attempt}

    async def runs(self, attempt: int = 1, *, processes: int = 1) -> None:
        """Wait until an attempt is at work, in so many processes."""
        await until(lambda: len(self.processes(attempt)) >= processes)

    def first_beat(self, attempt: int) -> int:
        return min(at for each, _, at in self.beats() if each == attempt)

    def last_beat(self, attempt: int) -> int:
        return max(at for each, _, at in self.beats() if each == attempt)

"""Print what asyncjobs reaches on this machine, each figure beside its floor of the same moment.

    uv run benchmarks/run.py [--rounds 3]

Every figure is taken in several rounds, its floor right before and right after it; the table shows the
medians of figures and of ratios. On a shared machine trust the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import floors
import jobs

from asyncjobs import JobClient, JobEngine
from asyncjobs.definition import JobDefinition
from asyncjobs.execution.inside import tree
from asyncjobs.telemetry import Event, JobFinished

# As users have it: what is compiled is kept, so that no figure contains the compiler.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

Measure = Callable[[Path], Awaitable[float]]


@dataclass
class Row:
    """One line of the table: `goal` is the least ratio to the floor, or None."""

    name: str
    unit: str
    measure: Measure
    floor_name: str = ""
    floor: Measure | None = None
    goal: float | None = None
    figures: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    async def take(self) -> None:
        """Measure once, between two looks at the floor."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            before = await self.floor(folder) if self.floor else 0.0
            figure = await self.measure(folder)
            after = await self.floor(folder) if self.floor else 0.0
        self.figures.append(figure)
        if self.floor:
            self.ratios.append(figure / ((before + after) / 2))

    def line(self) -> str:
        """Return the row of the table."""
        figure = f"{statistics.median(self.figures):,.{2 if self.unit == 'ms' else 0}f} {self.unit}"
        spread = (
            f"{min(self.figures):,.2f}–{max(self.figures):,.2f}"
            if self.unit == "ms"
            else (f"{min(self.figures):,.0f}–{max(self.figures):,.0f}")
        )
        ratio = f"{statistics.median(self.ratios):.2f}" if self.ratios else ""
        goal = "" if self.goal is None else f"{self.goal:.2f}"
        return f"| {self.name} | {figure} | {spread} | {self.floor_name} | {ratio} | {goal} |"


def url(folder: Path) -> str:
    """Return a new database's address."""
    return f"sqlite:///{folder}/jobs-{time.time_ns()}.db"


async def one_by_one(folder: Path) -> float:
    """Return submits a second, each awaited before the next."""
    async with JobClient(url(folder)) as client:
        began = time.perf_counter()
        for n in range(4000):
            await client.submit(jobs.inline, n)
        return 4000 / (time.perf_counter() - began)


async def fifty_at_once(folder: Path) -> float:
    """Return submits a second, fifty of them under way at a time."""
    async with JobClient(url(folder)) as client:
        began = time.perf_counter()
        for _ in range(200):
            await asyncio.gather(*(client.submit(jobs.inline, n) for n in range(50)))
        return 10_000 / (time.perf_counter() - began)


async def in_bulk(folder: Path, *, new: Callable[[Path], str] = url) -> float:
    """Return submits a second, a thousand in each call."""
    async with JobClient(new(folder)) as client:
        began = time.perf_counter()
        for _ in range(10):
            await client.submit_many([jobs.inline.bind(n) for n in range(1000)])
        return 10_000 / (time.perf_counter() - began)


def drain(definition: JobDefinition[..., int], count: int, *, new: Callable[[Path], str] = url) -> Measure:
    """Return what measures jobs a second, of `count` that wait in a new database when the engine opens."""

    async def measure(folder: Path) -> float:
        address = new(folder)
        async with JobClient(address) as client:
            for _ in range(0, count, 1000):
                await client.submit_many([definition.bind(n) for n in range(min(count, 1000))])
        engine = JobEngine(address, jobs=[definition])
        done = asyncio.Event()
        left = count

        def listen(event: Event) -> None:
            nonlocal left
            if isinstance(event, JobFinished):
                left -= 1
                if not left:
                    done.set()

        engine.subscribe(listen)
        async with engine:
            began = time.perf_counter()
            await done.wait()
            return count / (time.perf_counter() - began)

    return measure


def latency(definition: JobDefinition[..., int], percentile: int, count: int, *, pause: float | None = None) -> Measure:
    """Return what measures the milliseconds from submit to result of an engine that has nothing else to do.

    Between two jobs is a pause, in which processors fall asleep and forget; without one they are at their best.
    """
    pause = (0.1 if definition.isolation == "spawn" else 0.01) if pause is None else pause

    async def measure(folder: Path) -> float:
        async with JobEngine(url(folder), jobs=[definition]) as engine:
            await (await engine.submit(definition, 0)).result()
            taken = []
            for n in range(count):
                began = time.perf_counter()
                await (await engine.submit(definition, n)).result()
                taken.append((time.perf_counter() - began) * 1000)
                await asyncio.sleep(pause)
        return statistics.quantiles(taken, n=100)[percentile - 1]

    return measure


async def template_memory(folder: Path) -> float:
    """Return the resident megabytes of a template whose module is empty but for its job."""
    definition = jobs.with_slots("fork", 1)
    async with JobEngine(url(folder), jobs=[definition]) as engine:
        await (await engine.submit(definition, 0)).result()
        below = tree.descendants(os.getpid())
        template = next(each for each in below if each.ppid == os.getpid())
        return (resident(template.pid)) / 1e6


async def idle_memory(folder: Path) -> float:
    """Return the resident megabytes of an engine's process and of all below it, four names having run."""
    code = """
import asyncio, os, sys
import jobs
from asyncjobs import JobEngine
async def main():
    definitions = [jobs.with_slots("fork", slots) for slots in (1, 2, 3, 4)]
    async with JobEngine(sys.argv[1], jobs=definitions) as engine:
        for each in definitions:
            await (await engine.submit(each, 0)).result()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        url(folder),
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    pids = [process.pid, *(each.pid for each in tree.descendants(process.pid))]
    in_all = sum(map(resident, pids))
    await process.communicate(b"")
    return in_all / 1e6


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def import_time(_folder: Path) -> float:
    """Return the milliseconds that `import asyncjobs` adds to an interpreter's start."""

    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    pairs = [(seconds("import asyncjobs"), seconds("pass")) for _ in range(7)]
    return statistics.median(with_it - without for with_it, without in pairs) * 1000


async def raw(folder: Path) -> float:
    """Return the floor of everything that commits."""
    return floors.raw_inserts(folder)


async def bare(_folder: Path) -> float:
    """Return the floor of everything that starts an interpreter."""
    return await floors.bare_interpreters("pass")


async def bare_with_imports(_folder: Path) -> float:
    """Return the same, importing what a job's process imports."""
    return await floors.bare_interpreters(floors.CHILD_IMPORTS)


async def bare_forks(_folder: Path) -> float:
    """Return the floor of everything that forks."""
    return await floors.bare_forks()


async def echoes(_folder: Path) -> float:
    """Return the floor of everything that asks a warm process."""
    return await floors.echoes()


ROWS = [
    Row("floor: sqlite3, insert and commit", "/s", raw),
    Row("floor: aiosqlite, autocommit insert", "/s", floors.aiosqlite_inserts),
    Row("floor: python -I -S -c pass, 8 at once", "/s", bare),
    Row("submit one by one", "/s", one_by_one, "sqlite3", raw, 5 / 30),
    Row("submit one by one", "/s", one_by_one, "aiosqlite", floors.aiosqlite_inserts),
    Row("submit 50 at once", "/s", fifty_at_once, "sqlite3", raw, 20 / 30),
    Row("submit in bulk", "/s", in_bulk, "sqlite3", raw, 20 / 30),
    Row("drain 10,000 inline, 8 slots", "/s", drain(jobs.inline, 10_000), "sqlite3", raw, 12 / 30),
    Row("drain 300 spawned, 8 slots", "/s", drain(jobs.spawned, 300), "python", bare),
    Row("drain 300 spawned, 8 slots", "/s", drain(jobs.spawned, 300), "python + imports", bare_with_imports, 0.8),
    Row("submit to result, idle, inline p50", "ms", latency(jobs.inline, 50, 300)),
    Row("submit to result, idle, inline p95", "ms", latency(jobs.inline, 95, 300)),
    Row("submit to result, one after another, inline p50", "ms", latency(jobs.inline, 50, 300, pause=0)),
    Row("submit to result, idle, spawned p50", "ms", latency(jobs.spawned, 50, 60)),
    Row("submit to result, idle, spawned p95", "ms", latency(jobs.spawned, 95, 60)),
    Row("import asyncjobs", "ms", import_time),
    Row("floor: fork, exit and wait, 10 MB, one by one", "/s", bare_forks),
    Row("floor: an echo over a socketpair, one by one", "/s", echoes),
    Row("drain 1,000 fork, 8 slots", "/s", drain(jobs.with_slots("fork", 8), 1000), "fork", bare_forks, 0.7),
    Row("drain 1,000 fork, 2 slots", "/s", drain(jobs.with_slots("fork", 2), 1000), "fork", bare_forks, 0.7),
    Row("drain 5,000 reuse, 8 slots", "/s", drain(jobs.with_slots("reuse", 8), 5000), "echo", echoes),
    Row("drain 5,000 reuse, 2 slots", "/s", drain(jobs.with_slots("reuse", 2), 5000), "echo", echoes),
    Row("drain 200 spawn, 2 slots", "/s", drain(jobs.with_slots("spawn", 2), 200), "python", bare),
    Row("drain 5,000 inline, 2 slots", "/s", drain(jobs.with_slots("inline", 2), 5000), "sqlite3", raw),
    Row("submit to result, idle, fork p50", "ms", latency(jobs.with_slots("fork", 8), 50, 200)),
    Row("submit to result, idle, fork p95", "ms", latency(jobs.with_slots("fork", 8), 95, 200)),
    Row("submit to result, idle, reuse p50", "ms", latency(jobs.with_slots("reuse", 8), 50, 200)),
    Row("submit to result, idle, reuse p95", "ms", latency(jobs.with_slots("reuse", 8), 95, 200)),
    Row(
        "submit to result, one after another, reuse p50",
        "ms",
        latency(jobs.with_slots("reuse", 8), 50, 300, pause=0),
    ),
    Row("memory of a template, module empty", "MB", template_memory),
    Row("memory of an idle engine, 4 names", "MB", idle_memory),
]


async def main(rounds: int, wanted: str) -> None:
    """Measure all rows, round by round, and print the table."""
    rows = [row for row in ROWS if wanted in row.name]
    for number in range(rounds):
        for row in rows:
            print(f"\rround {number + 1} of {rounds}: {row.name:50}", end="", file=sys.stderr, flush=True)
            await row.take()
    print("\r" + " " * 80 + "\r", end="", file=sys.stderr)
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}, rounds: {rounds}"
    )
    print("\n| what | median | lowest–highest | floor | ratio | goal |\n|---|---|---|---|---|---|")
    for row in rows:
        print(row.line())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name contains this text")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.rounds, chosen.only))

"""Print what asyncjobs and other job engines on PostgreSQL reach on this machine, in one table.

    uv run --group benchmarks benchmarks/rivals.py [--rounds 3] [--jobs 2000] [--only oban]

Oban needs Python 3.12 and is left out below it: `uv run --isolated --python 3.12 --group benchmarks …`.

All have the same job, which returns its argument, the same number of them, 20 at once in one process,
and a database of their own on one server with the durability that any new server has. Each round takes
them one after another, each in a fresh process; the table shows medians. Their settings are those that
their documentation names for throughput; where a candidate has no way to await a result, its own way to
look a job up is used once a millisecond.

An engine joins by a class that is a `Candidate` and a line in CANDIDATES.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import jobs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postgres import Databases, PostgresServer

SLOTS = 20
AT_ONCE = 50
IN_BULK = 1000
LATENCIES = 100
LONGEST_SECONDS = 300


@dataclass
class Calls:
    """What the no-op job leaves behind: how often it ran, and when it last began."""

    count: int = 0
    began: float = 0.0
    wanted: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self) -> None:
        """Note one run, as it begins."""
        self.begin()
        self.end()

    def begin(self) -> None:
        """Note that a run begins."""
        self.began = time.perf_counter()

    def end(self) -> None:
        """Count a run."""
        self.count += 1
        if self.count == self.wanted:
            self.reached.set()

    def expect(self, more: int) -> None:
        """Await so many runs from now on."""
        self.wanted = self.count + more
        self.reached.clear()


class Candidate(Protocol):
    """An engine that is measured: its job calls `calls.note()` and returns its argument."""

    unfinished: str
    """The query that counts the jobs which have not ended."""

    def opened(self, url: str, calls: Calls) -> AbstractAsyncContextManager[None]:
        """Make the schema and whatever submits, for the time of the block."""
        ...

    def working(self) -> AbstractAsyncContextManager[None]:
        """Run jobs in this process, 20 at once, for the time of the block."""
        ...

    async def submit(self, n: int) -> Any:
        """Submit one job; return what `result` takes."""
        ...

    async def submit_many(self, numbers: Sequence[int]) -> None:
        """Submit many jobs by the call that is meant for many."""
        ...

    async def result(self, submitted: Any) -> None:
        """Return once the job has ended."""
        ...


class Procrastinate:
    """`procrastinate`: psycopg 3, a worker in the loop, LISTEN/NOTIFY."""

    unfinished = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"

    @asynccontextmanager
    async def opened(self, url: str, calls: Calls) -> AsyncIterator[None]:
        import procrastinate

        connector = procrastinate.PsycopgConnector(conninfo=url, min_size=SLOTS, max_size=SLOTS)
        self.app = procrastinate.App(connector=connector)

        @self.app.task(name="no_op")
        async def no_op(n: int) -> int:
            calls.note()
            return n

        self.task = no_op
        async with self.app.open_async():
            await self.app.schema_manager.apply_schema_async()
            yield

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        worker = self.app.run_worker_async(concurrency=SLOTS, install_signal_handlers=False)
        async with cancelled_after(worker):
            yield

    async def submit(self, n: int) -> int:
        return await self.task.defer_async(n=n)

    async def submit_many(self, numbers: Sequence[int]) -> None:
        await self.task.batch_defer_async(*({"n": n} for n in numbers))

    async def result(self, submitted: int) -> None:
        while (await self.app.job_manager.get_job_status_async(submitted)).value in ("todo", "doing"):
            await asyncio.sleep(0.001)


class PgQueuer:
    """`pgqueuer`: asyncpg, a worker in the loop, LISTEN/NOTIFY; jobs that ended leave the table."""

    unfinished = "SELECT count(*) FROM pgqueuer"

    @asynccontextmanager
    async def opened(self, url: str, calls: Calls) -> AsyncIterator[None]:
        from pgqueuer.core.completion import CompletionWatcher
        from pgqueuer.db import AsyncpgPoolDriver
        from pgqueuer.queries import Queries

        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(asyncpg.create_pool(url, min_size=SLOTS, max_size=SLOTS))
            driver = await stack.enter_async_context(AsyncpgPoolDriver(pool))
            self.pool, self.calls, self.queries = pool, calls, Queries(driver)
            await self.queries.install()
            watcher = CompletionWatcher(driver, queries=self.queries, debounce=timedelta(milliseconds=1))
            self.watcher = await stack.enter_async_context(watcher)
            yield

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        from pgqueuer import PgQueuer as Engine

        engine = Engine.from_asyncpg_pool(self.pool)

        @engine.entrypoint("no_op")
        async def no_op(job: Any) -> None:
            self.calls.note()

        # A batch may be half of what runs at once, at most.
        worker = asyncio.create_task(engine.qm.run(batch_size=SLOTS // 2, max_concurrent_tasks=SLOTS))
        try:
            yield
        finally:
            engine.qm.shutdown.set()
            await worker

    async def submit(self, n: int) -> Any:
        [job_id] = await self.queries.enqueue("no_op", str(n).encode())
        return job_id

    async def submit_many(self, numbers: Sequence[int]) -> None:
        count = len(numbers)
        await self.queries.enqueue(["no_op"] * count, [str(n).encode() for n in numbers], [0] * count)

    async def result(self, submitted: Any) -> None:
        await self.watcher.wait_for(submitted)


class Oban:
    """`oban`: psycopg 3, a producer in the loop, LISTEN/NOTIFY."""

    unfinished = "SELECT count(*) FROM oban_jobs WHERE state IN ('available', 'executing')"

    @asynccontextmanager
    async def opened(self, url: str, calls: Calls) -> AsyncIterator[None]:
        import oban
        from oban.schema import install

        self.pool = await oban.Oban.create_pool(url, min_size=SLOTS, max_size=SLOTS)
        try:
            await install(self.pool)

            @oban.worker(queue="default")
            class NoOp:
                async def process(self, job: Any) -> None:
                    calls.note()

            self.worker = NoOp
            async with oban.Oban(pool=self.pool, name="submits") as self.client:
                yield
        finally:
            await self.pool.close()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        import oban

        async with oban.Oban(pool=self.pool, name="works", queues={"default": SLOTS}):
            yield

    async def submit(self, n: int) -> int:
        job = await self.client.enqueue(self.worker.new({"n": n}))
        return job.id

    async def submit_many(self, numbers: Sequence[int]) -> None:
        await self.client.enqueue_many([self.worker.new({"n": n}) for n in numbers])

    async def result(self, submitted: int) -> None:
        while (await self.client.get_job(submitted)).state in ("available", "executing"):
            await asyncio.sleep(0.001)


class Asyncjobs:
    """`asyncjobs` itself, in one isolation; a job in a process of its own is noted at its end."""

    unfinished = "SELECT count(*) FROM asyncjobs.jobs WHERE finished_at IS NULL"

    def __init__(self, isolation: str) -> None:
        self.definition = jobs.with_slots(isolation, SLOTS) if isolation != "inline" else jobs.inline_20

    @asynccontextmanager
    async def opened(self, url: str, calls: Calls) -> AsyncIterator[None]:
        from asyncjobs import JobClient

        self.url, self.calls = url, calls
        async with JobClient(url) as self.client:
            yield

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        from asyncjobs import JobEngine
        from asyncjobs.telemetry import JobFinished, JobStarted

        inline = self.definition.isolation == "inline"

        def listen(event: Any) -> None:
            if inline and isinstance(event, JobStarted):
                self.calls.begin()
            elif isinstance(event, JobFinished):
                (self.calls.end if inline else self.calls.note)()

        async with JobEngine(self.url, jobs=[self.definition]) as engine:
            engine.subscribe(listen)
            submits, self.client = self.client, engine
            try:
                yield
            finally:
                self.client = submits

    async def submit(self, n: int) -> Any:
        return await self.client.submit(self.definition, n)

    async def submit_many(self, numbers: Sequence[int]) -> None:
        await self.client.submit_many([self.definition.bind(n) for n in numbers])

    async def result(self, submitted: Any) -> None:
        await submitted.result()


CANDIDATES: dict[str, Callable[[], Candidate]] = {
    "asyncjobs inline": lambda: Asyncjobs("inline"),
    "asyncjobs reuse": lambda: Asyncjobs("reuse"),
    "asyncjobs fork": lambda: Asyncjobs("fork"),
    "procrastinate": Procrastinate,
    "pgqueuer": PgQueuer,
    "oban": Oban,
}

COLUMNS = {
    "one by one": "/s",
    "50 at once": "/s",
    "bulk": "/s",
    "drain": "/s",
    "start p50": "ms",
    "result p50": "ms",
    "result p95": "ms",
}


@asynccontextmanager
async def cancelled_after(work: Awaitable[Any]) -> AsyncIterator[None]:
    """Run something beside the block, and cancel it at the end."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def measure(candidate: Candidate, url: str, jobs: int) -> dict[str, float]:
    """Return every figure of one candidate on an empty database."""
    calls = Calls()
    async with asyncio.timeout(LONGEST_SECONDS), candidate.opened(url, calls):
        observer = await asyncpg.connect(url)
        try:
            figures = await submits(candidate, jobs)
            calls.expect(jobs + jobs // AT_ONCE * AT_ONCE + jobs // IN_BULK * IN_BULK)
            figures["drain"] = await drain(candidate, calls, observer)
            return {**figures, **await latencies(candidate, calls)}
        finally:
            await observer.close()


async def submits(candidate: Candidate, jobs: int) -> dict[str, float]:
    """Return submits a second, each way; nobody works meanwhile."""
    began = time.perf_counter()
    for n in range(jobs):
        await candidate.submit(n)
    one_by_one = time.perf_counter()
    for _ in range(jobs // AT_ONCE):
        await asyncio.gather(*(candidate.submit(n) for n in range(AT_ONCE)))
    at_once = time.perf_counter()
    for _ in range(jobs // IN_BULK):
        await candidate.submit_many(range(IN_BULK))
    bulk = time.perf_counter()
    return {
        "one by one": jobs / (one_by_one - began),
        "50 at once": jobs // AT_ONCE * AT_ONCE / (at_once - one_by_one),
        "bulk": jobs // IN_BULK * IN_BULK / (bulk - at_once),
    }


async def drain(candidate: Candidate, calls: Calls, observer: asyncpg.Connection) -> float:
    """Return jobs a second from the worker's start to the commit of the last end."""
    began = time.perf_counter()
    async with candidate.working():
        await calls.reached.wait()
        while await observer.fetchval(candidate.unfinished):
            await asyncio.sleep(0.001)
        return calls.count / (time.perf_counter() - began)


async def latencies(candidate: Candidate, calls: Calls) -> dict[str, float]:
    """Return the milliseconds from submit to the job's start and to its result, the worker being idle."""
    starts, results = [], []
    async with candidate.working():
        await asyncio.sleep(1)
        for n in range(LATENCIES):
            began = time.perf_counter()
            await candidate.result(await candidate.submit(n))
            results.append((time.perf_counter() - began) * 1000)
            starts.append((calls.began - began) * 1000)
            await asyncio.sleep(0.02)
    return {
        "start p50": statistics.median(starts),
        "result p50": statistics.median(results),
        "result p95": statistics.quantiles(results, n=20)[-1],
    }


def in_process_of_its_own(name: str, url: str, jobs: int) -> dict[str, float]:
    """Measure one candidate in a fresh interpreter."""
    command = [sys.executable, __file__, "--measure", name, "--url", url, "--jobs", str(jobs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=2 * LONGEST_SECONDS)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def installed(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those candidates that this interpreter has."""
    found = {}
    for name in names:
        try:
            distribution = "asyncjobs-engine" if name.startswith("asyncjobs") else name
            found[name] = version(distribution)
        except PackageNotFoundError:
            print(f"{name} is not installed here, and left out (oban needs Python 3.12)", file=sys.stderr)
    return found


def table(rounds: dict[str, list[dict[str, float]]], versions: dict[str, str]) -> str:
    """Return the medians of all rounds, a line for each candidate."""
    titles = ["", *(f"{column} {unit}" for column, unit in COLUMNS.items())]
    lines = [" | ".join(titles), " | ".join("---" for _ in titles)]
    for name, figures in rounds.items():
        cells = [
            f"{statistics.median(each[column] for each in figures):,.{1 if unit == 'ms' else 0}f}"
            for column, unit in COLUMNS.items()
        ]
        lines.append(" | ".join([f"{name} {versions[name]}", *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def ratios(rounds: dict[str, list[dict[str, float]]]) -> str:
    """Return how many times the others' rates, and what part of their times, asyncjobs has, by isolation."""
    medians = {
        name: {column: statistics.median(each[column] for each in figures) for column in COLUMNS}
        for name, figures in rounds.items()
    }
    ours = [name for name in medians if name.startswith("asyncjobs")]
    titles = ["asyncjobs to", *COLUMNS]
    lines = [" | ".join(titles), " | ".join("---" for _ in titles)]
    for name in medians:
        if name not in ours:
            cells = (" / ".join(f"{medians[own][each] / medians[name][each]:.2f}" for own in ours) for each in COLUMNS)
            lines.append(" | ".join([name, *cells]))
    order = ", ".join(name.removeprefix("asyncjobs ") for name in ours)
    return f"In each cell: {order}.\n\n" + "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2000, help="a multiple of 1000")
    parser.add_argument("--only", action="append", choices=list(CANDIDATES))
    parser.add_argument("--measure", choices=list(CANDIDATES), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    if given.measure:
        print(json.dumps(asyncio.run(measure(CANDIDATES[given.measure](), given.url, given.jobs))))
        return
    versions = installed(given.only or list(CANDIDATES))
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    with PostgresServer(durable=True) as server:
        databases = Databases(server.url())
        for _ in range(given.rounds):
            for name, figures in rounds.items():
                url = databases.create()
                figures.append(in_process_of_its_own(name, url, given.jobs))
                databases.drop(url)
    print(f"{given.jobs:,} jobs, {SLOTS} at once, medians of {given.rounds} rounds, Python {sys.version.split()[0]}\n")
    print(table(rounds, versions))
    if any(name.startswith("asyncjobs") for name in rounds) and len(rounds) > 1:
        print(f"\n{ratios(rounds)}")


if __name__ == "__main__":
    main()

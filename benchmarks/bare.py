"""Print how we compare with an engine that has nothing in it, on the same store and in turns.

    uv run benchmarks/bare.py [--rounds 3]

`bare_engine.py` claims and ends jobs by our own turns and statements, and checks, times, tells, watches and recovers
nothing. So its figure is what the store, the processors' ways to each other and asyncio leave to any engine that makes
our promises; our ratio to it is what all the rest costs.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import bare_engine
import jobs
from run import drain, fifty_at_once, in_bulk, latency, one_by_one, url

from asyncjobs import JobClient
from asyncjobs.definition import JobDefinition

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postgres import Databases, PostgresServer

New = Callable[[Path], str]
Measure = Callable[[Path], Awaitable[float]]


class Row(NamedTuple):
    """Two ways to measure the same; each is given a folder of its own."""

    unit: str
    bare: Measure
    ours: Measure


def on_new(new: New, measure: Callable[..., Awaitable[float]], *wanted: float) -> Measure:
    """Return what measures on a new database."""
    return lambda folder: measure(new(folder), *wanted)


def drained(definition: JobDefinition[..., int], count: int, new: New = url) -> Row:
    """Return how both drain so many jobs that wait."""

    async def bare(folder: Path) -> float:
        address, slots = new(folder), definition.max_workers
        async with JobClient(address) as client:
            await client.submit_many([definition.bind(n) for n in range(count)])
        run = partial(bare_engine.bare_drain, address, definition.name, count, slots)
        if definition.isolation == "inline":
            return await run(bare_engine.inline)
        async with bare_engine.forking() if definition.isolation == "fork" else bare_engine.warm(slots) as work:
            return await run(work)

    return Row("/s", bare, drain(definition, count, new=new))


async def main(rounds: int, wanted: str) -> None:
    """Measure both, round by round, and print the table."""
    with PostgresServer(durable=True) as server:
        databases = Databases(server.url())

        def postgres(_folder: Path) -> str:
            return databases.create()

        rows = {
            "SQLite, submit one by one": Row("/s", on_new(url, bare_engine.bare_submits, 1500, 1), one_by_one),
            "SQLite, submit 50 at once": Row("/s", on_new(url, bare_engine.bare_submits, 4000, 50), fifty_at_once),
            "SQLite, idle `inline`": Row(
                "ms", on_new(url, bare_engine.bare_latency, 200, 0.01), latency(jobs.inline, 50, 200)
            ),
            "SQLite, one after another, `inline`": Row(
                "ms", on_new(url, bare_engine.bare_latency, 300, 0), latency(jobs.inline, 50, 300, pause=0)
            ),
            "SQLite, no jobs but turns of 8 ends and 8 claims": Row(
                "/s", on_new(url, bare_engine.nothing_but_turns, 8000, 8), drain(jobs.inline, 8000)
            ),
            "SQLite, drain `inline`, 8 slots": drained(jobs.inline, 8000),
            "SQLite, drain `reuse`, 8 slots": drained(jobs.with_slots("reuse", 8), 5000),
            "SQLite, drain `fork`, 8 slots": drained(jobs.with_slots("fork", 8), 1000),
            "PostgreSQL, submit in bulk": Row(
                "/s", on_new(postgres, bare_engine.bare_bulk, 10_000), partial(in_bulk, new=postgres)
            ),
            "PostgreSQL, drain `inline`, 20 slots": drained(jobs.inline_20, 6000, postgres),
            "PostgreSQL, drain `reuse`, 20 slots": drained(jobs.with_slots("reuse", 20), 5000, postgres),
        }
        print("| what | bare engine | asyncjobs | ratio |\n|---|---|---|---|")
        for name, row in rows.items():
            if wanted in name:
                print(f"| {name} | {await compared(row, rounds)} |", flush=True)


async def compared(row: Row, rounds: int) -> str:
    """Return the medians of both and of their ratios."""
    pairs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            pairs.append((await row.bare(Path(folder)), await row.ours(Path(folder))))
    digits = 2 if row.unit == "ms" else 0
    bare, ours = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(ours / bare for bare, ours in pairs)
    return f"{bare:,.{digits}f} {row.unit} | {ours:,.{digits}f} {row.unit} | {ratio:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name contains this text")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.rounds, chosen.only))

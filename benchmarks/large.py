"""Print what claims and ends cost on a large table, beside a small one, on both databases.

    uv run benchmarks/large.py [--rows 1000000]

The large one has so many waiting and as many ended jobs. Twenty are claimed and ended at a time, in turns of a
small and a large table: medians of 200 each, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from asyncjobs.store import Store, open_store
from builders import SUCCEEDED, finish
from postgres import PostgresServer

AT_ONCE = 20
ROUNDS = 200
SMALL = 2 * AT_ONCE * ROUNDS
_ROW = """
INSERT INTO {schema}jobs (id, name, status, priority, attempt, retry_count, interruptions, created_at, run_at,
    finished_at, kill_grace, max_retries, retry_delay, retry_max_delay, params)
SELECT {id}, 'no-op', {status}, 0, 0, 0, 0, {now} + i, {now} + i, {finished}, 2, 3, 15, 60, '{{"n": 1}}'
FROM {numbers}
"""


def fill(count: int, *, ended: bool, postgres: bool) -> str:
    """Return the statement that writes so many jobs."""
    first = 10_000_000 if ended else 0
    id_ = f"'01bbe6f9-2600-7000-8000-' || lpad(to_hex(i + {first}), 12, '0')"
    numbers = f"generate_series(1, {count}) AS i"
    if not postgres:
        id_ = f"printf('01bbe6f9-2600-7000-8000-%012x', i + {first})"
        numbers = f"(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) SELECT i FROM n)"
    return _ROW.format(
        schema="asyncjobs." if postgres else "",
        id=id_,
        status="'SUCCEEDED'" if ended else "'PENDING'",
        now=int(time.time() * 1e6) - 10_000_000_000,
        finished=int(time.time() * 1e6) if ended else "NULL",
        numbers=numbers,
    )


async def filled(url: str, waiting: int, ended: int) -> Store:
    """Return an open store with so many waiting and ended jobs."""
    store = open_store(url)
    await store.open()
    statements = [fill(waiting, ended=False, postgres="postgresql" in url)]
    if ended:
        statements.append(fill(ended, ended=True, postgres="postgresql" in url))
    if "postgresql" in url:
        connection = await asyncpg.connect(url)
        for each in statements:
            await connection.execute(each, timeout=1800)
        await connection.execute("VACUUM ANALYZE asyncjobs.jobs", timeout=1800)
        await connection.close()
    else:
        with sqlite3.connect(url.partition("///")[2]) as file:
            for each in statements:
                file.execute(each)
        file.close()
    return store


async def measure(stores: dict[str, Store]) -> dict[str, dict[str, float]]:
    """Return the medians of a claim and of the ends of what it took, for each store."""
    taken: dict[str, dict[str, list[float]]] = {name: {"claim": [], "end": []} for name in stores}
    for _ in range(ROUNDS):
        for name, store in stores.items():
            began = time.perf_counter()
            claim = await store.claim("no-op", limit=AT_ONCE, engine_id="benchmark", now=datetime.now(UTC))
            claimed = time.perf_counter()
            await asyncio.gather(*(finish(store, each.job, SUCCEEDED) for each in claim.claimed))
            taken[name]["claim"].append((claimed - began) * 1000)
            taken[name]["end"].append((time.perf_counter() - claimed) * 1000)
            assert len(claim.claimed) == AT_ONCE
    return {name: {what: statistics.median(each) for what, each in kinds.items()} for name, kinds in taken.items()}


async def main(rows: int) -> None:
    """Measure both databases and print the table."""
    print("| | small: claim | large: claim | ratio | small: end | large: end | ratio |\n|---|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as folder,
        PostgresServer(durable=True) as first,
        PostgresServer(durable=True) as second,
    ):
        urls = {
            "sqlite": (f"sqlite:///{folder}/small.db", f"sqlite:///{folder}/large.db"),
            "postgresql": (first.url(), second.url()),
        }
        for database, (small, large) in urls.items():
            stores = {"small": await filled(small, SMALL, 0), "large": await filled(large, rows, rows)}
            found = await measure(stores)
            for store in stores.values():
                await store.close()
            cells = []
            for what in ("claim", "end"):
                one, other = found["small"][what], found["large"][what]
                cells += [f"{one:.2f} ms", f"{other:.2f} ms", f"{other / one:.2f}"]
            print(f"| {database} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    asyncio.run(main(parser.parse_args().rows))

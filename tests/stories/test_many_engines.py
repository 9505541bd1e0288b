"""Several engines on one database: which names they run, how many at once over all of them, who lives."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import story_jobs

from asyncjobs import DefinitionError, JobClient, JobEngine, JobStatus, job
from asyncjobs.store.postgresql.sessions import lock_key
from asyncjobs.telemetry import JobFinished, JobStarted

Start = Callable[..., Awaitable[Any]]


class Gauge:
    """How many attempts run at once over all engines that it listens to."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __call__(self, event: object) -> None:
        if isinstance(event, JobStarted):
            self.now += 1
            self.most = max(self.most, self.now)
        elif isinstance(event, JobFinished):
            self.now -= 1


async def test_no_more_run_at_once_than_max_running_over_all_engines(start: Start) -> None:
    gauge = Gauge()
    engines = [await start() for _ in range(3)]
    for engine in engines:
        engine.subscribe(gauge)

    handles = await engines[0].submit_many([story_jobs.two_at_once.bind(0.15) for _ in range(12)])
    await asyncio.gather(*(handle.result(timeout=60) for handle in handles))

    assert gauge.most == 2


async def test_a_name_at_its_limit_does_not_hold_up_the_others(start: Start) -> None:
    engine = await start()
    limited = await engine.submit_many([story_jobs.two_at_once.bind(2.0) for _ in range(6)])

    assert await (await engine.submit(story_jobs.add, 1, 2)).result(timeout=30) == 3

    assert (await limited[-1].job()).status is JobStatus.PENDING


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_claim_of_a_limited_name_that_hangs_holds_up_no_other_name(start: Start, url: str) -> None:
    engine = await start()
    elsewhere = await asyncpg.connect(url)
    await elsewhere.execute("SELECT pg_advisory_lock($1)", lock_key("asyncjobs", f"name {story_jobs.two_at_once.name}"))

    limited = await engine.submit(story_jobs.two_at_once, 0.0)
    for n in range(5):
        assert await (await engine.submit(story_jobs.add_inline, n, 1)).result(timeout=30) == n + 1
    assert (await limited.job()).status is JobStatus.PENDING

    await elsewhere.close()
    await limited.result(timeout=30)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_max_running_is_exact_at_whatever_level_transactions_of_the_database_are_isolated(
    start: Start, url: str
) -> None:
    application = await asyncpg.connect(url)
    database = await application.fetchval("SELECT quote_ident(current_database())")
    await application.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'")
    gauge = Gauge()
    engines = [await start() for _ in range(3)]
    for engine in engines:
        engine.subscribe(gauge)

    handles = await engines[0].submit_many([story_jobs.two_at_once.bind(0.0) for _ in range(60)])
    await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
    await application.close()

    assert gauge.most == 2


async def test_engines_run_their_own_names_and_leave_the_others_alone(start: Start) -> None:
    adds = await start(jobs=[story_jobs.add])
    client: JobClient = await start(kind=JobClient)

    other = await client.submit(story_jobs.add_inline, 1, 2)
    assert await (await client.submit(story_jobs.add, 1, 2)).result(timeout=30) == 3
    assert (await other.job()).status is JobStatus.PENDING

    await start(jobs=[story_jobs.add_inline])
    assert await other.result(timeout=30) == 3
    assert adds.health.status == "running"


async def test_the_attempt_says_which_engine_and_process_ran_it_and_where(start: Start) -> None:
    engine = await start()
    handle = await engine.submit(story_jobs.add, 1, 2)

    [attempt] = (await handle.wait(timeout=30)).attempts

    [living] = await engine.engines()
    assert (attempt.engine_id, attempt.host) == (living.id, socket.gethostname())
    assert attempt.pid not in (None, os.getpid())


async def test_who_lives_is_listed_with_what_it_runs_and_since_when(start: Start) -> None:
    began = datetime.now(UTC)
    await start(jobs=[story_jobs.add])
    client: JobClient = await start(kind=JobClient)

    [living] = await client.engines()

    assert (living.names, living.host, living.pid) == (("add",), socket.gethostname(), os.getpid())
    assert began - timedelta(seconds=1) <= living.started_at <= datetime.now(UTC)


async def test_an_engine_that_has_stopped_is_listed_no_more(url: str, start: Start) -> None:
    client: JobClient = await start(kind=JobClient)
    async with JobEngine(url, jobs=[story_jobs.add]):
        assert len(await client.engines()) == 1

    assert await client.engines() == ()


@pytest.mark.parametrize("limit", [0, -1, 1.5, "two"])
def test_a_max_running_that_is_no_number_of_jobs_is_refused(limit: Any) -> None:
    with pytest.raises(DefinitionError, match="max_running must be a whole number"):
        job(max_running=limit)(story_jobs.add.function)


async def test_an_end_is_no_reason_to_look_again_where_nothing_more_was_due(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await start()
    claims: list[str] = []
    claim = engine._store.claim

    async def counted(name: str, **options: Any) -> Any:
        claims.append(name)
        return await claim(name, **options)

    monkeypatch.setattr(engine._store, "claim", counted)
    for n in range(10):
        await (await engine.submit(story_jobs.add_inline, n)).result(timeout=30)

    assert 10 <= claims.count("add_inline") < 20

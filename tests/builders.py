"""Records with defaults, and the steps of a job's life that a test takes for granted.

A test names only what it is about: `make_job(attempt=3)`, `claim_one(store, inserted=make_job())`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from asyncjobs.model.job import Attempt, EngineRecord, Job, JobError, JobStatus, LogChunk, Progress
from asyncjobs.model.outcome import Transition
from asyncjobs.store import Bookmark, JobFilter, OutputChunk, Store, Submission, open_store
from asyncjobs.store.turns import Turn

NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
EVERY_JOB = JobFilter()

_numbers = count(1)


def make_id(created_at: datetime = NOON) -> str:
    """Return a UUIDv7 of this millisecond; each is above those made before it for the same one."""
    millis = f"{int(created_at.timestamp() * 1000):012x}"
    return f"{millis[:8]}-{millis[8:]}-7000-8000-{next(_numbers):012x}"


def make_job(**changes: Any) -> Job:
    """Return a waiting job, due and created at noon."""
    created_at = changes.get("created_at", NOON)
    defaults = {
        "id": make_id(created_at),
        "name": "thumbnail",
        "params_json": '{"path": "cat.png"}',
        "created_at": created_at,
        "run_at": created_at,
    }
    return Job(**{**defaults, **changes})


def make_running(**changes: Any) -> Job:
    """Return a job as `claim` hands it out."""
    claimed = {"status": JobStatus.RUNNING, "attempt": 1, "engine_id": "engine-a", "started_at": NOON}
    return make_job(**{**claimed, **changes})


def make_error(**changes: Any) -> JobError:
    """Return what an exception in a job's function leaves."""
    return JobError(**{"kind": "exception", "class_name": "OSError", "message": "disk full", **changes})


def make_attempt(job: Job, **changes: Any) -> Attempt:
    """Return the row of the attempt that `job` is."""
    defaults = {
        "job_id": job.id,
        "attempt": job.attempt,
        "outcome": "succeeded",
        "started_at": job.started_at or NOON,
        "finished_at": NOON,
        "engine_id": job.engine_id or "engine-a",
    }
    return Attempt(**{**defaults, **changes})


def make_chunk(seq: int = 1, **changes: Any) -> OutputChunk:
    """Return a piece of what a first attempt prints."""
    return OutputChunk(
        seq, LogChunk(**{"attempt": 1, "stream": "stdout", "text": "50 %\n", "written_at": NOON, **changes})
    )


def make_progress(**changes: Any) -> Progress:
    """Return how far a first attempt says it is."""
    return Progress(**{"completed": 3, "total": 10, "attempt": 1, "updated_at": NOON, **changes})


def make_engine(engine_id: str = "engine-a", **changes: Any) -> EngineRecord:
    """Return an engine's row."""
    defaults = {
        "id": engine_id,
        "host": "here",
        "boot": "boot-1",
        "pid": 4321,
        "pid_started": 1234.56,
        "names": ("thumbnail",),
        "version": "1.0",
        "started_at": NOON,
        "seen_at": NOON,
    }
    return EngineRecord(**{**defaults, **changes})


def make_transition(status: JobStatus, **changes: Any) -> Transition:
    """Return a transition that leaves the budgets at 0."""
    return Transition(**{"status": status, "retry_count": 0, "interruptions": 0, **changes})


SUCCEEDED = make_transition(JobStatus.SUCCEEDED, result_json="42")
FAILED = make_transition(JobStatus.FAILED, error=make_error())
TIMEOUT = make_transition(JobStatus.TIMEOUT, error=make_error(kind="timeout", class_name=None))
CANCELED = make_transition(JobStatus.CANCELED)
INTERRUPTED = make_transition(JobStatus.PENDING)
RETRIED = make_transition(JobStatus.PENDING, error=make_error(), run_at=NOON + MINUTE, retry_count=1)


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Store]:
    """Open the store at an address, for the time of the block."""
    store = open_store(address)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def turns_of(store: Any, monkeypatch: pytest.MonkeyPatch) -> list[Turn]:
    """Return the turns that a store's database takes from now on."""
    turns: list[Turn] = []
    take = store._turns._take

    def taken() -> Turn:
        turns.append(take())
        return turns[-1]

    monkeypatch.setattr(store._turns, "_take", taken)
    return turns


async def insert(store: Store, *jobs: Job, env: dict[str, str] | None = None) -> list[Job]:
    """Insert jobs in one call; a lone one goes its own way."""
    submissions = [Submission(job, env or {}) for job in jobs]
    return [await store.insert_one(*submissions)] if len(jobs) == 1 else await store.insert(submissions)


async def claim_all(
    store: Store, name: str = "thumbnail", *, limit: int = 100, engine_id: str = "engine-a", now: datetime = NOON
) -> list[Job]:
    """Claim, and return just the jobs."""
    claim = await store.claim(name, limit=limit, engine_id=engine_id, now=now)
    return [each.job for each in claim.claimed]


async def claim_one(
    store: Store, *, inserted: Job | None = None, engine_id: str = "engine-a", now: datetime = NOON
) -> Job:
    """Claim the one job that is due, inserted before if given."""
    if inserted is not None:
        await insert(store, inserted)
    [job] = await claim_all(store, inserted.name if inserted else "thumbnail", engine_id=engine_id, now=now)
    return job


async def finish(
    store: Store, job: Job, transition: Transition, *, now: datetime = NOON, **attempt: Any
) -> JobStatus | None:
    """End the attempt that `job` is."""
    return await store.finish(job, transition, attempt=make_attempt(job, **attempt), now=now)


async def ended_job(store: Store, transition: Transition = SUCCEEDED, *, now: datetime = NOON, **changes: Any) -> Job:
    """Insert a job, run it to this end, and return its record; no other of its name may be due."""
    claimed = await claim_one(store, inserted=make_job(**changes), now=now)
    await finish(store, claimed, transition, now=now)
    return await stored(store, claimed)


async def printed(store: Store, job: Job, *, only: int | None = None) -> list[str]:
    """Return the texts that are stored of a job's output."""
    chunks = await store.output(Bookmark(job.id, attempt=only or 0, only=only), limit=1000)
    return [each.chunk.text for each in chunks]


async def stored(store: Store, job: Job) -> Job:
    """Return the job as it is now; it must be there."""
    found = await store.get(job.id)
    assert found is not None
    return found

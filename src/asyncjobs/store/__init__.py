"""Where jobs are kept: the Store protocol, every verb on one page, and the way to a store.

Every change of a status names the status that it expects. Calls may be made from many places of
one event loop at once: those that write gather into turns, one transaction each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from asyncjobs.errors import StoreUnavailable
from asyncjobs.model.job import Attempt, EngineRecord, Job, JobStatus, LogChunk, Progress
from asyncjobs.model.outcome import Transition
from asyncjobs.settings import Settings
from asyncjobs.store.clock import Clock


class Submission(Struct, frozen=True, gc=False):
    """A job on its way into the store. `env` is kept apart from the record, which anyone may print.

    `named` says that `run_at` is a moment that somebody named; else it was counted from this process's clock.
    """

    job: Job
    env: dict[str, str] = {}
    named: bool = False

    def __repr__(self) -> str:
        return f"Submission({self.job!r})"


class Claimed(Struct, frozen=True, gc=False):
    """A job taken for its next attempt; `damage` says why it can't be run, where its row was damaged."""

    job: Job
    env: dict[str, str] = {}
    damage: str | None = None

    def __repr__(self) -> str:
        return f"Claimed({self.job!r})"


class Claim(Struct, frozen=True, gc=False):
    """What a claim brought: the jobs, in the order to start them, and when the next is due.

    `next_run_at` is the earliest `run_at` of the name's waiting jobs; now or in the past if more may be due.
    """

    claimed: tuple[Claimed, ...]
    next_run_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs; None means any. `names` and `statuses` that are empty match nothing."""

    statuses: Collection[JobStatus] | None = None
    names: Collection[str] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    finished_after: datetime | None = None
    finished_before: datetime | None = None
    params: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What a look at many jobs found: the records of those that ended, and the ids of those gone."""

    ended: tuple[Job, ...]
    missing: tuple[str, ...]


class OutputChunk(Struct, frozen=True, gc=False):
    """A piece of an attempt's output, and its place: `seq` grows within the attempt."""

    seq: int
    chunk: LogChunk


class Bookmark(NamedTuple):
    """How far a reader of a job's output has come: past this attempt's `seq`.

    With `only` it reads the output of that attempt alone.
    """

    job_id: str
    attempt: int = 0
    seq: int = 0
    only: int | None = None

    def past(self, read: OutputChunk) -> Bookmark:
        """Return the place after a chunk."""
        return self._replace(attempt=read.chunk.attempt, seq=read.seq)


@dataclass(frozen=True, slots=True)
class News:
    """What a look at a bookmark found: where its job is, and whether there is `more` to read."""

    status: JobStatus
    attempt: int
    more: bool


class Change(Struct, frozen=True, gc=False):
    """A hint at what another process has changed.

    Jobs of the names `due` wait for a claim now or later (None is any name), somebody asked a running
    job to `cancel`, or jobs have `moved`: ended, or said something.
    """

    due: frozenset[str] | None = frozenset()
    moved: bool = False
    cancel: bool = False


ANYTHING = Change(due=None, moved=True, cancel=True)


@dataclass(frozen=True, slots=True)
class Sighting:
    """An engine whose lock nobody holds. With `lock_gone` there is no lock (any more) to judge by."""

    engine: EngineRecord
    lock_gone: bool


class Store(Protocol):
    """Keeps jobs. Every verb may raise StoreUnavailable, and then nothing of it was done, or all."""

    @property
    def clock(self) -> Clock:
        """What time it is, by the clock that all who use the store share; each sign of life sets it."""
        ...

    async def open(self) -> None:
        """Connect, and create or migrate the schema.

        Raises:
            StoreUnavailable: it can't be reached, opened or written; the message says what to do.
            StoreCorrupt: it is no database, or a damaged one.
            SchemaMismatch: a newer asyncjobs has migrated it.
        """
        ...

    async def close(self) -> None:
        """Write what was asked for, within bounds, free every lock and disconnect; twice is once."""
        ...

    def insert_one(self, submission: Submission) -> Awaitable[Job]:
        """Write a job; return it as it is stored, as `insert` does."""
        ...

    async def insert(self, submissions: Sequence[Submission]) -> list[Job]:
        """Write all or none; return the jobs as they are stored, in order.

        Where a job of the same name holds the key already, that job stands in the answer instead.
        Writing a job of the same id again changes nothing. A job without a delay is due at once by the
        shared clock, whatever this process's own says.
        """
        ...

    async def insert_within(self, transaction: Any, submissions: Sequence[Submission]) -> list[Job]:
        """Write jobs in a transaction of the application's; they are there once, and if, that commits."""
        ...

    async def get(self, job_id: str) -> Job | None:
        """Return the job with its attempts, or None."""
        ...

    async def page(self, wanted: JobFilter, *, limit: int, before: str | None) -> list[Job]:
        """Return at most `limit` jobs, newest first, older than the id `before`; without attempts."""
        ...

    async def delete(self, wanted: JobFilter, *, limit: int) -> int:
        """Delete at most `limit` final jobs with all that belongs to them; return how many."""
        ...

    async def settled(self, job_ids: Collection[str]) -> Settled:
        """Return those of the jobs that have ended, without attempts, and the ids that no job has."""
        ...

    async def cancel(self, job_id: str, *, now: datetime) -> Job | None:
        """Make a PENDING job CANCELED, or note the wish on a RUNNING one; return its record, or None."""
        ...

    async def retry(self, job_id: str, *, now: datetime) -> Job | None:
        """Make a final job PENDING again; return its record, or None."""
        ...

    async def bring_forward(self, *, now: datetime) -> None:
        """Make due now what was due at once when it was submitted, and is not any more: the clock was turned back."""
        ...

    async def claim(
        self, name: str, *, limit: int, engine_id: str, now: datetime, max_running: int | None = None
    ) -> Claim:
        """Take up to `limit` due jobs of `name` for `engine_id`: PENDING → RUNNING, attempt + 1.

        With `max_running` only so many that no more than that run, over all engines. A claim that this
        has cut short has no `next_run_at`: the end of another job says when there is more to take.
        """
        ...

    async def finish(self, job: Job, transition: Transition, *, attempt: Attempt, now: datetime) -> JobStatus | None:
        """End the attempt that `job` is: RUNNING → the transition's status, and the attempt's row.

        Fenced by id, status RUNNING, attempt and engine: None means the row had moved on, and
        nothing was written. PENDING becomes CANCELED where a cancel was asked for meanwhile.
        """
        ...

    async def note(self, job: Job, output: Sequence[OutputChunk], progress: Progress | None) -> bool:
        """Write what the attempt that `job` is has said, and how far it is now.

        Fenced as `finish` is: False means that the attempt is over, and nothing was written. So
        whoever finds a job ended finds all of its output that will ever be there. Writing a chunk
        again changes nothing; progress replaces what was there.
        """
        ...

    async def output(self, bookmark: Bookmark, *, limit: int) -> list[OutputChunk]:
        """Return at most `limit` chunks from the bookmark on, in the order in which they were said."""
        ...

    async def news(self, bookmarks: Sequence[Bookmark]) -> dict[Bookmark, News]:
        """Return what there is at each bookmark; those whose job is not there are left out."""
        ...

    async def progress(self, job_id: str) -> Progress | None:
        """Return what the job's latest attempt has said of its progress, or None if it said nothing."""
        ...

    async def running(self, engine_id: str) -> Sequence[Job]:
        """Return the jobs that are RUNNING under this engine, among them those asked to cancel."""
        ...

    async def strays(self) -> Sequence[Job]:
        """Return the jobs that are RUNNING under an engine that has no row."""
        ...

    async def drain(self) -> None:
        """Return once everything that was asked for before has been written, or refused."""
        ...

    async def register(self, engine: EngineRecord) -> None:
        """Take the engine's lock, which its death frees, then write its row."""
        ...

    async def unregister(self, engine_id: str) -> None:
        """Free the engine's lock if it is held here, and delete its row unless a job still runs under it."""
        ...

    async def unlocked_engines(self) -> Sequence[Sighting]:
        """Return the engines whose rows are there and whose locks nobody holds."""
        ...

    async def engines(self) -> Sequence[EngineRecord]:
        """Return the rows of all engines, the oldest first."""
        ...

    async def living(self) -> Sequence[EngineRecord]:
        """Return the engines that live, as far as their locks tell now, the oldest first."""
        ...

    async def beat(self, engine_id: str) -> bool:
        """Say that an engine of this process lives; False when its row is gone: it was taken for dead."""
        ...

    async def changed(self) -> Change:
        """Return soon after another process has changed something, or may have."""
        ...


def open_store(address: Any, *, settings: Settings | None = None) -> Store:
    """Return the store at a URL or of an application's `AsyncEngine`; it is not opened yet.

    Raises:
        SettingsError: the address is none, or of a database that is not supported.
    """
    from asyncjobs.store.addresses import database_at
    from asyncjobs.store.sql import SqlStore

    return SqlStore(database_at(address, settings or Settings()))


async def migrate(address: Any, *, settings: Settings | None = None) -> None:
    """Create or migrate the schema at an address, as one who has the right to; engines then need no such right.

    Raises:
        StoreUnavailable, SchemaMismatch, SettingsError: as for `Store.open` and `open_store`.
    """
    store = open_store(address, settings=settings)
    await store.open()
    await store.close()


__all__ = [
    "ANYTHING",
    "Bookmark",
    "Change",
    "Claim",
    "Claimed",
    "JobFilter",
    "News",
    "OutputChunk",
    "Settled",
    "Sighting",
    "Store",
    "StoreUnavailable",
    "Submission",
    "migrate",
    "open_store",
]

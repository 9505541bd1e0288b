"""A client: it submits jobs and follows them, and runs none.

submit ── check, bind, encode ──> insert ──> handle     (client/preparing.py, store/)
result <── waiting <── the job's end, seen here or written by another process
logs <── following <── what its attempts say     (client/following.py, its life: client/life.py)
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, Never, ParamSpec, TypeVar, Unpack

from asyncjobs.client import filters
from asyncjobs.client.filters import Filters
from asyncjobs.client.following import stored
from asyncjobs.client.handle import JobHandle
from asyncjobs.client.life import Life
from asyncjobs.client.preparing import Preparing
from asyncjobs.client.within import Within
from asyncjobs.definition import Call, JobDefinition
from asyncjobs.errors import InvalidOptions, JobNotFound, UnsupportedPlatform
from asyncjobs.model.job import EngineRecord, Job, JobStatus, LogChunk, Progress
from asyncjobs.registry import Registry
from asyncjobs.settings import Settings
from asyncjobs.store import Bookmark, JobFilter, Submission
from asyncjobs.telemetry import JobFinished, JobSubmitted
from asyncjobs.unhurried import AT_ONCE, unhurried

Definition = JobDefinition[..., Any]
P = ParamSpec("P")
R = TypeVar("R")

DELETE_AT_ONCE = 500
FIRST_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, newest first, and the `cursor` of the next page, or None after the last."""

    jobs: tuple[Job, ...]
    cursor: str | None


class JobClient(Life):
    """Submits jobs and follows them.

    Args:
        address: a URL such as `"sqlite:///jobs.db"`, or the application's own SQLAlchemy
            `AsyncEngine`, whose address is used but never its pool.
        jobs: definitions, dotted names (`"package.module.function"`) and modules. Needed for
            `submit_named`; those named by `ASYNCJOBS_JOBS` are added.
        settings: `Settings()` by default, which reads the environment and `pyproject.toml`.

    Raises:
        SettingsError: the address or a setting can't be used.
        DefinitionError: something in `jobs` is no job, or its own process could not load it.
        DuplicateJobName: two functions have one name.
        UnsupportedPlatform: this is Windows.
    """

    def __init__(
        self,
        address: Any,
        *,
        jobs: Iterable[JobDefinition[..., Any] | str | ModuleType] = (),
        settings: Settings | None = None,
    ) -> None:
        if sys.platform == "win32":
            raise UnsupportedPlatform("Windows")
        super().__init__(address, settings=settings)
        self._registry = Registry(jobs, isolation=self.settings.isolation)
        self._registry.add_all(self.settings.jobs)
        self._preparing = Preparing(self._registry, self.settings, registered_only=False)

    # --- submit ---------------------------------------------------------------------------------

    async def submit(self, definition: JobDefinition[P, R], *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store a job and return its handle; once it returns, no crash of a process loses the job.

        (What a power cut may take on SQLite is told by the setting `sqlite_synchronous`.)

        If the call is cancelled the job exists or it doesn't: submit it again with a `key`
        (`definition.using(key=...)`) to end up with exactly one.

        Raises:
            InvalidParams: the arguments don't fit the function; the message names the parameter.
            InvalidOptions: `definition` is no function decorated with `@job`, or `run_at` is beyond every calendar.
            JobNotAllowed: the allow-list refuses the name.
            UnknownJobName: an engine was not given this definition with `jobs=[...]`.
            DuplicateJobName: another function is registered here under its name.
            StoreUnavailable: nothing was stored, as far as can be known.
            NotOpen: the client is not open: use it inside `async with`.
            ForkedClient: it was opened before this process was forked: open another here.
        """
        submission = self._preparing.call_at_once(definition, args, kwargs)
        if submission is None:
            submission = await self._preparing.call_in_thread(definition, args, kwargs)
        return self._submitted(definition, submission, await self._insert_one(submission))

    async def submit_named(self, name: str, params: dict[str, Any], **options: Any) -> JobHandle[Any]:
        """Submit by name, with parameters as JSON values or Python ones; options as of `using`.

        Raises:
            UnknownJobName: no such name is registered here.
            InvalidOptions: one of the options is unknown or can't be used.
            InvalidParams, JobNotAllowed, NotOpen, ForkedClient, StoreUnavailable: as for `submit`.
        """
        definition, submission = await self._preparing.named(name, params, options)
        return self._submitted(definition, submission, await self._insert_one(submission))

    async def submit_many(self, calls: Iterable[Call[R]]) -> list[JobHandle[R]]:
        """Store many jobs in one transaction: all of them, or none, also when the call is cancelled.

        Raises:
            InvalidOptions: `calls` is no list of calls.
            InvalidParams, JobNotAllowed, UnknownJobName, StoreUnavailable, NotOpen, ForkedClient: as for
                `submit`; then nothing was stored.
        """
        bound: list[Call[R]] = filters.calls(calls)
        submissions = await self._preparing.calls(bound)
        jobs = await self._insert(submissions) if submissions else []

        def submitted(each: tuple[Call[R], Submission, Job]) -> JobHandle[R]:
            call, submission, job = each
            return self._submitted(call.definition, submission, job)

        return await unhurried(submitted, zip(bound, submissions, jobs, strict=True))

    def within(self, transaction: Any) -> Within:
        """Return what submits inside the application's own transaction: the jobs exist if and only if it commits.

        Args:
            transaction: an `AsyncSession` or `AsyncConnection` of SQLAlchemy's on the database of the
                jobs, or on PostgreSQL an asyncpg connection that has begun a transaction.

        Raises:
            NotOpen, ForkedClient: as for `submit`.
        """
        return Within(self, self._preparing, self._opened_store(), transaction)

    def _insert_one(self, submission: Submission) -> Awaitable[Job]:
        store = self._opened_store()
        # Before the insert, so that the claim of an engine's worker can join its transaction.
        self._announce(submission.job.name)
        return store.insert_one(submission)

    def _submitted(self, definition: JobDefinition[..., R], submission: Submission, job: Job) -> JobHandle[R]:
        if job.id == submission.job.id:  # else its key was held, by that one
            self.events.emit(JobSubmitted(job))
        return JobHandle(job.id, job.name, self, definition, time.monotonic())

    async def _insert(self, submissions: list[Submission]) -> list[Job]:
        store = self._opened_store()
        names = {submission.job.name for submission in submissions}
        for name in names:
            self._announce(name)
        try:
            jobs = await store.insert(submissions)
        finally:
            if len(submissions) >= AT_ONCE:  # they are made ready in slices: that claim may have come before them
                for name in names:
                    self._announce(name)
        return jobs

    def _announce(self, name: str) -> None:
        """Jobs of this name are about to be there; a client has nobody to tell."""

    # --- follow ---------------------------------------------------------------------------------

    def handle(self, job_id: str) -> JobHandle[Any]:
        """Return a handle on a job by its id, such as a web page knows it; nothing is looked up.

        Its `result()` is converted by the return annotation if the job's name is registered here.

        Raises:
            JobNotFound: no job could have this id.
        """
        return JobHandle(filters.known_id(job_id), "", self)

    def definition(self, name: str) -> JobDefinition[..., Any] | None:
        """Return what is registered under a name here, or None."""
        return self._registry.get(name) if isinstance(name, str) and name in self._registry else None

    async def get(self, job_id: str) -> Job:
        """Return the job's record as it is now, with its attempts.

        Raises:
            JobNotFound: no job has this id.
            NotOpen, ForkedClient, StoreUnavailable: as for `submit`.
        """
        job = await self._opened_store().get(filters.known_id(job_id))
        if job is None:
            raise JobNotFound(job_id)
        return job

    async def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Wait for the job's end and return its final record.

        Raises:
            TimeoutError: it had not ended after `timeout` seconds, 0 among them; the job goes on.
            JobNotFound: no job has this id.
            InvalidOptions: `timeout` is no number of seconds.
            NotOpen: the client is not open, or was closed meanwhile; the job goes on.
            ForkedClient, StoreUnavailable: as for `submit`.
        """
        try:
            async with asyncio.timeout(filters.seconds("timeout", timeout)):
                while True:
                    await self.end_of(job_id, timeout=None)
                    job = await self.get(job_id)
                    if job.status.is_final:
                        return job
                    self._waiting.forget(job.id)  # somebody has retried it meanwhile
        except TimeoutError:
            return await self._ended_after_all(job_id, timeout)

    async def end_of(self, job_id: str, *, timeout: float | None, submitted_at: float | None = None) -> Job:
        """Wait for the job's end; the record lacks its attempts, and costs no query if it ends here."""
        self._opened_store()
        known = filters.known_id(job_id)
        if timeout is None:
            return await self._waiting.end_of(known, submitted_at=submitted_at)
        try:
            async with asyncio.timeout(filters.seconds("timeout", timeout)):
                return await self._waiting.end_of(known, submitted_at=submitted_at)
        except TimeoutError:
            return await self._ended_after_all(job_id, timeout)

    async def _ended_after_all(self, job_id: str, timeout: float | None) -> Job:
        """Look at the job after a wait so short that its first look may not have been answered."""
        if timeout is not None and timeout < FIRST_LOOK_SECONDS:
            try:
                async with asyncio.timeout(FIRST_LOOK_SECONDS):
                    job = await self.get(job_id)
            except TimeoutError:
                pass
            else:
                if job.status.is_final:
                    return job
        raise TimeoutError(f"job {job_id} had not ended after {timeout:g} s of waiting") from None

    def logs(self, job_id: str, *, attempt: int | None = None, follow: bool = False) -> AsyncIterator[LogChunk]:
        """Iterate over what the job's attempts have printed, in order; all of them, or one `attempt`.

        It ends with what is stored. With `follow` it goes on while the job does, and ends when
        everything is told that was stored until the end of the job (or of that `attempt`). It may be
        left at any time, and leaves nothing behind. What an attempt prints past half of its
        `max_output` is there once it has ended. Jobs of isolation `inline` have none: they print
        where their engine prints.

        Raises:
            JobNotFound: no job has this id, or it was deleted while it was followed.
            InvalidOptions: `attempt` is no number from 1 on.
            NotOpen, ForkedClient, StoreUnavailable: as for `submit`; NotOpen also once the client is closed.
        """
        store = self._opened_store()
        only = filters.attempt(attempt)
        bookmark = Bookmark(filters.known_id(job_id), attempt=only or 0, only=only)
        return self._following.follow(store, bookmark) if follow else stored(store, bookmark)

    async def progress(self, job_id: str) -> Progress | None:
        """Return what the job's latest attempt has said of its progress, or None while it said nothing.

        Raises:
            JobNotFound: no job has this id.
            NotOpen, ForkedClient, StoreUnavailable: as for `submit`.
        """
        progress = await self._opened_store().progress(filters.known_id(job_id))
        if progress is None:
            await self.get(job_id)  # tells a job that says nothing from one that is not there
        return progress

    async def list(self, *, limit: int = 100, cursor: str | None = None, **wanted: Unpack[Filters]) -> Page:
        """Return a page of jobs, newest first, without their attempts.

        The filters are those of `Filters`: `status`, `name`, `created_after`, `created_before`,
        `finished_after`, `finished_before`, `params`.

        Raises:
            InvalidOptions: a filter is unknown, or it, the limit (1 to 1000) or the cursor can't be used.
            NotOpen, ForkedClient, StoreUnavailable: as for `submit`.
        """
        size, before, choice = filters.page_size(limit), filters.cursor(cursor), filters.chosen(wanted)
        jobs = await self._opened_store().page(choice, limit=size, before=before)
        return Page(tuple(jobs), jobs[-1].id if len(jobs) == limit else None)

    async def iterate(self, *, limit: int = 100, **wanted: Unpack[Filters]) -> AsyncIterator[Job]:
        """Iterate over all jobs that `list` would page through, `limit` of them read at a time.

        Raises:
            InvalidOptions, NotOpen, ForkedClient, StoreUnavailable: as for `list`.
        """
        cursor: str | None = None
        while True:
            page = await self.list(limit=limit, cursor=cursor, **wanted)
            for job in page.jobs:
                yield job
            cursor = page.cursor
            if cursor is None:
                return

    async def engines(self) -> tuple[EngineRecord, ...]:
        """Return the engines on this database that live now, of every machine, the oldest first.

        Each says what it runs (`names`), where (`host`, `pid`) and since when (`started_at`).

        Raises:
            NotOpen, ForkedClient, StoreUnavailable: as for `submit`.
        """
        return tuple(await self._opened_store().living())

    # --- change ---------------------------------------------------------------------------------

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job.

        A waiting job is CANCELED in the record returned and never runs. A running one is asked to
        end, then killed; the record returned is still RUNNING, and `wait` sees its end. A job that
        has ended is returned as it is.

        Raises:
            JobNotFound: no job has this id.
            NotOpen, ForkedClient, StoreUnavailable: as for `submit`.
        """
        store = self._opened_store()
        now = store.clock.now()
        job = await store.cancel(filters.known_id(job_id), now=now)
        if job is None:
            raise JobNotFound(job_id)
        if job.status is JobStatus.CANCELED and job.finished_at == now:
            self._emit(JobFinished(job))
        elif job.status is JobStatus.RUNNING:
            self._ask_to_cancel(job)
        return job

    def _ask_to_cancel(self, job: Job) -> None:
        """A running job is to be canceled; the engine that runs it sees the wish in its row."""

    async def retry(self, job_id: str) -> Job:
        """Make a job that has ended PENDING again, with whole budgets; its history is kept.

        A job that has not ended is returned as it is.

        Raises:
            JobNotFound: no job has this id.
            NotOpen, ForkedClient, StoreUnavailable: as for `submit`.
        """
        store = self._opened_store()
        job = await store.retry(filters.known_id(job_id), now=datetime.now(UTC))
        if job is None:
            raise JobNotFound(job_id)
        self._waiting.forget(job.id)
        if job.status is JobStatus.PENDING:
            self._announce(job.name)
        return job

    async def delete(
        self,
        *,
        status: JobStatus | str | Collection[JobStatus | str] | None = None,
        name: str | Collection[str] | None = None,
        older_than: float | timedelta | None = None,
        **unknown: Never,
    ) -> int:
        """Delete jobs that have ended, with their history; return how many.

        Without filters all of them; an empty collection matches nothing. `older_than` (seconds or a
        timedelta) counts from their end. It is done in small transactions: others are not held up,
        and a call that is cancelled has deleted some.

        Raises:
            InvalidOptions: a filter is unknown or can't be used, or names a status that is not final.
            NotOpen, ForkedClient, StoreUnavailable: as for `submit`.
        """
        filters.check_known("delete", unknown, ("status", "name", "older_than"))
        statuses = filters.statuses(status)
        if statuses is not None and not all(each.is_final for each in statuses):
            raise InvalidOptions("only jobs that have ended can be deleted: cancel the others first")
        store = self._opened_store()
        before = None if older_than is None else store.clock.now() - filters.age("older_than", older_than)
        wanted = JobFilter(statuses=statuses, names=filters.names(name), finished_before=before)
        self._waiting.forget_all()
        deleted = 0
        while True:
            now = await store.delete(wanted, limit=DELETE_AT_ONCE)
            deleted += now
            if now < DELETE_AT_ONCE:
                return deleted

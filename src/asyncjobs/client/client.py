"""A client: it submits jobs and follows them, and runs none.

submit ── bind, encode ──> insert ──> handle        (client/submission.py, store/)
result <── waiting <── the job's end, seen here or written by another process
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import ModuleType, TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from asyncjobs.client import filters
from asyncjobs.client.handle import JobHandle
from asyncjobs.client.submission import encoded_call, encoded_params, submission_of
from asyncjobs.client.waiting import Waiting
from asyncjobs.definition import Call, JobDefinition
from asyncjobs.errors import (
    AsyncJobsError,
    EngineError,
    EngineFailed,
    ForkedClient,
    InvalidOptions,
    InvalidParams,
    JobNotAllowed,
    JobNotFound,
    NotOpen,
    UnsupportedPlatform,
)
from asyncjobs.model.job import Job, JobStatus
from asyncjobs.registry import Registry
from asyncjobs.settings import Settings
from asyncjobs.store import JobFilter, Store, Submission, open_store
from asyncjobs.supervision import supervise
from asyncjobs.telemetry import Event, Events, JobFinished, JobStarted, JobSubmitted, Listener, log

P = ParamSpec("P")
R = TypeVar("R")

LARGEST_PAGE = 1000
DELETE_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, newest first, and the `cursor` of the next page, or None after the last."""

    jobs: tuple[Job, ...]
    cursor: str | None


class JobClient:
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
        self.settings = Settings() if settings is None else settings
        self.events = Events(log)
        self._address = address
        self._registry = Registry(jobs, isolation=self.settings.isolation)
        self._registry.add_all(self.settings.jobs)
        self._store: Store = self._new_store()
        self._waiting = Waiting()
        self._life: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._pid = os.getpid()
        self._failure: EngineError | None = None

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect, and create or migrate the schema.

        Raises:
            StoreUnavailable, StoreCorrupt, SchemaMismatch: the store can't be used; the message says
                what to do.
        """
        if self._life is not None:
            raise EngineError(f"this {type(self).__name__} is open already")
        self._store = self._new_store()
        self._waiting = Waiting()
        self._closing = asyncio.Event()
        self._failure = None
        self._pid = os.getpid()
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A task of its own, since `async with` may be left in another one than it was entered in.
        self._life = asyncio.create_task(self._live(opened), name=f"asyncjobs {type(self).__name__}")
        try:
            await opened
        except BaseException:
            await self._end_life()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish what was asked for, and disconnect; a second cancellation shortens it."""
        if kind is not None and not issubclass(kind, Exception):
            self._hurry()
        await self._end_life()
        if self._failure is not None and error is None:
            raise self._failure

    async def _end_life(self) -> None:
        life, self._life = self._life, None
        if life is None or self._pid != os.getpid():
            return
        self._closing.set()
        canceled: asyncio.CancelledError | None = None
        while not life.done():
            try:
                await asyncio.wait([life])
            except asyncio.CancelledError as error:
                if canceled is not None:
                    life.cancel()
                canceled = error
                self._hurry()
        if canceled is not None:
            raise canceled
        if not life.cancelled() and (failure := life.exception()) is not None and self._failure is None:
            raise failure

    async def _live(self, opened: asyncio.Future[None]) -> None:
        try:
            await self._store.open()
            try:
                async with asyncio.TaskGroup() as group:
                    background = self._start_background(group)
                    await self._serve(opened)
                    for each in background:
                        each.cancel()
            finally:
                await self._store.close()
        except BaseException as caught:
            error = _innermost(caught)
            if isinstance(error, EngineFailed):
                self._failure = error
            if not opened.done():
                opened.set_exception(error)
            elif self._failure is None:
                raise
        finally:
            self._waiting.fail(self._failure or NotOpen(type(self).__name__))

    def _start_background(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        def waiting() -> Any:
            return self._waiting.run(self._store)

        return [
            group.create_task(supervise(name, run, events=self.events), name=f"asyncjobs {name}")
            for name, run in (("waiting", waiting), ("watching", self._watch))
        ]

    async def _serve(self, opened: asyncio.Future[None]) -> None:
        """Say that we are open, and stay so until we are closed."""
        if not opened.done():
            opened.set_result(None)
        await self._closing.wait()

    def _hurry(self) -> None:
        """Skip what graces there are when closing; a client has none."""

    async def _watch(self) -> None:
        while True:
            await self._store.changed()
            await self._on_change()

    async def _on_change(self) -> None:
        """Another process has written something."""
        self._waiting.look_again()

    def _new_store(self) -> Store:
        return open_store(self._address, synchronous=self.settings.sqlite_synchronous)

    def subscribe(self, listener: Listener) -> Any:
        """Have `listener` called with every event of this client; the function returned ends that."""
        return self.events.subscribe(listener)

    def _emit(self, event: Event) -> None:
        if type(event) is JobFinished:
            self._waiting.ended(event.job)
        elif type(event) is JobStarted:
            self._waiting.forget(event.job.id)
        self.events.emit(event)

    def _opened_store(self) -> Store:
        if self._pid != os.getpid():
            raise ForkedClient(type(self).__name__)
        if self._failure is not None:
            raise self._failure
        if self._life is None:
            raise NotOpen(type(self).__name__)
        return self._store

    # --- submit ---------------------------------------------------------------------------------

    async def submit(self, definition: JobDefinition[P, R], *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store a job and return its handle; once it returns, the job is never lost.

        If the call is cancelled the job exists or it doesn't: submit it again with a `key`
        (`definition.using(key=...)`) to end up with exactly one.

        Raises:
            InvalidParams: the arguments don't fit the function; the message names the parameter.
            JobNotAllowed: the allow-list refuses the name.
            UnknownJobName: an engine was not given this definition with `jobs=[...]`.
            StoreUnavailable: nothing was stored, as far as can be known.
        """
        submission = self._prepared(definition, args, kwargs)
        [job] = await self._insert([submission])
        return JobHandle(self, job, definition)

    async def submit_named(self, name: str, params: dict[str, Any], **options: Any) -> JobHandle[Any]:
        """Submit by name, with parameters as JSON values or Python ones; options as of `using`.

        Raises:
            UnknownJobName: no such name is registered here.
            InvalidParams, InvalidOptions, JobNotAllowed, StoreUnavailable: see `submit`.
        """
        definition = self._registry.get(name)
        if not isinstance(params, dict):
            raise InvalidParams(name, None, f"params must be a dict of names to values, not {type(params).__name__}")
        if options:
            try:
                definition = definition.using(**options)
            except TypeError as error:
                raise InvalidOptions(f"submit_named: {error}") from None
        self._check_allowed(name)
        text = encoded_params(definition, params, limit=self.settings.max_params_bytes)
        [job] = await self._insert([submission_of(definition, text, settings=self.settings)])
        return JobHandle(self, job, definition)

    async def submit_many(self, calls: Iterable[Call[R]]) -> list[JobHandle[R]]:
        """Store many jobs in one transaction: all of them, or none.

        Raises:
            The errors of `submit`; then nothing was stored.
        """
        bound = list(calls)
        submissions: list[Submission] = []
        for at, call in enumerate(bound):
            if not isinstance(call, Call):
                raise InvalidOptions(f"submit_many takes calls made by definition.bind(...), not {call!r}")
            submissions.append(self._prepared(call.definition, call.args, call.kwargs))
            if at % 256 == 255:
                await asyncio.sleep(0)  # a million calls must not stop the loop
        if not submissions:
            return []
        jobs = await self._insert(submissions)
        return [JobHandle(self, job, call.definition) for job, call in zip(jobs, bound, strict=True)]

    def _prepared(self, definition: Any, args: Any, kwargs: Any) -> Submission:
        if not isinstance(definition, JobDefinition):
            raise InvalidOptions(f"submit takes a function decorated with @job, not {definition!r}")
        self._check_registered(definition)
        self._check_allowed(definition.name)
        text = encoded_call(definition, args, kwargs, limit=self.settings.max_params_bytes)
        return submission_of(definition, text, settings=self.settings)

    def _check_registered(self, definition: JobDefinition[..., Any]) -> None:
        if definition.name in self._registry:
            self._registry.add(definition)  # refuses another function of that name

    def _check_allowed(self, name: str) -> None:
        allowed = self.settings.allowed_jobs
        if allowed is not None and name not in allowed:
            raise JobNotAllowed(name)

    async def _insert(self, submissions: list[Submission]) -> list[Job]:
        store = self._opened_store()
        # Before the insert, so that a worker's claim can join its transaction.
        self._announce({submission.job.name for submission in submissions})
        jobs = await store.insert(submissions)
        for submission, job in zip(submissions, jobs, strict=True):
            if job.id == submission.job.id:
                self._emit(JobSubmitted(job))
        return jobs

    def _announce(self, names: set[str]) -> None:
        """Jobs of these names are about to be there; a client has nobody to tell."""

    # --- follow ---------------------------------------------------------------------------------

    def handle(self, job_id: str) -> JobHandle[Any]:
        """Return a handle on a job by its id, such as a web page knows it; nothing is looked up.

        Its `result()` is converted by the return annotation if the job's name is registered here.
        """
        job = Job(id=filters.known_id(job_id), name="", params_json="{}", created_at=_EPOCH, run_at=_EPOCH)
        return JobHandle(self, job, None)

    def definition(self, name: str) -> JobDefinition[..., Any] | None:
        """Return what is registered under a name here, or None."""
        return self._registry.get(name) if name in self._registry else None

    async def get(self, job_id: str) -> Job:
        """Return the job's record as it is now, with its attempts.

        Raises:
            JobNotFound: no job has this id.
        """
        job = await self._opened_store().get(filters.known_id(job_id))
        if job is None:
            raise JobNotFound(job_id)
        return job

    async def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """Wait for the job's end and return its final record.

        Raises:
            TimeoutError: it had not ended after `timeout` seconds; the job goes on.
            JobNotFound: no job has this id.
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
            raise TimeoutError(f"job {job_id} had not ended after {timeout:g} s of waiting") from None

    async def end_of(self, job_id: str, *, timeout: float | None, submitted_here: bool = False) -> Job:
        """Wait for the job's end; the record lacks its attempts, and costs no query if it ends here."""
        self._opened_store()
        known = filters.known_id(job_id)
        try:
            async with asyncio.timeout(filters.seconds("timeout", timeout)):
                return await self._waiting.end_of(known, submitted_here=submitted_here)
        except TimeoutError:
            raise TimeoutError(f"job {job_id} had not ended after {timeout:g} s of waiting") from None

    async def list(
        self,
        *,
        status: JobStatus | str | Collection[JobStatus | str] | None = None,
        name: str | Collection[str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        finished_after: datetime | None = None,
        finished_before: datetime | None = None,
        params: dict[str, Any] | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Return a page of jobs, newest first, without their attempts.

        `after` includes the instant given, `before` does not. `params` are values that the job's
        parameters must equal, compared as JSON (1 is not 1.0); it reads every row that the other
        filters leave. An empty collection matches nothing.

        Raises:
            InvalidOptions: a filter, the limit (1 to 1000) or the cursor can't be used.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LARGEST_PAGE:
            raise InvalidOptions(f"limit must be a whole number from 1 to {LARGEST_PAGE}, not {limit!r}")
        wanted = JobFilter(
            statuses=filters.statuses(status),
            names=filters.names(name),
            created_after=filters.aware("created_after", created_after),
            created_before=filters.aware("created_before", created_before),
            finished_after=filters.aware("finished_after", finished_after),
            finished_before=filters.aware("finished_before", finished_before),
            params=filters.plain_params(params),
        )
        jobs = await self._opened_store().page(wanted, limit=limit, before=filters.cursor(cursor))
        return Page(tuple(jobs), jobs[-1].id if len(jobs) == limit else None)

    async def iterate(self, *, limit: int = 100, **filters: Any) -> AsyncIterator[Job]:
        """Iterate over all jobs that `list` would page through, `limit` of them read at a time."""
        cursor: str | None = None
        while True:
            page = await self.list(limit=limit, cursor=cursor, **filters)
            for job in page.jobs:
                yield job
            cursor = page.cursor
            if cursor is None:
                return

    # --- change ---------------------------------------------------------------------------------

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job.

        A waiting job is CANCELED in the record returned and never runs. A running one is asked to
        end, then killed; the record returned is still RUNNING, and `wait` sees its end. A job that
        has ended is returned as it is.

        Raises:
            JobNotFound: no job has this id.
        """
        now = datetime.now(UTC)
        job = await self._opened_store().cancel(filters.known_id(job_id), now=now)
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
        """
        store = self._opened_store()
        job = await store.retry(filters.known_id(job_id), now=datetime.now(UTC))
        if job is None:
            raise JobNotFound(job_id)
        self._waiting.forget(job.id)
        if job.status is JobStatus.PENDING:
            self._announce({job.name})
        return job

    async def delete(
        self,
        *,
        status: JobStatus | str | Collection[JobStatus | str] | None = None,
        name: str | Collection[str] | None = None,
        older_than: float | timedelta | None = None,
    ) -> int:
        """Delete jobs that have ended, with their history; return how many.

        Without filters all of them; an empty collection matches nothing. `older_than` (seconds or a
        timedelta) counts from their end. It is done in small transactions: others are not held up,
        and a call that is cancelled has deleted some.

        Raises:
            InvalidOptions: a filter can't be used, or names a status that is not final.
        """
        statuses = filters.statuses(status)
        if statuses is not None and not all(each.is_final for each in statuses):
            raise InvalidOptions("only jobs that have ended can be deleted: cancel the others first")
        before: datetime | None = None
        if older_than is not None:
            before = datetime.now(UTC) - filters.age(older_than)
        wanted = JobFilter(statuses=statuses, names=filters.names(name), finished_before=before)
        store = self._opened_store()
        self._waiting.forget_all()
        deleted = 0
        while True:
            now = await store.delete(wanted, limit=DELETE_AT_ONCE)
            deleted += now
            if now < DELETE_AT_ONCE:
                return deleted


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _innermost(error: BaseException) -> BaseException:
    """Return the error that a task group wrapped; of several, the one that says most."""
    while isinstance(error, BaseExceptionGroup):
        told = error.subgroup(AsyncJobsError)
        error = (told or error).exceptions[0]
    return error

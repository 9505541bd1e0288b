"""Submitting inside an application's own transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from asyncjobs.client import filters
from asyncjobs.client.handle import JobHandle
from asyncjobs.client.preparing import Preparing
from asyncjobs.definition import Call, JobDefinition
from asyncjobs.model.job import Job
from asyncjobs.store import Store, Submission

if TYPE_CHECKING:
    from asyncjobs.client.client import JobClient

P = ParamSpec("P")
R = TypeVar("R")


class Within:
    """Submits jobs that exist if and only if a transaction of the application's commits.

    Made by `client.within(...)`. The jobs are claimed once that has committed; until then nobody sees them, not
    even `handle.job()`, and their events (`JobSubmitted`) are not emitted, since they may never be.
    """

    __slots__ = ("_client", "_preparing", "_store", "_transaction")

    def __init__(self, client: JobClient, preparing: Preparing, store: Store, transaction: Any) -> None:
        self._client = client
        self._preparing = preparing
        self._store = store
        self._transaction = transaction

    async def submit(self, definition: JobDefinition[P, R], *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Write a job in the transaction and return its handle.

        Raises:
            InvalidOptions: the transaction has not begun, commits each statement, or is on another kind of database
                or by another driver.
            StoreUnavailable: the database refuses it; the transaction is its owner's to roll back.
            InvalidParams, JobNotAllowed, UnknownJobName: as for `JobClient.submit`.
        """
        [job] = await self._insert([await self._preparing.call(definition, args, kwargs)])
        return self._handle(job, definition)

    async def submit_named(self, name: str, params: dict[str, Any], **options: Any) -> JobHandle[Any]:
        """Write a job by name in the transaction; errors as of `submit` and `JobClient.submit_named`."""
        definition, submission = await self._preparing.named(name, params, options)
        [job] = await self._insert([submission])
        return self._handle(job, definition)

    async def submit_many(self, calls: Iterable[Call[R]]) -> list[JobHandle[R]]:
        """Write many jobs in the transaction; errors as of `submit`."""
        bound: list[Call[R]] = filters.calls(calls)
        submissions = await self._preparing.calls(bound)
        jobs = await self._insert(submissions) if submissions else []
        return [self._handle(job, call.definition) for job, call in zip(jobs, bound, strict=True)]

    async def _insert(self, submissions: list[Submission]) -> list[Job]:
        return await self._store.insert_within(self._transaction, submissions)

    def _handle(self, job: Job, definition: JobDefinition[..., R]) -> JobHandle[R]:
        return JobHandle(job.id, job.name, self._client, definition, time.monotonic())

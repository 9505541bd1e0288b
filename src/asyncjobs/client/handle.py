"""A handle on one submitted job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from asyncjobs import codec, large
from asyncjobs.errors import AsyncJobsError, JobCanceled, JobFailed, JobTimedOut
from asyncjobs.model.job import Job, JobError, JobStatus, LogChunk, Progress

if TYPE_CHECKING:
    from asyncjobs.client.client import JobClient
    from asyncjobs.definition import JobDefinition

R = TypeVar("R")


class JobHandle(Generic[R]):
    """One job, as its submitter holds it; `id` is all that another process needs to follow it."""

    __slots__ = ("_client", "_definition", "_submitted_at", "id", "name")

    def __init__(
        self,
        id: str,
        name: str,
        client: JobClient,
        definition: JobDefinition[..., R] | None = None,
        submitted_at: float | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self._client = client
        self._definition = definition
        self._submitted_at = submitted_at  # by the monotonic clock, where it was submitted here

    def __repr__(self) -> str:
        return f"<JobHandle {self.name} {self.id}>" if self.name else f"<JobHandle {self.id}>"

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the end and return what the function returned, by its return annotation.

        It may be called again, and by many at once. Cancelling the call leaves the job alone.

        Args:
            timeout: seconds to wait; None waits without limit, 0 asks whether the job has ended.

        Raises:
            JobFailed: the job failed; it carries the remote class name, message and traceback.
            JobTimedOut: the job ran past its own timeout.
            JobCanceled: the job was canceled.
            TimeoutError: the wait was over first; the job goes on.
            JobNotFound: the job was deleted.
            StoreCorrupt: the stored result was damaged.
            AsyncJobsError: it does not fit the function's return annotation any more.
            InvalidOptions: `timeout` is no number of seconds.
            NotOpen: the client is not open, or was closed meanwhile; the job goes on.
            ForkedClient: the client was opened before this process was forked.
            StoreUnavailable: the database did not answer in a wait of less than a second.
        """
        job = await self._client.end_of(self.id, timeout=timeout, submitted_at=self._submitted_at)
        return cast(R, await _value(job, self._definition or self._client.definition(job.name)))

    async def wait(self, timeout: float | None = None) -> Job:
        """Wait for the end, whatever it is, and return the final record.

        Raises:
            TimeoutError: the wait was over first; the job goes on.
            JobNotFound: the job was deleted.
            InvalidOptions, NotOpen, ForkedClient, StoreUnavailable: as for `JobClient.wait`.
        """
        return await self._client.wait(self.id, timeout=timeout)

    async def job(self) -> Job:
        """Return the job's record as it is now.

        Raises:
            JobNotFound: the job was deleted.
            NotOpen, ForkedClient, StoreUnavailable: as for `JobClient.get`.
        """
        return await self._client.get(self.id)

    async def progress(self) -> Progress | None:
        """Return what the job's latest attempt has said of its progress, or None while it said nothing.

        Raises:
            JobNotFound: the job was deleted.
            NotOpen, ForkedClient, StoreUnavailable: as for `JobClient.progress`.
        """
        return await self._client.progress(self.id)

    def logs(self, *, follow: bool = False, attempt: int | None = None) -> AsyncIterator[LogChunk]:
        """Iterate over what the job has printed, while it runs with `follow`; see `JobClient.logs`.

        Raises:
            JobNotFound, InvalidOptions, NotOpen, ForkedClient, StoreUnavailable: as for `JobClient.logs`.
        """
        return self._client.logs(self.id, attempt=attempt, follow=follow)

    async def cancel(self) -> Job:
        """Cancel the job; see `JobClient.cancel`.

        Raises:
            JobNotFound, NotOpen, ForkedClient, StoreUnavailable: as for `JobClient.cancel`.
        """
        return await self._client.cancel(self.id)


async def _value(job: Job, definition: JobDefinition[..., Any] | None) -> Any:
    match job.status:
        case JobStatus.SUCCEEDED:
            text = job.result_json or "null"
            if definition is None:
                try:
                    return await large.read(_plain, text) if large.is_long(text) else job.result
                except ValueError:
                    return job.result  # which says what is wrong with it
            try:
                if large.is_long(text):
                    return await large.read(partial(codec.decode_result, definition.function), text)
                return codec.decode_result(definition.function, text)
            except codec.CodecError as error:
                _ = job.result  # where the text is no JSON any more, that is what is wrong
                raise AsyncJobsError(
                    f"the result of job {job.name!r} ({job.id}) does not fit the function's return "
                    f"annotation any more: {error.problem}; read it plain from `Job.result`"
                ) from None
        case JobStatus.TIMEOUT:
            raise JobTimedOut(job.id, job.name, job.error)
        case JobStatus.CANCELED:
            raise JobCanceled(job.id, job.name, job.error)
        case _:
            why = job.error or JobError(kind="crash", message="it ended without an error's record")
            raise JobFailed(job.id, job.name, why)


def _plain(text: str, *, read: Callable[[str], Any]) -> Any:
    return read(text)

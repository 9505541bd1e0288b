"""Who waits for which job, and how they learn of its end.

An end in this process is told. Others are looked up (see `looking.py`): those of jobs that somebody
began to wait for since the last look (they may have ended before), and all of them when another
process has written something. Mostly there is nothing to look up: the end of a job that was submitted
here a moment ago is likely to be seen here, so its first look is put off a little; and an end that was
seen here is remembered for a moment. Whoever waits later is looked up at once: the end may be forgotten.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from asyncjobs.client.looking import Looking
from asyncjobs.errors import JobNotFound
from asyncjobs.model.job import Job
from asyncjobs.store import Store

REMEMBERED_SECONDS = 1.0
MOST_REMEMBERED = 500
LONGEST_REMEMBERED = 10_000  # characters of params and result


class Waiting:
    """The waiters of one client."""

    def __init__(self) -> None:
        self._looking: Looking[str, Job] = Looking()
        self._recent: OrderedDict[str, tuple[float, Job]] = OrderedDict()

    async def end_of(self, job_id: str, *, submitted_at: float | None = None) -> Job:
        """Return the job's final record, without its attempts.

        `submitted_at` is when it was submitted here, by the monotonic clock, or None.

        Raises:
            JobNotFound: no job has this id, or it was deleted meanwhile.
        """
        remembered = self._recent.get(job_id)
        if remembered is not None and asyncio.get_running_loop().time() - remembered[0] < REMEMBERED_SECONDS:
            return remembered[1]
        is_new = submitted_at is not None and time.monotonic() - submitted_at < REMEMBERED_SECONDS
        return await self._looking.wait_for(job_id, put_off=is_new)

    def ended(self, job: Job) -> None:
        """Wake the waiters of a job that has ended."""
        if len(job.params_json) + len(job.result_json or "") <= LONGEST_REMEMBERED:
            self._recent[job.id] = (asyncio.get_running_loop().time(), job)
            if len(self._recent) > MOST_REMEMBERED:
                self._recent.popitem(last=False)
        self._looking.settle(job.id, job)

    def forget_all(self) -> None:
        """Forget every end: some jobs are deleted."""
        self._recent.clear()

    def forget(self, job_id: str) -> None:
        """Forget that the job has ended: it begins anew."""
        self._recent.pop(job_id, None)

    def look_again(self) -> None:
        """Look up every job that is waited for: its end may have been written elsewhere."""
        self._recent.clear()  # whoever wrote may have retried or deleted one of them
        self._looking.look_again()

    def fail(self, error: Exception) -> None:
        """Wake everybody, now and later, with an error: nothing will be noticed any more."""
        self._recent.clear()
        self._looking.fail(error)

    async def run(self, store: Store) -> None:
        """Look up jobs, for ever."""

        async def ask(job_ids: set[str]) -> None:
            settled = await store.settled(job_ids)
            for job in settled.ended:
                self._looking.settle(job.id, job)
            for job_id in settled.missing:
                self._looking.refuse(job_id, JobNotFound(job_id))

        await self._looking.run(ask)

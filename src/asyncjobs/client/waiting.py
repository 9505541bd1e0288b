"""Who waits for which job, and how they learn of its end.

    an event of this process ──┐
    another process wrote ─────┼──> the waiters of that job
    a look each few seconds ───┘

However many wait, there is one task, and one query for all whose jobs it has to look up: those that
began to wait since the last look (their job may have ended before), and all of them when another
process has written something. Mostly there is nothing to look up: the end of a job that was submitted
here is likely to be seen here, so its first look is put off a little; and an end that was seen here is
remembered for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from asyncjobs.errors import JobNotFound
from asyncjobs.model.job import Job
from asyncjobs.store import Store

LOOK_AGAIN_SECONDS = 5.0
QUICK_LOOK_SECONDS = 0.02
PUT_OFF_SECONDS = 0.05
REMEMBERED_SECONDS = 1.0
MOST_REMEMBERED = 500
LONGEST_REMEMBERED = 10_000  # characters of a result


class Waiting:
    """The waiters of one client."""

    def __init__(self) -> None:
        self._waiters: dict[str, set[asyncio.Future[Job]]] = {}
        self._unseen: set[str] = set()
        self._look = asyncio.Event()
        self._failure: Exception | None = None
        self._recent: dict[str, tuple[float, Job]] = {}

    async def end_of(self, job_id: str, *, submitted_here: bool = False) -> Job:
        """Return the job's final record, without its attempts.

        Raises:
            JobNotFound: no job has this id, or it was deleted meanwhile.
        """
        if self._failure is not None:
            raise self._failure
        loop = asyncio.get_running_loop()
        remembered = self._recent.get(job_id)
        if remembered is not None and loop.time() - remembered[0] < REMEMBERED_SECONDS:
            return remembered[1]
        waiter: asyncio.Future[Job] = loop.create_future()
        self._waiters.setdefault(job_id, set()).add(waiter)
        timer = loop.call_later(PUT_OFF_SECONDS if submitted_here else 0, self._look_up, job_id)
        try:
            return await waiter
        finally:
            timer.cancel()
            waiters = self._waiters.get(job_id)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[job_id]

    def ended(self, job: Job) -> None:
        """Wake the waiters of a job that has ended."""
        if len(job.result_json or "") <= LONGEST_REMEMBERED:
            self._recent[job.id] = (asyncio.get_running_loop().time(), job)
            if len(self._recent) > MOST_REMEMBERED:
                del self._recent[next(iter(self._recent))]
        self._tell(job)

    def _tell(self, job: Job) -> None:
        self._resolve(job.id, lambda waiter: waiter.set_result(job))

    def forget_all(self) -> None:
        """Forget every end: some jobs are deleted."""
        self._recent.clear()

    def forget(self, job_id: str) -> None:
        """Forget that the job has ended: it begins anew."""
        self._recent.pop(job_id, None)

    def _look_up(self, job_id: str) -> None:
        self._unseen.add(job_id)
        self._look.set()

    def _missing(self, job_id: str) -> None:
        self._resolve(job_id, lambda waiter: waiter.set_exception(JobNotFound(job_id)))

    def look_again(self) -> None:
        """Look up every job that is waited for: its end may have been written elsewhere."""
        self._recent.clear()  # whoever wrote may have retried or deleted one of them
        if self._waiters:
            self._unseen.update(self._waiters)
            self._look.set()

    def fail(self, error: Exception) -> None:
        """Wake everybody, now and later, with an error: nothing will be noticed any more."""
        self._failure = error
        for job_id in list(self._waiters):
            self._resolve(job_id, lambda waiter: waiter.set_exception(error))

    async def run(self, store: Store) -> None:
        """Look up jobs, for ever."""
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._look.wait()
            except TimeoutError:
                self.look_again()
            self._look.clear()
            # Whoever begins to wait in this pass of the loop shares the query.
            await asyncio.sleep(0)
            asked, self._unseen = self._unseen & self._waiters.keys(), set()
            if not asked:
                continue
            began = asyncio.get_running_loop().time()
            try:
                settled = await store.settled(asked)
            except BaseException:
                self._unseen |= asked
                raise
            for job in settled.ended:
                self._tell(job)
            for job_id in settled.missing:
                self._missing(job_id)
            took = asyncio.get_running_loop().time() - began
            if took > QUICK_LOOK_SECONDS:  # for very many: it is a fifth of the time at the most
                await asyncio.sleep(min(4 * took, LOOK_AGAIN_SECONDS))

    def _resolve(self, job_id: str, settle: Callable[[asyncio.Future[Job]], None]) -> None:
        for waiter in self._waiters.pop(job_id, ()):
            if not waiter.done():
                settle(waiter)

"""The ends of attempts: decided, written however often it takes, and told.

ended ──> decide ──> finish ──┬──> events, waiting
                              └──> too late: LeaseLost
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec.structs import replace

from asyncjobs.engine.records import attempt_record, with_limit
from asyncjobs.errors import StoreError
from asyncjobs.execution import Ended
from asyncjobs.model.job import Attempt, Job, JobStatus
from asyncjobs.model.outcome import Interrupted, Outcome, Transition, backoff, decide
from asyncjobs.store import Store
from asyncjobs.telemetry import Event, JobFinished, JobInterrupted, JobRetryScheduled, LeaseLost, TaskCrashed

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
JITTER = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Writes the ends of what one engine ran."""

    store: Store
    host: str
    interruption_budget: int
    emit: Callable[[Event], None]
    announce: Callable[[str], None]
    """Told the name of a job that is, or may be, PENDING again."""

    async def write(self, job: Job, ended: Ended) -> None:
        """Write an attempt's end, however often it takes, and tell what became of the job."""
        now = self.store.clock.now()
        transition, attempt = self.decided(job, ended, now=now)
        pause = FIRST_PAUSE
        while True:
            try:
                status = await self.store.finish(job, transition, attempt=attempt, now=now)
                break
            except StoreError as error:
                self.emit(TaskCrashed(task=f"end of {job.name} {job.id}", error=error, final=False))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        if status is None:
            await self._moved_on(job, attempt)
        else:
            self._tell(job, transition, status, ended.outcome, now)

    def decided(self, job: Job, ended: Ended, *, now: datetime) -> tuple[Transition, Attempt]:
        """Return what the end of the attempt that `job` is makes of the job, and the record that it leaves."""
        transition = decide(
            job,
            with_limit(ended.outcome, ended.process),
            retry_after=_retry_after(job, ended.outcome),
            interruption_budget=self.interruption_budget,
            now=now,
        )
        return transition, attempt_record(job, ended, transition, host=self.host, now=now)

    async def _moved_on(self, job: Job, attempt: Attempt) -> None:
        """The row was not ours any more: either we had written it already, or somebody took it."""
        try:
            stored = await self.store.get(job.id)
        except StoreError as error:  # who waits for it looks it up
            self.emit(TaskCrashed(task=f"look at {job.name} {job.id}", error=error, final=False))
            self.announce(job.name)
            return
        written = stored is not None and any(
            (each.attempt, each.engine_id, each.outcome) == (attempt.attempt, attempt.engine_id, attempt.outcome)
            for each in stored.attempts
        )
        if stored is None or not written:
            self.emit(LeaseLost(job, attempt.outcome))
        elif stored.status.is_final:
            self.emit(JobFinished(stored))
        else:
            self.announce(job.name)  # it may be due again, and is told of as any other

    def _tell(self, job: Job, transition: Transition, status: JobStatus, outcome: Outcome, now: datetime) -> None:
        if status.is_final:
            self.emit(
                JobFinished(
                    replace(
                        job,
                        status=status,
                        result_json=transition.result_json,
                        error=transition.error,
                        finished_at=now,
                        retry_count=transition.retry_count,
                        interruptions=transition.interruptions,
                    )
                )
            )
            return
        if isinstance(outcome, Interrupted):
            self.emit(JobInterrupted(job, outcome.reason))
        else:
            retried = replace(job, retry_count=transition.retry_count)
            self.emit(JobRetryScheduled(retried, transition.error, transition.run_at or job.run_at))
        self.announce(job.name)  # so that a timer is set to it


def _retry_after(job: Job, outcome: Outcome) -> timedelta:
    if not getattr(outcome, "transient", False):
        return timedelta(0)
    wait = backoff(
        job.retry_count + 1,
        base=timedelta(seconds=job.retry_delay),
        limit=timedelta(seconds=job.retry_max_delay),
    )
    return wait * (1 + random.random() * JITTER)  # it spreads retries, it hides nothing

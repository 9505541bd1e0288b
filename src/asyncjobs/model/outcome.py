"""How an attempt can end, and what that makes of its job.

    Outcome ── decide ──> Transition

`decide` is the only place that turns one into the other; rescue and stop use it too.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

from msgspec import Struct

from asyncjobs.model.job import Job, JobError, JobStatus


class Succeeded(Struct, frozen=True, gc=False):
    """The function returned; `result_json` is its value, left out where the outcome is printed."""

    result_json: str

    def __repr__(self) -> str:
        return f"Succeeded(<{len(self.result_json)} characters>)"


class Failed(Struct, frozen=True, kw_only=True, gc=False):
    """The function raised, or could not be called. `retry_after` is the time that a `Retry` asked for."""

    error: JobError
    transient: bool = False
    retry_after: timedelta | None = None


class TimedOut(Struct, frozen=True, kw_only=True, gc=False):
    """The attempt ran past its deadline, whatever it returned afterwards."""

    transient: bool = False


class Canceled(Struct, frozen=True, kw_only=True, gc=False):
    """A caller asked for the end, or the job raised `Cancel`."""

    reason: str = ""


class Crashed(Struct, frozen=True, kw_only=True, gc=False):
    """The process ended without a reply. `reason` says how, in words."""

    reason: str
    transient: bool = False


class Interrupted(Struct, frozen=True, kw_only=True, gc=False):
    """The attempt ended through no fault of the job's.

    `vanished` is true when its engine, or the template that its process came from, was gone without a
    goodbye: only that counts, against the job's budget of interruptions. Asked of a running attempt, it
    has at most `within` seconds to end.
    """

    reason: str = ""
    vanished: bool = False
    within: float | None = None


Outcome = Succeeded | Failed | TimedOut | Canceled | Crashed | Interrupted

OUTCOME_NAMES: dict[type, str] = {
    Succeeded: "succeeded",
    Failed: "failed",
    TimedOut: "timeout",
    Canceled: "canceled",
    Crashed: "crashed",
    Interrupted: "interrupted",
}


class ProcessReport(Struct, frozen=True, kw_only=True, gc=False):
    """What is known of an attempt's process: `peak_rss` in bytes, `cpu_time` in seconds.

    `leftovers` counts the processes that the job left behind and that were killed; `limit` names the
    limit that the job has met, where its outcome does not say so.
    """

    pid: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    peak_rss: int | None = None
    cpu_time: float | None = None
    leftovers: int = 0
    limit: str | None = None


class Transition(Struct, frozen=True, kw_only=True, gc=False):
    """What an attempt's end writes into its job's row. `run_at` None keeps the one there."""

    status: JobStatus
    result_json: str | None = None
    error: JobError | None = None
    run_at: datetime | None = None
    retry_count: int
    interruptions: int

    def __repr__(self) -> str:
        return f"Transition({self.status}, run_at={self.run_at}, error={self.error})"


def decide(
    job: Job, outcome: Outcome, *, retry_after: timedelta, interruption_budget: int, now: datetime
) -> Transition:
    """Turn the outcome of `job`'s attempt into its next status.

    `retry_after` is the wait before a retry, jitter included; an outcome that names its own wins.
    """
    match outcome:
        case Succeeded(result_json):
            return _transition(job, JobStatus.SUCCEEDED, result_json=result_json)
        case Failed(error=error, transient=transient):
            if transient and job.retry_count < job.max_retries:
                wait = retry_after if outcome.retry_after is None else outcome.retry_after
                return _retry(job, error, run_at=now + wait)
            return _transition(job, JobStatus.FAILED, error=error)
        case TimedOut(transient=transient):
            limit = "" if job.timeout is None else f" of {job.timeout:g} s"
            error = JobError(kind="timeout", message=f"ran past its timeout{limit}")
            if transient and job.retry_count < job.max_retries:
                return _retry(job, error, run_at=now + retry_after)
            return _transition(job, JobStatus.TIMEOUT, error=error)
        case Crashed(reason=reason, transient=transient):
            error = JobError(kind="crash", message=reason)
            if transient and job.retry_count < job.max_retries:
                return _retry(job, error, run_at=now + retry_after)
            return _transition(job, JobStatus.FAILED, error=error)
        case Canceled(reason=reason):
            why = JobError(kind="canceled", message=reason) if reason else None
            return _transition(job, JobStatus.CANCELED, error=why)
        case Interrupted(vanished=False):
            return _transition(job, JobStatus.PENDING)  # keeps its run_at, and so its place
        case Interrupted():
            return _vanished(job, budget=interruption_budget, now=now)
        case _ as never:
            assert_never(never)


def backoff(retry: int, *, base: timedelta, limit: timedelta) -> timedelta:
    """Return the wait before retry number `retry` (the first is 1), doubling, never above `limit`.

    It has no jitter: the caller adds it.

    Raises:
        ValueError: `retry` is below 1.
    """
    if retry < 1:
        raise ValueError(f"the first retry is number 1, not {retry}")
    doubled = base.total_seconds() * 2.0 ** min(retry - 1, 64)  # beyond that any base is above any limit
    return timedelta(seconds=min(limit.total_seconds(), doubled))


def _vanished(job: Job, *, budget: int, now: datetime) -> Transition:
    count = job.interruptions + 1
    if count > budget:
        error = JobError(
            kind="interrupted",
            message=f"its engine or template vanished {count} times while running it (the budget is {budget})",
        )
        return _transition(job, JobStatus.FAILED, error=error, interruptions=count)
    wait = timedelta(seconds=min(2.0 ** min(count, 6), 60.0)) if count >= 3 else None
    run_at = None if wait is None else now + wait
    return _transition(job, JobStatus.PENDING, run_at=run_at, interruptions=count)


def _retry(job: Job, error: JobError, *, run_at: datetime) -> Transition:
    return _transition(job, JobStatus.PENDING, error=error, run_at=run_at, retry_count=job.retry_count + 1)


def _transition(
    job: Job,
    status: JobStatus,
    *,
    result_json: str | None = None,
    error: JobError | None = None,
    run_at: datetime | None = None,
    retry_count: int | None = None,
    interruptions: int | None = None,
) -> Transition:
    return Transition(
        status=status,
        result_json=result_json,
        error=error,
        run_at=run_at,
        retry_count=job.retry_count if retry_count is None else retry_count,
        interruptions=job.interruptions if interruptions is None else interruptions,
    )

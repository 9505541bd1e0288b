"""The row that an attempt leaves behind, whoever ends it."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from asyncjobs.execution import Ended
from asyncjobs.model.job import Attempt, Job
from asyncjobs.model.outcome import OUTCOME_NAMES, Failed, Outcome, ProcessReport, Succeeded, Transition


def attempt_record(job: Job, ended: Ended, transition: Transition, *, host: str, now: datetime) -> Attempt:
    """Return the record that the attempt which `job` is leaves behind."""
    process = ended.process
    return Attempt(
        job_id=job.id,
        attempt=job.attempt,
        outcome=OUTCOME_NAMES[type(ended.outcome)],
        reason=_reason(ended.outcome, process),
        started_at=job.started_at or now,
        finished_at=now,
        engine_id=job.engine_id or "",
        host=host,
        pid=process.pid,
        exit_code=process.exit_code,
        signal=process.signal,
        error=transition.error,
        peak_rss=process.peak_rss,
        cpu_time=process.cpu_time,
    )


def with_limit(outcome: Outcome, process: ProcessReport) -> Outcome:
    """Return the outcome with the limit that the job has met in its error's message, where that is known."""
    if not isinstance(outcome, Failed) or process.limit is None:
        return outcome
    told = outcome.error.message
    return replace(
        outcome, error=replace(outcome.error, message=f"{told} ({process.limit})" if told else process.limit)
    )


def _reason(outcome: Outcome, process: ProcessReport) -> str | None:
    """Say in words how the attempt ended, where its outcome does not."""
    words = [] if isinstance(outcome, Succeeded) else [getattr(outcome, "reason", None)]
    words.append(process.limit)
    if process.leftovers:
        words.append(f"processes that it had left running were killed: {process.leftovers}")
    return "; ".join(filter(None, words)) or None

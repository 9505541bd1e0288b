"""Records to rows; `records.py` has the way back."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncjobs.model.job import Attempt, EngineRecord, Job, JobError, Progress
from asyncjobs.model.outcome import Transition
from asyncjobs.store import Bookmark, OutputChunk, Submission
from asyncjobs.store.turns import Row

JOB_COLUMNS = (
    "id",
    "name",
    "key",
    "status",
    "priority",
    "attempt",
    "retry_count",
    "interruptions",
    "engine_id",
    "created_at",
    "run_at",
    "started_at",
    "finished_at",
    "cancel_requested_at",
    "timeout",
    "kill_grace",
    "max_retries",
    "retry_delay",
    "retry_max_delay",
    "error",
    "params",
    "result",
)
OPTIONS = (
    "name",
    "key",
    "priority",
    "timeout",
    "kill_grace",
    "max_retries",
    "retry_delay",
    "retry_max_delay",
    "env",
)
"""What a job's definition, and `using`, have chosen: mostly the same of neighbouring new jobs."""
NEW_JOB = (*OPTIONS, "id", "created_at", "run_at", "params")
"""What is written of a new job; the rest the tables have by default."""
ENDED = (
    "id",
    "attempt",
    "engine_id",
    "status",
    "result",
    "error",
    "retry_count",
    "interruptions",
    "run_at",
    "now",
)
HOW_IT_ENDED = ("outcome", "reason", "engine_id", "host", "exit_code", "signal", "error")
"""What attempts that end in the same turn mostly have in common."""
ATTEMPT_COLUMNS = (
    *HOW_IT_ENDED,
    "job_id",
    "attempt",
    "started_at",
    "finished_at",
    "pid",
    "peak_rss",
    "cpu_time",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
LAST_ATTEMPT = 2**31 - 1


def micros(instant: datetime) -> int:
    """Return an aware datetime as whole microseconds since 1970."""
    return (instant - _EPOCH) // _MICROSECOND


_SLACK_MILLIS = 60_000  # an id is made a moment after its `created_at` is taken


def earliest_id(moment: datetime) -> str:
    """Return a text that is not above the id of any job created at `moment` or later."""
    return id_prefix(micros(moment) // 1000 - _SLACK_MILLIS)


def latest_id(moment: datetime) -> str:
    """Return a text that is above the id of every job created at `moment` or earlier."""
    return id_prefix(micros(moment) // 1000 + _SLACK_MILLIS)


def id_prefix(millis: int) -> str:
    """Return a text that is below the id of every job created in this millisecond or later, and above all others."""
    digits = f"{min(max(millis, 0), 2**48 - 1):012x}"
    return f"{digits[:8]}-{digits[8:]}-"


def canonical_pair(name: str, value: Any) -> str:
    """Return text that the stored params must contain if their parameter `name` equals `value`."""
    key = json.dumps(name)
    if isinstance(value, dict | list):
        return f"{key}: "  # its own dictionaries may be written in another order
    return f"{key}: {json.dumps(value)}"


def submission_row(submission: Submission) -> Row:
    """Return the values NEW_JOB of a new job."""
    job = submission.job
    created_at = micros(job.created_at)
    return (
        job.name,
        job.key,
        job.priority,
        job.timeout,
        job.kill_grace,
        job.max_retries,
        job.retry_delay,
        job.retry_max_delay,
        json.dumps(submission.env) if submission.env else None,
        job.id,
        created_at,
        created_at if job.run_at is job.created_at else micros(job.run_at),
        job.params_json,
    )


def fenced_row(job: Job, transition: Transition, *, now: datetime) -> Row:
    """Return the values ENDED, which end the attempt that `job` is."""
    return (
        job.id,
        job.attempt,
        job.engine_id,
        transition.status._value_,
        transition.result_json,
        None if transition.error is None else error_text(transition.error),
        transition.retry_count,
        transition.interruptions,
        None if transition.run_at is None else micros(transition.run_at),
        micros(now),
    )


def attempt_row(attempt: Attempt) -> Row:
    """Return the values ATTEMPT_COLUMNS of an attempt."""
    return (
        attempt.outcome,
        None if attempt.reason is None else _storable(attempt.reason),
        attempt.engine_id,
        attempt.host,
        attempt.exit_code,
        attempt.signal,
        None if attempt.error is None else error_text(attempt.error),
        attempt.job_id,
        attempt.attempt,
        micros(attempt.started_at),
        micros(attempt.finished_at),
        attempt.pid,
        attempt.peak_rss,
        attempt.cpu_time,
    )


def _storable(text: str) -> str:
    """Return words with what no database takes as text, lone surrogates and NUL, written out."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def fence_of(job: Job) -> dict[str, Any]:
    """Return the parameters that name the attempt which `job` is."""
    return {"job_id": job.id, "attempt": job.attempt, "engine_id": job.engine_id}


def output_row(job: Job, numbered: OutputChunk) -> dict[str, Any]:
    """Return the parameters that write a chunk of the output of the attempt which `job` is."""
    return {
        **fence_of(job),
        "seq": numbered.seq,
        "written_at": micros(numbered.chunk.written_at),
        "stream": numbered.chunk.stream,
        "text": _storable(numbered.chunk.text),
    }


def bookmark_row(bookmark: Bookmark) -> dict[str, Any]:
    """Return the parameters of a place in a job's output."""
    last = LAST_ATTEMPT if bookmark.only is None else bookmark.only
    return {"job_id": bookmark.job_id, "attempt": bookmark.attempt, "seq": bookmark.seq, "last": last}


def progress_row(job: Job, progress: Progress) -> dict[str, Any]:
    """Return the parameters that write the progress of the attempt which `job` is."""
    assert progress.updated_at is not None, "whoever notes progress knows when it was said"
    return {
        **fence_of(job),
        "completed": _number(progress.completed) or 0.0,
        "total": None if progress.total is None else _number(progress.total),
        "unit": None if progress.unit is None else _storable(progress.unit),
        "phase": None if progress.phase is None else _storable(progress.phase),
        "message": None if progress.message is None else _storable(progress.message),
        "details": json.dumps(progress.details),
        "updated_at": micros(progress.updated_at),
    }


def _number(given: float) -> float | None:
    """Return a number that every database keeps: what is larger than any float is infinite, NaN is none."""
    try:
        number = float(given)
    except OverflowError:
        return math.inf if given > 0 else -math.inf
    return None if math.isnan(number) else number


def engine_row(engine: EngineRecord) -> dict[str, Any]:
    """Return the parameters that write an engine."""
    return {
        "id": engine.id,
        "host": engine.host,
        "boot": engine.boot,
        "pid": engine.pid,
        "pid_started": engine.pid_started,
        "names": json.dumps(list(engine.names)),
        "version": engine.version,
        "started_at": micros(engine.started_at),
        "seen_at": micros(engine.seen_at),
    }


def error_text(error: JobError) -> str:
    """Return an error as the JSON text that is stored."""
    return json.dumps(
        {
            "kind": error.kind,
            "class_name": error.class_name,
            "message": error.message,
            "traceback": error.traceback,
        }
    )

"""Rows to records.

A row that somebody has damaged by hand must not stop the look at others. It is read as far as it goes, and the
error of its record says what is wrong with it (its `kind` is `damaged`); who asks for it alone, or is about to run
it, may be strict.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncjobs.errors import StoreCorrupt
from asyncjobs.model.job import Attempt, EngineRecord, Job, JobError, JobStatus, LogChunk, Progress
from asyncjobs.store import Claimed, OutputChunk
from asyncjobs.store.rows import JOB_COLUMNS

STATUSES = {str(status): status for status in JobStatus}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNREADABLE = (KeyError, TypeError, ValueError, OverflowError, RecursionError)


def instant(stored: int) -> datetime:
    """Return the UTC datetime of stored microseconds, exactly."""
    return _EPOCH + timedelta(0, 0, stored)


def status_of(stored: str) -> JobStatus:
    """Return a stored status; what is none counts as an end without a result."""
    return STATUSES.get(stored, JobStatus.FAILED)


def job_from_row(row: tuple[Any, ...], *, attempts: tuple[Attempt, ...] = ()) -> Job:
    """Return the record of a row with the columns JOB_COLUMNS, of a damaged one as far as it can be read."""
    try:
        return sound_job_from_row(row, attempts=attempts)
    except StoreCorrupt as damage:
        return _readable_job(row, str(damage), attempts)


def sound_job_from_row(row: tuple[Any, ...], *, attempts: tuple[Attempt, ...] = ()) -> Job:
    """Return the record of a row with the columns JOB_COLUMNS.

    Raises:
        StoreCorrupt: it is damaged; only its error may be, which is but told.
    """
    (
        id_,
        name,
        key,
        status,
        priority,
        attempt,
        retry_count,
        interruptions,
        engine_id,
        created_at,
        run_at,
        started_at,
        finished_at,
        cancel_requested_at,
        timeout,
        kill_grace,
        max_retries,
        retry_delay,
        retry_max_delay,
        error,
        params,
        result,
    ) = row
    try:
        # SQLite keeps a text in a column of numbers: adding up finds it.
        _ = priority + attempt + retry_count + interruptions + max_retries
        _ = (timeout or 0) + kill_grace + retry_delay + retry_max_delay
        return Job(
            id=id_,
            name=name,
            params_json=params,
            status=STATUSES[status],
            result_json=result,
            error=None if error is None else error_from_text(error),
            key=key,
            priority=priority,
            timeout=timeout,
            kill_grace=kill_grace,
            max_retries=max_retries,
            retry_delay=retry_delay,
            retry_max_delay=retry_max_delay,
            attempt=attempt,
            retry_count=retry_count,
            interruptions=interruptions,
            engine_id=engine_id,
            created_at=instant(created_at),
            run_at=instant(run_at),
            started_at=None if started_at is None else instant(started_at),
            finished_at=None if finished_at is None else instant(finished_at),
            cancel_requested_at=None if cancel_requested_at is None else instant(cancel_requested_at),
            attempts=attempts,
        )
    except _UNREADABLE as fault:
        raise StoreCorrupt(f"the row of job {name!r} ({id_}) is damaged: {type(fault).__name__}: {fault}") from None


def _readable_job(row: tuple[Any, ...], damage: str, attempts: tuple[Attempt, ...]) -> Job:
    """Return what can be read of a damaged row."""
    found = dict(zip(JOB_COLUMNS, row, strict=True))
    whole = ("priority", "attempt", "retry_count", "interruptions", "max_retries")
    seconds = ("timeout", "kill_grace", "retry_delay", "retry_max_delay")
    times = ("created_at", "run_at", "started_at", "finished_at", "cancel_requested_at")
    readable: dict[str, Any] = {
        name: found[name] for name in (*whole, *seconds) if isinstance(found[name], int | float)
    }
    readable |= {name: _moment(found[name]) for name in times if found[name] is not None}
    return Job(
        id=found["id"],
        name=found["name"],
        params_json=found["params"],
        status=status_of(found["status"]),
        result_json=found["result"],
        error=JobError(kind="damaged", message=damage),
        key=found["key"],
        engine_id=found["engine_id"],
        attempts=attempts,
        **readable,
    )


def claimed_from_row(row: tuple[Any, ...]) -> tuple[Claimed, int]:
    """Return the job of a claimed row (seq, env, JOB_COLUMNS) and its `seq`; damage is told, for the job to end so."""
    seq, env, columns = row[0], row[1], row[2:]
    try:
        job = sound_job_from_row(columns)
        return Claimed(job, _variables(env, job) if env else {}), seq
    except StoreCorrupt as damage:
        return Claimed(job_from_row(columns), damage=str(damage)), seq


def _variables(text: str, job: Job) -> dict[str, str]:
    found = _loaded(text, f"the variables of job {job.name!r} ({job.id})")
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise StoreCorrupt(f"the variables of job {job.name!r} ({job.id}) are damaged: no dict of texts")
    return found


def attempt_from_row(row: tuple[Any, ...]) -> Attempt:
    """Return the record of a row of job_attempts, of a damaged one as far as it can be read."""
    (outcome, reason, engine_id, host, code, signal, error, job_id, attempt, started, finished, pid, rss, cpu) = row
    return Attempt(
        job_id=job_id,
        attempt=attempt,
        outcome=outcome,
        reason=reason,
        started_at=_moment(started),
        finished_at=_moment(finished),
        engine_id=engine_id,
        host=host,
        pid=pid,
        exit_code=code,
        signal=signal,
        error=None if error is None else error_from_text(error),
        peak_rss=rss,
        cpu_time=cpu,
    )


def output_from_row(row: tuple[Any, ...]) -> OutputChunk:
    """Return the chunk of a row of job_output, without its job."""
    attempt, seq, written_at, stream, text = row
    return OutputChunk(seq, LogChunk(attempt=attempt, stream=stream, text=text, written_at=_moment(written_at)))


def progress_from_row(row: tuple[Any, ...], *, job_id: str) -> Progress:
    """Return the record of a row of job_progress, without its job.

    Raises:
        StoreCorrupt: its details are damaged.
    """
    attempt, completed, total, unit, phase, message, details, updated_at = row
    return Progress(
        completed=completed,
        total=total,
        unit=unit,
        phase=phase,
        message=message,
        details=_loaded(details, f"the progress of job {job_id}"),
        attempt=attempt,
        updated_at=_moment(updated_at),
    )


def engine_from_row(row: tuple[Any, ...]) -> EngineRecord:
    """Return the record of a row of engines; a damaged one names no process, and is judged by its lock alone."""
    id_, host, boot, pid, pid_started, names, version, started_at, seen_at = row
    sound = isinstance(pid, int) and isinstance(pid_started, int | float)
    try:
        known = tuple(map(str, json.loads(names)))
    except _UNREADABLE:
        known = ()
    return EngineRecord(
        id=id_,
        host=host if sound else "",
        boot=boot if sound else "",
        pid=pid if sound else 0,
        pid_started=pid_started if sound else 0.0,
        names=known,
        version=version,
        started_at=_moment(started_at),
        seen_at=_moment(seen_at),
    )


def error_from_text(text: str) -> JobError:
    """Return the error of a stored text; of a damaged one, that it is damaged."""
    try:
        error = JobError(**json.loads(text))
    except _UNREADABLE:
        return JobError(kind="damaged", message="its error was stored, and its text is damaged")
    told = (error.kind, error.message, error.class_name or "", error.traceback or "")
    if all(isinstance(each, str) for each in told):
        return error
    return JobError(kind="damaged", message="its error was stored, and its text is damaged")


def _moment(stored: Any) -> datetime:
    """Return the time of stored microseconds; what can be none counts as 1970."""
    try:
        return instant(stored)
    except _UNREADABLE:
        return _EPOCH


def _loaded(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except _UNREADABLE as fault:
        raise StoreCorrupt(f"{what} can't be read, since the row is damaged: {fault}") from None

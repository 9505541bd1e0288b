"""The records: a job, its attempts, and the engine that ran them.

They are msgspec structs, frozen as dataclasses would be, and made at a sixth of the cost.
"""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from asyncjobs.errors import StoreCorrupt


class JobStatus(StrEnum):
    """Where a job is in its life; the last four are final."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """Whether a job of this status has ended for good (until somebody retries it)."""
        return self in FINAL


FINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELED})


class JobError(Struct, frozen=True, kw_only=True, gc=False):
    """Why a job has no result.

    `kind` is one of `exception` (the function raised), `import` (its module or name could not be
    loaded), `environment` (it could not be built), `params` (they no longer fit the function),
    `result` (it is not JSON, or too large), `timeout`, `crash` (the process ended without a reply),
    `canceled`, `interrupted` (its engine or template vanished once too often) and `damaged` (what is
    stored of the job can't be read). `class_name` and `traceback` are None where nothing was raised.
    """

    kind: str
    class_name: str | None = None
    message: str
    traceback: str | None = None


class Attempt(Struct, frozen=True, kw_only=True, gc=False):
    """One run of a job, written once, at its end.

    `outcome` is `succeeded`, `failed`, `timeout`, `canceled`, `crashed` or `interrupted`; `reason`
    says in words how the process ended where that is not plain from the outcome. `pid` is the job's
    process (None for `inline`), `peak_rss` is in bytes, `cpu_time` in seconds; both are None where
    the process could not be asked any more.
    """

    job_id: str
    attempt: int
    outcome: str
    reason: str | None = None
    started_at: datetime
    finished_at: datetime
    engine_id: str
    host: str | None = None
    pid: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: JobError | None = None
    peak_rss: int | None = None
    cpu_time: float | None = None


class Progress(Struct, frozen=True, kw_only=True, gc=False):
    """How far a running job says it is.

    `completed` and `total` count `unit`s (any text, such as "files"); a `total` of None is unknown.
    `details` are what the job has stored by `update_details`, as JSON values. Whoever reads it from
    the store finds the `attempt` that said so, and when.
    """

    completed: float = 0
    total: float | None = None
    unit: str | None = None
    phase: str | None = None
    message: str | None = None
    details: dict[str, Any] = {}
    attempt: int = 0
    updated_at: datetime | None = None


class LogChunk(Struct, frozen=True, kw_only=True, gc=False):
    """A piece of what an attempt printed, as it came: it may begin or end within a line.

    `stream` is `stdout` or `stderr`; `written_at` is when its engine had the beginning of it.
    """

    attempt: int
    stream: str
    text: str
    written_at: datetime


class Job(Struct, frozen=True, kw_only=True, gc=False):
    """A job as it was when it was read.

    Times are aware UTC. `timeout`, `kill_grace`, `retry_delay` and `retry_max_delay` are seconds; a
    `timeout` of None means no limit. `attempt` counts the runs begun, and only grows; `retry_count`
    those that followed a transient error, `interruptions` those that ended with their engine.
    `params_json` and `result_json` are the stored texts; `params` and `result` decode them at each
    access.
    """

    id: str
    name: str
    params_json: str
    status: JobStatus = JobStatus.PENDING
    result_json: str | None = None
    error: JobError | None = None
    key: str | None = None
    priority: int = 0
    timeout: float | None = None
    kill_grace: float = 2.0
    max_retries: int = 3
    retry_delay: float = 15.0
    retry_max_delay: float = 60.0
    attempt: int = 0
    retry_count: int = 0
    interruptions: int = 0
    engine_id: str | None = None
    created_at: datetime
    run_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    attempts: tuple[Attempt, ...] = ()

    def __repr__(self) -> str:
        error = f" ({self.error.message})" if self.error else ""
        return f"<Job {self.name!r} {self.id} {self.status}{error}, attempt {self.attempt}>"

    @property
    def params(self) -> dict[str, Any]:
        """The parameters as they were given, as plain JSON values.

        Raises:
            StoreCorrupt: the stored text was damaged.
        """
        return self._loaded(self.params_json, "params")  # type: ignore[no-any-return]

    @property
    def result(self) -> Any:
        """The result as a plain JSON value; None unless the job SUCCEEDED.

        Raises:
            StoreCorrupt: the stored text was damaged.
        """
        return None if self.result_json is None else self._loaded(self.result_json, "result")

    def _loaded(self, text: str, what: str) -> Any:
        try:
            return json.loads(text)
        except (TypeError, ValueError, RecursionError) as fault:
            raise StoreCorrupt(
                f"the {what} of job {self.name!r} ({self.id}) can't be read, since the stored text was damaged "
                f"({fault}): `{what}_json` has the text"
            ) from None


class EngineRecord(Struct, frozen=True, kw_only=True, gc=False):
    """An engine as its row in the store has it. `pid_started` tells two processes of one pid apart."""

    id: str
    host: str
    boot: str
    pid: int
    pid_started: float
    names: tuple[str, ...]
    version: str
    started_at: datetime
    seen_at: datetime

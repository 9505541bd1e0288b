"""Every error that asyncjobs raises, and the exceptions that a job raises to steer its own fate.

AsyncJobsError
├── DefinitionError            a function or option that `@job` can't take
│   └── DuplicateJobName       one name, two functions
├── SettingsError              a setting out of range or of the wrong form
├── InvalidParams              arguments that don't fit the function's signature or annotations
├── InvalidOptions             a submission's options, a filter or a cursor that can't be used
├── UnknownJobName             no registered definition has this name
├── JobNotAllowed              the allow-list refuses this name
├── JobNotFound                no job has this id
├── StoreError
│   ├── StoreUnavailable       the database can't be reached, opened or written
│   │   ├── StoreUnreachable   no connection to the database can be had
│   │   │   └── StoreDown      its server is not up, for nobody
│   │   ├── StoreBusy          another transaction has kept it locked for too long
│   │   └── StoreAnswerLost    the connection broke before the answer: it was done, or not
│   ├── StoreCorrupt           the file is no database, or it or a row in it is damaged
│   └── SchemaMismatch         the database was migrated by a newer asyncjobs
├── EngineError
│   ├── NotOpen                used before `async with`, or after it
│   ├── ForkedClient           used in a child that the host process forked
│   ├── EnvironmentFailed      an environment of jobs can't be built
│   ├── EngineFailed           an internal task kept crashing; nothing is run any more
│   ├── NestedEngine           an engine entered inside a job's process
│   └── UnsupportedPlatform    Windows
└── JobEnded                   `result()` of a job that has no result
    ├── JobFailed
    ├── JobTimedOut            (no TimeoutError: that one means the wait was over)
    └── JobCanceled

Raised inside a job: TransientError, Retry, Cancel; JobInterrupted is thrown into it.

Imported by users' modules inside every job's process: it imports nothing.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from pathlib import Path

    from asyncjobs.model.job import JobError

_LONGEST_SECONDS = 10 * 365 * 86400


class AsyncJobsError(Exception):
    """The root of every error that a caller can cause or meet."""


class DefinitionError(AsyncJobsError):
    """A function or an option that can't become a job."""


class DuplicateJobName(DefinitionError):
    """Two different functions want the same job name."""

    def __init__(self, name: str, first: str, second: str) -> None:
        self.name = name
        super().__init__(
            f"the job name {name!r} is used by {first} and by {second}: give one of them another with @job(name=...)"
        )


class SettingsError(AsyncJobsError):
    """A setting that can't be used; the message names it, and the variable if it came from one."""


class InvalidParams(AsyncJobsError):
    """Arguments that the job's function can't take.

    `parameter` is the name of the first offending one, or None when the fault is of the whole.
    """

    def __init__(self, job_name: str, parameter: str | None, problem: str) -> None:
        self.job_name = job_name
        self.parameter = parameter
        where = f"parameter {parameter!r} of job {job_name!r}" if parameter else f"job {job_name!r}"
        super().__init__(f"{where}: {problem}")


class InvalidOptions(AsyncJobsError):
    """A submission's option, a filter or a cursor that can't be used."""


class UnknownJobName(AsyncJobsError):
    """No definition of this name is registered here."""

    def __init__(self, name: str, known: "Iterable[str]" = ()) -> None:
        self.name = name
        names = ", ".join(sorted(known)) or "none"
        super().__init__(f"no job is named {name!r} here (registered: {names}); add it with jobs=[...]")


class JobNotAllowed(AsyncJobsError):
    """The allow-list does not have this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"the job {name!r} is not allowed here: add its name to ASYNCJOBS_ALLOWED_JOBS "
            f"or Settings(allowed_jobs=[...])"
        )


class JobNotFound(AsyncJobsError):
    """No job has this id; it never existed, or it was deleted."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"no job has the id {job_id!r}: it never existed here, or it was deleted")


class StoreError(AsyncJobsError):
    """What goes wrong with the database."""


class StoreUnavailable(StoreError):
    """The database can't be reached, opened or written now."""


class StoreUnreachable(StoreUnavailable):
    """No connection to the database can be had; nothing was done."""


class StoreDown(StoreUnreachable):
    """The server's machine answers that it is not up, so that nobody else is connected to it either."""


class StoreBusy(StoreUnavailable):
    """Somebody else's transaction has kept the database locked for too long."""


class StoreAnswerLost(StoreUnavailable):
    """The connection broke before the answer had come: what was asked for was done as a whole, or not at all."""


class StoreCorrupt(StoreError):
    """The file is not a database, or it is damaged, or a row in it is."""


class SchemaMismatch(StoreError):
    """The database's schema is newer than this code knows."""

    def __init__(self, found: int, known: int, where: str) -> None:
        self.found = found
        self.known = known
        super().__init__(
            f"{where} has schema version {found}, this asyncjobs knows up to {known}: "
            f"upgrade it with `pip install --upgrade asyncjobs-engine`"
        )


class EngineError(AsyncJobsError):
    """What goes wrong with a client's or an engine's own life."""


class NotOpen(EngineError):
    """The client or engine is not open (yet, or any more)."""

    def __init__(self, what: str, advice: str = "use it inside `async with`") -> None:
        super().__init__(f"this {what} is not open: {advice}")


class ForkedClient(EngineError):
    """The process was forked after the client opened; its connection belongs to the parent."""

    def __init__(self, what: str) -> None:
        super().__init__(f"this {what} was opened before the process forked: open a new one in the child")


class EngineFailed(EngineError):
    """An internal task crashed again and again, so the engine runs nothing any more."""


class NestedEngine(EngineError):
    """An engine was entered inside a job's process."""

    def __init__(self) -> None:
        super().__init__(
            "an engine can't run inside a job's process: if this is the script that defines the job, "
            'put what starts the engine under `if __name__ == "__main__":`'
        )


class UnsupportedPlatform(EngineError):
    """asyncjobs runs on POSIX systems only."""

    def __init__(self, platform: str) -> None:
        super().__init__(f"asyncjobs needs POSIX processes and does not run on {platform}: use Linux, macOS or WSL")


class EnvironmentFailed(EngineError):
    """There is no environment for a job; the message has uv's own last words, where it had any.

    `transient` says that the same may work later: the network, a full disk, a time limit. `log_path`
    is the whole of what the build printed, or None when it came to no build.
    """

    def __init__(self, message: str, *, transient: bool, log_path: "Path | None" = None) -> None:
        self.transient = transient
        self.log_path = log_path
        super().__init__(message)


class JobEnded(AsyncJobsError):
    """The job ended without a result. `job_id` and `error` (a `JobError`, or None) say how."""

    def __init__(self, job_id: str, name: str, error: "JobError | None", summary: str) -> None:
        self.job_id = job_id
        self.name = name
        self.error = error
        super().__init__(f"job {name!r} ({job_id}) {summary}")


class JobFailed(JobEnded):
    """The job's last attempt failed.

    `class_name` and `message` are those of the exception in the job's process, `traceback` is its
    text there (None when the process ended without one).
    """

    def __init__(self, job_id: str, name: str, error: "JobError") -> None:
        self.class_name = error.class_name
        self.message = error.message
        self.traceback = error.traceback
        told = ": ".join(part for part in (error.class_name, error.message) if part)
        super().__init__(job_id, name, error, f"failed: {told}")


class JobTimedOut(JobEnded):
    """The job ran past its timeout and was killed."""

    def __init__(self, job_id: str, name: str, error: "JobError | None") -> None:
        super().__init__(job_id, name, error, error.message if error else "ran past its timeout")


class JobCanceled(JobEnded):
    """The job was canceled, by a caller or by itself."""

    def __init__(self, job_id: str, name: str, error: "JobError | None") -> None:
        super().__init__(job_id, name, error, f"was canceled: {error.message}" if error else "was canceled")


class TransientError(Exception):
    """Raise it in a job to have the attempt retried: `raise TransientError(origin_error)`.

    `origin_error` is what the job's record shows as its error.
    """

    def __init__(self, origin_error: BaseException | str) -> None:
        self.origin_error = origin_error
        super().__init__(origin_error)


class Retry(Exception):
    """Raise it in a job to run again `after` seconds (or a timedelta); it counts as a retry.

    Without `after` the job's own backoff applies; a time that is over already means at once.

    Raises:
        ValueError: `after` is neither, or longer than ten years.
    """

    def __init__(self, after: "float | timedelta | None" = None, reason: str = "") -> None:
        total_seconds = getattr(after, "total_seconds", None)
        seconds = after if total_seconds is None else total_seconds()
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float, type(None))):
            raise ValueError(f"Retry(after=...) takes seconds or a timedelta, not {after!r}")
        if seconds is not None and not seconds <= _LONGEST_SECONDS:
            raise ValueError(f"Retry(after=...) takes at most ten years of seconds, not {after!r}")
        self.after: float | None = seconds
        self.reason = reason
        super().__init__(reason or "the job asked to be retried")


class Cancel(Exception):
    """Raise it in a job to end it as CANCELED, with the reason in its record."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "the job canceled itself")


class JobInterrupted(BaseException):
    """Thrown into the main thread of a `def` job that is asked to end, so that `finally` runs.

    No `Exception`: a job's `except Exception` does not swallow it.
    """

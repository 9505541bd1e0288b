"""What happens, as events: each step of a job and of its engine, and the listeners that hear them.

A listener is a plain function of one event. It runs in the loop, right where the event happens, so
it must be quick; one that raises is reported in the log and harms nobody.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, assert_never

from msgspec import Struct

from asyncjobs.errors import StoreAnswerLost, StoreBusy, StoreUnreachable

if TYPE_CHECKING:
    from asyncjobs.model.job import Job, JobError, Progress

logger = logging.getLogger("asyncjobs")


class JobSubmitted(Struct, frozen=True):
    """The job is in the store; of many submitted at once some may have begun by the time this is told.

    Of those a call that is cancelled may tell only some.
    """

    job: Job


class JobStarted(Struct, frozen=True):
    """An attempt was claimed and begins."""

    job: Job


class JobOutput(Struct, frozen=True):
    """A piece of what a job's process printed; `stream` is `stdout` or `stderr`."""

    job: Job
    stream: str
    text: str


class JobProgressed(Struct, frozen=True):
    """A job has said how far it is, or has updated its details; `progress` has both."""

    job: Job
    progress: Progress


class JobRetryScheduled(Struct, frozen=True):
    """An attempt ended with a transient error; the next is due at `run_at`."""

    job: Job
    error: JobError | None
    run_at: datetime


class JobInterrupted(Struct, frozen=True):
    """An attempt ended through no fault of the job's; it is PENDING again."""

    job: Job
    reason: str


class JobFinished(Struct, frozen=True):
    """An end was written by this process; `job` is the record, without its `attempts` (`client.get` has them)."""

    job: Job


class LeaseLost(Struct, frozen=True):
    """An attempt's end arrived too late to count: the row had moved on, and stays as it is."""

    job: Job
    outcome: str


class LeftoversKilled(Struct, frozen=True):
    """A job's process left others behind; they were killed."""

    job: Job
    count: int


class SlotHeld(Struct, frozen=True):
    """What ran an attempt could not be ended; it keeps its slot until it is gone, the job's end is written."""

    job: Job


class EngineStarted(Struct, frozen=True):
    """An engine is open and claims jobs of `names`."""

    engine_id: str
    names: tuple[str, ...]


class EngineStopped(Struct, frozen=True):
    """An engine has ended; nothing of it is left running but threads of `inline` that can't be ended."""

    engine_id: str


class EngineRescued(Struct, frozen=True):
    """Another engine was found dead, and `count` jobs of its were given back."""

    engine_id: str
    dead_engine_id: str
    count: int


class EngineCutOff(Struct, frozen=True):
    """The engine has lost touch with the database, or was taken for dead: it ends what it runs, for others to run."""

    engine_id: str
    reason: str


class TaskCrashed(Struct, frozen=True):
    """Something that an engine does by itself has failed: it is tried again, or the engine fails when `final`."""

    task: str
    error: BaseException
    final: bool


class StartPaused(Struct, frozen=True):
    """A process could not be started for want of resources; the worker tries again after `seconds`."""

    name: str
    error: str
    seconds: float


class ForkUnsafe(Struct, frozen=True):
    """A module can't be forked after its import, for the `problem`: its jobs get fresh interpreters."""

    module: str
    problem: str


class EnvironmentBuilding(Struct, frozen=True):
    """An environment for jobs is being built; `log_path` grows meanwhile."""

    python_version: str | None
    requirements: tuple[str, ...]
    log_path: str


class EnvironmentBuilt(Struct, frozen=True):
    """An environment for jobs is complete, in `folder`, after `seconds`."""

    requirements: tuple[str, ...]
    folder: str
    seconds: float


class VariableIgnored(Struct, frozen=True):
    """A variable of the environment looks like a setting and is none; `nearest` is the one likely meant, or None."""

    variable: str
    nearest: str | None


Event = (
    JobSubmitted
    | JobStarted
    | JobOutput
    | JobProgressed
    | JobRetryScheduled
    | JobInterrupted
    | JobFinished
    | LeaseLost
    | LeftoversKilled
    | SlotHeld
    | EngineStarted
    | EngineStopped
    | EngineRescued
    | EngineCutOff
    | TaskCrashed
    | StartPaused
    | ForkUnsafe
    | EnvironmentBuilding
    | EnvironmentBuilt
    | VariableIgnored
)
Listener = Callable[[Event], None]


class Events:
    """Hands each event to every listener, in the order in which they subscribed."""

    __slots__ = ("_listeners",)

    def __init__(self, *listeners: Listener) -> None:
        self._listeners: tuple[Listener, ...] = listeners

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; the function returned takes it away again."""
        self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            self._listeners = tuple(each for each in self._listeners if each is not listener)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell every listener; none can stop another, nor the caller."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a listener failed on %s", type(event).__name__)


_SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN))


def is_shortage(error: BaseException) -> bool:
    """Return whether the machine or this process has run out of descriptors or memory, and may have some again."""
    return isinstance(error, OSError) and error.errno in _SHORTAGES


_STEPS = frozenset((JobStarted, JobSubmitted, JobOutput))
"""What every job has, at level INFO."""


def log(event: Event) -> None:
    """Write one line of log for each step of a job, with its name, id and attempt."""
    if type(event) in _STEPS and not logger.isEnabledFor(logging.INFO):
        return
    match event:
        case JobFinished(job=job):
            level = logging.INFO if job.error is None else logging.WARNING
            if logger.isEnabledFor(level):
                logger.log(level, "%s %s%s", _label(job), job.status, _why(job.error))
        case JobStarted(job=job):
            logger.info("%s started", _label(job))
        case JobSubmitted(job=job):
            logger.info("%s submitted", _label(job))
        case JobOutput(job=job, stream=stream, text=text):
            logger.info("%s %s | %s", _label(job), stream, text.rstrip("\n"))
        case JobProgressed(job=job, progress=progress):
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("%s is at %s", _label(job), _how_far(progress))
        case JobRetryScheduled(job=job, error=error, run_at=run_at):
            logger.warning("%s retry %d at %s%s", _label(job), job.retry_count, run_at, _why(error))
        case JobInterrupted(job=job, reason=reason):
            logger.warning("%s interrupted: %s; it is PENDING again", _label(job), reason)
        case LeaseLost(job=job, outcome=outcome):
            logger.warning("%s %s too late: the row had moved on and stays", _label(job), outcome)
        case LeftoversKilled(job=job, count=count):
            logger.warning("%s left %d processes behind; they were killed", _label(job), count)
        case SlotHeld(job=job):
            logger.warning("%s could not be ended, and holds its slot until it is gone", _label(job))
        case EngineStarted(engine_id=engine_id, names=names):
            logger.info("engine %s started for %s", engine_id, ", ".join(names) or "no jobs")
        case EngineStopped(engine_id=engine_id):
            logger.info("engine %s stopped", engine_id)
        case EngineRescued(engine_id=engine_id, dead_engine_id=dead, count=count):
            logger.warning("engine %s gave back %d jobs of the dead engine %s", engine_id, count, dead)
        case EngineCutOff(engine_id=engine_id, reason=reason):
            logger.error("engine %s %s; what it ran is ended here", engine_id, reason)
        case TaskCrashed(task=task, error=StoreUnreachable() | StoreAnswerLost() | StoreBusy() as error, final=False):
            logger.warning("%s failed: %s", task, error)
        case TaskCrashed(task=task, error=error, final=False) if is_shortage(error):
            logger.warning("%s failed: %s", task, error)
        case TaskCrashed(task=task, error=error, final=final):
            consequence = "the engine has failed" if final else "tried again"
            logger.error("internal task %s crashed, %s", task, consequence, exc_info=error)
        case ForkUnsafe(module=module, problem=problem):
            logger.warning("module %s %s, so it can't be forked: its jobs run as with 'spawn'", module, problem)
        case EnvironmentBuilding(requirements=requirements, log_path=log_path):
            logger.info("building an environment with %s (%s)", ", ".join(requirements) or "nothing", log_path)
        case EnvironmentBuilt(folder=folder, seconds=seconds):
            logger.info("built the environment %s in %.1f s", folder, seconds)
        case StartPaused(name=name, error=error, seconds=seconds):
            logger.warning("no process for %s (%s); next try in %.1f s", name, error, seconds)
        case VariableIgnored(variable=variable, nearest=nearest):
            meant = f": did you mean {nearest}?" if nearest else ""
            logger.warning("the variable %s names no setting and is ignored%s", variable, meant)
        case _ as never:
            assert_never(never)


def _label(job: Job) -> str:
    return f"{job.name} {job.id} attempt {job.attempt}" if job.attempt else f"{job.name} {job.id}"


def _how_far(progress: Progress) -> str:
    of_total = "" if progress.total is None else f" of {progress.total:g}"
    words = (f"{progress.completed:g}{of_total}", progress.unit, progress.phase, progress.message)
    return " ".join(word for word in words if word)


def _why(error: JobError | None) -> str:
    if error is None:
        return ""
    first, more, _ = error.message.partition("\n")
    told = f"{first} [...]" if more else first  # the whole is in the job's record
    return "".join(f": {part}" for part in (error.class_name, told) if part)

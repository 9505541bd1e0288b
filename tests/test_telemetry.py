import errno
import logging
from typing import get_args

import pytest
from msgspec import Struct

from asyncjobs import telemetry
from asyncjobs.errors import StoreUnreachable
from asyncjobs.model.job import JobStatus, Progress
from asyncjobs.telemetry import (
    EngineCutOff,
    EngineRescued,
    EngineStarted,
    EngineStopped,
    EnvironmentBuilding,
    EnvironmentBuilt,
    Event,
    Events,
    ForkUnsafe,
    JobFinished,
    JobInterrupted,
    JobOutput,
    JobProgressed,
    JobRetryScheduled,
    JobStarted,
    JobSubmitted,
    LeaseLost,
    LeftoversKilled,
    SlotHeld,
    StartPaused,
    TaskCrashed,
    VariableIgnored,
    log,
)
from builders import NOON, make_error, make_job, make_running

WAITING = make_job(id="job-1")
RUNNING = make_running(id="job-1", attempt=2, retry_count=1)
SUCCEEDED = make_running(id="job-1", attempt=2, status=JobStatus.SUCCEEDED)
FAILED = make_running(id="job-1", attempt=2, status=JobStatus.FAILED, error=make_error())
TIMEOUT = make_running(
    id="job-1", attempt=2, status=JobStatus.TIMEOUT, error=make_error(class_name=None, message="too slow")
)
CRASHED = make_running(
    id="job-1",
    attempt=2,
    status=JobStatus.FAILED,
    error=make_error(class_name=None, message="killed by signal 11\nThe end of its stderr:\nFatal"),
)
WORDLESS = make_running(id="job-1", attempt=2, status=JobStatus.FAILED, error=make_error(message=""))
LABEL = "thumbnail job-1 attempt 2"
LINES = {
    "submitted": (JobSubmitted(WAITING), "INFO", "thumbnail job-1 submitted"),
    "started": (JobStarted(RUNNING), "INFO", f"{LABEL} started"),
    "output": (JobOutput(RUNNING, "stdout", "50 %\n"), "INFO", f"{LABEL} stdout | 50 %"),
    "progress": (
        JobProgressed(RUNNING, Progress(completed=3, total=10, unit="files", phase="reading", message="cat.png")),
        "DEBUG",
        f"{LABEL} is at 3 of 10 files reading cat.png",
    ),
    "progress without words": (JobProgressed(RUNNING, Progress(completed=0.5)), "DEBUG", f"{LABEL} is at 0.5"),
    "succeeded": (JobFinished(SUCCEEDED), "INFO", f"{LABEL} SUCCEEDED"),
    "failed": (JobFinished(FAILED), "WARNING", f"{LABEL} FAILED: OSError: disk full"),
    "failed with many lines": (JobFinished(CRASHED), "WARNING", f"{LABEL} FAILED: killed by signal 11 [...]"),
    "failed without a word": (JobFinished(WORDLESS), "WARNING", f"{LABEL} FAILED: OSError"),
    "timeout": (JobFinished(TIMEOUT), "WARNING", f"{LABEL} TIMEOUT: too slow"),
    "retried": (
        JobRetryScheduled(RUNNING, make_error(), NOON),
        "WARNING",
        f"{LABEL} retry 1 at 2030-06-01 12:00:00+00:00: OSError: disk full",
    ),
    "interrupted": (
        JobInterrupted(RUNNING, "its engine stopped"),
        "WARNING",
        f"{LABEL} interrupted: its engine stopped; it is PENDING again",
    ),
    "lease lost": (
        LeaseLost(RUNNING, "succeeded"),
        "WARNING",
        f"{LABEL} succeeded too late: the row had moved on and stays",
    ),
    "leftovers": (
        LeftoversKilled(RUNNING, 3),
        "WARNING",
        f"{LABEL} left 3 processes behind; they were killed",
    ),
    "slot held": (SlotHeld(RUNNING), "WARNING", f"{LABEL} could not be ended, and holds its slot until it is gone"),
    "engine started": (EngineStarted("e1", ("a", "b")), "INFO", "engine e1 started for a, b"),
    "engine without jobs": (EngineStarted("e1", ()), "INFO", "engine e1 started for no jobs"),
    "engine stopped": (EngineStopped("e1"), "INFO", "engine e1 stopped"),
    "rescue": (
        EngineRescued("e1", "e2", 3),
        "WARNING",
        "engine e1 gave back 3 jobs of the dead engine e2",
    ),
    "crash": (
        TaskCrashed("watching", OSError(), False),
        "ERROR",
        "internal task watching crashed, tried again",
    ),
    "no database": (
        TaskCrashed("claim of thumbnail", StoreUnreachable("jobs.db: locked"), False),
        "WARNING",
        "claim of thumbnail failed: jobs.db: locked",
    ),
    "last crash": (
        TaskCrashed("watching", OSError(), True),
        "ERROR",
        "internal task watching crashed, the engine has failed",
    ),
    "paused": (
        StartPaused("thumbnail", "EMFILE", 0.5),
        "WARNING",
        "no process for thumbnail (EMFILE); next try in 0.5 s",
    ),
    "cut off": (
        EngineCutOff("e1", "has lost touch with the database"),
        "ERROR",
        "engine e1 has lost touch with the database; what it ran is ended here",
    ),
    "unsafe to fork": (
        ForkUnsafe("app.jobs", "has 2 threads after its import"),
        "WARNING",
        "module app.jobs has 2 threads after its import, so it can't be forked: its jobs run as with 'spawn'",
    ),
    "environment under way": (
        EnvironmentBuilding("3.12", ("six", "attrs"), "/cache/a.log"),
        "INFO",
        "building an environment with six, attrs (/cache/a.log)",
    ),
    "environment of a version alone": (
        EnvironmentBuilding("3.12", (), "/cache/a.log"),
        "INFO",
        "building an environment with nothing (/cache/a.log)",
    ),
    "environment": (EnvironmentBuilt(("six",), "/cache/a", 1.23), "INFO", "built the environment /cache/a in 1.2 s"),
    "misspelt variable": (
        VariableIgnored("ASYNCJOBS_MAX_PROCESES", "ASYNCJOBS_MAX_PROCESSES"),
        "WARNING",
        "the variable ASYNCJOBS_MAX_PROCESES names no setting and is ignored: did you mean ASYNCJOBS_MAX_PROCESSES?",
    ),
    "strange variable": (
        VariableIgnored("ASYNCJOBS_COLOUR", None),
        "WARNING",
        "the variable ASYNCJOBS_COLOUR names no setting and is ignored",
    ),
}


def fail(_event):
    raise ValueError("a listener of the application")


async def test_every_listener_hears_every_event_in_order():
    heard = []
    events = Events(lambda event: heard.append(("first", event)))
    events.subscribe(lambda event: heard.append(("second", event)))

    events.emit(JobStarted(RUNNING))
    events.emit(JobFinished(SUCCEEDED))

    assert [(who, type(event)) for who, event in heard] == [
        ("first", JobStarted),
        ("second", JobStarted),
        ("first", JobFinished),
        ("second", JobFinished),
    ]


def test_a_listener_that_raises_harms_nobody(caplog):
    """F67"""
    heard = []
    events = Events(fail)
    events.subscribe(heard.append)

    events.emit(JobStarted(RUNNING))

    assert heard == [JobStarted(RUNNING)]
    assert [record.getMessage() for record in caplog.records] == ["a listener failed on JobStarted"]


def test_a_listener_that_raises_is_told_the_next_event_too():
    """F67"""
    heard = []

    def note_and_fail(event):
        heard.append(event)
        raise ValueError(event)

    events = Events(note_and_fail)

    events.emit(EngineStopped("e1"))
    events.emit(EngineStopped("e2"))

    assert heard == [EngineStopped("e1"), EngineStopped("e2")]


def test_a_listener_that_unsubscribed_hears_nothing_more():
    heard = []
    events = Events()
    unsubscribe = events.subscribe(heard.append)

    unsubscribe()
    events.emit(EngineStopped("e1"))

    assert heard == []


def test_unsubscribing_twice_does_nothing():
    events = Events()
    unsubscribe = events.subscribe(fail)
    unsubscribe()

    unsubscribe()

    events.emit(EngineStopped("e1"))


def test_a_listener_may_unsubscribe_while_it_is_told():
    heard = []
    events = Events()
    unsubscribe = events.subscribe(lambda _event: unsubscribe())
    events.subscribe(heard.append)

    events.emit(EngineStopped("e1"))

    assert heard == [EngineStopped("e1")]


@pytest.mark.parametrize(("event", "level", "line"), [pytest.param(*each, id=name) for name, each in LINES.items()])
def test_an_event_is_one_line_of_log(caplog, event, level, line):
    caplog.set_level(logging.DEBUG, logger="asyncjobs")

    log(event)

    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [(level, line)]


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
def test_every_kind_of_event_has_its_line_above(kind):
    assert kind in {type(event) for event, _, _ in LINES.values()}


def test_every_event_is_told_to_listeners():
    kinds = {each for each in Struct.__subclasses__() if each.__module__ == telemetry.__name__}

    assert kinds == set(get_args(Event))


def test_a_crash_is_logged_with_its_traceback(caplog):
    error = OSError("disk full")

    log(TaskCrashed("watching", error, False))

    assert caplog.records[0].exc_info[1] is error


@pytest.mark.parametrize("error", [StoreUnreachable("jobs.db: locked"), OSError(errno.EMFILE, "Too many open files")])
def test_what_passes_by_itself_is_logged_in_one_line_without_a_traceback(caplog, error):
    log(TaskCrashed("watching", error, False))

    assert caplog.records[0].exc_info is None


@pytest.mark.parametrize("event", [JobSubmitted(WAITING), JobStarted(RUNNING), JobFinished(SUCCEEDED)])
def test_the_normal_steps_of_a_job_are_quiet_at_the_level_of_warnings(caplog, event):
    caplog.set_level(logging.WARNING, logger="asyncjobs")

    log(event)

    assert caplog.records == []


def test_no_line_has_the_params_or_the_result(caplog):
    """F81"""
    caplog.set_level(logging.INFO, logger="asyncjobs")

    log(JobFinished(make_job(params_json='{"a": "secret"}', result_json='"secret"')))

    assert "secret" not in caplog.text

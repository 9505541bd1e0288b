import math

import pytest
from msgspec.structs import fields

from asyncjobs.model.job import JobStatus
from asyncjobs.model.outcome import (
    Canceled,
    Crashed,
    Failed,
    Interrupted,
    ProcessReport,
    Succeeded,
    TimedOut,
)
from builders import make_attempt, make_engine, make_error, make_job, make_running, make_transition


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING])
def test_a_job_that_waits_or_runs_is_not_final(status):
    assert not status.is_final


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELED])
def test_a_job_that_has_ended_is_final(status):
    assert status.is_final


def test_a_status_is_its_own_name():
    assert f"{JobStatus.TIMEOUT}" == JobStatus.TIMEOUT == "TIMEOUT"


def test_params_are_decoded_from_the_stored_text():
    job = make_job(params_json='{"size": [1, 2.0, null], "name": "\\u0000\\ud800"}')

    assert job.params == {"size": [1, 2.0, None], "name": "\0\ud800"}


def test_each_access_to_params_returns_values_of_its_own():
    job = make_job(params_json='{"sizes": []}')

    job.params["sizes"].append(1)

    assert job.params == {"sizes": []}


def test_the_result_is_decoded_from_the_stored_text():
    assert math.isnan(make_job(result_json="NaN").result)


def test_a_job_without_a_result_has_the_result_none():
    assert make_job(result_json=None).result is None


def test_a_job_shows_neither_params_nor_result_in_its_repr():
    """F81"""
    job = make_job(params_json='{"password": "secret"}', result_json='"secret"')

    assert "secret" not in repr(job)


@pytest.mark.parametrize(
    "record",
    [
        make_job(),
        make_error(),
        make_attempt(make_running()),
        make_engine(),
        make_transition(JobStatus.SUCCEEDED),
        ProcessReport(),
        Succeeded("1"),
        Failed(error=make_error()),
        TimedOut(),
        Canceled(),
        Crashed(reason="killed"),
        Interrupted(),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_is_frozen(record):
    with pytest.raises(AttributeError, match="immutable"):
        setattr(record, fields(record)[0].name, None)

from datetime import timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncjobs.model.job import JobError, JobStatus
from asyncjobs.model.outcome import (
    OUTCOME_NAMES,
    Canceled,
    Crashed,
    Failed,
    Interrupted,
    Outcome,
    Succeeded,
    TimedOut,
    backoff,
    decide,
)
from builders import MINUTE, NOON, SECOND, make_error, make_running

EXCEPTION = make_error()
TIMEOUT_ERROR = JobError(kind="timeout", message="ran past its timeout of 30 s")
CRASH_ERROR = JobError(kind="crash", message="killed by signal 9")
VANISHED = Interrupted(reason="its engine vanished", vanished=True)
TRANSIENT_ENDS = [
    pytest.param(Failed(error=EXCEPTION, transient=True), id="failed"),
    pytest.param(TimedOut(transient=True), id="timeout"),
    pytest.param(Crashed(reason="killed by signal 9", transient=True), id="crashed"),
]


def decided(job, outcome, *, retry_after=MINUTE, interruption_budget=10):
    return decide(job, outcome, retry_after=retry_after, interruption_budget=interruption_budget, now=NOON)


@pytest.mark.parametrize(
    ("outcome", "status", "error"),
    [
        pytest.param(Succeeded("42"), JobStatus.SUCCEEDED, None, id="succeeded"),
        pytest.param(Failed(error=EXCEPTION), JobStatus.FAILED, EXCEPTION, id="failed"),
        pytest.param(TimedOut(), JobStatus.TIMEOUT, TIMEOUT_ERROR, id="timeout"),
        pytest.param(Crashed(reason="killed by signal 9"), JobStatus.FAILED, CRASH_ERROR, id="crashed"),
        pytest.param(Canceled(), JobStatus.CANCELED, None, id="canceled"),
        pytest.param(
            Canceled(reason="too late"),
            JobStatus.CANCELED,
            JobError(kind="canceled", message="too late"),
            id="canceled with a reason",
        ),
        pytest.param(Interrupted(reason="a deploy"), JobStatus.PENDING, None, id="interrupted"),
        pytest.param(VANISHED, JobStatus.PENDING, None, id="vanished"),
    ],
)
def test_an_outcome_becomes_a_status_and_an_error(outcome, status, error):
    transition = decided(make_running(timeout=30.0), outcome)

    assert (transition.status, transition.error) == (status, error)


def test_success_carries_its_result():
    assert decided(make_running(), Succeeded('"done"')).result_json == '"done"'


@pytest.mark.parametrize("outcome", TRANSIENT_ENDS)
def test_a_transient_end_is_retried_while_the_budget_lasts(outcome):
    transition = decided(make_running(timeout=30.0, retry_count=2, max_retries=3), outcome)

    assert (transition.status, transition.retry_count) == (JobStatus.PENDING, 3)


@pytest.mark.parametrize("outcome", TRANSIENT_ENDS)
def test_a_retry_is_due_after_the_wait_that_the_caller_worked_out(outcome):
    transition = decided(make_running(timeout=30.0), outcome, retry_after=7 * SECOND)

    assert transition.run_at == NOON + 7 * SECOND


@pytest.mark.parametrize("outcome", TRANSIENT_ENDS)
def test_a_retry_keeps_its_cause_in_the_record(outcome):
    assert decided(make_running(timeout=30.0), outcome).error is not None


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        pytest.param(Failed(error=EXCEPTION, transient=True), JobStatus.FAILED, id="failed"),
        pytest.param(TimedOut(transient=True), JobStatus.TIMEOUT, id="timeout"),
        pytest.param(Crashed(reason="killed", transient=True), JobStatus.FAILED, id="crashed"),
    ],
)
@pytest.mark.parametrize("budget", [0, 3])
def test_a_transient_end_beyond_the_budget_is_final(outcome, status, budget):
    transition = decided(make_running(timeout=30.0, retry_count=budget, max_retries=budget), outcome)

    assert (transition.status, transition.retry_count) == (status, budget)


@pytest.mark.parametrize("outcome", [Failed(error=EXCEPTION), TimedOut(), Crashed(reason="killed")])
def test_an_end_that_is_not_transient_is_never_retried(outcome):
    assert decided(make_running(timeout=30.0, max_retries=3), outcome).status.is_final


@pytest.mark.parametrize("after", [0 * SECOND, SECOND, 3600 * SECOND], ids=str)
def test_the_time_that_a_retry_asks_for_wins(after):
    outcome = Failed(error=EXCEPTION, transient=True, retry_after=after)

    assert decided(make_running(), outcome, retry_after=MINUTE).run_at == NOON + after


def test_a_retry_that_asks_for_a_time_still_uses_the_budget_up():
    outcome = Failed(error=EXCEPTION, transient=True, retry_after=SECOND)

    assert decided(make_running(retry_count=3, max_retries=3), outcome).status is JobStatus.FAILED


@pytest.mark.parametrize("outcome", [Interrupted(), VANISHED], ids=["a deploy", "a vanished engine"])
def test_an_interrupted_job_without_retries_runs_again_and_uses_none_up(outcome):
    """F13"""
    transition = decided(make_running(max_retries=0), outcome)

    assert (transition.status, transition.retry_count) == (JobStatus.PENDING, 0)


@pytest.mark.parametrize("interruptions", [0, 10, 50])
def test_an_interruption_by_an_engine_that_said_goodbye_is_never_counted(interruptions):
    """F13"""
    transition = decided(make_running(interruptions=interruptions), Interrupted(), interruption_budget=10)

    assert (transition.status, transition.interruptions) == (JobStatus.PENDING, interruptions)


@pytest.mark.parametrize("interruptions", [0, 5, 50])
def test_an_interrupted_job_keeps_its_place(interruptions):
    assert decided(make_running(interruptions=interruptions), Interrupted()).run_at is None


@pytest.mark.parametrize(
    ("vanished_before", "run_at"),
    [
        pytest.param(0, None, id="first"),
        pytest.param(1, None, id="second"),
        pytest.param(2, NOON + 8 * SECOND, id="third"),
        pytest.param(3, NOON + 16 * SECOND, id="fourth"),
        pytest.param(4, NOON + 32 * SECOND, id="fifth"),
        pytest.param(5, NOON + 60 * SECOND, id="sixth"),
        pytest.param(9, NOON + 60 * SECOND, id="tenth"),
    ],
)
def test_a_job_whose_engines_vanish_waits_longer_each_time_from_the_third_on(vanished_before, run_at):
    """F12"""
    transition = decided(make_running(interruptions=vanished_before), VANISHED)

    assert (transition.run_at, transition.interruptions) == (run_at, vanished_before + 1)


@pytest.mark.parametrize("budget", [0, 1, 10])
def test_a_job_whose_engines_vanish_beyond_the_budget_fails(budget):
    """F12, D9"""
    transition = decided(make_running(interruptions=budget), VANISHED, interruption_budget=budget)

    assert transition.status is JobStatus.FAILED
    assert transition.error is not None
    assert transition.error.kind == "interrupted"


def test_the_error_of_a_job_that_takes_its_engines_down_says_how_often():
    """F12"""
    transition = decided(make_running(interruptions=10), VANISHED, interruption_budget=10)

    assert transition.error is not None
    assert transition.error.message == ("its engine or template vanished 11 times while running it (the budget is 10)")


def test_a_budget_of_thousands_of_interruptions_works():
    """F12"""
    transition = decided(make_running(interruptions=1023), VANISHED, interruption_budget=5000)

    assert transition.run_at == NOON + MINUTE


def test_every_outcome_has_a_name():
    assert set(OUTCOME_NAMES) == set(get_args(Outcome))


@pytest.mark.parametrize(
    ("retry", "seconds"),
    [(1, 15), (2, 30), (3, 60), (4, 60), (5, 60), (1000, 60), (10**9, 60)],
)
def test_backoff_doubles_up_to_its_limit(retry, seconds):
    assert backoff(retry, base=15 * SECOND, limit=MINUTE) == seconds * SECOND


def test_backoff_with_a_limit_below_its_base_is_the_limit():
    assert backoff(1, base=MINUTE, limit=SECOND) == SECOND


def test_backoff_of_a_zero_base_is_zero():
    assert backoff(50, base=timedelta(0), limit=MINUTE) == timedelta(0)


@pytest.mark.parametrize("retry", [0, -1])
def test_backoff_refuses_a_retry_before_the_first(retry):
    with pytest.raises(ValueError, match="the first retry is number 1"):
        backoff(retry, base=SECOND, limit=MINUTE)


WAITS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650))


@given(retry=st.integers(1, 10_000), base=WAITS, limit=WAITS)
def test_backoff_never_shrinks_and_never_passes_its_limit(retry, base, limit):
    """F14"""
    wait, next_wait = (backoff(each, base=base, limit=limit) for each in (retry, retry + 1))

    assert wait <= next_wait <= limit

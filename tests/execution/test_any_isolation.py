"""What every isolation promises: what a job returns, raises or does to itself becomes an outcome."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import jobs_for_tests as jobs
import pytest
from bench import Bench, make_job, run_into_timeout, until

from asyncjobs.execution import Ended
from asyncjobs.model.outcome import Canceled, Failed, Interrupted, Succeeded, TimedOut


def failure(ended: Ended) -> Failed:
    assert isinstance(ended.outcome, Failed), ended
    return ended.outcome


async def test_a_job_succeeds_with_what_it_returns(anywhere: Bench):
    ended = await anywhere.run(jobs.add, 1, kwargs={"b": 2})

    assert ended.outcome == Succeeded("3")
    assert ended.busy is None


async def test_an_async_job_succeeds_with_what_it_returns(anywhere: Bench):
    ended = await anywhere.run(jobs.add_async, 1)

    assert ended.outcome == Succeeded("11")


async def test_params_and_results_are_converted_by_annotation(anywhere: Bench):
    ended = await anywhere.run(jobs.next_year, datetime(2026, 2, 1))

    assert ended.outcome == Succeeded('"2027-02-01T00:00:00"')


@pytest.mark.parametrize("definition", [jobs.fail, jobs.fail_async], ids=["def", "async def"])
async def test_an_exception_fails_the_attempt_with_its_class_message_and_traceback(anywhere: Bench, definition):
    error = failure(await anywhere.run(definition, "no such thing")).error

    assert (error.kind, error.class_name, error.message) == ("exception", "ValueError", "no such thing")
    assert error.traceback is not None
    assert "in inner\n    raise ValueError(message)" in error.traceback


@pytest.mark.parametrize("definition", [jobs.fail, jobs.fail_async], ids=["def", "async def"])
async def test_a_traceback_begins_in_the_jobs_function(anywhere: Bench, definition):
    error = failure(await anywhere.run(definition, "no such thing")).error

    assert error.traceback is not None
    frames = [line for line in error.traceback.splitlines() if line.startswith("  File ")]
    assert [Path(line.split('"')[1]).name for line in frames] == ["jobs_for_tests.py"] * 2


async def test_an_unlisted_exception_is_permanent(anywhere: Bench):
    ended = await anywhere.run(jobs.fail, "for good")

    assert not failure(ended).transient


@pytest.mark.parametrize("very", [False, True], ids=["the class", "a subclass"])
async def test_a_listed_exception_is_transient(anywhere: Bench, very):
    ended = await anywhere.run(jobs.fail_flaky, very)

    assert failure(ended).transient


async def test_a_subclass_of_a_listed_built_in_exception_is_transient(anywhere: Bench):
    ended = await anywhere.run(jobs.fail_connecting)

    assert failure(ended).transient
    assert failure(ended).error.class_name == "ConnectionResetError"


async def test_a_transient_error_is_transient_and_shows_its_origin(anywhere: Bench):
    ended = await anywhere.run(jobs.fail_transiently)

    assert failure(ended).transient
    assert (failure(ended).error.class_name, failure(ended).error.message) == ("KeyError", "'origin'")


async def test_retry_is_transient_at_the_time_it_asks_for(anywhere: Bench):
    ended = await anywhere.run(jobs.retry, 2.5)

    assert failure(ended).transient
    assert failure(ended).retry_after == timedelta(seconds=2.5)


async def test_retry_without_a_time_leaves_it_to_the_backoff(anywhere: Bench):
    ended = await anywhere.run(jobs.retry)

    assert failure(ended).transient
    assert failure(ended).retry_after is None


async def test_a_job_can_cancel_itself(anywhere: Bench):
    ended = await anywhere.run(jobs.cancel_itself)

    assert ended.outcome == Canceled(reason="nothing to do")


async def test_an_exception_that_can_not_be_printed_is_reported(anywhere: Bench):
    error = failure(await anywhere.run(jobs.fail_unspeakably)).error

    assert error.class_name == "jobs_for_tests.Unspeakable"
    assert error.message == "<its str() raised RuntimeError>"


async def test_a_long_message_is_cut_in_its_middle(anywhere: Bench):
    error = failure(await anywhere.run(jobs.fail_at_length)).error

    assert len(error.message) < 9_000
    assert error.traceback is not None
    assert len(error.traceback) < 70_000


async def test_a_message_may_have_lone_surrogates(anywhere: Bench):
    error = failure(await anywhere.run(jobs.fail_with_surrogate)).error

    assert error.message == "\udc80"


@pytest.mark.parametrize(
    ("definition", "class_name"),
    [(jobs.recurse, "RecursionError"), (jobs.use_up_memory, "MemoryError")],
    ids=["recursion", "memory"],
)
async def test_an_exhausted_interpreter_is_an_ordinary_failure(anywhere: Bench, definition, class_name):
    error = failure(await anywhere.run(definition)).error

    assert error.class_name == class_name


@pytest.mark.parametrize("code", [0, 3, None, "a word"])
async def test_sys_exit_is_a_failure_that_says_the_code(anywhere: Bench, code):
    """D19, F55"""
    error = failure(await anywhere.run(jobs.exit_with, code)).error

    assert (error.kind, error.class_name) == ("exception", "SystemExit")
    assert error.message == f"exited with code {0 if code is None else code} (SystemExit)"


async def test_sys_exit_in_an_async_job_is_a_failure(anywhere: Bench):
    """D19"""
    error = failure(await anywhere.run(jobs.exit_async, 3)).error

    assert error.message == "exited with code 3 (SystemExit)"


@pytest.mark.parametrize(
    ("definition", "class_name"),
    [
        (jobs.raise_keyboard_interrupt, "KeyboardInterrupt"),
        (jobs.raise_cancelled, "asyncio.exceptions.CancelledError"),
        (jobs.cancel_own_task, "asyncio.exceptions.CancelledError"),
    ],
    ids=["KeyboardInterrupt", "CancelledError", "its own task"],
)
async def test_other_base_exceptions_are_failures(anywhere: Bench, definition, class_name):
    """D19"""
    error = failure(await anywhere.run(definition)).error

    assert (error.kind, error.class_name) == ("exception", class_name)


async def test_a_result_that_is_no_json_is_refused(anywhere: Bench):
    error = failure(await anywhere.run(jobs.return_object)).error

    assert error.kind == "result"
    assert "object" in error.message


async def test_a_result_above_the_limit_is_refused(anywhere: Bench):
    error = failure(await anywhere.run(jobs.return_text, 6_100_000)).error

    assert error.kind == "result"
    assert "max_result_bytes" in error.message


async def test_a_result_of_five_megabytes_arrives_whole(anywhere: Bench):
    """F51"""
    ended = await anywhere.run(jobs.return_text, 5_000_000)

    assert ended.outcome == Succeeded('"' + "x" * 5_000_000 + '"')


async def test_params_that_no_longer_fit_are_refused(anywhere: Bench):
    """F54"""
    job = make_job(jobs.add, 1)
    asked = asyncio.get_running_loop().create_future()

    ended = await anywhere.runner.run(job, jobs.fail, env={}, asked=asked, notes=anywhere)

    assert failure(ended).error.kind == "params"


@pytest.mark.parametrize("definition", [jobs.who_am_i, jobs.who_am_i_async], ids=["def", "async def"])
async def test_a_job_knows_who_it_is(anywhere: Bench, definition):
    ended = await anywhere.run(definition, id="job-7", attempt=3)

    assert ended.outcome == Succeeded(f'["job-7", "{definition.name}", 3]')


async def test_details_are_nested_as_deep_as_parameters_may_be_and_no_deeper(anywhere: Bench):
    deepest = await anywhere.run(jobs.say_nested, 200)
    told = dict(anywhere.detailed)
    too_deep = [await anywhere.run(jobs.say_nested, levels) for levels in (201, 985, 20_000)]

    assert deepest.outcome == Succeeded("null")
    assert str(told["deep"]).count("[") == 200
    assert {each.outcome.error.message for each in too_deep} == {
        "update_details takes JSON values: nested deeper than 200 levels, or it contains itself"
    }
    assert anywhere.detailed == told


async def test_several_jobs_run_at_once_each_with_its_own_result(anywhere: Bench):
    ended = await asyncio.gather(*(anywhere.run(jobs.add_async, n, id=f"job-{n}") for n in range(6)))

    assert [each.outcome for each in ended] == [Succeeded(str(n + 10)) for n in range(6)]


async def test_an_async_job_past_its_timeout_is_cancelled(anywhere: Bench, marks: Path):
    ended = await run_into_timeout(anywhere, jobs.sleep_async, marks)

    assert ended.outcome == TimedOut()
    assert (marks / "cancelled").exists()


@pytest.mark.parametrize(
    "asked_for", [Canceled(reason="enough"), Interrupted(reason="a deploy")], ids=["cancel", "stop"]
)
async def test_an_async_job_that_is_asked_to_end_is_cancelled(anywhere: Bench, marks: Path, asked_for):
    asked = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(anywhere.run(jobs.sleep_async, marks, asked=asked))
    await until((marks / "began").exists)

    asked.set_result(asked_for)
    ended = await running

    assert ended.outcome == asked_for
    assert (marks / "cancelled").exists()


async def test_an_attempt_that_was_asked_to_end_before_it_began_never_runs(anywhere: Bench, marks: Path):
    asked = asyncio.get_running_loop().create_future()
    asked.set_result(Canceled())

    ended = await anywhere.run(jobs.sleep_async, marks, asked=asked)

    assert ended.outcome == Canceled()
    assert not (marks / "began").exists()


async def test_nobody_asking_after_all_changes_nothing(anywhere: Bench, marks: Path):
    asked = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(anywhere.run(jobs.sleep_until, marks, asked=asked))
    await until((marks / "began").exists)

    asked.cancel()
    (marks / "enough").touch()

    assert (await running).outcome == Succeeded('"late"')


async def test_a_canceled_run_ends_an_async_job(anywhere: Bench, marks: Path):
    running = asyncio.create_task(anywhere.run(jobs.sleep_async, marks))
    await until((marks / "began").exists)

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running

"""A job is submitted, runs in a process of its own, and its result comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import story_jobs
from story_jobs import Colour, Order

from asyncjobs import (
    DuplicateJobName,
    InvalidOptions,
    InvalidParams,
    JobClient,
    JobEngine,
    JobFailed,
    JobNotAllowed,
    JobNotFound,
    JobStatus,
    JobTimedOut,
    UnknownJobName,
    job,
)
from asyncjobs.engine.worker import Worker
from asyncjobs.telemetry import JobSubmitted

Start = Callable[..., Awaitable[JobEngine]]


@pytest.mark.parametrize(
    "definition", [story_jobs.add, story_jobs.add_inline, story_jobs.add_slowly], ids=lambda d: d.name
)
async def test_a_function_runs_and_its_result_comes_back(engine: JobEngine, definition) -> None:
    handle = await engine.submit(definition, 40, b=2)

    assert await handle.result(timeout=30) == 42
    assert (await handle.job()).status is JobStatus.SUCCEEDED


async def test_values_arrive_and_return_with_their_types(engine: JobEngine) -> None:
    order = Order(7, datetime(2026, 2, 28, 12, tzinfo=UTC), Decimal("19.90"), (Colour.RED,))
    key = uuid4()

    handle = await engine.submit(story_jobs.echo_order, order, key, date(2026, 2, 28), Path("a/b"))

    assert await handle.result(timeout=30) == (order, key, date(2026, 2, 28), Path("a/b"))


@pytest.mark.parametrize(
    "value",
    [2**64, -(10**30), float("inf"), "\x00", "\ud800 alone", [[1, [2.5, None]], {"k": True}], {"": {"nul": "\0"}}],
    ids=["big", "very big", "infinity", "nul", "surrogate", "nested", "empty key"],
)
async def test_json_values_make_an_exact_round_trip(engine: JobEngine, value: object) -> None:
    """F52."""
    handle = await engine.submit_named("any json", {"value": value})

    assert await handle.result(timeout=30) == value
    assert (await handle.job()).params == {"value": value}


async def test_a_job_with_a_megabyte_of_params_is_an_ordinary_job(engine: JobEngine) -> None:
    """D1: params travel over the control channel, so no limit of the kernel's stands in their way."""
    handle = await engine.submit(story_jobs.length, "x" * 1_000_000)

    assert await handle.result(timeout=30) == 1_000_000


async def test_params_over_the_limit_are_refused_at_submit(start: Start) -> None:
    engine = await start(max_params_bytes=1000)

    with pytest.raises(InvalidParams, match="max_params_bytes"):
        await engine.submit(story_jobs.length, "x" * 1000)

    assert (await engine.list()).jobs == ()


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, "a"),
        ((1,), {"c": 3}, "c"),
        ((1, 2, 3), {}, None),
        (("1",), {}, "a"),
        ((1, None), {}, "b"),
        ((1,), {"a": 1}, "a"),
    ],
    ids=["missing", "unknown", "too many", "wrong type", "none", "twice"],
)
async def test_arguments_that_do_not_fit_are_refused_by_name(engine: JobEngine, args, kwargs, named) -> None:
    with pytest.raises(InvalidParams) as caught:
        await engine.submit(story_jobs.add, *args, **kwargs)

    assert caught.value.parameter == named or named is None
    assert (await engine.list()).jobs == ()


async def test_a_failure_carries_the_remote_class_message_and_traceback(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.fail, "out of paper")

    with pytest.raises(JobFailed) as caught:
        await handle.result(timeout=30)

    assert (caught.value.class_name, caught.value.message) == ("ValueError", "out of paper")
    assert caught.value.traceback is not None
    assert "story_jobs.py" in caught.value.traceback
    assert "execution" not in caught.value.traceback


async def test_a_timeout_ends_as_job_timed_out_which_is_no_timeout_error(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.sleep_past_the_timeout)

    with pytest.raises(JobTimedOut) as caught:
        await handle.result(timeout=30)

    assert not isinstance(caught.value, TimeoutError)
    assert (await handle.job()).status is JobStatus.TIMEOUT


@pytest.mark.parametrize("timeout", [0, 0.001, 0.03])
async def test_no_wait_is_too_short_for_a_job_whose_end_is_forgotten(engine: JobEngine, timeout: float) -> None:
    handle = await engine.submit(story_jobs.add_inline, 40, b=2)
    await handle.wait(timeout=30)
    engine._waiting.forget_all()

    assert await handle.result(timeout=timeout) == 42
    assert (await handle.wait(timeout=timeout)).status is JobStatus.SUCCEEDED


async def test_a_wait_of_no_time_for_an_unknown_job_says_that_there_is_none(engine: JobEngine) -> None:
    with pytest.raises(JobNotFound):
        await engine.wait(str(uuid4()), timeout=0)


async def test_a_wait_that_is_over_raises_timeout_error_and_leaves_the_job_alone(engine: JobEngine, tmp_path) -> None:
    blocker = tmp_path / "blocker"
    blocker.touch()
    handle = await engine.submit(story_jobs.wait_for, blocker)

    with pytest.raises(TimeoutError):
        await handle.result(timeout=0.05)

    blocker.unlink()
    assert await handle.result(timeout=30) == "done"


async def test_many_are_stored_in_one_transaction(engine: JobEngine) -> None:
    handles = await engine.submit_many([story_jobs.add_inline.bind(n, b=1) for n in range(100)])

    assert await asyncio.gather(*(each.result(timeout=30) for each in handles)) == list(range(1, 101))


async def test_one_bad_call_among_many_stores_none(engine: JobEngine) -> None:
    with pytest.raises(InvalidParams):
        await engine.submit_many([story_jobs.add.bind(1), story_jobs.add.bind("x")])

    assert (await engine.list()).jobs == ()


async def test_options_of_one_submission_do_not_touch_the_definition(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.add_inline.using(timeout=5, max_retries=0, priority=3), 1)

    record = await handle.wait(timeout=30)

    assert (record.timeout, record.max_retries, record.priority) == (5.0, 0, 3)
    assert (story_jobs.add_inline.timeout, story_jobs.add_inline.priority) == (None, 0)


async def test_what_the_definition_leaves_open_comes_from_the_settings(start: Start) -> None:
    engine = await start(timeout=17, max_retries=9)

    record = await (await engine.submit(story_jobs.add, 1)).wait(timeout=30)

    assert (record.timeout, record.max_retries) == (17.0, 9)


async def test_a_delayed_job_waits_for_its_time(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.add_inline.using(delay=0.3), 1)

    record = await handle.wait(timeout=30)

    assert record.started_at is not None
    assert record.started_at >= record.run_at >= record.created_at + timedelta(seconds=0.3)


async def test_higher_priority_runs_first(start: Start, tmp_path: Path) -> None:
    client = await start(kind=JobClient)
    file = tmp_path / "order"
    one = story_jobs.note
    await client.submit_many(
        [
            one.using(priority=0).bind(file, "low"),
            one.using(priority=5).bind(file, "high"),
            one.using(priority=-5).bind(file, "lowest"),
        ]
    )

    engine = await start(jobs=[job(name="note")(story_jobs.note.function)])
    async for record in engine.iterate():
        await engine.wait(record.id, timeout=30)

    assert file.read_text().split() == ["high", "low", "lowest"]


async def test_a_key_makes_a_submission_idempotent(engine: JobEngine) -> None:
    """F64, F78: however often it is submitted, at once or later, there is one job."""
    keyed = story_jobs.add_inline.using(key="order 17")
    submitted: list[str] = []
    engine.subscribe(lambda event: submitted.append(event.job.id) if isinstance(event, JobSubmitted) else None)

    handles = await asyncio.gather(*(engine.submit(keyed, n) for n in range(20)))
    await handles[0].wait(timeout=30)
    later = await engine.submit(keyed, 99)

    assert len({each.id for each in [*handles, later]}) == 1
    assert submitted == [later.id]
    assert len((await engine.list()).jobs) == 1


async def test_a_submit_wakes_its_worker_at_once(engine: JobEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    wake = Worker.wake

    def noted(worker: Worker) -> None:
        woken.append(worker.definition.name)
        wake(worker)

    monkeypatch.setattr(Worker, "wake", noted)
    submitting = asyncio.create_task(engine.submit(story_jobs.add_inline, 1, 2))
    await asyncio.sleep(0)

    assert "add_inline" in woken
    assert await (await submitting).result(timeout=30) == 3


async def test_another_function_of_a_registered_name_is_refused(engine: JobEngine) -> None:
    with pytest.raises(DuplicateJobName):
        await engine.submit(job(name="add")(story_jobs.note.function), "a", "b")


async def test_a_submit_that_is_cancelled_is_resolved_by_its_key(engine: JobEngine) -> None:
    """F64."""
    keyed = story_jobs.add_inline.using(key="once")
    submitting = asyncio.create_task(engine.submit(keyed, 1))
    await asyncio.sleep(0)
    submitting.cancel()
    await asyncio.wait([submitting])

    handle = await engine.submit(keyed, 1)

    assert await handle.result(timeout=30) == 3
    assert len((await engine.list()).jobs) == 1


async def test_environment_variables_reach_that_job_alone_and_no_record(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.environment.using(env={"STORY_SECRET": "hush"}), "STORY_SECRET")
    other = await engine.submit(story_jobs.environment, "STORY_SECRET")

    assert (await handle.result(timeout=30), await other.result(timeout=30)) == ("hush", None)
    assert "hush" not in repr((await handle.job()).params_json)


async def test_a_job_knows_what_it_is(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.who)

    assert await handle.result(timeout=30) == (handle.id, "who", 1)


async def test_names_outside_the_allow_list_are_refused_at_submit(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D31: one list, by name, whichever way the job is submitted."""
    monkeypatch.setenv("ASYNCJOBS_ALLOWED_JOBS", "add, add_inline")
    engine = await start()

    with pytest.raises(JobNotAllowed, match="ASYNCJOBS_ALLOWED_JOBS"):
        await engine.submit(story_jobs.fail, "x")
    with pytest.raises(JobNotAllowed):
        await engine.submit_named("fail", {"message": "x"})

    assert await (await engine.submit(story_jobs.add, 1)).result(timeout=30) == 3


async def test_dotted_names_in_the_environment_are_registered(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCJOBS_JOBS", "story_jobs.add,story_jobs.add_inline")
    engine = await start(jobs=())

    handle = await engine.submit_named("add_inline", {"a": 1, "b": 1})

    assert await handle.result(timeout=30) == 2


async def test_what_is_no_job_is_refused(engine: JobEngine) -> None:
    with pytest.raises(InvalidOptions, match="@job"):
        await engine.submit(story_jobs.not_a_job)  # type: ignore[arg-type]
    with pytest.raises(UnknownJobName, match="nobody"):
        await engine.submit_named("nobody", {})
    with pytest.raises(InvalidOptions, match="bind"):
        await engine.submit_many([story_jobs.add])  # type: ignore[list-item]


async def test_an_engine_refuses_a_job_that_it_was_not_given(start: Start) -> None:
    engine = await start(jobs=[story_jobs.add])

    with pytest.raises(UnknownJobName, match="jobs="):
        await engine.submit(story_jobs.fail, "x")


@pytest.mark.parametrize("unknown", ["no-such-id", str(uuid4()), ""], ids=["text", "uuid", "empty"])
async def test_an_unknown_id_is_job_not_found(engine: JobEngine, unknown: str) -> None:
    with pytest.raises(JobNotFound):
        await engine.get(unknown)
    with pytest.raises(JobNotFound):
        await engine.wait(unknown, timeout=30)
    with pytest.raises(JobNotFound):
        await engine.cancel(unknown)
    with pytest.raises(JobNotFound):
        await engine.retry(unknown)


async def test_a_result_that_is_not_json_fails_the_job_and_says_where(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.nonsense)

    record = await handle.wait(timeout=30)

    assert record.status is JobStatus.FAILED
    assert record.error is not None
    assert record.error.kind == "result"
    assert "deep" in record.error.message


async def test_a_result_over_the_limit_fails_the_job_and_says_so(start: Start) -> None:
    """F51."""
    engine = await start(max_result_bytes=1000)

    record = await (await engine.submit(story_jobs.long_text, 2000)).wait(timeout=30)

    assert record.error is not None
    assert record.error.kind == "result"
    assert "max_result_bytes" in record.error.message


async def test_ids_are_time_ordered_and_lists_are_newest_first(engine: JobEngine) -> None:
    handles = [await engine.submit(story_jobs.add_inline, n) for n in range(5)]

    listed = [record.id for record in (await engine.list()).jobs]

    assert listed == [each.id for each in reversed(handles)]
    assert [UUID(each).version for each in listed] == [7] * 5

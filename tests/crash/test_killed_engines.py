"""Engines that are killed with SIGKILL, at the worst moments, and what becomes of their jobs."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

import pytest
from crash_jobs import add, fail_once, kill_my_engine, nothing, other_work, process_id, work
from crash_programs import BOUND, Programs, Work, gone

from asyncjobs import JobClient, JobStatus


async def test_a_job_whose_engine_dies_between_claim_and_start_runs_again(
    client: JobClient, programs: Programs
) -> None:
    """F01: the attempt that never started is in the history, as interrupted."""
    handle = await client.submit(process_id)
    dying = await programs.start_engine(process_id, fault="dies_before_the_child_starts")
    await dying.ends()

    await programs.engine(process_id)

    job = await handle.wait(timeout=BOUND)
    assert job.status is JobStatus.SUCCEEDED
    assert [each.outcome for each in job.attempts] == ["interrupted", "succeeded"]


@pytest.mark.parametrize("with_grandchild", [False, True], ids=["alone", "with a grandchild in its own session"])
async def test_a_job_of_a_killed_engine_is_dead_before_it_runs_again(
    client: JobClient, programs: Programs, a_work: Work, with_grandchild: bool
) -> None:
    """F02, D10: no beat of the first attempt comes after one of the second."""
    handle = await client.submit(work, a_work.folder, with_grandchild)
    first = await programs.engine(work)
    await a_work.runs(attempt=1, processes=2 if with_grandchild else 1)

    await first.kill()
    await programs.engine(work)
    await a_work.runs(attempt=2, processes=2 if with_grandchild else 1)
    a_work.release()

    job = await handle.wait(timeout=BOUND)
    assert job.status is JobStatus.SUCCEEDED
    assert a_work.last_beat(attempt=1) < a_work.first_beat(attempt=2)
    assert a_work.processes(attempt=1).isdisjoint(a_work.processes(attempt=2))


async def test_nothing_of_a_killed_engine_is_left_running(client: JobClient, programs: Programs, a_work: Work) -> None:
    """F02: jobs and standbys die with their engine, before any other engine looks."""
    await client.submit(work, a_work.folder)
    engine = await programs.engine(work)
    await a_work.runs()

    await engine.kill()

    await gone(programs.engine_ids())


async def test_a_job_whose_end_was_not_written_runs_again(client: JobClient, programs: Programs) -> None:
    """F03: never lost, and never SUCCEEDED without a result."""
    handle = await client.submit(process_id)
    dying = await programs.start_engine(process_id, fault="dies_before_the_end_is_written")
    await dying.ends()
    between = await handle.job()

    await programs.engine(process_id)

    job = await handle.wait(timeout=BOUND)
    assert (between.status, between.result) == (JobStatus.RUNNING, None)
    assert job.status is JobStatus.SUCCEEDED
    assert isinstance(job.result, int)
    assert [each.outcome for each in job.attempts] == ["interrupted", "succeeded"]


async def test_a_living_engine_takes_over_the_jobs_of_a_killed_one(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """D2: nothing stays RUNNING for ever, and no restart is needed."""
    handle = await client.submit(work, a_work.folder)
    first = await programs.engine(work)
    await a_work.runs(attempt=1)
    second = await programs.engine(work)

    await first.kill()
    await second.says("started", handle.id, "2")
    a_work.release()

    assert (await handle.wait(timeout=BOUND)).status is JobStatus.SUCCEEDED


async def test_jobs_submitted_while_no_engine_lives_run_when_one_starts(client: JobClient, programs: Programs) -> None:
    """D3: nothing stays PENDING for ever."""
    first = await programs.engine(nothing)
    await first.kill()
    handle = await client.submit(nothing)

    await programs.engine(nothing)

    assert (await handle.wait(timeout=BOUND)).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["dies", "stops"])
async def test_a_retry_that_waits_while_the_engine_goes_away_runs_when_it_is_due(
    client: JobClient, programs: Programs, number: signal.Signals
) -> None:
    """D4: not for ever PENDING, and not before its time."""
    handle = await client.submit(fail_once.using(retry_delay=1.5), 0)
    engine = await programs.engine(fail_once)
    await engine.says("started", handle.id, "1")
    waiting = await handle.job()
    while waiting.retry_count == 0:
        waiting = await handle.job()

    engine.signal(number)
    await engine.ends()
    await programs.engine(fail_once)

    job = await handle.wait(timeout=BOUND)
    late = (job.attempts[1].started_at - waiting.run_at).total_seconds()
    print(f"the retry began {late * 1000:.0f} ms after it was due")
    assert job.status is JobStatus.SUCCEEDED
    assert 0 <= late < BOUND / 2


async def test_jobs_of_names_that_an_engine_does_not_know_are_left_alone_and_harm_no_other(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """D5: neither a waiting one, nor one that was running when its engine died."""
    running = await client.submit(other_work, a_work.folder)
    known = await client.submit(work, a_work.folder)
    first = await programs.engine(other_work, work)
    await first.says("started", running.id)
    await first.says("started", known.id)
    await first.kill()
    waiting = await client.submit(other_work, a_work.folder)
    later = await client.submit(work, a_work.folder)
    a_work.release()

    await programs.engine(work)

    assert (await known.wait(timeout=BOUND)).status is JobStatus.SUCCEEDED
    assert (await later.wait(timeout=BOUND)).status is JobStatus.SUCCEEDED
    assert ((await running.job()).status, (await running.job()).attempt) == (JobStatus.PENDING, 1)
    assert ((await waiting.job()).status, (await waiting.job()).attempt) == (JobStatus.PENDING, 0)


async def test_a_job_that_takes_its_engine_down_each_time_ends_failed_with_its_history(
    client: JobClient, programs: Programs
) -> None:
    """F12, D9: a vanished engine counts, against a budget of its own."""
    handle = await client.submit(kill_my_engine)
    for _ in range(3):
        taken_down = await programs.engine(kill_my_engine, interruptions=2)
        await taken_down.ends()

    await programs.engine(kill_my_engine, interruptions=2)

    job = await handle.wait(timeout=BOUND)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error.kind == "interrupted"
    assert [each.outcome for each in job.attempts] == ["interrupted"] * 3
    assert (job.retry_count, job.interruptions) == (0, 3)


async def test_recovery_waits_for_no_fixed_delay(client: JobClient, programs: Programs, a_work: Work) -> None:
    """D9: from the start of the new process, whose imports are done, to the rerun."""
    handle = await client.submit(work, a_work.folder)
    first = await programs.engine(work)
    await a_work.runs(attempt=1)
    await first.kill()

    second = await programs.engine(work)
    await second.says("started", handle.id, "2")

    [opened] = second.said("open")
    to_open, to_rerun = second.seconds_until(*opened), second.seconds_until("started", handle.id, "2")
    print(f"engine open {to_open:.2f} s after the start of its process, rerun {to_rerun - to_open:.2f} s after that")
    assert to_rerun - to_open < 5


async def test_a_restart_leaves_alone_what_has_ended(client: JobClient, programs: Programs, a_work: Work) -> None:
    """Rescue touches what was RUNNING under the dead engine, and nothing else."""
    done = await client.submit(nothing)
    first = await programs.engine(nothing, work)
    ended = await done.wait(timeout=BOUND)
    running = await client.submit(work, a_work.folder)
    await a_work.runs()
    await first.kill()
    a_work.release()

    await programs.engine(nothing, work)
    await running.wait(timeout=BOUND)

    assert await done.job() == ended


async def test_a_job_that_a_killed_engine_was_asked_to_cancel_is_canceled_and_not_run_again(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """F02 with F18: the wish to cancel outlives the engine that was to fulfil it."""
    handle = await client.submit(work, a_work.folder)
    first = await programs.engine(work)
    await a_work.runs()
    first.signal(signal.SIGSTOP)  # so that it can't see the wish
    await handle.cancel()
    await first.kill()

    await programs.engine(work)

    job = await handle.wait(timeout=BOUND)
    assert (job.status, job.attempt) == (JobStatus.CANCELED, 1)


async def test_every_submit_acknowledged_before_a_kill_is_there_and_ends(client: JobClient, programs: Programs) -> None:
    """F46 through the engine: what a killed process had been told is stored runs afterwards."""
    submitter = await programs.submitter(seconds=BOUND, submitters=5)
    await submitter.says("acknowledged", times=100)
    await submitter.kill()

    await programs.engine(nothing)

    for _, job_id in submitter.said("acknowledged"):
        assert (await client.wait(job_id, timeout=BOUND)).status is JobStatus.SUCCEEDED


async def test_times_of_a_rerun_are_its_own(client: JobClient, programs: Programs, a_work: Work) -> None:
    """The interrupted attempt keeps its start in the history; the record shows the last one's."""
    handle = await client.submit(work, a_work.folder)
    first = await programs.engine(work)
    await a_work.runs(attempt=1)
    await first.kill()
    killed = datetime.now(UTC)
    a_work.release()

    await programs.engine(work)

    job = await handle.wait(timeout=BOUND)
    assert job.started_at is not None
    assert job.attempts[0].started_at < killed < job.started_at == job.attempts[1].started_at


async def test_jobs_of_one_name_wait_for_a_slot_after_a_rescue_too(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """The reruns keep their place before what came later, and never exceed `max_workers`."""
    early = [await client.submit(work, a_work.folder) for _ in range(work.max_workers)]
    first = await programs.engine(work)
    await first.says("started", times=work.max_workers)
    late = await client.submit(work, a_work.folder)
    await first.kill()

    second = await programs.engine(work)
    await second.says("started", times=work.max_workers)
    before_release = {line[1] for line in second.said("started")}
    a_work.release()
    await late.wait(timeout=BOUND)

    assert before_release == {each.id for each in early}


async def test_a_line_that_a_job_wrote_is_written_at_least_once(
    client: JobClient, programs: Programs, a_work: Work
) -> None:
    """F03: at least once means exactly that; the job's own doing may be there twice."""
    file = a_work.folder / "lines"
    handle = await client.submit(add, file, 7)
    dying = await programs.start_engine(add, fault="dies_before_the_end_is_written")
    await dying.ends()

    await programs.engine(add)

    assert (await handle.wait(timeout=BOUND)).status is JobStatus.SUCCEEDED
    assert file.read_text().split() == ["7", "7"]

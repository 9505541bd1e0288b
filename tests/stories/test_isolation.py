"""How jobs are kept apart, as a user sees it: in records, logs, progress, slots and environments."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from subprocess import Popen

import pytest
import story_jobs
import story_killers
from story_environments import absent, bare, newer, older

from asyncjobs import (
    EnvironmentFailed,
    InvalidOptions,
    JobClient,
    JobEngine,
    JobFailed,
    JobStatus,
    Settings,
    UnknownJobName,
    job,
)
from asyncjobs.execution.inside import tree
from asyncjobs.telemetry import EnvironmentBuilding, EnvironmentBuilt, ForkUnsafe, StartPaused

Start = Callable[..., Awaitable[JobEngine]]
PROCESSES = pytest.mark.parametrize("isolation", ["fork", "spawn", "reuse"])
ENGINE_OF_ITS_OWN = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
import story_killers
from asyncjobs import JobEngine, Settings

settings = Settings(isolation=sys.argv[3], interruptions=2)
asyncio.run(JobEngine(sys.argv[1], jobs=[story_killers], settings=settings).run())
"""


def children() -> set[int]:
    """Return the children of this process: those of other tests' fixtures are there before and after."""
    return {each.pid for each in tree.descendants(os.getpid()) if each.ppid == os.getpid()}


@PROCESSES
async def test_progress_details_and_logs_are_stored(start: Start, isolation: str) -> None:
    """D18."""
    engine = await start(isolation=isolation)

    handle = await engine.submit(story_jobs.say_how_far, 500)
    await handle.result(timeout=30)

    progress = await handle.progress()
    said = [(chunk.stream, chunk.text) async for chunk in handle.logs()]
    assert progress is not None
    assert (progress.completed, progress.total, progress.unit, progress.phase) == (500, 500, "files", "reading")
    assert progress.details == {"last": 500}
    assert sorted(said) == [("stderr", "INFO files: counting\n"), ("stdout", "done\n")]


@PROCESSES
async def test_an_attempt_tells_what_it_used_and_which_limit_it_met(start: Start, isolation: str) -> None:
    engine = await start(isolation=isolation)

    handle = await engine.submit(story_jobs.take_much_memory)
    with pytest.raises(JobFailed, match="failed: MemoryError: memory limit of 104857600 bytes reached"):
        await handle.result(timeout=30)

    [attempt] = (await handle.job()).attempts
    assert attempt.reason == f"memory limit of {100 * 1024 * 1024} bytes reached"
    assert attempt.pid is not None
    assert attempt.peak_rss is not None
    assert attempt.cpu_time is not None


@PROCESSES
async def test_a_thread_that_runs_past_the_timeout_makes_its_job_time_out(start: Start, isolation: str) -> None:
    engine = await start(isolation=isolation)

    end = await (await engine.submit(story_jobs.leave_a_long_thread)).wait(timeout=30)

    assert (end.status, end.result) == (JobStatus.TIMEOUT, None)


async def test_a_daemon_thread_lives_on_beside_the_next_job_of_its_warm_process(start: Start) -> None:
    engine = await start()

    ends = [await (await engine.submit(story_jobs.leave_a_daemon_thread)).result(timeout=30) for _ in range(2)]

    (first, before), (second, after) = ends
    assert (first, before, after) == (second, 0, 1)


async def test_a_job_that_keeps_a_pool_of_threads_open_is_its_warm_process_last(start: Start) -> None:
    engine = await start()

    processes = {await (await engine.submit(story_jobs.leave_a_pool)).result(timeout=30) for _ in range(2)}

    assert len(processes) == 2


@PROCESSES
async def test_a_job_that_takes_its_template_down_each_time_ends_failed_with_its_history(
    start: Start, isolation: str
) -> None:
    """F12. What could not be started in the pauses between is in the history, too, and used up nothing."""
    engine = await start(jobs=[story_killers], isolation=isolation, interruptions=2)

    record = await (await engine.submit(story_killers.kill_my_template)).wait(timeout=60)

    assert record.status is JobStatus.FAILED
    assert record.error is not None
    assert (record.error.kind, record.interruptions, record.retry_count) == ("interrupted", 3, 0)
    assert {each.outcome for each in record.attempts} == {"interrupted"}
    reasons = [each.reason or "" for each in record.attempts]
    assert sum(each.startswith("its template ended, and it with that") for each in reasons) == 3


@pytest.mark.parametrize("isolation", ["fork", "spawn", "reuse", "inline"])
async def test_a_job_that_takes_its_engine_down_each_time_ends_failed_with_its_history(
    tmp_path: Path, start_python: Callable[..., Popen[str]], isolation: str
) -> None:
    """F12."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with JobClient(url, jobs=[story_killers]) as client:
        handle = await client.submit(story_killers.kill_my_engine)
        taken_down = []
        for _ in range(3):
            taken_down.append(start_python(ENGINE_OF_ITS_OWN, url, Path(__file__).parent, isolation))
            await asyncio.to_thread(taken_down[-1].wait, 60)
        start_python(ENGINE_OF_ITS_OWN, url, Path(__file__).parent, isolation)

        record = await handle.wait(timeout=60)

    assert [each.returncode for each in taken_down] == [-signal.SIGKILL] * 3
    assert record.status is JobStatus.FAILED
    assert record.error is not None
    assert (record.error.kind, record.interruptions, record.retry_count) == ("interrupted", 3, 0)
    assert [each.outcome for each in record.attempts] == ["interrupted"] * 3


@PROCESSES
async def test_processes_that_a_job_left_running_are_killed_and_counted(start: Start, isolation: str) -> None:
    """F22."""
    engine = await start(isolation=isolation)

    handle = await engine.submit(story_jobs.leave_a_daemon)
    await handle.result(timeout=30)

    [attempt] = (await handle.job()).attempts
    assert (attempt.outcome, attempt.reason) == (
        "succeeded",
        "processes that it had left running were killed: 1",
    )


async def test_nothing_is_started_for_a_name_before_its_first_job(start: Start) -> None:
    """D16."""
    before = children()

    engine = await start()

    assert children() - before == set()
    assert len(engine.health.names) > 10


async def test_an_engine_runs_no_more_at_once_than_its_processes(start: Start, tmp_path: Path) -> None:
    """D17."""
    engine = await start(max_processes=3)

    calls = [each.bind(tmp_path, 3) for _ in range(10) for each in (story_jobs.note_one, story_jobs.note_other)]
    for handle in await engine.submit_many(calls):
        await handle.result(timeout=30)

    assert story_jobs.most_at_once(tmp_path) == 3


async def test_a_busy_name_does_not_keep_another_out_of_the_last_slot(start: Start, tmp_path: Path) -> None:
    """D17."""
    engine = await start(max_processes=1)
    busy = await engine.submit_many([story_jobs.note_one.bind(tmp_path) for _ in range(40)])

    await (await engine.submit(story_jobs.note_other, tmp_path)).result(timeout=30)

    assert (await busy[-1].job()).attempt == 0


async def test_the_slots_of_a_name_are_changed_while_it_works(engine: JobEngine, tmp_path: Path) -> None:
    """D17."""
    engine.resize("note_one", 1)
    for handle in await engine.submit_many([story_jobs.note_one.bind(tmp_path) for _ in range(5)]):
        await handle.result(timeout=30)
    before = story_jobs.most_at_once(tmp_path)

    engine.resize("note_one", 3)
    for handle in await engine.submit_many([story_jobs.note_one.bind(tmp_path, 3) for _ in range(9)]):
        await handle.result(timeout=30)

    assert (before, story_jobs.most_at_once(tmp_path)) == (1, 3)


async def test_slots_are_changed_to_a_number_of_a_known_name_only(engine: JobEngine) -> None:
    with pytest.raises(InvalidOptions, match="max_workers must be a whole number from 1"):
        engine.resize("note_one", 0)
    with pytest.raises(UnknownJobName):
        engine.resize("nobody", 1)


async def test_prepare_starts_the_template_ahead(engine: JobEngine) -> None:
    before = children()

    await engine.prepare("add")

    assert len(children() - before) == 1
    assert await (await engine.submit(story_jobs.add, 1)).result(timeout=30) == 3


async def test_a_module_that_can_not_be_forked_is_named_in_one_event(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "story_threads.py").write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "def work() -> int: return threading.active_count()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import story_threads  # type: ignore[import-not-found]

    definition = job(isolation="fork")(story_threads.work)
    engine = await start(jobs=[definition])
    warnings: list[ForkUnsafe] = []
    engine.subscribe(lambda event: warnings.append(event) if isinstance(event, ForkUnsafe) else None)

    for handle in await engine.submit_many([definition.bind(), definition.bind()]):
        assert await handle.result(timeout=30) == 2

    assert warnings == [ForkUnsafe("story_threads", "has 2 threads after its import")]


async def test_environments_are_removed_once_no_engine_uses_them(tmp_path: Path) -> None:
    """D30."""
    settings = Settings(environments=str(tmp_path / "environments"))
    engine = JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=[bare], settings=settings)

    async with engine:
        folder = Path(await (await engine.submit(bare)).result(timeout=60))
        while_used = await engine.prune_environments(unused_for=0)
    afterwards = await engine.prune_environments(unused_for=timedelta(0))

    assert folder.is_relative_to(tmp_path / "environments")
    assert (while_used, afterwards) == (0, 1)
    assert not folder.exists()


@PROCESSES
@pytest.mark.parametrize("removed", ["environments", "environments/*"])
async def test_an_environment_that_was_removed_under_a_running_engine_is_built_again(
    start: Start, tmp_path: Path, isolation: str, removed: str
) -> None:
    engine = await start(jobs=[bare], isolation=isolation, environments=str(tmp_path / "environments"))
    events: list[object] = []
    engine.subscribe(events.append)
    folder = await (await engine.submit(bare)).result(timeout=60)

    for each in tmp_path.glob(removed):
        shutil.rmtree(each, ignore_errors=True)

    assert await (await engine.submit(bare)).result(timeout=60) == folder
    assert Path(folder).exists()
    assert sum(isinstance(each, EnvironmentBuilt) for each in events) == 2
    assert not any(isinstance(each, StartPaused) for each in events)


async def test_a_time_that_is_none_is_refused_by_prune(engine: JobEngine) -> None:
    for odd in ("a day", -1, float("nan"), None):
        with pytest.raises(InvalidOptions, match="unused_for"):
            await engine.prune_environments(unused_for=odd)  # type: ignore[arg-type]


@pytest.mark.network
@PROCESSES
async def test_two_jobs_of_one_engine_use_two_versions_of_a_package(
    start: Start, tmp_path: Path, isolation: str
) -> None:
    """D25, D30."""
    engine = await start(jobs=[older, newer], isolation=isolation, environments=str(tmp_path / "environments"))
    events: list[object] = []
    engine.subscribe(events.append)

    one, other = await engine.submit(older), await engine.submit(newer)

    assert [await one.result(timeout=120), await other.result(timeout=120)] == ["0.6.1", "0.7.2"]
    assert sum(isinstance(each, EnvironmentBuilding) for each in events) == 2
    assert sum(isinstance(each, EnvironmentBuilt) for each in events) == 2


@pytest.mark.network
async def test_an_environment_that_can_not_be_built_fails_its_job_in_uvs_words_and_no_other(
    start: Start, tmp_path: Path
) -> None:
    """D30."""
    engine = await start(jobs=[absent, story_jobs.add], environments=str(tmp_path / "environments"))

    failing, other = await engine.submit(absent), await engine.submit(story_jobs.add, 1)

    assert await other.result(timeout=30) == 3
    with pytest.raises(JobFailed, match="no-package-has-this-name-of-ours was not found"):
        await failing.result(timeout=120)
    assert (await failing.job()).attempt == 1
    with pytest.raises(EnvironmentFailed, match="no-package-has-this-name-of-ours"):
        await engine.prepare("absent")

"""What jobs print and say of their progress, as their submitters see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from subprocess import Popen

import pytest
import story_jobs

from asyncjobs import (
    InvalidOptions,
    JobClient,
    JobEngine,
    JobNotFound,
    JobStatus,
    LogChunk,
    NotOpen,
    Settings,
    StoreUnavailable,
    current_job,
    job,
)
from asyncjobs.client import looking
from asyncjobs.telemetry import JobOutput
from memory import MEGABYTE, PeakMemory

Start = Callable[..., Awaitable[JobEngine]]


ENGINE_OF_ITS_OWN = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
import story_jobs
from asyncjobs import JobEngine

asyncio.run(JobEngine(sys.argv[1], jobs=[story_jobs]).run())
"""


@pytest.fixture(autouse=True)
def _no_slow_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows has to be woken: the look behind it comes too late for these tests."""
    monkeypatch.setattr(looking, "LOOK_AGAIN_SECONDS", 3600)


@pytest.fixture
def blocker(tmp_path: Path) -> Path:
    file = tmp_path / "blocker"
    file.touch()
    return file


async def text_of(logs: AsyncIterator[LogChunk]) -> str:
    async with asyncio.timeout(30):
        return "".join([chunk.text async for chunk in logs])


async def first_of(logs: AsyncIterator[LogChunk]) -> LogChunk:
    async with asyncio.timeout(30):
        return await anext(logs)


def is_followed(client: JobClient) -> bool:
    return bool(client._following._bookmarks or client._following._looking._waiters)


@pytest.mark.quiet
@pytest.mark.parametrize("isolation", ["fork", "spawn", "reuse"])
async def test_a_gigabyte_of_output_takes_a_bounded_part_of_the_engines_memory(start: Start, isolation: str) -> None:
    """F50."""
    engine = await start(isolation=isolation, max_output_bytes=1 * MEGABYTE)
    memory = PeakMemory()

    handle = await engine.submit(story_jobs.print_without_end, 1000 * MEGABYTE, b"a line of text\n")
    record = await handle.wait(timeout=600)

    text = await text_of(handle.logs())
    print(f"{isolation}: peak +{memory.growth / MEGABYTE:.1f} MB with {len(text)} characters kept")
    assert record.status is JobStatus.SUCCEEDED
    assert memory.growth < 100 * MEGABYTE
    assert text.startswith("the head\na line of text\n")
    assert text.endswith("the tail\n")
    assert "bytes of output dropped: above max_output" in text


async def test_logs_are_there_after_the_end(engine: JobEngine) -> None:
    """D18: the two streams apart, per attempt."""
    handle = await engine.submit(story_jobs.talk)
    record = await handle.wait(timeout=30)

    chunks = [chunk async for chunk in handle.logs()]

    assert {(each.attempt, each.stream, each.text) for each in chunks} == {
        (1, "stdout", "to stdout\n"),
        (1, "stderr", "to stderr\n"),
    }
    assert all(record.created_at <= each.written_at <= record.finished_at for each in chunks)  # type: ignore[operator]


async def test_everything_is_there_as_soon_as_the_end_is(engine: JobEngine) -> None:
    """The end is written after the last line."""
    handle = await engine.submit(story_jobs.print_lines, 20_000)
    await handle.wait(timeout=30)

    assert await text_of(handle.logs()) == "".join(f"line {number}\n" for number in range(20_000))


async def test_a_job_that_prints_nothing_has_no_logs(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.add, 1)
    await handle.wait(timeout=30)

    assert await text_of(handle.logs()) == ""
    assert await text_of(handle.logs(follow=True)) == ""


async def test_logs_are_followed_while_the_job_runs(engine: JobEngine, blocker: Path) -> None:
    handle = await engine.submit(story_jobs.talk_until, blocker)
    logs = handle.logs(follow=True)

    early = await first_of(logs)
    status = (await handle.job()).status
    blocker.unlink()

    assert (early.text, status) == ("begin 1\n", JobStatus.RUNNING)
    assert await text_of(logs) == "end 1\n"


async def test_logs_are_followed_from_a_second_client_on_the_same_file(start: Start, blocker: Path) -> None:
    client = await start(kind=JobClient)
    handle = await client.submit(story_jobs.talk_until, blocker)
    logs = handle.logs(follow=True)
    waiting = asyncio.create_task(first_of(logs))

    await start()
    early = await waiting
    blocker.unlink()

    assert early.text == "begin 1\n"
    assert await text_of(logs) == "end 1\n"


async def test_without_follow_the_logs_end_with_what_is_stored(engine: JobEngine, blocker: Path) -> None:
    handle = await engine.submit(story_jobs.talk_until, blocker)
    await first_of(handle.logs(follow=True))

    assert await text_of(handle.logs()) == "begin 1\n"

    blocker.unlink()


async def test_a_job_of_two_attempts_shows_both(engine: JobEngine, blocker: Path) -> None:
    """D18, D21"""
    handle = await engine.submit(story_jobs.talk_until, blocker, fail_first=True)
    following = asyncio.create_task(text_of(handle.logs(follow=True)))
    blocker.unlink()
    await handle.wait(timeout=30)

    assert await following == "begin 1\nbegin 2\nend 2\n"
    assert await text_of(handle.logs(attempt=1)) == "begin 1\n"
    assert await text_of(handle.logs(attempt=2)) == "begin 2\nend 2\n"
    assert await text_of(handle.logs(attempt=3, follow=True)) == ""


async def test_who_follows_one_attempt_is_done_when_that_has_ended(engine: JobEngine, blocker: Path) -> None:
    slow = story_jobs.talk_until.using(retry_delay=600, retry_max_delay=600)
    handle = await engine.submit(slow, blocker, fail_first=True)
    following = asyncio.create_task(text_of(handle.logs(attempt=1, follow=True)))

    blocker.unlink()

    assert await following == "begin 1\n"
    assert (await handle.job()).status is JobStatus.PENDING


async def test_an_interrupted_attempt_keeps_what_it_printed(start: Start, url: str, blocker: Path) -> None:
    """A stop comes between the line and the next writing."""
    async with JobEngine(url, jobs=[story_jobs], settings=Settings(stop_grace=0, kill_grace=0)) as first:
        said = asyncio.Event()
        first.subscribe(lambda event: said.set() if isinstance(event, JobOutput) else None)
        handle = await first.submit(story_jobs.talk_until, blocker)
        async with asyncio.timeout(30):
            await said.wait()

    client = await start(kind=JobClient)

    assert (await client.get(handle.id)).status is JobStatus.PENDING
    assert await text_of(client.logs(handle.id)) == "begin 1\n"


async def test_what_was_written_survives_a_kill_of_the_engine(
    start: Start, url: str, blocker: Path, start_python: Callable[..., Popen[str]]
) -> None:
    """kill -9; whoever follows goes on with the next attempt."""
    client = await start(kind=JobClient)
    handle = await client.submit(story_jobs.talk_until, blocker)
    killed = start_python(ENGINE_OF_ITS_OWN, url, Path(story_jobs.__file__).parent)
    logs = handle.logs(follow=True)
    await first_of(logs)
    killed.kill()
    await asyncio.to_thread(killed.wait, 30)

    kept = await text_of(handle.logs())
    await start()
    again = await first_of(logs)
    blocker.unlink()

    assert kept == "begin 1\n"
    assert (again.attempt, again.text) == (2, "begin 2\n")
    assert await text_of(logs) == "end 2\n"
    assert await text_of(handle.logs()) == "begin 1\nbegin 2\nend 2\n"


async def test_many_follow_one_job_and_each_has_all_of_it(engine: JobEngine, blocker: Path) -> None:
    handle = await engine.submit(story_jobs.talk_until, blocker)
    following = [asyncio.create_task(text_of(handle.logs(follow=True))) for _ in range(50)]
    await first_of(handle.logs(follow=True))

    blocker.unlink()

    assert await asyncio.gather(*following) == ["begin 1\nend 1\n"] * 50


async def test_followers_share_their_questions(
    engine: JobEngine, blocker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    news = engine._store.news
    monkeypatch.setattr(engine._store, "news", lambda bookmarks: asked.append(len(bookmarks)) or news(bookmarks))
    handles = [await engine.submit(story_jobs.wait_for, blocker) for _ in range(30)]

    following = [asyncio.create_task(text_of(handle.logs(follow=True))) for handle in handles]
    await asyncio.sleep(0)
    while not asked:
        await asyncio.sleep(0.005)

    assert asked[0] == 30
    blocker.unlink()
    await asyncio.gather(*following)


async def test_a_follower_that_stops_early_leaves_nothing_behind(engine: JobEngine, blocker: Path) -> None:
    handle = await engine.submit(story_jobs.talk_until, blocker)

    async for _chunk in handle.logs(follow=True):
        break

    assert not is_followed(engine)
    blocker.unlink()


async def test_a_follower_that_is_cancelled_leaves_nothing_behind_and_harms_no_other(
    engine: JobEngine, blocker: Path
) -> None:
    handle = await engine.submit(story_jobs.talk_until, blocker)
    logs, other = handle.logs(follow=True), handle.logs(follow=True)
    await asyncio.gather(first_of(logs), first_of(other))
    following = [asyncio.create_task(text_of(each)) for each in (logs, other)]
    while len(engine._following._bookmarks.get(handle.id, ())) < 2:
        await asyncio.sleep(0.005)

    following[0].cancel()
    await asyncio.wait(following[:1])
    blocker.unlink()

    assert await following[1] == "end 1\n"
    assert not is_followed(engine)


async def test_a_client_that_closes_tells_its_followers(start: Start, url: str, blocker: Path) -> None:
    await start()
    client = JobClient(url, jobs=[story_jobs])
    async with client:
        handle = await client.submit(story_jobs.talk_until, blocker)
        logs = handle.logs(follow=True)
        await first_of(logs)
        following = asyncio.create_task(text_of(logs))
        while not is_followed(client):
            await asyncio.sleep(0.005)

    with pytest.raises((NotOpen, StoreUnavailable)):
        await following
    with pytest.raises(NotOpen):
        handle.logs()
    blocker.unlink()


@pytest.mark.parametrize("follow", [False, True])
async def test_logs_of_a_job_that_is_not_there_are_not_found(engine: JobEngine, follow: bool) -> None:
    with pytest.raises(JobNotFound):
        await text_of(engine.logs("nobody", follow=follow))
    with pytest.raises(JobNotFound):
        await text_of(engine.logs("a\0b", follow=follow))


@pytest.mark.parametrize("attempt", [0, -1, True, "1", 2**31, 1.5])
async def test_an_attempt_that_can_be_none_is_refused(engine: JobEngine, attempt: object) -> None:
    with pytest.raises(InvalidOptions, match="attempt"):
        engine.logs("x", attempt=attempt)  # type: ignore[arg-type]


@pytest.mark.parametrize("follow", [False, True])
async def test_deleting_a_job_deletes_its_logs(engine: JobEngine, follow: bool) -> None:
    handle = await engine.submit(story_jobs.talk)
    await handle.wait(timeout=30)

    await engine.delete()

    with pytest.raises(JobNotFound):
        await text_of(handle.logs(follow=follow))
    with pytest.raises(JobNotFound):
        await handle.progress()


@job(isolation="inline")
async def say_all_at_once() -> None:
    current_job().progress(3, 4)
    current_job().update_details({"a": 1})


async def test_what_an_inline_job_says_is_there_at_its_end_though_it_waits_for_nothing(start: Start) -> None:
    engine = await start(jobs=[say_all_at_once])
    handle = await engine.submit(say_all_at_once)
    await handle.result(timeout=30)

    progress = await handle.progress()

    assert progress is not None
    assert (progress.completed, progress.total, progress.details) == (3, 4, {"a": 1})


async def test_a_job_that_says_nothing_has_no_progress(engine: JobEngine) -> None:
    handle = await engine.submit(story_jobs.add, 1)
    await handle.wait(timeout=30)

    assert await handle.progress() is None
    with pytest.raises(JobNotFound):
        await engine.progress("nobody")


async def test_output_that_the_store_refuses_keeps_no_job_from_its_end(
    engine: JobEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_arguments: object) -> bool:
        raise StoreUnavailable("not now")

    monkeypatch.setattr("asyncjobs.engine.worker.FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(engine._store, "note", refuse)

    handle = await engine.submit(story_jobs.talk)

    assert (await handle.wait(timeout=30)).status is JobStatus.SUCCEEDED

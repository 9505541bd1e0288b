"""What a job that takes all it can get leaves to the others, where its definition limits it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import jobs_for_tests as jobs
import light_jobs
import pytest
from bench import Bench, until

from asyncjobs import job
from asyncjobs.execution import Ended
from asyncjobs.model.outcome import Crashed, Failed, Succeeded

MEBIBYTE = 1024 * 1024
ROUNDS = 4
LONGEST_STRETCH = 10.0
HOGS = [jobs.hold_processes, jobs.hold_descriptors, jobs.hold_memory]


async def rate(bench: Bench, *, seconds: float) -> float:
    """Return how many quick jobs end in a second, two at a time."""
    end = time.monotonic() + seconds
    ended = 0

    async def one_after_another() -> None:
        nonlocal ended
        while time.monotonic() < end:
            await bench.run(light_jobs.nothing)
            ended += 1

    await asyncio.gather(one_after_another(), one_after_another())
    return ended / seconds


@asynccontextmanager
async def within_their_limits(bench: Bench, marks: Path) -> AsyncIterator[None]:
    """Have hogs at work meanwhile: with `nice=19`, they would have the processors to themselves."""
    marks.mkdir()
    running = [asyncio.create_task(bench.run(each, marks, timeout=600)) for each in HOGS]
    await until(lambda: len(list(marks.iterdir())) == len(HOGS))
    yield
    (marks / "enough").touch()
    assert [(await each).outcome for each in running] == [Succeeded("null")] * len(HOGS)


@asynccontextmanager
async def beyond_their_limits(bench: Bench, marks: Path) -> AsyncIterator[None]:
    """Have a bomb, a leak and a hog begin, which end by their limits soon."""
    running = asyncio.create_task(at_their_limits(bench, marks))
    yield
    await running


async def at_their_limits(bench: Bench, marks: Path) -> tuple[Ended, Ended, Ended]:
    """Run a fork bomb, a job that leaks descriptors and one that takes memory, each to the end by its limit."""
    marks.mkdir(exist_ok=True)
    return await asyncio.gather(
        bench.run(job(process_limit=20)(jobs.fork_bomb.function), marks),
        bench.run(job(open_files=64)(jobs.use_up_descriptors.function)),
        bench.run(job(memory_limit=100 * MEBIBYTE)(jobs.take_memory.function), 300 * MEBIBYTE),
    )


async def test_hogs_end_by_their_limits_and_a_neighbour_goes_on(process: Bench, marks: Path):
    """F56. With `inline` there are no limits: what a job takes, it takes from the application."""
    neighbour = asyncio.create_task(process.run(jobs.sleep_until, marks))
    await until((marks / "began").exists)

    (bomb, leak, hog), beside = await asyncio.gather(at_their_limits(process, marks), process.run(light_jobs.nothing))
    (marks / "enough").touch()

    assert isinstance(bomb.outcome, Crashed)
    assert bomb.outcome.reason.startswith("process limit of 20 reached")
    assert isinstance(leak.outcome, Failed)
    assert "Too many open files" in leak.outcome.error.message
    assert isinstance(hog.outcome, Failed)
    assert hog.outcome.error.class_name == "MemoryError"
    assert beside.outcome == Succeeded("null")
    assert (await neighbour).outcome == Succeeded('"late"')


@pytest.mark.quiet
@pytest.mark.parametrize(
    ("hogs", "least"),
    [pytest.param(beyond_their_limits, 0.9, id="beyond"), pytest.param(within_their_limits, 0.5, id="within")],
)
async def test_hogs_leave_their_neighbours_most_of_their_rate(
    process: Bench,
    tmp_path: Path,
    seconds: float,
    hogs: Callable[[Bench, Path], AbstractAsyncContextManager[None]],
    least: float,
):
    """F56, in the best of some rounds: what else the machine does in a stretch is no part of the promise."""
    seconds = min(seconds, LONGEST_STRETCH)
    ratios: list[float] = []
    await rate(process, seconds=1.0)
    for number in range(ROUNDS):
        calm = await rate(process, seconds=seconds)
        async with hogs(process, tmp_path / str(number)):
            beside = await rate(process, seconds=seconds)
        print(f"{process.isolation}: {calm:.0f} jobs/s, {beside:.0f} beside hogs: {beside / calm:.2f}")
        ratios.append(beside / calm)

    assert max(ratios) >= least

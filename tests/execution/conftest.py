"""A runner of each isolation; each leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bench import ENGINE, RUNNERS, Bench

from asyncjobs.execution.inside import tree

PROCESSES = [name for name in RUNNERS if name != "inline"]


@pytest.fixture(params=list(RUNNERS))
async def anywhere(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Every isolation."""
    async for bench in _bench(request.param):
        yield bench


@pytest.fixture(params=PROCESSES)
async def process(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Every isolation in which a job has a process."""
    async for bench in _bench(request.param):
        yield bench


@pytest.fixture
async def spawn() -> AsyncIterator[Bench]:
    async for bench in _bench("spawn"):
        yield bench


@pytest.fixture
async def fork() -> AsyncIterator[Bench]:
    async for bench in _bench("fork"):
        yield bench


@pytest.fixture
async def reuse() -> AsyncIterator[Bench]:
    async for bench in _bench("reuse"):
        yield bench


@pytest.fixture
async def inline() -> AsyncIterator[Bench]:
    async for bench in _bench("inline"):
        yield bench


async def _bench(isolation: str) -> AsyncIterator[Bench]:
    runner = RUNNERS[isolation]()
    before = await asyncio.to_thread(tree.descendants, os.getpid())  # of other tests' long-lived fixtures
    strangers = {each.pid for each in before}
    yield Bench(runner, isolation)
    await runner.close()
    now = await asyncio.to_thread(tree.descendants, os.getpid())
    left = [each.pid for each in now if each.pid not in strangers]
    assert not left, f"processes left behind: {left}"
    assert await asyncio.to_thread(tree.sweep, ENGINE, seconds=0) == 0, "processes of the engine left behind"


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """A folder in which a job leaves marks of what it did."""
    return tmp_path

"""A database for each test, a client of it, and processes that are ended whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import crash_jobs
import pytest
from crash_programs import Launcher, Programs, Work, gone

from asyncjobs import JobClient


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
async def client(database: str) -> AsyncIterator[JobClient]:
    """A client in the test's own process, which runs nothing."""
    async with JobClient(database, jobs=[crash_jobs]) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path_factory.mktemp("bytecode"))
    yield launcher
    launcher.close()


@pytest.fixture
async def programs(database: str, launcher: Launcher) -> AsyncIterator[Programs]:
    programs = Programs(database, launcher=launcher)
    yield programs
    await asyncio.gather(*(each.close() for each in programs.started))
    await gone(programs.engine_ids())


@pytest.fixture
def a_work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")

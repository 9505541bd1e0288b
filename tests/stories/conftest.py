"""An engine on a file of its own, closed at the end of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import story_jobs

from asyncjobs import JobClient, JobEngine, Settings

QUICK = {"retry_delay": 0.05, "retry_max_delay": 0.2, "kill_grace": 0.2, "stop_grace": 0.2}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return request.getfixturevalue("postgres_url")  # type: ignore[no-any-return]


@pytest.fixture
async def start(url: str) -> AsyncIterator[Callable[..., Awaitable[JobEngine]]]:
    """Open an engine (or with `kind=JobClient` a client) that the fixture closes."""
    async with AsyncExitStack() as stack:

        async def open_one(*, jobs: Any = (story_jobs,), kind: type[JobClient] = JobEngine, **settings: Any) -> Any:
            return await stack.enter_async_context(kind(url, jobs=jobs, settings=Settings(**{**QUICK, **settings})))

        yield open_one


@pytest.fixture
async def engine(start: Callable[..., Awaitable[JobEngine]]) -> JobEngine:
    return await start()

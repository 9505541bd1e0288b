"""One store for every contract test; another database joins by a line in DATABASES."""

import asyncio
import threading

import pytest

from builders import opened

DATABASES = ["sqlite", "postgresql"]


@pytest.fixture(params=DATABASES)
def address(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
async def store(address):
    async with opened(address) as store:
        yield store


@pytest.fixture
async def other_store(store, address):
    """A second store on the same database, as another process would have it."""
    async with opened(address) as other:
        yield other


@pytest.fixture(autouse=True)
async def _threads_have_ended():
    """Wait for the threads of connections, which call back into the test's loop."""
    yield
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 5)

"""A connection to PostgreSQL that is silent from some moment on: every call on it ends, and the next one works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from asyncjobs.errors import StoreAnswerLost, StoreDown, StoreUnreachable
from asyncjobs.store.postgresql import lines
from asyncjobs.store.postgresql.lines import Driver, Line, Source
from proxies import Proxy, proxy_to

SECONDS = 0.3


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    """A proxy in front of the test's database."""
    async with proxy_to(postgres_url) as proxy:
        yield proxy


@pytest.fixture
async def line(proxy: Proxy) -> AsyncIterator[Line]:
    """A line by way of the proxy, not opened yet."""
    source = Source(make_url(proxy.url).set(drivername="postgresql+asyncpg"), pooled=False)
    line = Line(source, prepare=prepare)
    yield line
    async with asyncio.timeout(30):
        await line.close()
        await source.dispose()


async def prepare(driver: Driver) -> None:
    await driver.execute("SELECT 'prepared'")


async def warm_up(driver: Driver) -> None:
    await driver.execute("SELECT 1")


async def work(driver: Driver) -> int:
    async with driver.transaction():
        return await driver.fetchval("SELECT 41 + 1")  # type: ignore[no-any-return]


@pytest.mark.parametrize("moment", [b"BEGIN", b"41 + 1", b"COMMIT"])
async def test_work_ends_in_time_whenever_the_connection_falls_silent(line: Line, proxy: Proxy, moment: bytes) -> None:
    """F32: what asyncpg does about a call that takes too long is to ask the server to stop, and to wait."""
    await line.run(warm_up)
    proxy.swallow_once_said(moment)

    async with asyncio.timeout(30):
        with pytest.raises(StoreAnswerLost, match="does not answer"):
            await line.run(work, seconds=SECONDS)

        assert await line.run(work) == 42


@pytest.mark.parametrize("moment", [b"version", b"standard_conforming_strings", b"prepared"])
async def test_opening_ends_in_time_whenever_the_connection_falls_silent(
    line: Line, proxy: Proxy, moment: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "OPEN_SECONDS", SECONDS)
    proxy.swallow_once_said(moment)

    async with asyncio.timeout(30):
        with pytest.raises(StoreUnreachable, match="can't be reached"):
            await line.run(work)
        monkeypatch.undo()

        assert await line.run(work) == 42


@pytest.mark.parametrize("where", ["@127.0.0.1:{port}/x", "@localhost:{port}/x", "@/x?host={folder}&port={port}"])
async def test_a_server_that_is_not_up_is_known_by_the_refusal(
    where: str, tmp_path: Path, unused_tcp_port: int
) -> None:
    """F30: for everybody, so that nobody takes anybody for dead there."""
    url = "postgresql+asyncpg://postgres" + where.format(port=unused_tcp_port, folder=tmp_path)
    line = Line(Source(make_url(url), pooled=False))

    with pytest.raises(StoreDown, match="can't be reached"):
        await line.run(work)


async def test_a_connection_that_is_cut_as_it_is_opened_tells_nothing_of_the_server(line: Line, proxy: Proxy) -> None:
    """As by a proxy that does not reach it, though others may."""
    proxy.refuses = True

    with pytest.raises(StoreUnreachable) as refused:
        await line.run(work)

    assert not isinstance(refused.value, StoreDown)


async def test_a_caller_who_has_gone_holds_a_silent_connection_no_longer_than_its_time(
    line: Line, proxy: Proxy
) -> None:
    await line.run(warm_up)
    proxy.swallow_once_said(b"41 + 1")
    call = asyncio.create_task(line.run(work, seconds=SECONDS))
    await proxy.hears(b"41 + 1")
    call.cancel()

    async with asyncio.timeout(30):
        await asyncio.wait([call])
        assert await line.run(work) == 42


async def test_closing_waits_for_a_silent_connection_for_a_second_only(line: Line, proxy: Proxy) -> None:
    await line.run(warm_up)
    proxy.swallow()
    call = asyncio.create_task(line.run(work))
    await asyncio.sleep(0.05)

    began = time.monotonic()
    async with asyncio.timeout(30):
        await line.close()
        with pytest.raises(StoreAnswerLost):
            await call

    assert time.monotonic() - began < 10

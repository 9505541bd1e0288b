"""A TCP proxy in front of a PostgreSQL, which cuts, swallows and refuses at moments that a test chooses.

It reads as much of the protocol as it needs: where an answer ends, and whether it leaves a transaction open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy.engine import make_url

BOUND = 30.0
_PIECE = 1 << 16
_READY = ord("Z")
_IDLE = b"I"


@dataclass(slots=True, eq=False)
class Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    requests: bytearray = field(default_factory=bytearray)
    """All that the client has said."""
    swallowed: bool = False
    doomed: bool = False
    """Its answers are withheld, and it is cut once the answer is complete and no transaction is open."""
    _unread: bytearray = field(default_factory=bytearray)

    def said(self, *words: bytes) -> bool:
        return all(word in self.requests for word in words)

    def ends_an_answer(self, data: bytes) -> bool:
        """Whether the server is done with a request, and has committed it."""
        self._unread += data
        idle = False
        while len(self._unread) >= 5:
            length = int.from_bytes(self._unread[1:5], "big") + 1
            if len(self._unread) < length:
                break
            idle = self._unread[0] == _READY and bytes(self._unread[5:6]) == _IDLE
            del self._unread[:length]
        return idle

    def cut(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Forwards connections to a server, until it is told otherwise."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self.links: list[Link] = []
        self.refuses = False
        self.cuts = 0
        self._cut_at: Callable[[bytes, bytes], bool] | None = None
        self._swallow_at: Callable[[bytes], bool] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()
        self._listening: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The server's address, by way of the proxy."""
        assert self._listening is not None
        port = self._listening.sockets[0].getsockname()[1]
        return self._url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)

    def leads_to(self, url: str) -> None:
        """Forward new connections to another server; those there are stay as they are."""
        self._url = make_url(url)

    def cut_the_answer_to(self, *words: bytes) -> None:
        """Cut the next connection whose client says all this, once the server has done what it was asked for."""
        self._cut_at = lambda request, _answer: bool(request) and all(word in request for word in words)

    def cut_the_answer_with(self, *words: bytes) -> None:
        """Cut the next connection whose server answers with all this, in place of the answer."""
        self._cut_at = lambda _request, answer: bool(answer) and all(word in answer for word in words)

    def cut_all(self) -> None:
        for link in list(self.links):
            link.cut()

    def swallow(self, *words: bytes) -> list[Link]:
        """Take what comes over the connections whose clients have said this, and pass nothing on: half-open."""
        swallowed = [link for link in self.links if link.said(*words)]
        for link in swallowed:
            link.swallowed = True
        return swallowed

    def swallow_once_said(self, *words: bytes) -> None:
        """From the moment when a client says all this, pass nothing of its connection on: half-open."""
        self._swallow_at = lambda request: all(word in request for word in words)

    async def hears(self, *words: bytes, times: int = 1) -> None:
        """Wait until so many connections, open or not any more, have said this."""
        async with asyncio.timeout(BOUND), self._news:
            await self._news.wait_for(lambda: sum(link.said(*words) for link in self._every) >= times)

    async def has_cut(self, times: int = 1) -> None:
        """Wait for a cut that was asked for."""
        async with asyncio.timeout(BOUND), self._news:
            await self._news.wait_for(lambda: self.cuts >= times)

    async def _start(self) -> None:
        self._every: list[Link] = []
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _stop(self) -> None:
        assert self._listening is not None
        self._listening.close()
        self.cut_all()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.refuses:
            client.transport.abort()
            return
        try:
            server_reader, server = await asyncio.open_connection(self._url.host, self._url.port)
        except OSError:
            client.transport.abort()
            return
        link = Link(client, server)
        self.links.append(link)
        self._every.append(link)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(link, client_reader))
                both.create_task(self._answer(link, server_reader))
        finally:
            self.links.remove(link)
            link.cut()

    async def _forward(self, link: Link, reader: asyncio.StreamReader) -> None:
        while data := await _some(reader):
            link.requests += data
            if self._cut_at is not None and self._cut_at(data, b""):
                self._doom(link)
            if self._swallow_at is not None and self._swallow_at(data):
                self._swallow_at = None
                link.swallowed = True
            async with self._news:
                self._news.notify_all()
            if not link.swallowed:
                link.server.write(data)
        if not link.swallowed:
            link.cut()

    async def _answer(self, link: Link, reader: asyncio.StreamReader) -> None:
        while data := await _some(reader):
            if self._cut_at is not None and self._cut_at(b"", data):
                self._doom(link)
            if link.doomed:
                if link.ends_an_answer(data):
                    link.cut()
                    self.cuts += 1
                    async with self._news:
                        self._news.notify_all()
            elif not link.swallowed:
                link.client.write(data)
        if not link.swallowed:
            link.cut()

    def _doom(self, link: Link) -> None:
        link.doomed = True
        self._cut_at = None


async def _some(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(_PIECE)
    except OSError:
        return b""


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[Proxy]:
    """Run a proxy in front of the server at an address, for the time of the block."""
    proxy = Proxy(url)
    await proxy._start()
    try:
        yield proxy
    finally:
        await proxy._stop()

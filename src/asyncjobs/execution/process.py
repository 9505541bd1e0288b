"""One job's process as the engine sees it, from its start to the closing of the last thing of it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncjobs.execution import NotStarted
from asyncjobs.execution.channel import Capture, Channel

if TYPE_CHECKING:
    from asyncjobs.execution.templates import Template

FIRST_LOOK = 0.02
KILL_BOUND = 5.0
"""Seconds in which a killed process is expected to be gone."""


class Ends(NamedTuple):
    """One side of what connects the engine with a process: a socket, the ends of two pipes."""

    channel: socket.socket
    stdout: int
    stderr: int

    def close(self) -> None:
        """Close all three."""
        self.channel.close()
        os.close(self.stdout)
        os.close(self.stderr)


def connected_ends() -> tuple[Ends, Ends]:
    """Return the engine's side and the process's.

    Raises:
        OSError: there is no descriptor left.
    """
    near, far = socket.socketpair()
    pipes: list[int] = []
    try:
        pipes += os.pipe()
        pipes += os.pipe()
    except OSError:
        near.close()
        far.close()
        for each in pipes:
            os.close(each)
        raise
    return Ends(near, pipes[0], pipes[2]), Ends(far, pipes[1], pipes[3])


def seconds_left(deadline: float | None, grace: float) -> dict[str, Any]:
    """Return what a template is told of a deadline by the loop's clock: it has a clock of its own."""
    seconds = None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
    return {"seconds": seconds, "grace": grace}


class JobProcess:
    """A process that waits for a request on its channel; its template starts, kills and reaps it.

    `ended` is done when the process is over, and `news` when there is anything to look at: a reply,
    garbage, the end, or somebody's `wake`. `late` says that its template had to end it at its
    deadline, `many` that it killed it for the number of its processes, `orphaned` that it died with
    its template, `refused` why it never began.
    """

    def __init__(self, template: Template, n: int) -> None:
        loop = asyncio.get_running_loop()
        self.template = template
        self.n = n
        self.began = self.used = loop.time()
        self.pid: int | None = None
        self.returncode: int | None = None
        self.peak_rss: int | None = None
        self.cpu_time: float | None = None
        self.swept = 0
        self.runs = 0
        self.first_rss: int | None = None
        self._listening: asyncio.TimerHandle | None = None
        self.killed = self.late = self.many = self.orphaned = False
        self.refused: str | None = None
        self.news: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.channel: Channel
        self.capture: Capture

    def connect(self, *, payload_limit: int) -> Ends:
        """Make the channel and the pipes, and return their other ends.

        Raises:
            NotStarted: there is no descriptor left.
        """
        try:
            near, far = connected_ends()
        except OSError as error:
            raise NotStarted(f"no process could be started: {error}") from error
        self.channel = Channel(near.channel, payload_limit=payload_limit, on_news=self.wake)
        self.capture = Capture(near.stdout, near.stderr)
        return far

    @property
    def usable(self) -> bool:
        """Whether it waits for a request, as far as can be seen."""
        if not self.channel.listening:
            self.channel.drain()
        return not (self.ended.done() or self.channel.ended or self.channel.problem or self.channel.reply)

    def wake(self, _: object = None) -> None:
        """Let whoever awaits `news` look around."""
        if not self.news.done():
            self.news.set_result(None)

    def send(
        self, request: bytes, *, on_note: Callable[[bytes], None], output: Callable[[str, str], None], limit: int
    ) -> None:
        """Send a request. The loop listens once the attempt has gone on for a moment.

        Most are over before that: what they have said and printed is read at their end, at half the price.
        """
        self.runs += 1
        self.capture.begin_attempt(output, limit=limit)
        self.channel.send(request, on_note=on_note)
        if not self.channel.listening:
            self._listening = asyncio.get_running_loop().call_later(FIRST_LOOK, self.listen)

    def listen(self) -> None:
        """Have the loop read what the process says and prints, as it comes."""
        self.channel.listen()
        self.capture.listen()

    def over(self, news: dict[str, Any]) -> None:
        """Note how the process ended, as its template has reported it."""
        self.pid = news["pid"]
        self.returncode = os.waitstatus_to_exitcode(news["status"])
        self.peak_rss = news["rss"]
        self.cpu_time = news["cpu"]
        self.swept = news.get("swept", 0)
        self.late = "late" in news
        self.many = "many" in news
        self._end()

    def refuse(self, why: str) -> None:
        """Note that the process was never there."""
        self.refused = why
        self._end()

    def orphan(self) -> None:
        """Note that the template has died, and this process with it."""
        if not self.ended.done():
            self.orphaned = True
            self._end()

    def _end(self) -> None:
        try:
            self.channel.drain()
        finally:  # whoever waits for the end has no other sign of it
            self.channel.ended = True
            if not self.ended.done():
                self.ended.set_result(None)
            self.wake()

    def again(self) -> None:
        """Make ready for the next request, the last one's reply being read."""
        self.channel.forget_reply()
        self.used = asyncio.get_running_loop().time()
        self.news = asyncio.get_running_loop().create_future()

    async def wait(self, seconds: float) -> bool:
        """Wait for the end of the process, and return whether it has come."""
        if not self.ended.done():
            await asyncio.wait((self.ended,), timeout=seconds)
        return self.ended.done()

    def keep_deadline(self, deadline: float | None, *, grace: float) -> None:
        """Have the template end the process at a time of the loop's clock; None calls that off."""
        self.template.tell(self, "deadline", **seconds_left(deadline, grace))

    def limit_processes(self, most: int | None) -> None:
        """Have the template kill the job once it has more processes than that; None calls that off."""
        self.template.tell(self, "limit", processes=most)

    def ask(self, *, grace: float) -> None:
        """Have SIGTERM sent to the process and what is in its group; the template kills after `grace`."""
        self.template.tell(self, "ask", grace=grace)
        self.channel.finish()

    async def kill(self) -> bool:
        """Have the process killed with all its descendants; return whether it is gone in time.

        A template that listens no more is killed too, with all its processes.
        """
        if not self.ended.done():
            self.killed = True
            self.template.tell(self, "kill")
        if not await self.wait(KILL_BOUND) and not await self.template.responds():
            await self.template.kill()
        return self.ended.done()

    async def sweep(self) -> int:
        """Have killed whatever this process left behind, and return how many that were."""
        return await self.template.sweep(self)

    def close(self) -> None:
        """Read what was printed, and close the channel and the pipes; twice is once."""
        if self._listening is not None:
            self._listening.cancel()
        self.channel.close()
        self.capture.close()

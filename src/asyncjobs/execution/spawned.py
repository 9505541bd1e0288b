"""One process of ours, from its start to the closing of the last thing that belongs to it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import ExitStack
from typing import cast

from asyncjobs.execution import NotStarted, tree
from asyncjobs.execution.channel import Capture, Channel
from asyncjobs.threads import in_thread

KILL_BOUND = 5.0
"""Seconds in which a killed process is expected to be gone."""

_CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
# child.py as a module: its compiled form is used. Run as a script it would be compiled each time.
_BOOTSTRAP = (
    "import sys;"
    "from _frozen_importlib_external import SourceFileLoader as L;"
    "n='_asyncjobs_child';p,f,e=sys.argv[1:];"
    "m=sys.modules[n]=type(sys)(n);m.__file__=p;L(n,p).exec_module(m);"
    "m.main(int(f),int(e))"
)


class SpawnedProcess(asyncio.SubprocessProtocol):
    """A fresh interpreter that waits for a request on its channel.

    `ended` is done when the process is over, and `news` when there is anything to look at: a reply,
    garbage, the end, or somebody's `wake`.
    """

    def __init__(self, token: str, environ: dict[str, str]) -> None:
        loop = asyncio.get_running_loop()
        self.token = token
        self.environ = environ
        self.pid = 0
        self.started = 0.0
        self.returncode: int | None = None
        self.peak_rss: int | None = None
        self.cpu_time: float | None = None
        self.killed = False
        self.news: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.channel: Channel
        self.capture: Capture
        self._transport: asyncio.SubprocessTransport | None = None
        self._given_up = False

    @classmethod
    async def start(cls, token: str, *, payload_limit: int, output_limit: int) -> SpawnedProcess:
        """Start a process; when that fails or is cancelled, nothing of it remains.

        Raises:
            NotStarted: there is no process, descriptor, memory or thread left for it, or no interpreter.
        """
        process = cls(token, dict(os.environ))
        with ExitStack() as ours, ExitStack() as theirs:
            try:
                near, far = socket.socketpair()
                ours.callback(near.close)
                theirs.callback(far.close)
                readers: list[int] = []
                writers: list[int] = []
                for _ in ("stdout", "stderr"):
                    reader, writer = os.pipe()
                    ours.callback(os.close, reader)
                    theirs.callback(os.close, writer)
                    readers.append(reader)
                    writers.append(writer)
                await process._execute(far.fileno(), *writers)
            except (OSError, RuntimeError) as error:
                raise NotStarted(f"no process could be started: {error}") from error
            ours.pop_all()
        process.channel = Channel(near, payload_limit=payload_limit, on_news=process.wake)
        process.capture = Capture(*readers, limit=output_limit)
        return process

    async def _execute(self, channel: int, stdout: int, stderr: int) -> None:
        arguments = (*_interpreter_options(), "-c", _BOOTSTRAP, _CHILD, str(channel), str(os.getpid()))
        try:
            # `create_subprocess_exec` without its streams, which nobody would read.
            await asyncio.get_running_loop().subprocess_exec(
                lambda: self,
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**self.environ, tree.TOKEN_VARIABLE: self.token},
                pass_fds=(channel,),
                start_new_session=True,
            )
        except BaseException:
            self._given_up = True
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the process that was started; called by the loop."""
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is no subclass
        self.pid = self._transport.get_pid()
        if self._given_up:  # it runs, but the loop could not watch it: no thread or descriptor was left
            self._transport.close()
            process = self._transport.get_extra_info("subprocess")
            if process is not None:
                process.kill()
                process.wait()
            return
        self.started = tree.start_time(self.pid) or 0.0

    def process_exited(self) -> None:
        """Note how the process ended; called by the loop."""
        assert self._transport is not None
        self.returncode = self._transport.get_returncode()
        self._transport.close()
        if hasattr(self, "channel"):
            self.channel.drain()
        if not self.ended.done():
            self.ended.set_result(None)
        self.wake()

    def wake(self, _: object = None) -> None:
        """Let whoever awaits `news` look around."""
        if not self.news.done():
            self.news.set_result(None)

    async def wait(self, seconds: float) -> bool:
        """Wait for the end of the process, and return whether it has come."""
        if not self.ended.done():
            await asyncio.wait((self.ended,), timeout=seconds)
        return self.ended.done()

    def ask(self) -> None:
        """Send SIGTERM to the process and what is in its group."""
        if self.returncode is None and tree.is_alive(self.pid, self.started):
            try:
                os.killpg(self.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass  # it was faster

    async def kill(self) -> bool:
        """Kill the process with all its descendants; return whether it is gone within `KILL_BOUND`."""
        if self.returncode is None:
            self.killed = True
            try:
                await in_thread(self._measure_and_kill, name=f"kill {self.pid}")
            except RuntimeError:  # no thread to be had: better a short block than a process that lives on
                self._measure_and_kill()
        return await self.wait(KILL_BOUND)

    async def sweep(self) -> int:
        """Kill what carries this process's token (macOS: its group), and return how many that were."""
        if not tree.LINUX:
            tree.kill_group(self.pid)
            return 0
        try:
            return await in_thread(tree.sweep, self.token, name=f"sweep {self.pid}")
        except RuntimeError:
            return tree.sweep(self.token)
        except OSError:  # no descriptor left to read /proc with
            return 0

    def close(self) -> None:
        """Read what was printed, and close the channel and the pipes; twice is once."""
        self.channel.close()
        self.capture.close()

    def _measure_and_kill(self) -> None:
        try:
            process = tree.read_process(self.pid)
            if process is not None and process.started == self.started:
                self.peak_rss = tree.peak_memory(self.pid)
                self.cpu_time = process.cpu_time
            tree.kill_tree(self.pid, self.started)
        except OSError:  # no descriptor left to read /proc with
            os.kill(self.pid, signal.SIGKILL)


def _interpreter_options() -> list[str]:
    """Return the options with which this interpreter runs, as far as they concern a job."""
    options = ["-I", "-S"]
    if sys.flags.optimize:
        options.append("-" + "O" * sys.flags.optimize)
    for name, value in sys._xoptions.items():
        options += ["-X", name if value is True else f"{name}={value}"]
    for each in sys.warnoptions:
        options += ["-W", each]
    return options

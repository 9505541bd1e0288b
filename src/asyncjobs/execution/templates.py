"""`Template`: the engine's side of a template process.

    start ─> ready ─> begin a process, any number of times ─> close
                            │
                            └ deadline, ask, kill, sweep ─> ended

The template's own process is started by the loop, in the loop's thread: its parent-death signal fires
when the thread that forked it ends.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import sys
from dataclasses import dataclass, field
from typing import Any, cast

from asyncjobs.codec import loads
from asyncjobs.execution import NotExecutable, NotStarted
from asyncjobs.execution.channel import Capture
from asyncjobs.execution.environments.uv import is_passing
from asyncjobs.execution.inside import tree
from asyncjobs.execution.inside.wire import CHUNK, Decoder, FrameError
from asyncjobs.execution.orders import Orders
from asyncjobs.execution.process import KILL_BOUND, Ends, JobProcess, connected_ends, seconds_left
from asyncjobs.threads import in_thread

ANSWER_BOUND = 6.0
"""Seconds in which a template answers, however many processes there are to look at."""
_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inside", "template.py")
# As a module: its compiled form is used. Run as a script it would be compiled each time.
_BOOTSTRAP = (
    "import sys;"
    "from _frozen_importlib_external import SourceFileLoader as L;"
    "n,p,f,e=sys.argv[1:];"
    "m=sys.modules[n]=type(sys)(n);m.__file__=p;L(n,p).exec_module(m);"
    "m.main(int(f),int(e))"
)
_CHILD_MODULE = "_asyncjobs_child"
_CHILD = os.path.join(os.path.dirname(_FILE), "child.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a template is made of.

    `python` is its interpreter; `setup` what that needs to look like the engine's (JSON text), and
    `target` the module it imports ahead, with the variables `env` in its environment; `likely` is the
    function of the first job, which others of the module may share the template with. A `fresh` one
    forks processes that execute an interpreter of their own; then, and without a `target`, the setup is
    the jobs' business.
    """

    python: str
    setup: str
    target: str | None = None
    likely: str = field(default="", compare=False)
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """What a template says when it can be used: why its import failed, its threads, its files."""

    problem: str | None
    threads: int
    files: tuple[str, ...]


class Template(asyncio.SubprocessProtocol):
    """A running template process.

    `ready` is done when it can be used, `gone` when it has ended.
    """

    def __init__(self, recipe: Recipe, token: str, *, payload_limit: int) -> None:
        loop = asyncio.get_running_loop()
        self.recipe = recipe
        self.token = token
        self.environ = {**os.environ, **dict(recipe.env)}
        self.began = loop.time()
        self.started = 0
        self.ready: asyncio.Future[Ready] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._payload_limit = payload_limit
        self._numbers = itertools.count(1)
        self._processes: dict[int, JobProcess] = {}
        self._sweeps: dict[int, asyncio.Future[int]] = {}
        self._swept: asyncio.Task[int] | None = None
        self._decoder = Decoder(0)
        self._closing = self._given_up = False
        self._process_began: float | None = None
        self._transport: asyncio.SubprocessTransport | None = None
        self._control: socket.socket
        self._orders: Orders
        self._capture: Capture

    @classmethod
    async def start(cls, recipe: Recipe, token: str, *, payload_limit: int) -> Template:
        """Start a template; when that fails or is cancelled, nothing of it remains.

        Raises:
            NotStarted: there is no process, descriptor, memory or thread left for it, or no interpreter.
            NotExecutable: there is an interpreter, which can't be executed.
        """
        template = cls(recipe, token, payload_limit=payload_limit)
        try:
            near, far = connected_ends()
            try:
                await template._execute(far)
            except BaseException:
                near.close()
                raise
            finally:
                far.close()
        except RuntimeError as error:
            raise NotStarted(f"no process could be started: {error}") from error
        except OSError as error:
            # One that is missing may be about to be replaced by a newer one, or its environment built again.
            if is_passing(error) or error.errno == errno.ENOENT:
                raise NotStarted(f"no process could be started: {error}") from error
            raise NotExecutable(f"{recipe.python} can't be executed: {error.strerror or error}") from error
        template._connect(near)
        template._orders.tell(
            {"setup": None, "function": recipe.likely, **(loads(recipe.target) if recipe.target else {})}
        )
        return template

    def _connect(self, near: Ends) -> None:
        self._control = near.channel
        self._control.setblocking(False)
        self._orders = Orders(self._control, on_broken=self.end)
        self._capture = Capture(near.stdout, near.stderr)
        self._capture.listen()
        self._loop.add_reader(self._control.fileno(), self._readable)
        if self.gone.done():  # it was faster
            self._disconnect()

    def _disconnect(self) -> None:
        self._readable()
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self._capture.close()

    async def _execute(self, far: Ends) -> None:
        arguments = (*interpreter_options(), "-c", _BOOTSTRAP, "_asyncjobs_template", _FILE)
        try:
            # `create_subprocess_exec` without its streams, which nobody would read.
            transport, _ = await self._loop.subprocess_exec(
                lambda: self,
                self.recipe.python,
                *arguments,
                str(far.channel.fileno()),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=far.stdout,
                stderr=far.stderr,
                env={**self.environ, tree.TOKEN_VARIABLE: self.token},
                pass_fds=(far.channel.fileno(),),
                start_new_session=True,
            )
            if self._transport is None:  # where tasks are eager, it is noted only afterwards
                self._note(transport)
        except BaseException:
            self._given_up = True
            raise

    def _note(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is no subclass
        self._process_began = tree.start_time(self._transport.get_pid())

    # --- called by the loop ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the process that was started; where tasks are eager, that is done by now."""
        if self._transport is None:
            self._note(transport)
        if self._given_up:  # it runs, but the loop could not watch it: no thread or descriptor was left
            transport.close()
            process = transport.get_extra_info("subprocess")
            if process is not None:
                process.kill()
                process.wait()

    def process_exited(self) -> None:
        """Note that the process is over, and with it all that it had forked."""
        assert self._transport is not None
        self._transport.close()
        if hasattr(self, "_control"):
            self._disconnect()
        if not self.gone.done():
            self.gone.set_result(None)
        for each in list(self._processes.values()):
            each.orphan()
        self._processes.clear()
        for waiting in self._sweeps.values():
            if not waiting.done():
                waiting.set_result(0)

    def _readable(self) -> None:
        try:
            data = self._control.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._control.fileno())
            return
        try:
            frames = self._decoder.feed(data)
        except FrameError:  # the module that it imports has found the descriptor and writes to it
            self.end()
            return
        for header, _ in frames:
            self._take(loads(header.decode()))

    def _take(self, news: dict[str, Any]) -> None:
        match news["is"]:
            case "ended":
                process = self._processes.pop(news["n"], None)
                if process is not None:
                    process.over(news)
                self._close_when_idle()
            case "failed":
                self._refused(news["n"], news["error"])
            case "swept":
                waiting = self._sweeps.get(news["n"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(news["count"])
            case _:
                self.ready.set_result(Ready(news["problem"], news["threads"], tuple(news["files"])))

    # --- processes ------------------------------------------------------------------------------

    @property
    def stderr_tail(self) -> str:
        """The last of what it has written to stderr."""
        return self._capture.stderr_tail

    def begin_ahead(self) -> JobProcess:
        """Have a process forked that waits for a request, and return it at once.

        Raises:
            NotStarted: there is no descriptor left, or the template is gone.
        """
        return self._begin({"do": "start", "ahead": True})

    def begin(self, deadline: float | None, *, grace: float) -> JobProcess:
        """Have a process forked that is to end at a time of the loop's clock, and return it at once.

        Raises:
            NotStarted: there is no descriptor left, or the template is gone.
        """
        return self._begin({"do": "start", **({} if deadline is None else seconds_left(deadline, grace))})

    def _begin(self, order: dict[str, Any]) -> JobProcess:
        if self.gone.done() or self._closing:
            raise NotStarted("its template has just ended")
        process = JobProcess(self, next(self._numbers))
        n = order["n"] = process.n
        if self.recipe.fresh:
            order["execute"] = [self.recipe.python, *interpreter_options(), "-c", _BOOTSTRAP, _CHILD_MODULE, _CHILD]
        ends = process.connect(payload_limit=self._payload_limit)
        self._processes[n] = process
        self._orders.begin(order, ends, on_refused=lambda why: self._refused(n, why))
        self.started += 1
        return process

    def _refused(self, n: int, why: str) -> None:
        process = self._processes.pop(n, None)
        if process is not None:
            process.refuse(why)

    def tell(self, process: JobProcess, order: str, **details: Any) -> None:
        """Send an order about a process; a template that takes none is ended, with all its processes."""
        if not self.gone.done() and process.n in self._processes:
            self._orders.tell({"do": order, "n": process.n, **details})

    async def sweep(self, process: JobProcess) -> int:
        """Have killed whatever an ended process left behind; return how many that were."""
        swept = await self._asked_to_sweep(process.n)
        if not self.gone.done():
            return swept or 0
        if self._swept is None:  # once for all processes that died with it
            self._swept = self._loop.create_task(self._sweep_by_token(), name=f"sweep {self.token}")
        return await asyncio.shield(self._swept)

    async def responds(self) -> bool:
        """Return whether it still listens to orders, or has ended."""
        return await self._asked_to_sweep(0) is not None or self.gone.done()

    async def _asked_to_sweep(self, n: int) -> int | None:
        if self.gone.done():
            return None
        answer: asyncio.Future[int] = self._loop.create_future()
        self._sweeps[n] = answer
        try:
            self._orders.tell({"do": "sweep", "n": n})
            await asyncio.wait((answer,), timeout=ANSWER_BOUND)
            return answer.result() if answer.done() else None
        finally:
            self._sweeps.pop(n, None)

    async def _sweep_by_token(self) -> int:
        try:
            return await in_thread(tree.sweep, self.token, name=f"sweep {self.token}")
        except RuntimeError:  # no thread to be had
            return tree.sweep(self.token)
        except OSError:  # no descriptor left to read /proc with
            return 0

    # --- its end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Begin no more; end as soon as its processes have."""
        self._closing = True
        self._close_when_idle()

    def end(self) -> None:
        """End it now, and all its processes: it kills them when its channel is closed."""
        self._closing = True
        if not self.gone.done():
            try:
                self._control.shutdown(socket.SHUT_RDWR)  # forked copies of this process keep it open
            except OSError:
                pass

    async def see_out(self, seconds: float) -> None:
        """Wait for the end, and kill it with all below when that does not come in time."""
        if not self.gone.done():
            await asyncio.wait((self.gone,), timeout=seconds)
        if not self.gone.done():
            await self.kill()

    async def kill(self) -> None:
        """Kill it with all below it."""
        self._closing = True
        if self.gone.done() or self._transport is None:
            return
        # Whatever watches it for the loop may have reaped it already: its id may be a stranger's by now.
        pid, started = self._transport.get_pid(), self._process_began
        if started is not None:
            try:
                await in_thread(tree.kill_tree, pid, started, name=f"kill {pid}")
            except RuntimeError:  # no thread to be had
                tree.kill_tree(pid, started)
        await asyncio.wait((self.gone,), timeout=KILL_BOUND)

    def _close_when_idle(self) -> None:
        if self._closing and not self._processes:
            self.end()


def interpreter_options() -> list[str]:
    """Return the options with which this interpreter runs, as far as they concern a job."""
    options = ["-I", "-S"]
    if sys.flags.optimize:
        options.append("-" + "O" * sys.flags.optimize)
    # By the environment or a call, too: the job's interpreter reads no variables.
    chosen: dict[str, str | bool] = {"int_max_str_digits": str(sys.get_int_max_str_digits())}
    chosen |= {name: True for name, is_set in (("utf8", sys.flags.utf8_mode), ("dev", sys.flags.dev_mode)) if is_set}
    for name, value in (chosen | sys._xoptions).items():
        options += ["-X", name if value is True else f"{name}={value}"]
    for each in sys.warnoptions:
        options += ["-W", each]
    return options

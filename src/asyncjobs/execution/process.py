"""`SpawnRunner`: each attempt in a fresh interpreter of its own.

    take a standby, or start one ── request ──> the job runs ── reply ──> it exits
                                                  │
                         deadline, or asked to end│ SIGTERM to its group, a grace,
                                                  └ SIGKILL to its tree, a sweep by token

The first of reply, end, deadline and question decides the outcome; what comes later changes nothing.
An attempt is over when its process is, so nothing here waits for a pipe: a grandchild that holds one
open, or keeps the channel, delays nobody. A result counts only with the whole reply *and* exit code
0, since the reply is the last thing that a process does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from asyncjobs.execution import Asked, Ended, Notes, NotStarted, tree
from asyncjobs.execution.replies import Reply, crashed, described_end
from asyncjobs.execution.spawned import SpawnedProcess
from asyncjobs.execution.standbys import Standbys
from asyncjobs.execution.wire import FrameError, pack
from asyncjobs.model.job import JobError
from asyncjobs.model.outcome import Failed, Outcome, ProcessReport, TimedOut

if TYPE_CHECKING:
    from asyncjobs.definition import JobDefinition
    from asyncjobs.model.job import Job
    from asyncjobs.settings import Settings

R = TypeVar("R")
_EXIT_BOUND = 2.0  # seconds for the exit after the reply, though the grace be shorter
_MOST_STARTS = 3  # for one attempt: processes may die before they have read their request


class SpawnRunner:
    """Runs each attempt in a fresh interpreter, with a few of them booted ahead.

    The processes carry `ASYNCJOBS_PROCESS=<engine_id>.<n>` in their environment, and so does all that
    they start: `tree.sweep(engine_id)` ends what an engine has left behind.
    """

    def __init__(self, *, engine_id: str, settings: Settings) -> None:
        self._engine_id = engine_id
        self._settings = settings
        self._counter = itertools.count(1)
        self._standbys = Standbys(self._start)

    async def run(
        self, job: Job, definition: JobDefinition[..., object], *, env: dict[str, str], asked: Asked, notes: Notes
    ) -> Ended:
        """Run one attempt of `job` to its end, and leave no process of it behind.

        The clock starts when a process has been sent its request; the import of the job's module is
        part of the time. Cancelling the call kills at once.

        Raises:
            NotStarted: no process could be started, or none lived long enough to read its request.
        """
        if asked.done():
            return Ended(asked.result())
        self._standbys.begin()
        problem = ""
        try:
            for _ in range(_MOST_STARTS):
                process = self._standbys.take() or await self._start()
                ended = await self._attempt(process, job, definition, env=env, asked=asked, notes=notes)
                if ended is not None:
                    return ended
                problem = process.capture.stderr_tail
            raise NotStarted(f"processes end before they have read their request: {problem}")
        finally:
            self._standbys.end()

    async def close(self) -> None:
        """End the processes that wait for a job. No attempt may be running."""
        await self._standbys.close()

    async def _start(self) -> SpawnedProcess:
        return await SpawnedProcess.start(
            f"{self._engine_id}.{next(self._counter)}",
            payload_limit=self._settings.max_result_bytes,
            output_limit=self._settings.max_output_bytes,
        )

    async def _attempt(
        self,
        process: SpawnedProcess,
        job: Job,
        definition: JobDefinition[..., object],
        *,
        env: dict[str, str],
        asked: Asked,
        notes: Notes,
    ) -> Ended | None:
        """Run the job in `process`; None when it ended before it had read its request."""
        try:
            process.capture.listen(notes.output)
            try:
                process.channel.send(self._request(process, job, definition, env))
            except FrameError as error:
                await process.kill()
                return Ended(Failed(error=JobError(kind="params", message=f"the request has {error}")))
            await _news(process, asked, job.timeout)
            settled = _settled(process, definition, asked)
            if settled is not None:
                return await self._end_early(process, settled, grace=job.kill_grace)
            return await self._end(process, definition, grace=job.kill_grace)
        except BaseException:  # mostly cancellation: nothing may be left, however often it comes
            await _uninterrupted(self._destroy(process))
            raise
        finally:
            process.close()

    async def _end(
        self, process: SpawnedProcess, definition: JobDefinition[..., object], *, grace: float
    ) -> Ended | None:
        """See the process out after its reply, its garbage or its death."""
        broken = process.channel.problem is not None
        gone = await process.wait(0 if broken else max(grace, _EXIT_BOUND)) or await process.kill()
        reply, problem = _reply(process)
        if reply is None and process.channel.unread:
            return None
        outcome: Outcome
        if problem is not None:
            outcome = _crashed(process, definition, f"garbage on the control channel: {problem}")
        elif reply is not None and (not reply.ok or process.killed or process.returncode == 0):
            outcome = reply.outcome(definition)
        else:
            outcome = _crashed(process, definition, _unreplied(process, reply))
        return await self._ended(process, outcome, reply, gone=gone)

    async def _end_early(self, process: SpawnedProcess, outcome: Outcome, *, grace: float) -> Ended:
        """Ask the process to end, and kill it when it does not."""
        process.ask()
        gone = await process.wait(grace) or await process.kill()
        return await self._ended(process, outcome, _reply(process)[0], gone=gone)

    async def _ended(self, process: SpawnedProcess, outcome: Outcome, reply: Reply | None, *, gone: bool) -> Ended:
        """Sweep where the process has not done so itself, and report."""
        swept = 0
        if reply is None or reply.leftovers or process.killed or not tree.LINUX:
            swept = await process.sweep()
        return Ended(outcome, _report(process, reply, swept), busy=None if gone else process.ended)

    async def _destroy(self, process: SpawnedProcess) -> None:
        await process.kill()
        await process.sweep()

    def _request(
        self, process: SpawnedProcess, job: Job, definition: JobDefinition[..., object], env: dict[str, str]
    ) -> bytes:
        environ = os.environ.copy()
        function = definition.function
        header: dict[str, Any] = {
            "id": job.id,
            "name": job.name,
            "attempt": job.attempt,
            "module": function.__module__,
            "function": function.__qualname__,
            "main": _main() if function.__module__ == "__main__" else None,
            "path": [each for each in sys.path if isinstance(each, str)],
            "argv": getattr(sys, "argv", [""]),
            "prefixes": (sys.prefix, sys.exec_prefix),
            "bytecode": (sys.dont_write_bytecode, sys.pycache_prefix),
            "site": _has_editable_finder(),
            # What has changed since the process was started, and what is the job's own.
            "environ": {k: v for k, v in environ.items() if process.environ.get(k) != v} | env,
            "unset": [name for name in process.environ if name not in environ],
            "result_limit": self._settings.max_result_bytes,
        }
        return pack(json.dumps(header).encode(), job.params_json.encode())


def _settled(process: SpawnedProcess, definition: JobDefinition[..., object], asked: Asked) -> Outcome | None:
    """Return the outcome that was decided from outside, or None when the process itself has news."""
    if process.channel.reply is not None or process.channel.problem is not None or process.ended.done():
        return None
    if asked.done() and not asked.cancelled():
        return asked.result()
    return TimedOut(transient="timeout" in definition.retry_on)


async def _news(process: SpawnedProcess, asked: Asked, timeout: float | None) -> None:
    """Wait for the first of: reply, garbage, end, deadline, question."""

    def on_asked(_: Asked) -> None:
        if not asked.cancelled():
            process.wake()

    timer = None
    if timeout is not None:
        timer = asyncio.get_running_loop().call_later(timeout, process.wake)
    asked.add_done_callback(on_asked)
    try:
        await process.news
    finally:
        asked.remove_done_callback(on_asked)
        if timer is not None:
            timer.cancel()


def _reply(process: SpawnedProcess) -> tuple[Reply | None, str | None]:
    """Return the reply if it is a whole one, and what is wrong with the channel otherwise."""
    if process.channel.problem is not None:
        return None, process.channel.problem
    if process.channel.reply is None:
        return None, None
    try:
        return Reply(process.channel.reply), None
    except (ValueError, KeyError, TypeError) as error:
        return None, f"a reply that can't be read ({error})"


def _crashed(process: SpawnedProcess, definition: JobDefinition[..., object], how: str) -> Outcome:
    process.capture.close()  # what it printed last may still be in the pipe
    return crashed(definition, how, stderr_tail=process.capture.stderr_tail)


def _unreplied(process: SpawnedProcess, reply: Reply | None) -> str:
    assert process.returncode is not None
    how = described_end(process.returncode, killed=process.killed)
    if reply is not None:
        return f"{how} after its reply"
    return f"{how} in the middle of its reply" if process.channel.partial else f"{how} without a reply"


def _report(process: SpawnedProcess, reply: Reply | None, swept: int) -> ProcessReport:
    code = process.returncode
    return ProcessReport(
        pid=process.pid,
        exit_code=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        peak_rss=process.peak_rss if reply is None else reply.peak_rss,
        cpu_time=process.cpu_time if reply is None else reply.cpu_time,
        leftovers=swept + (0 if reply is None else max(reply.leftovers, 0)),
    )


def _main() -> dict[str, str]:
    """Say how another process finds this program's main module: by its name, or by its path."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return {"module": spec.name}
    return {"path": getattr(main, "__file__", None) or "<no file>"}


def _has_editable_finder() -> bool:
    """Return whether packages are imported through a hook that only `site` installs."""
    return any("editable" in str(getattr(finder, "__module__", "")) for finder in sys.meta_path)


async def _uninterrupted(coroutine: Coroutine[Any, Any, R]) -> R:
    """Await to the end, however often the caller is cancelled meanwhile; it knows that it was."""
    inner = asyncio.get_running_loop().create_task(coroutine, name="kill a canceled attempt")
    while not inner.done():
        try:
            await asyncio.shield(inner)
        except asyncio.CancelledError:
            continue
    return inner.result()

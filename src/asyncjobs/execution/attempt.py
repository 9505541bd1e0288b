"""`ProcessAttempt`: one attempt in one process, from its request to its report.

    request ─> the job runs ── reply ──> it exits (reuse: it waits for the next)
                 │
      deadline, or asked to end ─> SIGTERM to its group, a grace, SIGKILL to its tree and what it has left

The first of reply, end, deadline and question decides the outcome; what comes later changes nothing.
An attempt is over when its process is, so nothing here waits for a pipe: a grandchild that holds one
open, or keeps the channel, delays nobody. A result counts only with the whole reply *and* exit code
0, since the reply is the last thing that a process does; a warm process says in its reply that it stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from asyncjobs.execution import Asked, Ended, Notes
from asyncjobs.execution.inside.wire import FrameError
from asyncjobs.execution.process import JobProcess
from asyncjobs.execution.replies import Reply, crashed, described_end, take_note
from asyncjobs.execution.requests import request_of
from asyncjobs.model.job import JobError
from asyncjobs.model.outcome import Failed, Interrupted, Outcome, ProcessReport, TimedOut

if TYPE_CHECKING:
    from asyncjobs.definition import JobDefinition
    from asyncjobs.model.job import Job
    from asyncjobs.settings import Settings

R = TypeVar("R")
_EXIT_BOUND = 2.0  # seconds for the exit after the reply, though the grace be shorter


class Order(Struct, frozen=True, eq=False, kw_only=True):
    """What is to be run, until when (`deadline`, by the loop's clock), and who is told what."""

    job: Job
    definition: JobDefinition[..., object]
    env: dict[str, str]
    asked: Asked
    notes: Notes
    deadline: float | None

    def __repr__(self) -> str:
        return f"Order({self.job!r})"  # its variables are nobody's to see


class ProcessAttempt:
    """One attempt in one process."""

    def __init__(self, process: JobProcess, order: Order, *, settings: Settings, stays: bool) -> None:
        self._settings = settings
        self._process = process
        self._job = order.job
        self._definition = order.definition
        self._asked = order.asked
        self._notes = order.notes
        self._deadline = order.deadline
        self._env = order.env
        self._stays = stays
        self.process_stays = False

    async def run(self) -> Ended | None:
        """Run the job in the process; None when that ended before it had read its request."""
        process = self._process
        try:
            try:
                self._begin()
            except FrameError as error:
                await process.kill()
                return Ended(Failed(error=JobError(kind="params", message=f"the request has {error}")))
            await self._news()
            settled = self._settled()
            if settled is not None:
                return await self._end_early(settled)
            return await self._end()
        except BaseException:  # mostly cancellation: nothing may be left, however often it comes
            await _uninterrupted(self._destroy())
            raise
        finally:
            if not self.process_stays:
                process.close()

    def _begin(self) -> None:
        process = self._process
        limit = self._definition.max_output
        request = request_of(
            self._job,
            self._definition,
            process,
            env=self._env,
            result_limit=self._settings.max_result_bytes,
            stays=self._stays,
        )
        if self._definition.process_limit is not None:
            process.limit_processes(self._definition.process_limit)
        if self._stays:
            process.listen()
        process.send(
            request,
            on_note=lambda header: take_note(header, self._notes),
            output=self._notes.output,
            limit=self._settings.max_output_bytes if limit is None else limit,
        )

    async def _news(self) -> None:
        """Wait for the first of: reply, garbage, end, deadline, question."""
        process, asked = self._process, self._asked

        def on_asked(_: Asked) -> None:
            if not asked.cancelled():
                process.wake()

        timer = None
        if self._deadline is not None:
            timer = asyncio.get_running_loop().call_at(self._deadline, process.wake)
        asked.add_done_callback(on_asked)
        try:
            await process.news
        finally:
            asked.remove_done_callback(on_asked)
            if timer is not None:
                timer.cancel()

    def _settled(self) -> Outcome | None:
        """Return the outcome that was decided from outside, or None when the process itself has news."""
        process = self._process
        if process.channel.reply is None:
            process.channel.drain()
        if process.channel.reply is not None or process.channel.problem is not None or process.ended.done():
            return None
        if self._asked.done() and not self._asked.cancelled():
            return self._asked.result()
        return self._timed_out()

    def _timed_out(self) -> TimedOut:
        return TimedOut(transient="timeout" in self._definition.retry_on)

    async def _end(self) -> Ended | None:
        """See the process out after its reply, its garbage or its death."""
        process = self._process
        reply, problem = _reply(process)
        if reply is not None and problem is None and reply.stays:
            return self._stay(reply)
        broken = process.channel.problem is not None
        grace = max(self._job.kill_grace, _EXIT_BOUND)
        gone = await process.wait(0 if broken else grace) or await process.kill()
        if reply is None or process.channel.problem is not None:  # its last words came with its end
            reply, problem = _reply(process)
        if process.refused is not None or (reply is None and process.channel.unread and not process.orphaned):
            return None
        outcome: Outcome
        if process.late:
            outcome = self._timed_out()
        elif problem is not None:
            outcome = self._crashed(f"garbage on the control channel: {problem}")
        elif reply is not None and (not reply.ok or process.killed or process.returncode == 0):
            outcome = reply.outcome(self._definition)
        elif process.orphaned:
            outcome = Interrupted(reason="its template ended, and it with that", vanished=True)
        else:
            outcome = self._crashed(self._unreplied(reply))
        return await self._ended(outcome, reply, gone=gone)

    def _stay(self, reply: Reply) -> Ended:
        """Leave the process to the next attempt.

        Not past the deadline, after a blocked loop: its template may be about to end it, or has.
        """
        process = self._process
        self.process_stays = True
        if self._deadline is not None:
            process.keep_deadline(None, grace=0.0)
            self.process_stays = asyncio.get_running_loop().time() < self._deadline
        if self._definition.process_limit is not None:
            process.limit_processes(None)
        process.pid, process.peak_rss = reply.pid, reply.peak_rss
        process.capture.end_attempt()
        process.again()
        report = ProcessReport(
            pid=reply.pid,
            peak_rss=reply.peak_rss,
            cpu_time=reply.cpu_time,
            leftovers=max(reply.leftovers, 0),
            limit=self._limit_met(reply),
        )
        return Ended(reply.outcome(self._definition), report)

    async def _end_early(self, outcome: Outcome) -> Ended:
        """Ask the process to end, and kill it when it does not."""
        process = self._process
        grace = self._job.kill_grace
        if isinstance(outcome, Interrupted) and outcome.within is not None:
            grace = min(grace, outcome.within)
        process.ask(grace=grace)
        gone = await process.wait(grace) or await process.kill()
        return await self._ended(outcome, _reply(process)[0], gone=gone)

    async def _ended(self, outcome: Outcome, reply: Reply | None, *, gone: bool) -> Ended:
        """Have swept what neither the process nor its template has swept, and report."""
        process = self._process
        swept = process.swept
        if process.orphaned or (gone and process.returncode == 0 and (reply is None or reply.leftovers < 0)):
            swept += await process.sweep()
        if process.orphaned and not isinstance(outcome, Interrupted):
            process.returncode = None
        return Ended(outcome, self._report(reply, swept), busy=None if gone else process.ended)

    async def _destroy(self) -> None:
        await self._process.kill()
        await self._process.sweep()

    def _crashed(self, how: str) -> Outcome:
        self._process.capture.end_attempt()  # what it printed last may still be in the pipe
        return crashed(self._definition, how, stderr_tail=self._process.capture.stderr_tail)

    def _unreplied(self, reply: Reply | None) -> str:
        process = self._process
        if process.returncode is None:
            return "could not be killed"
        how = described_end(
            process.returncode, killed=process.killed or process.many, cpu_limit=self._definition.cpu_limit
        )
        if process.many:
            how = f"process limit of {self._definition.process_limit} reached: {how}"
        if reply is not None:
            return f"{how} after its reply"
        return f"{how} in the middle of its reply" if process.channel.partial else f"{how} without a reply"

    def _report(self, reply: Reply | None, swept: int) -> ProcessReport:
        process = self._process
        code = process.returncode
        return ProcessReport(
            pid=process.pid,
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            peak_rss=process.peak_rss,
            cpu_time=process.cpu_time,
            leftovers=swept + (0 if reply is None else max(reply.leftovers, 0)),
            limit=self._limit_met(reply),
        )

    def _limit_met(self, reply: Reply | None) -> str | None:
        limit = self._definition.memory_limit
        if limit is not None and reply is not None and "builtins.MemoryError" in reply.header.get("mro", ()):
            return f"memory limit of {limit} bytes reached"
        return None


def _reply(process: JobProcess) -> tuple[Reply | None, str | None]:
    """Return the reply if it is a whole one, and what is wrong with the channel otherwise."""
    if process.channel.problem is not None:
        return None, process.channel.problem
    if process.channel.reply is None:
        return None, None
    try:
        return Reply(process.channel.reply), None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        return None, f"a reply that can't be read ({error})"


async def _uninterrupted(coroutine: Coroutine[Any, Any, R]) -> R:
    """Await to the end, however often the caller is cancelled meanwhile; it knows that it was."""
    inner = asyncio.get_running_loop().create_task(coroutine, name="kill a canceled attempt")
    while not inner.done():
        try:
            await asyncio.shield(inner)
        except asyncio.CancelledError:
            continue
    return inner.result()

"""`ProcessRunner`: each attempt in a process of its own, or in a warm one.

    take a process ── request ──> the job runs ── reply ──> it exits (reuse: it waits for the next)
                                    │
           deadline, or asked to end│ SIGTERM to its group, a grace,
                                    └ SIGKILL to its tree, and to what it has left

The first of reply, end, deadline and question decides the outcome; what comes later changes nothing.
An attempt is over when its process is, so nothing here waits for a pipe: a grandchild that holds one
open, or keeps the channel, delays nobody. A result counts only with the whole reply *and* exit code
0, since the reply is the last thing that a process does; a warm process says in its reply that it stays.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from asyncjobs.execution import Asked, Ended, Notes, NotStarted
from asyncjobs.execution.environments import Environment, EnvironmentFailed, Environments, Wanted
from asyncjobs.execution.process import JobProcess
from asyncjobs.execution.replies import Reply, crashed, described_end, take_note
from asyncjobs.execution.requests import recipe_of, request_of
from asyncjobs.execution.supply import Recycling, Supply
from asyncjobs.execution.templates import Recipe, Template
from asyncjobs.execution.warm import Warm, Wear
from asyncjobs.execution.wire import FrameError
from asyncjobs.model.job import JobError
from asyncjobs.model.outcome import Failed, Interrupted, Outcome, ProcessReport, TimedOut

if TYPE_CHECKING:
    from asyncjobs.definition import JobDefinition
    from asyncjobs.model.job import Job
    from asyncjobs.settings import Settings

R = TypeVar("R")
_EXIT_BOUND = 2.0  # seconds for the exit after the reply, though the grace be shorter
_MOST_STARTS = 3  # for one attempt: processes may die before they have read their request


class ProcessRunner:
    """Runs attempts in processes: `fork`, `spawn` or `reuse`.

    The processes carry `ASYNCJOBS_PROCESS=<engine_id>.<n>` in their environment, and so does all that
    they start: `tree.sweep(engine_id)` ends what an engine and its templates have left behind.
    """

    def __init__(
        self,
        isolation: str,
        *,
        engine_id: str,
        settings: Settings,
        environments: Environments | None = None,
        warn: Callable[[str, str], None] | None = None,
    ) -> None:
        self._environments = environments
        self._fresh = isolation == "spawn"
        self._stays = isolation == "reuse"
        self._engine_id = f"{engine_id}.{isolation}"
        self._settings = settings
        self._warn = warn or (lambda _module, _problem: None)
        self._counter = itertools.count(1)
        self._supplies: dict[Recipe, Supply] = {}
        self._recipes: dict[str, Recipe] = {}
        self._paths: object = None
        self._warm: dict[str, Warm] = {}
        self._entered: dict[str, Environment | None] = {}

    async def run(
        self, job: Job, definition: JobDefinition[..., object], *, env: dict[str, str], asked: Asked, notes: Notes
    ) -> Ended:
        """Run one attempt of `job` to its end, and leave no process of it behind.

        The clock starts when its environment is there; the import of the job's module is part of the
        time. Cancelling the call kills at once.

        Raises:
            NotStarted: no process could be started, or none lived long enough to read its request.
        """
        if asked.done():
            return Ended(asked.result())
        early = await self._environment_built(definition, asked)
        if early is not None:
            return Ended(early)
        supply = self._supply(definition)
        deadline = None if job.timeout is None else asyncio.get_running_loop().time() + job.timeout
        supply.begin()
        problem = ""
        try:
            for _ in range(_MOST_STARTS):
                process = self._take(supply, definition)
                if process is None:
                    early = await _prepared(supply, definition, asked, deadline)
                    if early is not None:
                        return Ended(early)
                    process = self._take(supply, definition)
                    if process is None:
                        continue
                attempt = _Attempt(self._settings, process, job, definition, asked, notes, deadline, self._stays)
                ended = await attempt.run(env)
                if attempt.process_stays:
                    self._warm[definition.name].keep(process)
                if ended is not None:
                    return ended
                problem = process.refused or process.capture.stderr_tail
            raise NotStarted(f"processes end before they have read their request: {problem}")
        finally:
            supply.end()

    async def prepare(self, definition: JobDefinition[..., object]) -> None:
        """Build the environment of a definition's jobs and start their template.

        Raises:
            EnvironmentFailed: the environment can't be built.
            NotStarted: no process could be started.
        """
        await self._enter_environment(definition)
        await self._supply(definition).prepared()

    async def close(self) -> None:
        """End all processes. No attempt may be running."""
        for warm in self._warm.values():
            await warm.close()
        for supply in self._supplies.values():
            await supply.close()
        for environment in self._entered.values():
            if environment is not None and self._environments is not None:
                self._environments.release(environment)
        self._entered.clear()

    async def _environment_built(self, definition: JobDefinition[..., object], asked: Asked) -> Outcome | None:
        """Have the environment built, if there is to be one; return the outcome of an attempt that ends over it."""
        if definition.name in self._entered:
            return None
        building = asyncio.get_running_loop().create_task(
            self._enter_environment(definition), name=f"environment of {definition.name}"
        )
        try:
            await asyncio.wait((building, asked), return_when=asyncio.FIRST_COMPLETED)
            if not building.done() and not asked.cancelled():
                return asked.result()
            await building
        except EnvironmentFailed as error:
            return Failed(error=JobError(kind="environment", message=str(error)), transient=error.transient)
        finally:
            building.cancel()
        return None

    async def _enter_environment(self, definition: JobDefinition[..., object]) -> None:
        """Keep the environment until the end: nobody prunes it meanwhile."""
        wanted = Wanted.of(definition)
        if wanted is None or self._environments is None:
            self._entered[definition.name] = None
        elif definition.name not in self._entered:
            environment = await self._environments.ready(wanted)
            if definition.name in self._entered:
                self._environments.release(environment)
            self._entered[definition.name] = environment

    def _take(self, supply: Supply, definition: JobDefinition[..., object]) -> JobProcess | None:
        if self._stays:
            warm = self._warm.setdefault(definition.name, self._new_warm())
            process = warm.take()
            if process is not None:
                return process
        return supply.take()

    def _new_warm(self) -> Warm:
        settings = self._settings
        return Warm(Wear(jobs=settings.reuse_jobs, seconds=settings.reuse_seconds, growth=settings.reuse_growth_bytes))

    def _supply(self, definition: JobDefinition[..., object]) -> Supply:
        paths = (sys.path.copy(), len(sys.meta_path))
        if paths != self._paths:
            self._paths = paths
            self._recipes = {}
        recipe = self._recipes.get(definition.name)
        if recipe is None:
            environment = self._entered.get(definition.name)
            recipe = self._recipes[definition.name] = recipe_of(definition, environment, fresh=self._fresh)
        supply = self._supplies.get(recipe)
        if supply is None:
            settings = self._settings
            module = definition.function.__module__
            supply = self._supplies[recipe] = Supply(
                recipe,
                start=self._start,
                recycling=Recycling(
                    processes=settings.template_jobs, seconds=settings.template_seconds, reload=settings.reload
                ),
                warn=lambda problem: self._warn(module, problem),
            )
        return supply

    async def _start(self, recipe: Recipe) -> Template:
        token = f"{self._engine_id}.{next(self._counter)}"
        return await Template.start(recipe, token, payload_limit=self._settings.max_result_bytes)


async def _prepared(
    supply: Supply, definition: JobDefinition[..., object], asked: Asked, deadline: float | None
) -> Outcome | None:
    """Wait until there is a template to take from; return the outcome if the attempt has to end before."""
    loop = asyncio.get_running_loop()
    waiting = loop.create_task(supply.prepared(), name="wait for a template")
    try:
        timeout = None if deadline is None else max(0.0, deadline - loop.time())
        await asyncio.wait((waiting, asked), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            waiting.result()
            return None
        if asked.done() and not asked.cancelled():
            return asked.result()
        supply.distrust()
        return TimedOut(transient="timeout" in definition.retry_on)
    finally:
        waiting.cancel()


class _Attempt:
    """One attempt in one process."""

    def __init__(
        self,
        settings: Settings,
        process: JobProcess,
        job: Job,
        definition: JobDefinition[..., object],
        asked: Asked,
        notes: Notes,
        deadline: float | None,
        stays: bool,
    ) -> None:
        self._settings = settings
        self._process = process
        self._job = job
        self._definition = definition
        self._asked = asked
        self._notes = notes
        self._deadline = deadline
        self._stays = stays
        self.process_stays = False

    async def run(self, env: dict[str, str]) -> Ended | None:
        """Run the job in the process; None when that ended before it had read its request."""
        process = self._process
        try:
            try:
                self._begin(env)
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

    def _begin(self, env: dict[str, str]) -> None:
        process = self._process
        limit = self._definition.max_output
        request = request_of(
            self._job,
            self._definition,
            process,
            env=env,
            result_limit=self._settings.max_result_bytes,
            stays=self._stays,
        )
        process.capture.listen(self._notes.output, limit=self._settings.max_output_bytes if limit is None else limit)
        process.channel.send(request, on_note=lambda header: take_note(header, self._notes))
        process.runs += 1
        if self._deadline is not None:
            seconds = max(0.0, self._deadline - asyncio.get_running_loop().time())
            process.keep_deadline(seconds, grace=self._job.kill_grace)

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
            outcome = Interrupted(reason="its template ended, and it with that")
        else:
            outcome = self._crashed(self._unreplied(reply))
        return await self._ended(outcome, reply, gone=gone)

    def _stay(self, reply: Reply) -> Ended:
        """Leave the process to the next attempt."""
        process = self._process
        if self._deadline is not None:
            process.keep_deadline(None, grace=0.0)
        process.pid, process.peak_rss = reply.pid, reply.peak_rss
        process.capture.end_attempt()
        process.again()
        self.process_stays = True
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
        process.ask(grace=self._job.kill_grace)
        gone = await process.wait(self._job.kill_grace) or await process.kill()
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
        how = described_end(process.returncode, killed=process.killed, cpu_limit=self._definition.cpu_limit)
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
    except (ValueError, KeyError, TypeError) as error:
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

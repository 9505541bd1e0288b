"""The engine: a client that also runs jobs.

    async with engine:   open the store ─> take the lock ─> rescue the dead ─> a worker per name
    leaving it:          claim no more ─> wait for the grace ─> interrupt ─> free the lock ─> close

Whoever starts something here stops it, in reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator, Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any

import asyncjobs
from asyncjobs.client import JobClient
from asyncjobs.client.filters import age
from asyncjobs.client.preparing import Preparing
from asyncjobs.client.submission import new_id
from asyncjobs.context import CHILD_MODULE
from asyncjobs.definition import JobDefinition
from asyncjobs.engine.ends import Ends
from asyncjobs.engine.liveness import CUT_OFF_GRACE, Liveness, this_process
from asyncjobs.engine.notes import NoteWriter
from asyncjobs.engine.runners import Runners, environments_of
from asyncjobs.engine.slots import Slots
from asyncjobs.engine.worker import Surroundings, Worker
from asyncjobs.errors import DefinitionError, EngineError, InvalidOptions, NestedEngine, StoreError, UnknownJobName
from asyncjobs.execution import NotStarted
from asyncjobs.model.job import EngineRecord, Job
from asyncjobs.options import MOST_WORKERS, checked_int
from asyncjobs.settings import Settings
from asyncjobs.store import Change
from asyncjobs.supervision import supervise
from asyncjobs.telemetry import (
    EngineStarted,
    EngineStopped,
    TaskCrashed,
)
from asyncjobs.threads import in_thread

KILL_SECONDS = 5.0
LEAVE_SECONDS = 5.0
# Before others may take us for dead: a lock is freed some 20 s after the cable is cut, a lease lasts 30 s.
CUT_OFF_SECONDS = 15.0
CUT_OFF_LEASED_SECONDS = 20.0
# A server that is down frees every lock, and whoever is back when it is up again takes its own at once.
CUT_OFF_DOWN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Health:
    """How an engine is: `status` is `closed`, `running`, `stopping` or `failed`.

    `names` are those that it runs, `running` the number of attempts under way, `stuck` how many of their
    slots are held by a thread or process that could not be ended, `problem` says why it failed.
    """

    status: str
    names: tuple[str, ...]
    running: int
    problem: str | None = None
    stuck: int = 0


class JobEngine(JobClient):
    """Submits, follows and runs jobs, in the event loop in which it is entered.

    Args:
        address: as for `JobClient`.
        jobs: definitions, dotted names and modules: what this engine runs. Jobs of other names in
            the store are left alone.
        settings: as for `JobClient`.

    Once an internal task has kept crashing, `health` says so and every call raises `EngineFailed`.
    """

    def __init__(
        self,
        address: Any,
        *,
        jobs: Iterable[JobDefinition[..., Any] | str | ModuleType] = (),
        settings: Settings | None = None,
    ) -> None:
        super().__init__(address, jobs=jobs, settings=settings)
        self._preparing = Preparing(self._registry, self.settings, registered_only=True)
        self._me: EngineRecord | None = None
        self._workers: dict[str, Worker] = {}
        self._liveness: Liveness | None = None
        self._stopping = False
        self._hurried = asyncio.Event()

    @property
    def health(self) -> Health:
        """How the engine is, for a health check of the application."""
        names = tuple(self._workers)
        running = sum(len(worker.running) for worker in self._workers.values())
        stuck = sum(worker.stuck for worker in self._workers.values())
        if self._failure is not None:
            return Health("failed", names, running, str(self._failure), stuck=stuck)
        if self._stopping:
            return Health("stopping", names, running, stuck=stuck)
        return Health("closed" if self._life is None else "running", names, running, stuck=stuck)

    async def __aenter__(self) -> JobEngine:
        """Open the store, give back what dead engines ran, and start working.

        Raises:
            NestedEngine: this is a job's own process.
            EngineError: it is open already.
            StoreUnavailable, StoreCorrupt, SchemaMismatch: as for `JobClient`.
        """
        if CHILD_MODULE in sys.modules:
            raise NestedEngine
        await super().__aenter__()
        return self

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncGenerator[None]:
        """Run the engine for as long as an ASGI application lives: `FastAPI(lifespan=engine.lifespan)`.

        Raises:
            NestedEngine, EngineError, StoreUnavailable, StoreCorrupt, SchemaMismatch: it can't be opened.
            EngineFailed: an internal task kept crashing.
        """
        async with self:
            yield

    async def run(self) -> None:
        """Work until cancelled or signalled, as a process of its own.

        SIGTERM or SIGINT stops it gracefully, a second one at once; then it returns. No other method
        touches signals, which only a loop in the main thread can.

        Raises:
            RuntimeError: this is not the main thread.
            NestedEngine, EngineError, StoreUnavailable, StoreCorrupt, SchemaMismatch: it can't be opened.
            EngineFailed: an internal task kept crashing.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def signalled() -> None:
            if stop.is_set():
                self._hurry()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signalled)
        try:
            async with self:
                life = self._life
                assert life is not None
                stopped = asyncio.create_task(stop.wait(), name="asyncjobs signals")
                try:
                    await asyncio.wait([stopped, life], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stopped.cancel()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    # --- life -----------------------------------------------------------------------------------

    async def _serve(self, opened: asyncio.Future[None]) -> None:
        self._stopping = False
        self._hurried = asyncio.Event()
        definitions = [each for each in self._registry if self._is_allowed(each.name)]
        engine_id = new_id()
        names = [each.name for each in definitions]
        me = await in_thread(this_process, engine_id, names, asyncjobs.__version__, name="asyncjobs identity")
        runners = Runners(engine_id, definitions, settings=self.settings, emit=self._emit)
        self._me = me
        ends = Ends(
            store=self._store,
            host=me.host,
            interruption_budget=self.settings.interruptions,
            emit=self._emit,
            announce=self._announce,
        )
        self._liveness = Liveness(
            store=self._store,
            me=me,
            ends=ends,
            emit=self._emit,
            announce=self._announce,
            held=self._held,
            interrupt=self._interrupt_soon,
            cut_off_seconds=CUT_OFF_LEASED_SECONDS if self.settings.pgbouncer else CUT_OFF_SECONDS,
            down_seconds=CUT_OFF_LEASED_SECONDS if self.settings.pgbouncer else CUT_OFF_DOWN_SECONDS,
        )
        notes = NoteWriter(
            store=self._store,
            emit=self._emit,
            written=self._following.look,
            max_output=self.settings.max_output_bytes,
        )
        around = Surroundings(
            store=self._store,
            engine_id=engine_id,
            emit=self._emit,
            ends=ends,
            notes=notes,
            slots=Slots(self.settings.max_processes),
            claim_failed=self._liveness.doubt,
        )
        self._workers = {each.name: Worker(each, runners.of(each), around) for each in definitions}
        try:
            await self._store.register(me)
            await self._begin(self._liveness)
            async with asyncio.TaskGroup() as group:
                beside = [*self._start_liveness(group, self._liveness), self._start_notes(group, notes)]
                beside.append(group.create_task(runners.start_early(), name="asyncjobs early start"))
                workers = [self._start_worker(group, worker) for worker in self._workers.values()]
                self._emit(EngineStarted(me.id, me.names))
                if not opened.done():
                    opened.set_result(None)
                await self._closing.wait()
                await self._stop(workers)
                for each in beside:
                    each.cancel()
        finally:
            await runners.close()
            await self._leave(me)
            self._stopping = False
            self._emit(EngineStopped(me.id))

    async def _begin(self, liveness: Liveness) -> None:
        """Learn the time; give back what dead engines ran before anything is claimed, so that it keeps its place."""
        try:
            await liveness.say_alive()
            await liveness.rescue_all()
            await liveness.make_due()
        except Exception as error:  # both are tried again each second
            self._emit(TaskCrashed(task="first rescue", error=error, final=False))

    def _start_liveness(self, group: asyncio.TaskGroup, liveness: Liveness) -> list[asyncio.Task[None]]:
        return [
            group.create_task(supervise(name, run, events=self.events), name=f"asyncjobs {name}")
            for name, run in (
                ("keeping alive", liveness.keep_alive),
                ("watching engines", liveness.watch_others),
                ("watching rows", liveness.watch_self),
            )
        ]

    def _start_notes(self, group: asyncio.TaskGroup, notes: NoteWriter) -> asyncio.Task[None]:
        name = "writing notes"
        return group.create_task(supervise(name, notes.run, events=self.events), name=f"asyncjobs {name}")

    def _start_worker(self, group: asyncio.TaskGroup, worker: Worker) -> asyncio.Task[None]:
        name = f"worker {worker.definition.name}"
        return group.create_task(supervise(name, worker.run, events=self.events), name=f"asyncjobs {name}")

    async def _stop(self, workers: list[asyncio.Task[None]]) -> None:
        """Claim nothing more, let a grace pass in which results count, interrupt the rest."""
        self._stopping = True
        for worker in self._workers.values():
            worker.stop()
        if not workers:
            return
        hurried = asyncio.create_task(self._hurried.wait(), name="asyncjobs hurry")
        ended = asyncio.create_task(_all_ended(workers), name="asyncjobs workers ended")
        await asyncio.wait([hurried, ended], timeout=self.settings.stop_grace, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for worker in self._workers.values():
            worker.interrupt("its engine stopped")
        longest = max(
            (each.job.kill_grace for worker in self._workers.values() for each in worker.running.values()), default=0.0
        )
        await asyncio.wait([ended], timeout=longest + KILL_SECONDS)
        for each in workers:
            each.cancel()
        await ended

    async def _leave(self, me: EngineRecord) -> None:
        """Give back whatever is still RUNNING under our id, then free the lock."""
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                if self._liveness is not None:
                    await self._liveness.give_back_all()
                await self._store.unregister(me.id)
        except (StoreError, TimeoutError) as error:  # closing the store frees the lock; others rescue
            self._emit(TaskCrashed(task="leaving", error=error, final=False))

    def _hurry(self) -> None:
        self._hurried.set()

    def resize(self, name: str, max_workers: int) -> None:
        """Run so many jobs of a name at once from now on; what runs beyond that goes on to its end.

        Raises:
            UnknownJobName: this engine does not run it.
            InvalidOptions: that is no number of workers.
            NotOpen, ForkedClient: as for `submit`.
        """
        self._opened_store()
        try:
            checked_int("max_workers", max_workers, least=1, most=MOST_WORKERS)
        except DefinitionError as error:
            raise InvalidOptions(str(error)) from None
        self._worker(name).resize(max_workers)

    async def prepare(self, *names: str) -> None:
        """Build and start what the first job of these names would have to wait for; of all without any.

        That is the environment, and the template process with the job's module imported.

        Raises:
            UnknownJobName: this engine does not run one of them.
            EnvironmentFailed: an environment can't be built; the message has uv's own words.
            EngineError: no process could be started.
            NotOpen, ForkedClient: as for `submit`.
        """
        self._opened_store()
        for name in names or self._workers:
            worker = self._worker(name)
            try:
                await worker.runner.prepare(worker.definition)
            except NotStarted as error:
                raise EngineError(f"{name} can't be prepared: {error}") from error

    async def prune_environments(self, *, unused_for: float | timedelta) -> int:
        """Remove the environments that no engine of this machine has used for so long; return how many.

        `unused_for` is seconds or a timedelta. What any engine uses or builds stays.

        Raises:
            InvalidOptions: `unused_for` is neither, or negative.
            EnvironmentFailed: their folder can't be read or written.
        """
        since = age("unused_for", unused_for)
        return len(await environments_of(self.settings, self._emit).prune(unused_for=since))

    def _worker(self, name: str) -> Worker:
        if not isinstance(name, str) or name not in self._workers:
            raise UnknownJobName(name, list(self._workers))
        return self._workers[name]

    # --- what a client leaves to its engine -----------------------------------------------------

    def _held(self) -> Collection[tuple[str, int]]:
        return [key for worker in self._workers.values() for key in worker.running]

    def _interrupt_soon(self, reason: str) -> None:
        for worker in self._workers.values():
            worker.interrupt(reason, within=CUT_OFF_GRACE)

    def _announce(self, name: str) -> None:
        worker = self._workers.get(name)
        if worker is not None:
            worker.wake()

    def _ask_to_cancel(self, job: Job) -> None:
        worker = self._workers.get(job.name)
        if worker is not None:
            worker.cancel(job.id, job.attempt)

    async def _on_change(self, change: Change) -> None:
        await super()._on_change(change)
        for name, worker in self._workers.items():
            if change.due is None or name in change.due:
                worker.wake()
        if change.cancel and self._me is not None and any(worker.running for worker in self._workers.values()):
            for job in await self._store.running(self._me.id):
                if job.cancel_requested_at is not None:
                    self._ask_to_cancel(job)

    def _is_allowed(self, name: str) -> bool:
        allowed = self.settings.allowed_jobs
        return allowed is None or name in allowed


async def _all_ended(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)

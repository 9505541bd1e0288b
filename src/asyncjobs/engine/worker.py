"""The worker of one job name: it claims up to its free slots, runs each attempt, writes its end.

    wake ──> claim ──> run ──> its end (ends.py) ──┐
      ^                                            │
      └──────────── a slot is free ────────────────┘

It is woken by a submission in this process, by another process's write, by a slot that came free, or
by its own timer at the earliest `run_at`. A slot counts as free once the end of its attempt is on
its way into the store: the next claim shares that end's transaction and comes after it, so the rows
RUNNING under this name don't exceed `max_workers`, but for an end that can't be written and is tried
again meanwhile.

Attempts are run by tasks that take one after another and wait in between: a new task for each would take a
twentieth more of the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from asyncjobs.definition import JobDefinition
from asyncjobs.engine.ends import Ends
from asyncjobs.engine.notes import AttemptNotes, NoteWriter
from asyncjobs.engine.slots import Slots
from asyncjobs.errors import StoreError
from asyncjobs.execution import Asked, Ended, NotStarted, Runner
from asyncjobs.model.job import Job, JobError
from asyncjobs.model.outcome import Canceled, Crashed, Failed, Interrupted
from asyncjobs.store import Claimed, Store
from asyncjobs.telemetry import Event, JobStarted, LeftoversKilled, SlotHeld, StartPaused, TaskCrashed

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
FLUSH_SECONDS = 5.0
LAST_WRITE_SECONDS = 2.0
LONGEST_SLEEP = 3600.0


class Running(Struct, eq=False):
    """An attempt of this engine's, from its claim until its end is written."""

    claimed: Claimed
    asked: Asked
    notes: AttemptNotes

    @property
    def job(self) -> Job:
        """The job as it was claimed."""
        return self.claimed.job


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a worker shares with the others of its engine."""

    store: Store
    engine_id: str
    emit: Callable[[Event], None]
    ends: Ends
    notes: NoteWriter
    slots: Slots
    claim_failed: Callable[[], None]
    """Told when a claim's answer was lost: it may have taken jobs that nobody holds now."""


@dataclass(slots=True, eq=False)
class Worker:
    """Runs the jobs of one name."""

    definition: JobDefinition[..., Any]
    runner: Runner
    around: Surroundings
    running: dict[tuple[str, int], Running] = field(default_factory=dict)
    max_workers: int = 0
    _busy: int = 0
    _more: bool = True
    """Whether there may be due jobs beyond those of the last claim: then a slot that comes free is a reason to look."""
    _pause: float = 0.0
    _claim_at: float = 0.0
    _stopping: bool = False
    _wakeup: asyncio.Event = field(default_factory=asyncio.Event)
    _stuck: set[asyncio.Future[None]] = field(default_factory=set[asyncio.Future[None]])
    _begun: deque[Running] = field(default_factory=deque[Running])
    """Attempts that no task has taken yet."""
    _idle: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])
    """What the tasks wait for that have none."""

    def __post_init__(self) -> None:
        """Begin with the slots of the definition."""
        self.max_workers = self.definition.max_workers

    def resize(self, max_workers: int) -> None:
        """Run so many at once from now on; what runs beyond that goes on."""
        self.max_workers = max_workers
        self.wake()

    @property
    def stuck(self) -> int:
        """How many slots are held by what could not be ended."""
        return len(self._stuck)

    def wake(self) -> None:
        """Look for due jobs now, or as soon as a slot is free."""
        self._more = True
        self._wakeup.set()

    def stop(self) -> None:
        """Claim nothing more; `run` returns once the attempts under way have ended."""
        self._stopping = True
        self._wakeup.set()
        for each in self._stuck:
            _settle(each)

    def interrupt(self, reason: str, *, within: float | None = None) -> None:
        """Ask every attempt to end, within so many seconds though its grace be longer; their jobs become PENDING."""
        for each in self.running.values():
            _ask(each, Interrupted(reason=reason, within=within))

    def cancel(self, job_id: str, attempt: int) -> None:
        """Ask one attempt to end for good; nothing happens if it is not running here."""
        held = self.running.get((job_id, attempt))
        if held is not None:
            _ask(held, Canceled(reason="a caller canceled it"))

    async def run(self) -> None:
        """Work until stopped."""
        self._idle.clear()  # those of a run that has crashed
        async with asyncio.TaskGroup() as tasks:
            for _ in self._begun:
                tasks.create_task(self._run_attempts(), name=f"asyncjobs {self.definition.name}")
            while not self._stopping:
                # Cleared before claiming, not after: a job announced in between must still wake us.
                self._wakeup.clear()
                await self._pause_between_starts()
                due: datetime | None = None
                starved = False
                if (wanted := self.max_workers - self._busy) > 0 and not self._stopping:
                    free = self.around.slots.take(wanted, wake=self.wake)
                    starved = free < wanted
                    if free:
                        self._more = False
                        claimed, due = await self._claim(free)
                        if len(claimed) == free:
                            self._more = True
                        else:
                            starved = False
                        for each in claimed:
                            self._start(each, tasks)
                else:
                    self.around.slots.leave(self.wake)
                if self._busy < self.max_workers and not starved:
                    await self._wait(self._seconds_until(due))
                else:
                    await self._wait(None)
            for idle in self._idle:
                _settle(idle)

    async def _claim(self, free: int) -> tuple[tuple[Claimed, ...], datetime | None]:
        unused = free
        try:
            claim = await self.around.store.claim(
                self.definition.name,
                limit=free,
                engine_id=self.around.engine_id,
                now=self.around.store.clock.now(),
                max_running=self.definition.max_running,
            )
            unused = free - len(claim.claimed)
        except StoreError as error:
            self._more = True
            self.around.claim_failed()
            self.around.emit(TaskCrashed(task=f"claim of {self.definition.name}", error=error, final=False))
            return (), self.around.store.clock.now() + timedelta(seconds=1)
        finally:
            if unused:  # nothing more is due: others need not keep slots for this name
                self.around.slots.leave(self.wake)
                self.around.slots.give_back(unused)
        return claim.claimed, claim.next_run_at

    def _seconds_until(self, due: datetime | None) -> float | None:
        if due is None:
            return None
        return min(max((due - self.around.store.clock.now()).total_seconds(), 0.0), LONGEST_SLEEP)

    async def _wait(self, seconds: float | None) -> None:
        """Wait to be woken, at most so long."""
        timer = None
        if seconds is not None:
            timer = asyncio.get_running_loop().call_later(seconds, self._wakeup.set)
        try:
            await self._wakeup.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _pause_between_starts(self) -> None:
        """Wait until processes may be started again, however often we are woken, but for the stop."""
        loop = asyncio.get_running_loop()
        while not self._stopping and (left := self._claim_at - loop.time()) > 0:
            self.around.slots.leave(self.wake)
            self._wakeup.clear()
            await self._wait(left)

    # --- one attempt ----------------------------------------------------------------------------

    def _start(self, claimed: Claimed, tasks: asyncio.TaskGroup) -> None:
        job = claimed.job
        notes = self.around.notes.notes_of(job, max_output=self.definition.max_output)
        held = Running(claimed, asyncio.get_running_loop().create_future(), notes)
        self.running[job.id, job.attempt] = held
        self._busy += 1
        self._begun.append(held)
        if self._idle:
            self._idle.pop().set_result(None)
        else:
            tasks.create_task(self._run_attempts(), name=f"asyncjobs {job.name}")

    async def _run_attempts(self) -> None:
        """Run one attempt after another, until the worker stops."""
        while True:
            while self._begun:
                await self._attempt(self._begun.popleft())
            if self._stopping:
                return
            idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(idle)
            await idle

    async def _attempt(self, held: Running) -> None:
        claimed, job = held.claimed, held.job
        slot_freed = written = False
        try:
            if self._stopping:  # claimed while the stop came
                ended = Ended(Interrupted(reason="its engine stopped"))
            elif job.cancel_requested_at is not None:
                ended = Ended(Canceled(reason="a caller canceled it"))
            elif claimed.damage is not None:
                ended = Ended(Failed(error=JobError(kind="damaged", message=claimed.damage)))
            else:
                self.around.emit(JobStarted(job))
                ended = await self._run(held, claimed.env)
                # Before the slot is free: what is claimed into it comes after the end, not after this.
                await held.notes.flush(seconds=FLUSH_SECONDS)
            if ended.busy is None:
                slot_freed = self._free_slot()
            await self.around.ends.write(job, ended)
            written = True
            if ended.busy is not None and not ended.busy.done():
                self.around.emit(SlotHeld(job))
                await self._until_free(ended.busy)
        except asyncio.CancelledError:
            if not written:
                await self._give_back(held)
            raise
        finally:
            del self.running[job.id, job.attempt]
            if not slot_freed:
                self._free_slot()

    async def _until_free(self, busy: asyncio.Future[None]) -> None:
        """Keep the slot while what ran in it can't be ended; a stop does not wait for that."""
        free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        busy.add_done_callback(lambda _: _settle(free))
        self._stuck.add(free)
        try:
            if not self._stopping:
                await free
        finally:
            self._stuck.discard(free)

    async def _give_back(self, held: Running) -> None:
        """Write, although we are cancelled, that the attempt was interrupted; but not for ever."""
        try:
            async with asyncio.timeout(LAST_WRITE_SECONDS):
                await held.notes.flush(seconds=LAST_WRITE_SECONDS / 2)
                await self.around.ends.write(held.job, Ended(Interrupted(reason="its engine was canceled")))
        except TimeoutError:
            return  # the row is given back by whichever engine finds this one's lock free

    def _free_slot(self) -> bool:
        self._busy -= 1
        if self._more or self.definition.max_running is not None:
            self._wakeup.set()
        self.around.slots.give_back(1)
        return True

    async def _run(self, held: Running, env: dict[str, str]) -> Ended:
        job = held.job
        try:
            ended = await self.runner.run(job, self.definition, env=env, asked=held.asked, notes=held.notes)
        except NotStarted as error:
            now = asyncio.get_running_loop().time()
            if now >= self._claim_at:  # once for all attempts that were claimed together
                self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
                self._claim_at = now + self._pause
            self.around.emit(StartPaused(job.name, str(error), self._pause))
            return Ended(Interrupted(reason=f"no process could be started: {error}"))
        except Exception as error:
            self.around.emit(TaskCrashed(task=f"attempt of {job.name}", error=error, final=False))
            return Ended(Crashed(reason=f"asyncjobs could not run it: {type(error).__name__}: {error}"))
        self._pause = 0.0
        if ended.process.leftovers:
            self.around.emit(LeftoversKilled(job, ended.process.leftovers))
        return ended


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _ask(held: Running, why: Canceled | Interrupted) -> None:
    if not held.asked.done():
        held.asked.set_result(why)

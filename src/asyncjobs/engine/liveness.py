"""Who is alive, and what becomes of the jobs of who is not.

Each engine holds a lock that its death frees; the store says whose is free. An engine that is merely slow
keeps its lock, and so its jobs. On our own machine a process that is gone is a sign of death as well.
What a dead engine ran is given back in this order:

    engine dead ──> its process is gone ──> what its jobs left running is killed ──> rows PENDING

so that no job begins again while its last attempt could still be at work. From another machine that can't be
seen: there the engine itself ends its attempts when it has lost touch with the store (`keep_alive`), before
anybody may take it for dead.

The other half looks at rows: those that are RUNNING under this engine's id and that no attempt of its holds
(the answer to a claim was lost) are given back too, and those under an engine that nobody knows.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from asyncjobs.engine.ends import Ends
from asyncjobs.errors import StoreDown, StoreError
from asyncjobs.execution import Ended
from asyncjobs.execution.inside import tree
from asyncjobs.model.job import EngineRecord, Job
from asyncjobs.model.outcome import Interrupted
from asyncjobs.store import Sighting, Store
from asyncjobs.telemetry import EngineCutOff, EngineRescued, Event, JobFinished, JobInterrupted
from asyncjobs.threads import in_thread

LOOK_SECONDS = 1.0
HELD_SECONDS = 30.0
STRAY_SECONDS = 10.0
LONGEST_DYING_SECONDS = 5.0
LONGEST_BEAT_SECONDS = 3.0
CUT_OFF_GRACE = 3.0
"""How many seconds a job has to end when its engine is cut off, though its own grace be longer."""


def this_process(engine_id: str, names: Collection[str], version: str) -> EngineRecord:
    """Return the record of an engine that starts in this process now."""
    now = datetime.now(UTC)
    return EngineRecord(
        id=engine_id,
        host=socket.gethostname(),
        boot=tree.boot_id() or "",
        pid=os.getpid(),
        pid_started=tree.start_time(os.getpid()) or 0.0,
        names=tuple(sorted(names)),
        version=version,
        started_at=now,
        seen_at=now,
    )


@dataclass(slots=True, eq=False)
class Liveness:
    """One engine's look at the others, and at itself."""

    store: Store
    me: EngineRecord
    ends: Ends
    emit: Callable[[Event], None]
    announce: Callable[[str], None]
    held: Callable[[], Collection[tuple[str, int]]]
    """The attempts that this engine's workers hold, as (job id, attempt)."""
    interrupt: Callable[[str], None]
    """Ends every attempt of this engine, for the reason given, within CUT_OFF_GRACE."""
    cut_off_seconds: float
    """After so many seconds of round trips that failed, others may soon take this engine for dead."""
    down_seconds: float
    """The same for a server that is down, where nobody can take anybody for dead until it is back."""
    _doubt: asyncio.Event = field(default_factory=asyncio.Event)
    _strays: dict[tuple[str, int], float] = field(default_factory=dict[tuple[str, int], float])
    """Since when, by the loop's clock, attempts are known to run under an engine that nobody knows."""
    _turned_back: bool = True
    """Whether the clock may have been turned back since `make_due`, as it may have been before we came."""

    def doubt(self) -> None:
        """Compare the store with the attempts held, now: an answer was lost."""
        self._doubt.set()

    async def watch_others(self) -> None:
        """Look for dead engines each second, for ever."""
        while True:
            await self.rescue_all()
            await asyncio.sleep(LOOK_SECONDS)

    async def watch_self(self) -> None:
        """Look for rows that nobody holds, twice a minute and in doubt, for ever."""
        while True:
            try:
                async with asyncio.timeout(HELD_SECONDS):
                    await self._doubt.wait()
            except TimeoutError:
                pass
            self._doubt.clear()
            try:
                await self.make_due()
                await self.give_back_unheld()
                await self.give_back_strays()
            except StoreError:
                self._doubt.set()  # we are started again, and have to look then
                raise

    async def keep_alive(self) -> None:
        """Say each second that we live, for ever; end what we run when that was not heard for too long.

        What counts are round trips that failed, not time: after a blocked loop the first one decides. A server
        that is down counts less. It counts at all since it may be a go-between of ours alone that is down.
        """
        loop = asyncio.get_running_loop()
        silent = 0.0  # 1.0 is too long
        cut_off = False
        while True:
            began = loop.time()
            try:
                known = await self.say_alive()
            except StoreError as error:
                longest = self.down_seconds if isinstance(error, StoreDown) else self.cut_off_seconds
                silent += (min(loop.time() - began, LONGEST_BEAT_SECONDS) + LOOK_SECONDS) / longest
                if silent >= 1.0 and not cut_off:
                    cut_off = True
                    self._cut_off("has lost touch with the database")
            else:
                silent = 0.0
                cut_off = False
                if not known:
                    self._cut_off("was taken for dead by another")
                    await self.store.register(self.me)
            await asyncio.sleep(LOOK_SECONDS)

    async def say_alive(self) -> bool:
        """Say once that we live, and learn from the answer what time it is; return False if nobody knows us.

        Where time was moved, every worker looks again when its next job is due.
        """
        known = await self.store.beat(self.me.id)
        moved = self.store.clock.moved()
        if moved < 0:
            self._turned_back = True
            self._doubt.set()
        if moved:
            self._announce_all(self.me.names)
        return known

    async def make_due(self) -> None:
        """Have what was due stay due, though by a clock that was turned back its time is to come."""
        if not self._turned_back:
            return
        self._turned_back = False
        try:
            await self.store.bring_forward(now=self.store.clock.now())
        except StoreError:
            self._turned_back = True
            raise
        self._announce_all(self.me.names)

    def _announce_all(self, names: Iterable[str]) -> None:
        for name in names:
            self.announce(name)

    def _cut_off(self, reason: str) -> None:
        self.emit(EngineCutOff(self.me.id, reason))
        self.interrupt(f"its engine {reason}")

    async def rescue_all(self) -> None:
        """Give back the jobs of every dead engine."""
        dead = {
            sighting.engine.id: sighting.engine
            for sighting in await self.store.unlocked_engines()
            if not self._may_live(sighting)
        }
        vanished = {engine.id: engine for engine in await self.store.engines() if self._has_vanished(engine)}
        for engine in (dead | vanished).values():
            if engine.id != self.me.id:
                await self._rescue(engine)

    def _has_vanished(self, engine: EngineRecord) -> bool:
        return self._is_here(engine) and not tree.is_alive(engine.pid, engine.pid_started)

    def _may_live(self, sighting: Sighting) -> bool:
        """Without a lock to judge by, an engine of this machine lives as long as its process."""
        engine = sighting.engine
        return sighting.lock_gone and self._is_here(engine) and tree.is_alive(engine.pid, engine.pid_started)

    async def _rescue(self, dead: EngineRecord) -> None:
        if self._is_here(dead):
            await self._bury(dead)
        jobs = await self.store.running(dead.id)
        await self._give_back(jobs, Interrupted(reason=f"its engine {dead.id} vanished", vanished=True))
        await self.store.unregister(dead.id)
        self.emit(EngineRescued(self.me.id, dead.id, len(jobs)))

    async def _bury(self, dead: EngineRecord) -> None:
        """Wait until its process is gone (its children are told of that by the kernel), then sweep.

        A process may outlive its engine, which could not write that it left; what the engine ran has ended then.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + (0.0 if dead.pid == os.getpid() else LONGEST_DYING_SECONDS)
        while loop.time() < until and tree.is_alive(dead.pid, dead.pid_started):  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(0.005)
        await in_thread(tree.sweep, dead.id, name="asyncjobs sweep")

    def _is_here(self, engine: EngineRecord) -> bool:
        return engine.host == self.me.host and engine.boot == self.me.boot

    async def give_back_unheld(self) -> None:
        """Give back what is RUNNING under our id and held by nobody, seen twice a second apart.

        Once is not enough: the answer to a claim may be on its way to its worker.
        """
        unheld = await self._unheld()
        if not unheld:
            return
        await self.store.drain()  # however slow that answer is
        await asyncio.sleep(LOOK_SECONDS)
        again = await self._unheld()
        lost = [again[key] for key in unheld.keys() & again.keys()]
        await self._give_back(lost, Interrupted(reason="the answer to its claim was lost"))

    async def give_back_strays(self) -> None:
        """Give back what runs under an engine that nobody knows: it was claimed as its engine died, after the rescue.

        Not at once: an engine that was taken for dead writes its row again.
        """
        now = asyncio.get_running_loop().time()
        strays = {(job.id, job.attempt): job for job in await self.store.strays()}
        self._strays = {key: self._strays.get(key, now) for key in strays}
        lost = [strays[key] for key, since in self._strays.items() if now - since >= STRAY_SECONDS]
        await self._give_back(lost, Interrupted(reason="its engine vanished as it was claimed", vanished=True))

    async def give_back_all(self) -> None:
        """Give back what is RUNNING under our id, when no worker is left to hold anything."""
        await self.store.drain()  # a claim whose worker is gone may still be on its way
        await self._give_back(await self.store.running(self.me.id), Interrupted(reason="its engine stopped"))

    async def _unheld(self) -> dict[tuple[str, int], Job]:
        rows = {(job.id, job.attempt): job for job in await self.store.running(self.me.id)}
        held = set(self.held())
        return {key: job for key, job in rows.items() if key not in held}

    async def _give_back(self, jobs: Collection[Job], outcome: Interrupted) -> None:
        """End the attempts that these jobs are, all at once, so that they share a turn of the store."""
        ends = [asyncio.create_task(self._end(job, outcome), name=f"asyncjobs end of {job.id}") for job in jobs]
        try:
            for error in await asyncio.gather(*ends, return_exceptions=True):
                if error is not None:
                    raise error
        finally:
            self._announce_all({job.name for job in jobs})

    async def _end(self, job: Job, outcome: Interrupted) -> None:
        now = self.store.clock.now()
        transition, attempt = self.ends.decided(job, Ended(outcome), now=now)
        status = await self.store.finish(job, transition, attempt=attempt, now=now)
        if status is None:
            return
        if status.is_final:
            stored = await self.store.get(job.id)
            if stored is not None:
                self.emit(JobFinished(stored))
        else:
            self.emit(JobInterrupted(job, outcome.reason))

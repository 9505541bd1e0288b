"""How names share the slots of an engine that has only so many."""

import asyncio

from asyncjobs import JobEngine, Settings, job
from asyncjobs.engine.slots import Slots
from asyncjobs.execution import NotStarted
from asyncjobs.execution.inline import InlineRunner
from asyncjobs.store.sql import SqlStore
from asyncjobs.telemetry import StartPaused

BOUND = 60


class Name:
    """A name that wants slots."""

    def __init__(self, slots):
        self.slots = slots
        self.woken = 0

    def wake(self):
        self.woken += 1

    def take(self, wanted):
        return self.slots.take(wanted, wake=self.wake)

    def leave(self):
        self.slots.leave(self.wake)


def names(limit, count):
    slots = Slots(limit)
    return slots, [Name(slots) for _ in range(count)]


def test_a_slot_that_comes_free_is_kept_for_who_has_waited_longest():
    slots, (busy, first, second) = names(1, 3)
    assert [busy.take(1), first.take(1), second.take(1)] == [1, 0, 0]

    slots.give_back(1)

    assert (first.woken, second.woken) == (1, 0)
    assert [busy.take(1), second.take(1), first.take(1)] == [0, 0, 1]


def test_what_is_kept_for_a_name_that_leaves_is_kept_for_the_next():
    slots, (busy, first, second) = names(1, 3)
    assert [busy.take(1), first.take(1), second.take(1)] == [1, 0, 0]
    slots.give_back(1)

    first.leave()

    assert second.woken == 1
    assert [busy.take(1), first.take(1), second.take(1)] == [0, 0, 1]


def test_a_name_that_has_left_is_not_woken():
    slots, (busy, waiting) = names(1, 2)
    assert [busy.take(1), waiting.take(1)] == [1, 0]

    waiting.leave()
    slots.give_back(1)

    assert waiting.woken == 0
    assert busy.take(1) == 1


@job(isolation="inline", max_workers=4)
async def one(n: int) -> int:
    return n


@job(isolation="inline", max_workers=4)
async def other(n: int) -> int:
    return n


@job(isolation="inline", max_workers=4)
async def held(n: int) -> int:
    await asyncio.Event().wait()
    return n


async def test_names_that_want_more_slots_than_there_are_claim_nothing_while_nothing_is_due(tmp_path, monkeypatch):
    claims = 0
    claim = SqlStore.claim

    async def counting(*arguments, **named):
        nonlocal claims
        claims += 1
        return await claim(*arguments, **named)

    monkeypatch.setattr(SqlStore, "claim", counting)
    url, settings = f"sqlite:///{tmp_path}/jobs.db", Settings(max_processes=3)

    async with JobEngine(url, jobs=[one, other, held], settings=settings) as engine:
        waiting = await engine.submit(held, 1)
        for each in (one, other):
            assert await (await engine.submit(each, 1)).result(timeout=BOUND) == 1
        before = claims
        await asyncio.sleep(0.2)

        assert claims - before < 20  # one that wakes itself makes a thousand
        await waiting.cancel()


async def test_a_name_that_pauses_between_starts_keeps_no_slot_from_others(tmp_path, monkeypatch):
    run = InlineRunner.run
    paused = asyncio.Event()

    async def refusing_held(runner, job, definition, **named):
        if definition.name == held.name:
            raise NotStarted("none for this name")
        return await run(runner, job, definition, **named)

    monkeypatch.setattr(InlineRunner, "run", refusing_held)
    monkeypatch.setattr("asyncjobs.engine.worker.FIRST_PAUSE", 3600.0)
    monkeypatch.setattr("asyncjobs.engine.worker.LONGEST_PAUSE", 3600.0)
    url, settings = f"sqlite:///{tmp_path}/jobs.db", Settings(max_processes=1)

    async with JobEngine(url, jobs=[one, held], settings=settings) as engine:
        engine.subscribe(lambda event: paused.set() if isinstance(event, StartPaused) else None)
        for n in range(3):
            await engine.submit(held, n)
        async with asyncio.timeout(BOUND):
            await paused.wait()

        for n in range(5):
            assert await (await engine.submit(one, n)).result(timeout=BOUND) == n

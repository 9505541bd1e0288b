import asyncio
import errno

import pytest

from asyncjobs import supervision
from asyncjobs.errors import EngineFailed
from asyncjobs.supervision import supervise
from asyncjobs.telemetry import Events, TaskCrashed


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.0)


@pytest.fixture
def heard():
    return []


@pytest.fixture
def events(heard):
    return Events(heard.append)


class Runs:
    """A task that raises so often, then returns."""

    def __init__(self, crashes, error=None):
        self.crashes = crashes
        self.error = error
        self.count = 0

    async def __call__(self):
        self.count += 1
        if self.count <= self.crashes:
            raise self.error or OSError(f"crash {self.count}")


async def test_a_task_that_returns_is_not_started_again(events, heard):
    run = Runs(crashes=0)

    await supervise("watching", run, events=events)

    assert (run.count, heard) == (1, [])


async def test_a_task_that_crashes_is_started_again(events):
    """F63"""
    run = Runs(crashes=5)

    await supervise("watching", run, events=events)

    assert run.count == 6


async def test_every_crash_is_told(events, heard):
    """F63"""
    await supervise("watching", Runs(crashes=2), events=events)

    assert [(each.task, str(each.error), each.final) for each in heard] == [
        ("watching", "crash 1", False),
        ("watching", "crash 2", False),
    ]


async def test_the_sixth_crash_within_a_minute_fails_the_engine(events):
    """F63"""
    run = Runs(crashes=100)

    with pytest.raises(EngineFailed, match="watching crashed 6 times within 60 s, last with OSError: crash 6"):
        await supervise("watching", run, events=events)

    assert run.count == 6


@pytest.mark.parametrize("shortage", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN])
async def test_a_shortage_of_the_machine_is_waited_out_however_long_it_takes(events, heard, monkeypatch, shortage):
    monkeypatch.setattr(supervision, "STORE_PAUSE", 0.0)
    run = Runs(crashes=50, error=OSError(shortage, "short"))

    await supervise("watching", run, events=events)

    assert run.count == 51
    assert not any(event.final for event in heard)


async def test_the_last_crash_is_told_as_final_and_is_the_cause(events, heard):
    """F63"""
    with pytest.raises(EngineFailed) as caught:
        await supervise("watching", Runs(crashes=100), events=events)

    assert heard[-1] == TaskCrashed("watching", caught.value.__cause__, True)


async def test_crashes_that_are_long_ago_are_forgotten(events, monkeypatch):
    """F63"""
    monkeypatch.setattr(supervision, "WITHIN_SECONDS", 0.0)
    run = Runs(crashes=50)

    await supervise("watching", run, events=events)

    assert run.count == 51


async def test_each_pause_is_twice_as_long(events, monkeypatch):
    pauses = []

    async def note(seconds):
        pauses.append(seconds)

    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(supervision.asyncio, "sleep", note)

    await supervise("watching", Runs(crashes=4), events=events)

    assert pauses == [0.1, 0.2, 0.4, 0.8]


async def test_a_cancellation_passes(events, heard):
    started = asyncio.Event()

    async def run():
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(supervise("watching", run, events=events))
    await started.wait()
    task.cancel()
    await asyncio.wait([task])

    assert (task.cancelled(), heard) == (True, [])

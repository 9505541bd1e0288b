"""LISTEN and NOTIFY: hints among processes, never relied on.

    tell ─> gathered ─> one NOTIFY for all, at most some fifty a second ─> others: changed()
                                 a jittered poll stands behind it ─────────^

A NOTIFY inside every transaction costs 40 % of the rate of inserts (a lock of the whole server's), so it is
sent beside them, when they are committed. One connection listens and notifies; it is asked for the time every
few seconds, as a sign of life, since a cut cable looks like silence. Behind PgBouncer there is only the poll.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from functools import partial
from typing import Any

from asyncjobs.errors import StoreError
from asyncjobs.store import ANYTHING, Change
from asyncjobs.store.clock import ServerClock
from asyncjobs.store.postgresql.lines import Driver, Line, Source
from asyncjobs.store.postgresql.sessions import ask_the_time
from asyncjobs.store.turns import Step

POLL_SECONDS = 2.0
POLL_ALONE_SECONDS = 0.5
"""How often to look when nobody would tell us."""
PROBE_SECONDS = 4.0
PROBE_ANSWER_SECONDS = 4.0
APART_SECONDS = 0.02
AGAIN_SECONDS = 0.5
_NOTIFY = "SELECT pg_notify($1, $2)"
_LONGEST_PAYLOAD = 7000  # bytes; PostgreSQL takes 8000


class Hints:
    """What other processes say, and what is said to them."""

    def __init__(self, source: Source, *, channel: str, listens: bool, clock: ServerClock) -> None:
        self._clock = clock
        self._line = Line(source, prepare=self._listen)
        self._channel = channel
        self._listens = listens
        self._heard = asyncio.Event()
        self._change = Change()
        self._untold = Change()
        self._to_tell = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._poll_at = math.inf

    def start(self) -> None:
        """Listen, and tell, from now on."""
        if self._listens:
            self._tasks = [
                asyncio.create_task(self._keep_listening(), name="asyncjobs listening"),
                asyncio.create_task(self._keep_telling(), name="asyncjobs telling"),
            ]

    async def stop(self) -> None:
        """End both, and disconnect."""
        tasks, self._tasks = self._tasks, []
        for each in tasks:
            each.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._line.close()

    def tell(self, change: Change) -> None:
        """Have others told soon."""
        self._untold = _both(self._untold, change)
        self._to_tell.set()

    def step(self, change: Change) -> Step:
        """Return the step that tells others of a change when its transaction commits."""
        return Step(_NOTIFY, [(self._channel, _written(change))], returns=True)

    async def changed(self) -> Change:
        """Return what was heard, or now and then, whatever was heard meanwhile, that anything may have changed."""
        poll = POLL_SECONDS if self._line.driver is not None else POLL_ALONE_SECONDS
        loop = asyncio.get_running_loop()
        self._poll_at = min(self._poll_at, loop.time() + poll * random.uniform(0.75, 1.25))
        try:
            async with asyncio.timeout_at(self._poll_at):
                await self._heard.wait()
        except TimeoutError:
            pass
        self._heard.clear()
        change, self._change = self._change, Change()
        if loop.time() < self._poll_at:
            return change
        self._poll_at = math.inf
        return ANYTHING

    async def _listen(self, driver: Driver) -> None:
        await driver.add_listener(self._channel, self._hear)
        self._note(ANYTHING)  # whatever was said before is lost

    def _hear(self, driver: Driver, pid: int, _channel: str, payload: str) -> None:
        if pid != driver.get_server_pid():
            self._note(_read(payload))

    def _note(self, change: Change) -> None:
        self._change = _both(self._change, change)
        self._heard.set()

    async def _keep_listening(self) -> None:
        while True:
            try:
                await self._line.run(partial(ask_the_time, self._clock), seconds=PROBE_ANSWER_SECONDS)
            except StoreError:  # the line opens anew with the next call; meanwhile the poll goes on
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                await self._pause()

    async def _pause(self) -> None:
        """Wait until the next probe, or until the connection is known to be gone."""
        driver = self._line.driver
        if driver is None:
            return
        gone = asyncio.Event()

        def note(_driver: Driver) -> None:
            gone.set()

        driver.add_termination_listener(note)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await gone.wait()
        except TimeoutError:
            driver.remove_termination_listener(note)

    async def _keep_telling(self) -> None:
        while True:
            await self._to_tell.wait()
            self._to_tell.clear()
            told, self._untold = self._untold, Change()
            try:
                await self._line.run(partial(self._notify, _written(told)), seconds=PROBE_ANSWER_SECONDS)
            except StoreError:  # others will see it by their poll
                continue
            await asyncio.sleep(APART_SECONDS)

    async def _notify(self, payload: str, driver: Driver) -> None:
        await driver.execute(_NOTIFY, self._channel, payload)


def _both(one: Change, other: Change) -> Change:
    due = None if one.due is None or other.due is None else one.due | other.due
    return Change(due=due, moved=one.moved or other.moved, cancel=one.cancel or other.cancel)


def _written(change: Change) -> str:
    due = None if change.due is None else sorted(change.due)
    text = json.dumps({"due": due, "moved": change.moved, "cancel": change.cancel})
    if len(text) > _LONGEST_PAYLOAD:
        text = json.dumps({"due": None, "moved": change.moved, "cancel": change.cancel})
    return text


def _read(payload: str) -> Change:
    """Return what was said; what can't be read may be anything, since anybody may notify."""
    try:
        said: dict[str, Any] = json.loads(payload)
        due = said["due"]
        return Change(
            due=None if due is None else frozenset(map(str, due)),
            moved=bool(said["moved"]),
            cancel=bool(said["cancel"]),
        )
    except (ValueError, TypeError, KeyError):
        return ANYTHING

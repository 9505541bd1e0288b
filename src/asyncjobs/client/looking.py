"""Waiters by key, and one look for all of them that finds what nobody told.

    told: settle, refuse ──────────────────┐
    a key is new ────────────┐             ├──> the waiters of that key
    something has changed ───┼──> a look ──┘
    each few seconds ────────┘

However many wait, there is one task, and one question for all whose keys are to be looked up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

LOOK_AGAIN_SECONDS = 5.0
QUICK_LOOK_SECONDS = 0.02
PUT_OFF_SECONDS = 0.05
TIMER_SLACK_SECONDS = 0.005
"""Loops count time in up to whole milliseconds: what is due so soon is due now."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Looking(Generic[K, V]):
    """The waiters of one kind, of one client."""

    def __init__(self) -> None:
        self._waiters: dict[K, set[asyncio.Future[V]]] = {}
        self._unseen: set[K] = set()
        self._put_off: deque[tuple[float, K]] = deque()
        """Keys to be looked up later and when, by the loop's clock, the next one first."""
        self._look = asyncio.Event()
        self._failure: Exception | None = None

    async def wait_for(self, key: K, *, put_off: bool = False) -> V:
        """Wait until the key is settled; it is looked up soon, or after `PUT_OFF_SECONDS`."""
        if self._failure is not None:
            raise self._failure
        waiter: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, set()).add(waiter)
        if put_off:
            self._look_up_later(key)
        else:
            self.look_up(key)
        try:
            return await waiter
        finally:
            waiters = self._waiters.get(key)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[key]

    def settle(self, key: K, value: V) -> None:
        """Wake the waiters of a key."""
        self._wake(key, lambda waiter: waiter.set_result(value))

    def refuse(self, key: K, error: Exception) -> None:
        """Wake the waiters of a key with an error."""
        self._wake(key, lambda waiter: waiter.set_exception(error))

    def look_up(self, key: K) -> None:
        """Look up a key soon, if anybody waits for it."""
        if key in self._waiters:
            self._unseen.add(key)
            self._look.set()

    def _look_up_later(self, key: K) -> None:
        """Look up a key in a while, if somebody still waits.

        One timer serves all: one for each would cost more than the rest of a wait.
        """
        loop = asyncio.get_running_loop()
        if not self._put_off:
            loop.call_later(PUT_OFF_SECONDS, self._look_up_due)
        self._put_off.append((loop.time() + PUT_OFF_SECONDS, key))

    def _look_up_due(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + TIMER_SLACK_SECONDS
        while self._put_off and (self._put_off[0][0] <= due or self._put_off[0][1] not in self._waiters):
            self.look_up(self._put_off.popleft()[1])
        if self._put_off:
            loop.call_at(self._put_off[0][0], self._look_up_due)

    def look_again(self) -> None:
        """Look up every key that is waited for."""
        if self._waiters:
            self._unseen.update(self._waiters)
            self._look.set()

    def fail(self, error: Exception) -> None:
        """Wake everybody, now and later, with an error: nothing will be noticed any more."""
        self._failure = error
        for key in list(self._waiters):
            self.refuse(key, error)

    async def run(self, ask: Callable[[set[K]], Awaitable[None]]) -> None:
        """Look up keys, for ever: `ask` settles those of which there is something to tell."""
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._look.wait()
            except TimeoutError:
                self.look_again()
            self._look.clear()
            # Whoever begins to wait in this pass of the loop shares the question.
            await asyncio.sleep(0)
            asked, self._unseen = self._unseen & self._waiters.keys(), set()
            if not asked:
                continue
            began = asyncio.get_running_loop().time()
            try:
                await ask(asked)
            except BaseException:
                self._unseen |= asked
                raise
            took = asyncio.get_running_loop().time() - began
            if took > QUICK_LOOK_SECONDS:  # for very many: it is a fifth of the time at the most
                await asyncio.sleep(min(4 * took, LOOK_AGAIN_SECONDS))

    def _wake(self, key: K, settle: Callable[[asyncio.Future[V]], None]) -> None:
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                settle(waiter)

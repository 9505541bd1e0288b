"""The life of a client: what is open between `async with` and its end, and who is told of what.

    enter:  open the store ─> wait and watch in the background ─> serve
    leave:  what is served ends ─> the background ends ─> the store is closed

All of it is one task, so that `async with` may be left in another task than it was entered in.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from asyncjobs.client.following import Following
from asyncjobs.client.waiting import Waiting
from asyncjobs.errors import (
    AsyncJobsError,
    EngineError,
    EngineFailed,
    ForkedClient,
    InvalidOptions,
    NotOpen,
    SettingsError,
)
from asyncjobs.settings import Settings, ignored_variables
from asyncjobs.store import Change, Store, open_store
from asyncjobs.supervision import supervise
from asyncjobs.telemetry import (
    Event,
    Events,
    JobFinished,
    JobInterrupted,
    JobRetryScheduled,
    JobStarted,
    Listener,
    VariableIgnored,
    log,
)


class Life:
    """The store of a client or engine, open for the time of an `async with`, and its background tasks."""

    def __init__(self, address: Any, *, settings: Settings | None) -> None:
        self.settings = Settings() if settings is None else settings
        if not isinstance(self.settings, Settings):
            raise SettingsError(f"settings takes Settings(...), not {settings!r}")
        self.events = Events(log)
        self._address = address
        self._store: Store = self._new_store()
        self._waiting = Waiting()
        self._following = Following()
        self._life: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._pid = os.getpid()
        self._failure: EngineError | None = None

    async def __aenter__(self) -> Self:
        """Connect, and create or migrate the schema.

        Raises:
            StoreUnavailable, StoreCorrupt, SchemaMismatch: the store can't be used; the message says
                what to do.
            EngineError: it is open already.
        """
        if self._life is not None:
            raise EngineError(f"this {type(self).__name__} is open already")
        self._store = self._new_store()
        self._waiting = Waiting()
        self._following = Following()
        self._closing = asyncio.Event()
        self._failure = None
        self._pid = os.getpid()
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A task of its own, since `async with` may be left in another one than it was entered in.
        self._life = asyncio.create_task(self._live(opened), name=f"asyncjobs {type(self).__name__}")
        try:
            await opened
        except BaseException:
            await self._end_life()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish what was asked for, and disconnect; a second cancellation shortens it."""
        if kind is not None and not issubclass(kind, Exception):
            self._hurry()
        await self._end_life()
        if self._failure is not None and error is None:
            raise self._failure

    async def _end_life(self) -> None:
        life, self._life = self._life, None
        if life is None or self._pid != os.getpid():
            return
        self._closing.set()
        canceled: asyncio.CancelledError | None = None
        while not life.done():
            try:
                await asyncio.wait([life])
            except asyncio.CancelledError as error:
                if canceled is not None:
                    life.cancel()
                canceled = error
                self._hurry()
        if canceled is not None:
            raise canceled
        if not life.cancelled() and (failure := life.exception()) is not None and self._failure is None:
            raise failure

    async def _live(self, opened: asyncio.Future[None]) -> None:
        try:
            await self._store.open()
            for variable, nearest in ignored_variables():
                self._emit(VariableIgnored(variable, nearest))
            try:
                async with asyncio.TaskGroup() as group:
                    background = self._start_background(group)
                    await self._serve(opened)
                    for each in background:
                        each.cancel()
            finally:
                await self._store.close()
        except BaseException as caught:
            error = _innermost(caught)
            if isinstance(error, EngineFailed):
                self._failure = error
            if not opened.done():
                opened.set_exception(error)
            elif self._failure is None:
                raise
        finally:
            ended = self._failure or NotOpen(type(self).__name__, "it was closed; the job is kept, wait for it anew")
            self._waiting.fail(ended)
            self._following.fail(ended)

    def _start_background(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        def waiting() -> Any:
            return self._waiting.run(self._store)

        def following() -> Any:
            return self._following.run(self._store)

        return [
            group.create_task(supervise(name, run, events=self.events), name=f"asyncjobs {name}")
            for name, run in (("waiting", waiting), ("following", following), ("watching", self._watch))
        ]

    async def _serve(self, opened: asyncio.Future[None]) -> None:
        """Say that we are open, and stay so until we are closed."""
        if not opened.done():
            opened.set_result(None)
        await self._closing.wait()

    def _hurry(self) -> None:
        """Skip what graces there are when closing; a client has none."""

    async def _watch(self) -> None:
        while True:
            await self._on_change(await self._store.changed())

    async def _on_change(self, change: Change) -> None:
        """Another process has changed something, or may have."""
        if change.moved:
            self._waiting.look_again()
            self._following.look_again()

    def _new_store(self) -> Store:
        return open_store(self._address, settings=self.settings)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with every event of this client (`asyncjobs.telemetry` has their classes).

        It runs in the loop where the event happens, so it must be quick; what it raises is logged. The
        function returned ends that.

        Raises:
            InvalidOptions: `listener` can't be called.
        """
        if not callable(listener):
            raise InvalidOptions(f"subscribe takes a function of one event, not {listener!r}")
        return self.events.subscribe(listener)

    def _emit(self, event: Event) -> None:
        if type(event) is JobFinished:
            self._waiting.ended(event.job)
            self._following.look(event.job.id)
        elif type(event) is JobStarted:
            self._waiting.forget(event.job.id)
        elif type(event) is JobRetryScheduled or type(event) is JobInterrupted:
            self._following.look(event.job.id)  # that attempt says nothing more
        self.events.emit(event)

    def _opened_store(self) -> Store:
        if self._pid != os.getpid():
            raise ForkedClient(type(self).__name__)
        if self._failure is not None:
            raise self._failure
        if self._life is None:
            raise NotOpen(type(self).__name__)
        return self._store


def _innermost(error: BaseException) -> BaseException:
    """Return the error that a task group wrapped; of several, the one that says most."""
    while isinstance(error, BaseExceptionGroup):
        told = error.subgroup(AsyncJobsError)
        error = (told or error).exceptions[0]
    return error

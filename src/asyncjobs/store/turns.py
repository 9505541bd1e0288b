"""Turns: what many callers ask for at once, written in one transaction.

    insert ─┐
    finish ─┼─> gathered ──turn──> one transaction ──> each caller's own answer
    claim  ─┘       (meanwhile the next turn gathers)

One turn runs at a time. It starts at once when there is something to do; whatever is asked for while
it commits goes into the next one. So a lone submit waits for nobody, and a thousand at once share a
commit. A turn that fails is rolled back and each caller's part is run again on its own, so that
everybody sees their own error only; where two in a row fail for a reason that is nobody's, so do the rest.

Within a turn ends come first, so that a claim can use their slots, and new jobs come before claims, so
that whoever is woken ahead of a submission finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from asyncjobs.errors import StoreAnswerLost, StoreBusy, StoreError, StoreUnavailable, StoreUnreachable

if TYPE_CHECKING:
    from asyncjobs.store.database import Database

T = TypeVar("T")
W = TypeVar("W")
Row: TypeAlias = tuple[Any, ...]
LARGEST_TURN = 1000
CLOSE_SECONDS = 5.0
_HOPELESS = (StoreBusy, StoreUnreachable)
"""Nobody's part would fare better on its own."""


class Repeatable(StoreUnavailable):
    """The database has rolled back what was asked for, for a reason that may be gone at once."""


class Step(NamedTuple):
    """One statement, run once for each of `parameters`.

    It answers with all rows that came back where `returns` is set; else with the number of rows
    changed, alone in a list, where it is run once.
    """

    sql: str
    parameters: Sequence[Row]
    returns: bool = False


class End(NamedTuple):
    """The end of an attempt: what changes its job's row, fenced, and the attempt's own row.

    `status` is the next one asked for. It is answered with the status written, or None.
    """

    fenced: Row
    attempt: Row
    status: str


class Take(NamedTuple):
    """A claim; it is answered with the rows taken and the earliest `run_at` that waits.

    It takes so many that no more than `max_running` of the name run, over all engines.
    """

    name: str
    limit: int
    engine_id: str
    now: int
    max_running: int | None = None


_NOBODYS_FAULT = (*_HOPELESS, Repeatable, StoreAnswerLost)


@dataclass(slots=True, eq=False)
class Part(Generic[W, T]):
    """What one caller wants in a turn, and how what comes of it becomes the caller's answer."""

    wanted: W
    read: Callable[[Any], T]
    answer: asyncio.Future[T]

    def settle(self, brought: Any) -> None:
        """Answer the caller, who may have gone."""
        if self.answer.done():
            return
        if isinstance(brought, StoreError):
            self.answer.set_exception(brought)
            return
        try:
            self.answer.set_result(self.read(brought))
        except Exception as error:  # a row that can't be read is the business of whoever asked for it
            self.refuse(StoreError(f"a row can't be read: {type(error).__name__}: {error}"))

    def refuse(self, error: StoreError) -> None:
        """Tell the caller that nothing came of it."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(slots=True, eq=False)
class Turn:
    """The parts that share a transaction, by kind and in the order in which they are run."""

    ends: list[Part[End, Any]] = field(default_factory=list["Part[End, Any]"])
    steps: list[Part[Sequence[Step], Any]] = field(default_factory=list["Part[Sequence[Step], Any]"])
    inserts: list[Part[Sequence[Row], Any]] = field(default_factory=list["Part[Sequence[Row], Any]"])
    takes: list[Part[Take, Any]] = field(default_factory=list["Part[Take, Any]"])

    def __iter__(self) -> Iterator[Part[Any, Any]]:
        for parts in (self.ends, self.steps, self.inserts, self.takes):
            yield from parts

    def __len__(self) -> int:
        return len(self.ends) + len(self.steps) + len(self.inserts) + len(self.takes)

    def split(self, most: int) -> tuple[Turn, Turn]:
        """Return a turn of at most so many parts of each kind, and the rest."""
        return self._only(slice(most)), self._only(slice(most, None))

    def _only(self, some: slice) -> Turn:
        return Turn(self.ends[some], self.steps[some], self.inserts[some], self.takes[some])

    def apart(self) -> list[Turn]:
        """Return a turn for each part."""
        return [
            *(Turn(ends=[part]) for part in self.ends),
            *(Turn(steps=[part]) for part in self.steps),
            *(Turn(inserts=[part]) for part in self.inserts),
            *(Turn(takes=[part]) for part in self.takes),
        ]


class Turns:
    """Gathers parts, and runs one turn of them at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._gathered = Turn()
        self._under_way = Turn()
        self._wake = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._open = False

    def start(self) -> None:
        """Run turns from now on."""
        self._open = True
        self._running = asyncio.create_task(self._run(), name="asyncjobs store turns")

    async def stop(self) -> None:
        """Run what was asked for, within bounds; nothing is taken from now on."""
        self._open = False
        running, self._running = self._running, None
        if running is not None:
            self._wake.set()
            await asyncio.wait([running], timeout=CLOSE_SECONDS)
            running.cancel()
            await asyncio.wait([running])

    async def end(self, wanted: End, read: Callable[[Any], T]) -> T:
        """End an attempt in the next turn."""
        part = self._part(wanted, read)
        self._gathered.ends.append(part)
        return await part.answer

    async def run(self, steps: Sequence[Step], read: Callable[[list[list[Any]]], T]) -> T:
        """Run steps in the next turn.

        A caller that is cancelled leaves its part behind: it is run, or not, as a whole.
        """
        part = self._part(steps, read)
        self._gathered.steps.append(part)
        return await part.answer

    async def insert(self, rows: Sequence[Row]) -> None:
        """Write new jobs in the next turn."""
        part = self._part(rows, _nothing)
        self._gathered.inserts.append(part)
        await part.answer

    async def take(self, wanted: Take, read: Callable[[Any], T]) -> T:
        """Claim jobs in the next turn."""
        part = self._part(wanted, read)
        self._gathered.takes.append(part)
        return await part.answer

    async def drain(self) -> None:
        """Return once everything that was asked for before has been run, or refused."""
        waiting = [part.answer for part in (*self._under_way, *self._gathered)]
        if waiting:
            await asyncio.wait(waiting)

    def _part(self, wanted: W, read: Callable[[Any], T]) -> Part[W, T]:
        if self._running is None or self._running.done():
            raise StoreUnavailable(f"{self._database} is not open")
        self._wake.set()
        return Part(wanted, read, asyncio.get_running_loop().create_future())

    async def _run(self) -> None:
        try:
            while self._open or self._gathered:
                if not self._gathered:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                self._under_way, self._gathered = self._gathered.split(LARGEST_TURN)
                await self._settle(self._under_way)
        finally:
            closed = StoreUnavailable(f"{self._database} was closed before it had answered")
            _refuse((*self._under_way, *self._gathered), closed)

    async def _settle(self, turn: Turn) -> None:
        error = await self._write(turn)
        if error is None:
            return
        if len(turn) == 1 or isinstance(error, _HOPELESS):
            _refuse(turn, error)
            return
        in_a_row = 0
        for each in turn.apart():
            if in_a_row < 2:
                error = await self._write(each)
                in_a_row = in_a_row + 1 if isinstance(error, _NOBODYS_FAULT) else 0
            if error is not None:
                _refuse(each, error)

    async def _write(self, turn: Turn) -> StoreError | None:
        """Write a turn and answer its parts; return the error for which none of it was done."""
        try:
            brought = await self._database.write(turn)
        except StoreError as error:
            return error
        except Exception as error:  # a fault of ours: whoever asked is told, and the next turn runs
            return StoreError(f"{self._database} failed: {type(error).__name__}: {error}")
        for part, its in zip(turn, brought, strict=True):
            part.settle(its)
        return None


def _refuse(parts: Iterable[Part[Any, Any]], error: StoreError) -> None:
    for part in parts:
        part.refuse(error)


def _nothing(_brought: Any) -> None:
    return None

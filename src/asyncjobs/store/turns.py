"""Turns: what many callers ask for at once, written in one transaction.

    insert ─┐
    finish ─┼─> gathered ──turn──> one transaction ──> each caller's own answer
    claim  ─┘       (meanwhile the next turn gathers)

One turn runs at a time. It starts at once when there is something to do, and takes what has gathered by
the time that the connection is ready; whatever is asked for while it commits goes into the next one. So
a lone submit waits for nobody, and a thousand at once share a commit. A turn that fails is rolled back
and each caller's part is run again on its own, so that everybody sees their own error only; where two in
a row fail for a reason that is nobody's, so do the rest.

Within a turn ends come first, so that a claim can use their slots, and new jobs come before claims, so
that whoever is woken ahead of a submission finds it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from msgspec import Struct

from asyncjobs.errors import StoreAnswerLost, StoreBusy, StoreError, StoreUnavailable, StoreUnreachable

if TYPE_CHECKING:
    from asyncjobs.store.database import Database

T = TypeVar("T")
W = TypeVar("W")
Row: TypeAlias = tuple[Any, ...]
Kind: TypeAlias = Literal["ends", "steps", "inserts", "takes"]
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
Brought: TypeAlias = list[Any] | StoreError
"""What each part of a turn has brought, in their order, or why nothing of it was done."""


class Part(Struct, Generic[W, T], eq=False):
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


class Turn(Struct, eq=False):
    """The parts that share a transaction, by kind and in the order in which they are run."""

    ends: list[Part[End, Any]] = []
    steps: list[Part[Sequence[Step], Any]] = []
    inserts: list[Part[Sequence[Row], Any]] = []
    takes: list[Part[Take, Any]] = []

    def __iter__(self) -> Iterator[Part[Any, Any]]:
        for parts in (self.ends, self.steps, self.inserts, self.takes):
            yield from parts

    def __len__(self) -> int:
        return len(self.ends) + len(self.steps) + len(self.inserts) + len(self.takes)

    def split(self, most: int) -> tuple[Turn, Turn]:
        """Return a turn of at most so many parts of each kind, and the rest."""
        if len(self) <= most:
            return self, Turn()
        first, rest = self._only(slice(most)), self._only(slice(most, None))
        if rest.ends:  # no claim comes before the ends whose slots it may use
            first.takes, rest.takes = [], self.takes
        return first, rest

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


_NOTHING = Turn()


class Turns:
    """Gathers parts, and has the database run one turn of them at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._gathering = threading.Lock()
        """Held while parts move: whichever thread writes takes them."""
        self._gathered = Turn()
        self._apart: deque[Turn] = deque()
        """Parts of a turn that failed, each to be run alone before anything else."""
        self._under_way = _NOTHING
        self._failed_in_a_row = 0
        self._busy = False
        self._turn_over: asyncio.Future[None] | None = None
        """What those wait for who wait for the end of a turn."""
        self._open = self._refuses = False

    def start(self) -> None:
        """Run turns from now on."""
        self._open, self._refuses, self._busy = True, False, False

    async def stop(self) -> None:
        """Run what was asked for, within bounds; nothing is taken from now on."""
        self._open = False
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._busy:
                    await self._end_of_turn()
        except TimeoutError:
            pass
        finally:
            self._refuses = True
            with self._gathering:
                left = [*chain.from_iterable(self._apart), *self._gathered]
                self._apart.clear()
                self._gathered = Turn()
            _refuse(left, self._closed())

    def refuse_rest(self) -> None:
        """Answer the turn that was still under way when the database was closed, if the database has not."""
        _refuse(self._under_way, self._closed())

    def end(self, wanted: End, read: Callable[[Any], T]) -> Awaitable[T]:
        """End an attempt in the next turn, which begins so late that a claim of its slot can be part of it."""
        return self._ask("ends", wanted, read, soon=True)

    def run(self, steps: Sequence[Step], read: Callable[[list[list[Any]]], T]) -> Awaitable[T]:
        """Run steps in the next turn.

        A caller that is cancelled leaves its part behind: it is run, or not, as a whole.
        """
        return self._ask("steps", steps, read)

    def insert(self, rows: Sequence[Row], read: Callable[[None], T]) -> Awaitable[T]:
        """Write new jobs in the next turn."""
        return self._ask("inserts", rows, read)

    def take(self, wanted: Take, read: Callable[[Any], T]) -> Awaitable[T]:
        """Claim jobs in the next turn."""
        return self._ask("takes", wanted, read)

    async def drain(self) -> None:
        """Return once everything that was asked for before has been run, or refused; also for callers who left."""
        asked_for = {id(part): part for part in self._left()}
        while asked_for.keys() & map(id, self._left()):
            await self._end_of_turn()

    def _ask(self, kind: Kind, wanted: Any, read: Callable[[Any], T], *, soon: bool = False) -> asyncio.Future[T]:
        if not self._open:
            raise StoreUnavailable(f"{self._database} is not open")
        part = Part(wanted, read, asyncio.Future())
        with self._gathering:
            getattr(self._gathered, kind).append(part)
        if not self._busy:
            self._busy = True
            self._database.begin(self._take, self._ended, soon=soon)
        return part.answer

    def _take(self) -> Turn:
        """Return the turn to be run now; called by the database, maybe in a thread of its own."""
        with self._gathering:
            if self._apart:
                self._under_way = self._apart.popleft()
            else:
                self._under_way, self._gathered = self._gathered.split(LARGEST_TURN)
            return self._under_way

    def _ended(self, turn: Turn, brought: Brought) -> None:
        """Answer a turn's parts, and begin the next; called by the database, in the loop."""
        self._under_way = _NOTHING
        if isinstance(brought, StoreError):
            self._failed(turn, brought)
        else:
            self._failed_in_a_row = 0
            for part, its in zip(turn, brought, strict=True):
                part.settle(its)
        if self._apart or self._gathered:
            self._database.begin(self._take, self._ended, soon=False)
        else:
            self._busy = False
        if self._turn_over is not None:
            self._turn_over.set_result(None)
            self._turn_over = None

    def _failed(self, turn: Turn, error: StoreError) -> None:
        if len(turn) > 1 and not isinstance(error, _HOPELESS) and not self._refuses:
            self._failed_in_a_row = 0
            self._apart.extend(turn.apart())
            return
        _refuse(turn, error)
        self._failed_in_a_row = self._failed_in_a_row + 1 if isinstance(error, _NOBODYS_FAULT) else 0
        if self._failed_in_a_row > 1:
            while self._apart:
                _refuse(self._apart.popleft(), error)

    def _left(self) -> list[Part[Any, Any]]:
        with self._gathering:
            return [*self._under_way, *chain.from_iterable(self._apart), *self._gathered]

    async def _end_of_turn(self) -> None:
        if self._turn_over is None:
            self._turn_over = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._turn_over])

    def _closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._database} was closed before it had answered")


def _refuse(parts: Iterable[Part[Any, Any]], error: StoreError) -> None:
    for part in parts:
        part.refuse(error)

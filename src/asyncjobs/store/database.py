"""What the store needs of a database: how turns run, how others are noticed, how engines are known to live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlalchemy.engine import Dialect

from asyncjobs.model.job import EngineRecord
from asyncjobs.store import Change, Sighting
from asyncjobs.store.clock import Clock
from asyncjobs.store.turns import Brought, Step, Turn


class Database(Protocol):
    """A SQLite file, or a schema of PostgreSQL's."""

    @property
    def clock(self) -> Clock:
        """What time it is by its own clock; each sign of life sets it."""
        ...

    @property
    def dialect(self) -> Dialect:
        """How SQLAlchemy writes statements for it, their parameters by number or in order."""
        ...

    async def open(self) -> None:
        """Connect, and create or migrate the schema; see `Store.open`."""
        ...

    async def close(self) -> None:
        """Free every engine's lock and disconnect; twice is once."""
        ...

    def begin(self, take: Callable[[], Turn], ended: Callable[[Turn, Brought], None], *, soon: bool) -> None:
        """Run a turn as one transaction: what `take` returns once it can begin; one turn runs at a time.

        With `soon` that is in the loop's next pass at the earliest. `take` may be called in another
        thread, `ended` is called in the loop. An end brings the status written or None, steps a list of
        answers, an insert None, and a take its rows (`seq`, `env`, then JOB_COLUMNS, in any order) and the
        earliest `run_at` that still waits. Where an answer was lost on the way, all but claims are run
        again: they change nothing the second time. A claim then brings StoreAnswerLost, since nobody
        knows what it took. StoreBusy and StoreUnreachable say that no part of the turn can be blamed.
        """
        ...

    async def read(self, steps: Sequence[Step]) -> list[list[Any]]:
        """Run reading steps, beside whatever is being written; return the answer of each."""
        ...

    def as_sent(self, step: Step) -> Step:
        """Return a step as this database's driver takes it."""
        ...

    def told_at_commit(self, change: Change) -> Sequence[Step]:
        """Return the steps that tell other processes of a change when their transaction commits."""
        ...

    def tell_due(self, names: Sequence[str]) -> None:
        """Hint to other processes that jobs of these names wait."""
        ...

    def tell(self, change: Change) -> None:
        """Hint to other processes what has changed here."""
        ...

    async def changed(self) -> Change:
        """Return soon after another process has changed something, or may have."""
        ...

    async def hold(self, engine_id: str) -> None:
        """Take an engine's lock, which its death frees; nobody has been told of the engine yet."""
        ...

    async def let_go(self, engine_id: str, *, for_good: bool) -> None:
        """Free an engine's lock if it is held here; `for_good` when its row is gone too."""
        ...

    async def beat(self, engine_id: str) -> bool:
        """Say that an engine of this process lives; False when its row is gone.

        Raises:
            StoreUnavailable: there was no round trip.
        """
        ...

    async def unheld(self, engines: Sequence[EngineRecord]) -> list[Sighting]:
        """Return those of the engines that are dead, as far as their locks tell."""
        ...

    async def living(self, engines: Sequence[EngineRecord]) -> set[str]:
        """Return the ids of those that live, as far as their locks tell now."""
        ...

"""What the store needs of a database: how turns run, how others are noticed, how engines are known to live."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from sqlalchemy.engine import Dialect

from asyncjobs.model.job import EngineRecord
from asyncjobs.store import Sighting
from asyncjobs.store.turns import Step, Turn


class Database(Protocol):
    """A SQLite file, or a schema of PostgreSQL's."""

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

    async def write(self, turn: Turn) -> list[Any]:
        """Run a turn as one transaction; return what each part brings, in their order.

        An end brings the status written or None, steps a list of answers, an insert None, and a take
        its rows (`seq`, `env`, then JOB_COLUMNS, in any order) and the earliest `run_at` that still waits.

        Raises:
            StoreAnswerLost: all of it was done, or nothing.
            StoreError: nothing of it was done.
        """
        ...

    async def read(self, steps: Sequence[Step]) -> list[list[Any]]:
        """Run reading steps, beside whatever is being written; return the answer of each."""
        ...

    def tell(self, names: Collection[str], *, ended: bool) -> None:
        """Hint to other processes that jobs of these names became due here, or that some have ended."""
        ...

    async def changed(self) -> frozenset[str] | None:
        """Return soon after another process has written something, or may have: the names of jobs that
        became due, or None for anything.
        """
        ...

    async def hold(self, engine_id: str) -> None:
        """Take an engine's lock, which its death frees; nobody has been told of the engine yet."""
        ...

    async def let_go(self, engine_id: str, *, for_good: bool) -> None:
        """Free an engine's lock if it is held here; `for_good` when its row is gone too."""
        ...

    async def unheld(self, engines: Sequence[EngineRecord]) -> list[Sighting]:
        """Return those of the engines that are dead, as far as their locks tell."""
        ...

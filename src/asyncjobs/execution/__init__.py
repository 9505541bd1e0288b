"""How an attempt is run: the Runner protocol, the front door of this folder.

    claim ── Runner.run(claim, definition, asked=…) ──> Ended(outcome, process)

A runner never raises for what a job does: whatever happens becomes an outcome.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from asyncjobs.model.outcome import Canceled, Interrupted, Outcome, ProcessReport

if TYPE_CHECKING:
    from asyncjobs.definition import JobDefinition
    from asyncjobs.model.job import Job, Progress

Asked = asyncio.Future[Canceled | Interrupted]
"""Resolved by the worker when the attempt is to end early; the value becomes its outcome."""


class Notes(Protocol):
    """Takes what an attempt says while it runs: called in the loop, returns at once."""

    def output(self, stream: str, text: str) -> None:
        """Take a piece of what the job's process prints; `stream` is `stdout` or `stderr`."""
        ...

    def progress(self, progress: Progress) -> None:
        """Take how far the job says it is; it replaces what it said before."""
        ...

    def details(self, changes: dict[str, Any]) -> None:
        """Take keys and JSON values to be merged into the job's details."""
        ...


class Ended(Struct, frozen=True):
    """How an attempt ended. While `busy` is not done, its slot can't be used again."""

    outcome: Outcome
    process: ProcessReport = ProcessReport()
    busy: asyncio.Future[None] | None = None


class NotStarted(Exception):
    """No process could be started for want of resources (EMFILE, EAGAIN, ENOMEM); no attempt was made."""


class NotExecutable(NotStarted):
    """The interpreter is there and can't be executed; waiting changes nothing about that."""


class Runner(Protocol):
    """Runs attempts in one kind of isolation."""

    async def run(
        self, job: Job, definition: JobDefinition[..., object], *, env: dict[str, str], asked: Asked, notes: Notes
    ) -> Ended:
        """Run one attempt of `job` to its end, and leave no process of it behind.

        The attempt has `job.timeout` seconds, the import of its module included, the building of its
        environment not. At that deadline, or when `asked` resolves, its end is settled: the job is
        asked to end, has `job.kill_grace` seconds for it, and is killed with its whole tree.
        Cancelling the call kills at once.

        Raises:
            NotStarted: no process could be started; the attempt counts as interrupted.
        """
        ...

    async def prepare(self, definition: JobDefinition[..., object]) -> None:
        """Build and start what the jobs of a definition need, ahead of the first."""
        ...

    async def close(self) -> None:
        """End what was started ahead of need. No attempt may be running."""
        ...

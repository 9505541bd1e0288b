"""What attempts say while they run: told to the listeners at once, written to the store soon.

    output, progress ──> events
            └──> gathered per attempt ──┬── up to four times a second ──> one turn for all attempts
                                        └── flush, before the end is written

A piece of output has its number when it is first sent, and does not change any more: so it is sent
again after an answer that was lost, and is there once. Of progress only the latest is kept. While the
store is down each attempt keeps so much output and no more; for the oldest, a line says how much it was.
An attempt that says nothing costs nothing here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from asyncjobs.errors import StoreError
from asyncjobs.model.job import Job, LogChunk, Progress
from asyncjobs.store import OutputChunk, Store
from asyncjobs.telemetry import Event, JobOutput, JobProgressed, TaskCrashed

GATHER_SECONDS = 0.25
FIRST_PAUSE = 0.1
LARGEST_CHUNK = 10_000  # characters: below 64 KiB, however they are encoded or written out
LARGEST_WRITE = 32  # chunks of one attempt in one turn
LEAST_ROOM = 2 * 1024 * 1024
CHUNK_COST = 256  # bytes that a chunk takes beside its text


@dataclass(slots=True, eq=False)
class NoteWriter:
    """Writes what the attempts of one engine say, for all of them together."""

    store: Store
    emit: Callable[[Event], None]
    written: Callable[[str], None]
    """Told the id of each job of which something was written."""
    max_output: int
    """How many bytes of output are kept of an attempt whose definition does not say."""
    _backlogs: dict[Backlog, None] = field(default_factory=dict["Backlog", None])
    _some: asyncio.Event = field(default_factory=asyncio.Event)

    def notes_of(self, job: Job, *, max_output: int | None) -> AttemptNotes:
        """Return the notes of the attempt that `job` is, which begins."""
        return AttemptNotes(self, job, self.max_output if max_output is None else max_output)

    async def run(self) -> None:
        """Write what gathers, for ever.

        Raises:
            StoreError: some of it could not be written; it is tried again by the next `run`.
        """
        behind = False
        while True:
            if not self._backlogs:
                self._some.clear()
                await self._some.wait()
            if not behind:
                await asyncio.sleep(GATHER_SECONDS)
            behind = await self._write_all()

    async def _write_all(self) -> bool:
        """Write some of each attempt's, in one turn; return whether an attempt has much more."""
        async with asyncio.TaskGroup() as group:
            tries = [group.create_task(self._try(each), name="asyncjobs notes") for each in self._backlogs]
        for each in tries:
            if (error := each.result()) is not None:
                raise error
        return any(each.is_large for each in self._backlogs)

    async def _try(self, backlog: Backlog) -> StoreError | None:
        try:
            await self.write(backlog)
        except StoreError as error:
            return error
        return None

    def add(self, backlog: Backlog) -> None:
        """Write this soon."""
        self._backlogs[backlog] = None
        self._some.set()

    async def write(self, backlog: Backlog) -> None:
        """Write some of what an attempt has said, now."""
        async with backlog.writing:
            output, progress = backlog.take()
            if output or progress is not None:
                if await self.store.note(backlog.job, output, progress):
                    backlog.confirm(len(output), progress)
                else:
                    backlog.clear()  # the attempt is over: nothing it says counts any more
            if backlog.is_empty:
                self._backlogs.pop(backlog, None)
        self.written(backlog.job.id)


class AttemptNotes(Struct, eq=False):
    """Takes the notes of one attempt."""

    _writer: NoteWriter
    _job: Job
    _max_output: int
    _backlog: Backlog | None = None

    def output(self, stream: str, text: str) -> None:
        """Tell a piece of what the job's process prints, and have it written."""
        self._writer.emit(JobOutput(self._job, stream, text))
        backlog = self._needed()
        backlog.add_output(stream, text, now=datetime.now(UTC))
        self._writer.add(backlog)

    def progress(self, progress: Progress) -> None:
        """Tell how far the job says it is, and have it written; the details stay."""
        backlog = self._needed()
        self._put(backlog, replace(progress, details=backlog.progress.details))

    def details(self, changes: dict[str, Any]) -> None:
        """Merge keys and JSON values into the job's details, tell them and have them written.

        Raises:
            TypeError, ValueError: something in it is no JSON value.
        """
        backlog = self._needed()
        # A copy: a job that runs in this process may go on changing what it gave.
        told = json.loads(json.dumps(changes))
        self._put(backlog, replace(backlog.progress, details={**backlog.progress.details, **told}))

    def _put(self, backlog: Backlog, progress: Progress) -> None:
        backlog.progress = replace(progress, attempt=self._job.attempt, updated_at=datetime.now(UTC))
        self._writer.emit(JobProgressed(self._job, backlog.progress))
        self._writer.add(backlog)

    def _needed(self) -> Backlog:
        if self._backlog is None:
            # The second half of what is kept of an output comes all at once, when the process ends.
            self._backlog = Backlog(self._job, room=LEAST_ROOM + self._max_output // 2)
        return self._backlog

    async def flush(self, *, seconds: float) -> None:
        """Return once all that was said is in the store; where that fails, after so many seconds.

        What could not be written by then still is, if the store comes back before the attempt's
        end is written.
        """
        backlog = self._backlog
        if backlog is None or backlog.is_empty:
            return
        problem: Exception | None = None
        pause = FIRST_PAUSE
        try:
            async with asyncio.timeout(seconds):
                while not backlog.is_empty:
                    try:
                        await self._writer.write(backlog)
                    except StoreError as error:
                        problem = error
                        await asyncio.sleep(pause)
                        pause *= 2
        except TimeoutError as error:
            task = f"notes of {self._job.name} {self._job.id}"
            self._writer.emit(TaskCrashed(task=task, error=problem or error, final=False))


@dataclass(slots=True, eq=False)
class Backlog:
    """What one attempt has said and the store does not have yet."""

    job: Job
    room: int
    """How many bytes of output may wait."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    progress: Progress = field(default_factory=Progress)
    _pieces: list[_Piece] = field(default_factory=list["_Piece"])
    _sent: int = 0
    """How many of the pieces may be in the store already: they don't change any more."""
    _last_seq: int = 0
    _size: int = 0
    _written_progress: Progress | None = None

    def __post_init__(self) -> None:
        self._written_progress = self.progress

    @property
    def is_empty(self) -> bool:
        """Whether the store has everything."""
        return not self._pieces and self.progress is self._written_progress

    @property
    def is_large(self) -> bool:
        """Whether it is more than one write takes."""
        return len(self._pieces) > LARGEST_WRITE

    def add_output(self, stream: str, text: str, *, now: datetime) -> None:
        """Add a piece of output, joined to the one before it where that may still grow."""
        for start in range(0, len(text), LARGEST_CHUNK):
            self._add_piece(stream, text[start : start + LARGEST_CHUNK], now)
        if self._size > self.room:
            self._drop_oldest()

    def _add_piece(self, stream: str, text: str, now: datetime) -> None:
        size = len(text.encode("utf-8", "surrogatepass"))
        last = self._pieces[-1] if len(self._pieces) > self._sent else None
        if last is not None and last.takes(stream, text):
            last.text += text
            last.size += size
            self._size += size
        else:
            self._last_seq += 1
            self._pieces.append(_Piece(self._last_seq, stream, text, now, size))
            self._size += size + CHUNK_COST

    def _drop_oldest(self) -> None:
        """Drop the oldest pieces that were not sent, down to half the room, and leave a line in their place."""
        end = self._sent
        while self._size > self.room // 2 and end < len(self._pieces) - 1:
            self._size -= self._pieces[end].size + CHUNK_COST
            end += 1
        dropped = self._pieces[self._sent : end]
        if dropped:
            lost = sum(piece.lost or piece.size for piece in dropped)
            line = f"\n[{lost} bytes of output dropped: the store did not take them in time]\n"
            last = dropped[-1]
            self._pieces[self._sent : end] = [_Piece(last.seq, last.stream, line, last.at, len(line), lost)]
            self._size += len(line) + CHUNK_COST

    def take(self) -> tuple[list[OutputChunk], Progress | None]:
        """Return what is to be written next; it stays here until it is confirmed."""
        self._sent = max(self._sent, min(len(self._pieces), LARGEST_WRITE))
        output = [OutputChunk(each.seq, each.chunk(self.job.attempt)) for each in self._pieces[: self._sent]]
        return output, None if self.progress is self._written_progress else self.progress

    def confirm(self, pieces: int, progress: Progress | None) -> None:
        """Forget what was taken: so many pieces, and this progress, are in the store."""
        self._size -= sum(each.size + CHUNK_COST for each in self._pieces[:pieces])
        del self._pieces[:pieces]
        self._sent = 0
        if progress is not None:
            self._written_progress = progress

    def clear(self) -> None:
        """Forget everything."""
        self.confirm(len(self._pieces), self.progress)


@dataclass(slots=True, eq=False)
class _Piece:
    """A piece of output; `size` is in bytes, and `lost` those for which it stands instead."""

    seq: int
    stream: str
    text: str
    at: datetime
    size: int
    lost: int = 0

    def takes(self, stream: str, text: str) -> bool:
        return self.stream == stream and not self.lost and len(self.text) + len(text) <= LARGEST_CHUNK

    def chunk(self, attempt: int) -> LogChunk:
        return LogChunk(attempt=attempt, stream=self.stream, text=self.text, written_at=self.at)

"""The store on SQL: verbs become what a turn carries, and what comes of it becomes their answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from msgspec.structs import replace

from asyncjobs.errors import StoreCorrupt
from asyncjobs.model.job import FINAL, Attempt, EngineRecord, Job, JobError, JobStatus, Progress
from asyncjobs.model.outcome import Transition
from asyncjobs.store import (
    Bookmark,
    Change,
    Claim,
    JobFilter,
    News,
    OutputChunk,
    Settled,
    Sighting,
    Submission,
    note_statements,
    statements,
)
from asyncjobs.store.clock import Clock
from asyncjobs.store.database import Database
from asyncjobs.store.records import (
    STATUSES,
    attempt_from_row,
    claimed_from_row,
    engine_from_row,
    instant,
    job_from_row,
    output_from_row,
    progress_from_row,
    status_of,
)
from asyncjobs.store.rows import (
    attempt_row,
    bookmark_row,
    engine_row,
    error_text,
    fence_of,
    fenced_row,
    micros,
    output_row,
    progress_row,
    submission_row,
)
from asyncjobs.store.turns import End, Step, Take, Turns
from asyncjobs.store.within import run_within
from asyncjobs.unhurried import unhurried

Answers = list[list[Any]]
_MOVED = Change(moved=True)


class SqlStore:
    """A Store on a SQL database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turns = Turns(database)
        self._limited: set[str] = set()
        """The names of which only so many run at once, over all engines."""

    @property
    def clock(self) -> Clock:
        """What time it is, by the clock that all who use the store share."""
        return self._database.clock

    async def open(self) -> None:
        """Connect, and create or migrate the schema."""
        await self._database.open()
        self._turns.start()

    async def close(self) -> None:
        """Finish the turns that were asked for, then disconnect."""
        try:
            await self._turns.stop()
        finally:
            try:
                await self._database.close()
            finally:
                self._turns.refuse_rest()

    # --- jobs -----------------------------------------------------------------------------------

    def insert_one(self, submission: Submission) -> Awaitable[Job]:
        """Write a job; return it as it is stored."""
        job = submission.job
        if job.key is not None or self._database.clock.ahead:
            return self._only(submission)
        return self._turns.insert([submission_row(submission)], partial(self._told, job))

    async def _only(self, submission: Submission) -> Job:
        [job] = await self.insert([submission])
        return job

    def _told(self, job: Job, _brought: None) -> Job:
        self._database.tell_due((job.name,))
        return job

    async def insert(self, submissions: Sequence[Submission]) -> list[Job]:
        """Write all or none; return the jobs as they are stored."""
        corrected = self._by_the_shared_clock(submissions)
        jobs = [each.job for each in corrected]
        rows = await unhurried(submission_row, corrected)
        keyed = [job for job in jobs if job.key is not None]
        if keyed:
            steps = [statements.insert_jobs(rows), statements.jobs_in_place(keyed)]
            found = await self._turns.run(steps, lambda answers: _in_place(jobs, answers[1]))
            jobs = await _completed(found, submissions, self.insert)
        else:
            await self._turns.insert(rows, _nothing)
        self._database.tell_due([job.name for job in jobs])
        return jobs

    async def insert_within(self, transaction: Any, submissions: Sequence[Submission]) -> list[Job]:
        """Write jobs in a transaction of the application's; whoever claims is told when it commits."""
        corrected = self._by_the_shared_clock(submissions)
        jobs = [each.job for each in corrected]
        keyed = [job for job in jobs if job.key is not None]
        steps = [
            statements.insert_jobs(await unhurried(submission_row, corrected)),
            *([statements.jobs_in_place(keyed)] if keyed else []),
            *self._database.told_at_commit(Change(due=frozenset(job.name for job in jobs))),
        ]
        answers = await run_within(transaction, self._database, steps)
        if not keyed:
            return jobs
        return await _completed(_in_place(jobs, answers[1]), submissions, partial(self.insert_within, transaction))

    def _by_the_shared_clock(self, submissions: Sequence[Submission]) -> Sequence[Submission]:
        """Correct when jobs are due that was counted from our clock.

        One with a delay stays one by its times: else a clock turned back would make it due (`bring_forward`).
        """
        ahead = self._database.clock.ahead
        if not ahead:
            return submissions
        return [
            each if each.named else replace(each, job=replace(each.job, run_at=_due(each.job, ahead)))
            for each in submissions
        ]

    async def get(self, job_id: str) -> Job | None:
        """Return the job with its attempts, or None."""
        return _read_whole_job(await self._database.read(_whole_job(job_id)))

    async def page(self, wanted: JobFilter, *, limit: int, before: str | None) -> list[Job]:
        """Return at most `limit` jobs, newest first, older than the id `before`."""
        if _matches_nothing(wanted):
            return []
        statuses = [None] if wanted.statuses is None else sorted(set(wanted.statuses))
        pages = [await self._newest(wanted, status=status, limit=limit, before=before) for status in statuses]
        newest = sorted((job for page in pages for job in page), key=lambda job: job.id, reverse=True)
        return newest[:limit]

    async def _newest(
        self, wanted: JobFilter, *, status: JobStatus | None, limit: int, before: str | None
    ) -> list[Job]:
        found: list[Job] = []
        while len(found) < limit:
            asked = limit - len(found)
            step = statements.newest_jobs(
                wanted, status=status, limit=asked, before=before, dialect=self._database.dialect
            )
            [rows] = await self._database.read([step])
            jobs = [job_from_row(row) for row in rows]
            found += jobs if wanted.params is None else [job for job in jobs if _has_params(job, wanted.params)]
            if len(jobs) < asked:
                break
            before = jobs[-1].id
        return found

    async def delete(self, wanted: JobFilter, *, limit: int) -> int:
        """Delete at most `limit` final jobs with all that belongs to them; return how many."""
        if wanted.params is not None:
            raise ValueError("params narrow a list down, not what is deleted")
        if _matches_nothing(wanted):
            return 0
        deleted = 0
        for status in sorted(FINAL if wanted.statuses is None else FINAL & {*wanted.statuses}):
            left, dialect = limit - deleted, self._database.dialect
            steps = statements.delete_final(wanted, status=status, limit=left, dialect=dialect)
            deleted += await self._turns.run(steps, lambda answers: int(answers[-1][0]))
            if deleted >= limit:
                break
        return deleted

    async def settled(self, job_ids: Collection[str]) -> Settled:
        """Return those of the jobs that have ended, and the ids that no job has."""
        ids = json.dumps(list(job_ids))
        ended, missing = await self._database.read([statements.ended_among(ids), statements.missing_among(ids)])
        return Settled(tuple(map(job_from_row, ended)), tuple(job_id for (job_id,) in missing))

    async def cancel(self, job_id: str, *, now: datetime) -> Job | None:
        """Make a PENDING job CANCELED, or note the wish on a RUNNING one."""
        error = error_text(JobError(kind="canceled", message="canceled before it started"))
        steps = [
            statements.cancel_waiting(job_id=job_id, error=error, now=micros(now)),
            statements.ask_running_to_cancel(job_id=job_id, now=micros(now)),
            *_whole_job(job_id),
        ]
        job = await self._turns.run(steps, _read_whole_job)
        self._database.tell(Change(moved=True, cancel=True))
        return job

    async def retry(self, job_id: str, *, now: datetime) -> Job | None:
        """Make a final job PENDING again."""
        due = now - self._database.clock.ahead
        steps = [statements.retry_final(job_id=job_id, now=micros(due)), *_whole_job(job_id)]
        job = await self._turns.run(steps, _read_whole_job)
        if job is not None:
            self._database.tell_due((job.name,))
        return job

    async def bring_forward(self, *, now: datetime) -> None:
        """Make due now what was due at once when it was submitted."""
        await self._turns.run([statements.bring_forward(now=micros(now))], _nothing)

    # --- attempts -------------------------------------------------------------------------------

    async def claim(
        self, name: str, *, limit: int, engine_id: str, now: datetime, max_running: int | None = None
    ) -> Claim:
        """Take up to `limit` due jobs of `name`."""
        if max_running is not None:
            self._limited.add(name)
        return await self._turns.take(Take(name, limit, engine_id, micros(now), max_running), _read_claim)

    async def finish(self, job: Job, transition: Transition, *, attempt: Attempt, now: datetime) -> JobStatus | None:
        """End the attempt that `job` is, if the row still says so."""
        end = End(fenced_row(job, transition, now=now), attempt_row(attempt), transition.status._value_)
        status = await self._turns.end(end, _read_status)
        if status is JobStatus.PENDING or job.name in self._limited:  # others may have waited for it to run fewer
            self._database.tell(Change(due=frozenset((job.name,)), moved=True))
        else:
            self._database.tell(_MOVED)
        return status

    async def note(self, job: Job, output: Sequence[OutputChunk], progress: Progress | None) -> bool:
        """Write what the attempt that `job` is has said, if the row still says that it runs."""
        steps = [
            note_statements.attempt_under_way(fence_of(job)),
            note_statements.insert_output([output_row(job, each) for each in output]),
        ]
        if progress is not None:
            steps.append(note_statements.put_progress(progress_row(job, progress)))
        under_way = await self._turns.run(steps, lambda answers: bool(answers[0]))
        self._database.tell(_MOVED)
        return under_way

    async def output(self, bookmark: Bookmark, *, limit: int) -> list[OutputChunk]:
        """Return at most `limit` chunks from the bookmark on."""
        step = note_statements.output_from(bookmark_row(bookmark), limit=limit)
        [rows] = await self._database.read([step])
        return list(map(output_from_row, rows))

    async def news(self, bookmarks: Sequence[Bookmark]) -> dict[Bookmark, News]:
        """Return what there is at each bookmark whose job is there."""
        places = json.dumps([bookmark_row(each) for each in bookmarks])
        [rows] = await self._database.read([note_statements.news_at(places)])
        return {bookmarks[at]: News(status_of(status), attempt, bool(more)) for at, status, attempt, more in rows}

    async def progress(self, job_id: str) -> Progress | None:
        """Return what the job's latest attempt has said of its progress."""
        [rows] = await self._database.read([note_statements.progress_of(job_id)])
        return progress_from_row(rows[0], job_id=job_id) if rows else None

    async def running(self, engine_id: str) -> Sequence[Job]:
        """Return the jobs that are RUNNING under this engine."""
        [rows] = await self._database.read([statements.running_under(engine_id)])
        return [job_from_row(row) for row in rows]

    async def strays(self) -> Sequence[Job]:
        """Return the jobs that are RUNNING under an engine that nobody knows."""
        [rows] = await self._database.read([statements.running_under_nobody()])
        return [job_from_row(row) for row in rows]

    # --- engines --------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Return once everything that was asked for before has been written, or refused."""
        await self._turns.drain()

    async def register(self, engine: EngineRecord) -> None:
        """Take the engine's lock, then write its row."""
        await self._database.hold(engine.id)
        await self._turns.run([statements.insert_engine(engine_row(engine))], _nothing)

    async def unregister(self, engine_id: str) -> None:
        """Free the engine's lock, and delete its row unless something still runs under it.

        While the row is there its free lock is the sign for others to rescue.
        """
        deleted = await self._turns.run([statements.delete_engine(engine_id)], lambda answers: bool(answers[0][0]))
        await self._database.let_go(engine_id, for_good=deleted)

    async def unlocked_engines(self) -> Sequence[Sighting]:
        """Return the engines whose rows are there and whose locks nobody holds."""
        return await self._database.unheld(await self.engines())

    async def engines(self) -> list[EngineRecord]:
        """Return the rows of all engines."""
        [rows] = await self._database.read([statements.all_engines()])
        return list(map(engine_from_row, rows))

    async def living(self) -> list[EngineRecord]:
        """Return the engines that live, as far as their locks tell now."""
        engines = await self.engines()
        living = await self._database.living(engines)
        return [each for each in engines if each.id in living]

    async def beat(self, engine_id: str) -> bool:
        """Say that an engine of this process lives."""
        return await self._database.beat(engine_id)

    async def changed(self) -> Change:
        """Return soon after another process has changed something, or may have."""
        return await self._database.changed()


def _nothing(_brought: Any) -> None:
    return None


def _whole_job(job_id: str) -> Sequence[Step]:
    return statements.job_by_id(job_id), statements.attempts_of(job_id)


async def _completed(
    found: Sequence[Job | None],
    submissions: Sequence[Submission],
    insert: Callable[[Sequence[Submission]], Awaitable[list[Job]]],
) -> list[Job]:
    """Return the jobs found, and insert those whose key was held by one that was deleted before it was looked up."""
    missing = [submission for job, submission in zip(found, submissions, strict=True) if job is None]
    inserted = iter(await insert(missing) if missing else ())
    return [next(inserted) if job is None else job for job in found]


def _in_place(jobs: Sequence[Job], rows: Sequence[Any]) -> list[Job | None]:
    """Return the jobs, or those that hold their keys already; None where neither is there."""
    found = [job_from_row(row) for row in rows]
    by_id = {job.id: job for job in found}
    by_key = {(job.name, job.key): job for job in found}
    return [job if job.key is None else by_id.get(job.id) or by_key.get((job.name, job.key)) for job in jobs]


def _read_whole_job(answers: Answers) -> Job | None:
    rows, attempts = answers[-2:]
    return job_from_row(rows[0], attempts=tuple(map(attempt_from_row, attempts))) if rows else None


def _read_status(status: str | None) -> JobStatus | None:
    return None if status is None else STATUSES[status]


def _read_claim(brought: tuple[list[Any], int | None]) -> Claim:
    rows, next_run_at = brought
    taken = [claimed_from_row(row) for row in rows]
    # Highest priority, earliest run_at, first submitted.
    taken.sort(key=lambda each: (-each[0].job.priority, each[0].job.run_at, each[1]))
    return Claim(
        claimed=tuple(claimed for claimed, _seq in taken),
        next_run_at=instant(next_run_at) if isinstance(next_run_at, int) else None,
    )


def _matches_nothing(wanted: JobFilter) -> bool:
    return any(choice is not None and not choice for choice in (wanted.statuses, wanted.names))


def _has_params(job: Job, wanted: dict[str, Any]) -> bool:
    """Compare exactly, where the database could compare text only."""
    try:
        params = job.params
    except StoreCorrupt:
        return False
    return all(name in params and _same(params[name], value) for name, value in wanted.items())


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _due(job: Job, ahead: timedelta) -> datetime:
    """Return when a job is due by the shared clock, which ours is ahead of."""
    at_once = timedelta(microseconds=statements.AT_ONCE)
    if job.run_at - job.created_at < at_once:
        return job.run_at - ahead
    return max(job.run_at - ahead, job.created_at + at_once)

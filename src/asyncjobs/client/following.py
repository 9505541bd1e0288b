"""Who reads which job's output, and how they learn that there is more.

A reader waits at its bookmark until there is something past it, or nothing more will come. What this
process writes, and what becomes of a job here, has the readers of that job looked up; what another
process writes, all of them (see `looking.py`). The texts are read by each reader itself, a few at a
time and when it wants them: nothing is kept for one that is slow, or gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from asyncjobs.client.looking import Looking
from asyncjobs.errors import JobNotFound
from asyncjobs.model.job import JobStatus, LogChunk
from asyncjobs.store import Bookmark, News, Store

CHUNKS_AT_ONCE = 50


class Following:
    """The readers of one client."""

    def __init__(self) -> None:
        self._looking: Looking[Bookmark, bool] = Looking()
        self._bookmarks: dict[str, list[Bookmark]] = {}

    async def follow(self, store: Store, bookmark: Bookmark) -> AsyncIterator[LogChunk]:
        """Iterate over what a job says, until its end.

        Raises:
            JobNotFound: no job has this id, or it was deleted meanwhile.
        """
        over = False
        while not over:
            # Asked before the reading: once the end is there, nothing more is written.
            over = await self._news(bookmark)
            while chunks := await store.output(bookmark, limit=CHUNKS_AT_ONCE):
                for each in chunks:
                    yield each.chunk
                bookmark = bookmark.past(chunks[-1])

    async def _news(self, bookmark: Bookmark) -> bool:
        """Wait until there is something to read; return whether it is all that there will be."""
        at_job = self._bookmarks.setdefault(bookmark.job_id, [])
        at_job.append(bookmark)
        try:
            return await self._looking.wait_for(bookmark)
        finally:
            at_job.remove(bookmark)
            if not at_job:
                self._bookmarks.pop(bookmark.job_id, None)

    def look(self, job_id: str) -> None:
        """Look up the readers of a job: it has said something, or its status has changed."""
        for bookmark in self._bookmarks.get(job_id, ()):
            self._looking.look_up(bookmark)

    def look_again(self) -> None:
        """Look up every reader: another process has written something."""
        self._looking.look_again()

    def fail(self, error: Exception) -> None:
        """Wake everybody, now and later, with an error: nothing will be noticed any more."""
        self._looking.fail(error)

    async def run(self, store: Store) -> None:
        """Look up readers, for ever."""

        async def ask(bookmarks: set[Bookmark]) -> None:
            found = await store.news(list(bookmarks))
            for bookmark in bookmarks:
                news = found.get(bookmark)
                if news is None:
                    self._looking.refuse(bookmark, JobNotFound(bookmark.job_id))
                elif (over := _is_over(bookmark, news)) or news.more:
                    self._looking.settle(bookmark, over)

        await self._looking.run(ask)


async def stored(store: Store, bookmark: Bookmark) -> AsyncIterator[LogChunk]:
    """Iterate over what is stored of a job's output.

    Raises:
        JobNotFound: no job has this id.
    """
    start = bookmark
    while chunks := await store.output(bookmark, limit=CHUNKS_AT_ONCE):
        for each in chunks:
            yield each.chunk
        bookmark = bookmark.past(chunks[-1])
    if bookmark == start and not await store.news([bookmark]):
        raise JobNotFound(bookmark.job_id)


def _is_over(bookmark: Bookmark, news: News) -> bool:
    """Whether nothing more will be said: the job has ended, or the one attempt that is read."""
    if news.status.is_final or bookmark.only is None:
        return news.status.is_final
    began = news.attempt >= bookmark.only
    return began and not (news.attempt == bookmark.only and news.status is JobStatus.RUNNING)

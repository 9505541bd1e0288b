"""PostgreSQL together with others: the poll behind hints, answers that are lost, what is said while an attempt ends."""

import asyncio

import asyncpg
import pytest

from asyncjobs.errors import StoreAnswerLost, StoreUnreachable
from asyncjobs.model.job import JobStatus
from asyncjobs.store import ANYTHING, Change
from asyncjobs.store.note_statements import attempt_under_way
from asyncjobs.store.postgresql import database as database_module
from asyncjobs.store.postgresql import hints
from asyncjobs.store.postgresql.lines import Line
from asyncjobs.store.rows import fence_of
from builders import SUCCEEDED, claim_one, finish, insert, make_job, opened

HINT = Change(moved=True)


async def test_the_poll_comes_however_much_is_heard_meanwhile(postgres_url, monkeypatch):
    """F20"""
    monkeypatch.setattr(hints, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(hints, "POLL_ALONE_SECONDS", 0.1)
    async with opened(postgres_url) as store, asyncio.timeout(30):
        heard = []
        while ANYTHING not in heard[1:]:  # the first tells that it listens
            store._database._hints._note(HINT)
            heard.append(await store.changed())
            await asyncio.sleep(0)

    assert HINT in heard


async def test_others_are_told_of_a_lone_job(postgres_url, monkeypatch):
    monkeypatch.setattr(hints, "POLL_SECONDS", 3600)
    monkeypatch.setattr(hints, "POLL_ALONE_SECONDS", 3600)
    async with opened(postgres_url) as store, opened(postgres_url) as other, asyncio.timeout(30):
        assert await other.changed() == ANYTHING  # it listens

        await insert(store, make_job(name="resize"))

        assert await other.changed() == Change(due=frozenset({"resize"}))


async def test_what_may_have_been_written_is_never_called_undone(postgres_url, monkeypatch):
    """F10: the answer was lost, and then nobody could be reached."""
    monkeypatch.setattr(database_module, "TRY_SECONDS", 0.05)
    async with opened(postgres_url) as store:
        run = Line.run
        errors = iter([StoreAnswerLost("cut")])

        async def unreachable(line, work, **options):
            if line is store._database._writer:
                raise next(errors, StoreUnreachable("nobody there"))
            return await run(line, work, **options)

        monkeypatch.setattr(Line, "run", unreachable)

        with pytest.raises(StoreAnswerLost):
            await insert(store, make_job())
        monkeypatch.undo()


async def test_an_attempt_is_ended_by_nobody_while_what_it_said_is_being_written(postgres_url):
    """F56: what is written then can be read once the end can."""
    async with opened(postgres_url) as store:
        held = await claim_one(store, inserted=make_job())
        other = await asyncpg.connect(postgres_url)
        writing = other.transaction()
        await writing.start()
        step = store._database.as_sent(attempt_under_way(fence_of(held)))
        assert await other.fetch(step.sql, *step.parameters[0])

        ending = asyncio.create_task(finish(store, held, SUCCEEDED))
        async with asyncio.timeout(30):
            while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.005)
        assert not ending.done()
        await writing.commit()

        assert await ending is JobStatus.SUCCEEDED
        await other.close()

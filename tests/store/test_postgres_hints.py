"""What other processes say on PostgreSQL, and the poll that stands behind it."""

import asyncio

import pytest

from asyncjobs.errors import StoreAnswerLost, StoreUnreachable
from asyncjobs.store import ANYTHING, Change
from asyncjobs.store.postgresql import database as database_module
from asyncjobs.store.postgresql import hints
from asyncjobs.store.postgresql.lines import Line
from builders import insert, make_job, opened

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

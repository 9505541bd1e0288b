"""The way back from a thread into the loop."""

import asyncio
import gc
import os
import sys
import threading
from functools import partial

import pytest

from asyncjobs.store import open_store
from asyncjobs.threads import WayBack


def pipes() -> set[str]:
    """Return the pipes that this process has open."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # it was the listing's own
            pass
    return {each for each in found if each.startswith("pipe:")}


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


async def test_what_a_thread_calls_is_called_in_the_loop_in_order():
    way = WayBack()
    called: list[tuple[int, int]] = []
    everything = asyncio.Event()

    def heard(n):
        called.append((n, threading.get_ident()))
        if n == 99_999:
            everything.set()

    def work():
        for n in range(100_000):  # more than a pipe holds
            way.call(heard, n)
        way.end()

    in_a_thread(work).join()  # nobody reads meanwhile
    async with asyncio.timeout(60):
        await everything.wait()
    assert called == [(n, threading.get_ident()) for n in range(100_000)]


async def test_calls_before_the_end_are_heard_and_the_pipe_is_closed():
    before = pipes()
    way = WayBack()
    called = []

    def work():
        way.call(called.append, 1)
        way.call(called.append, 2)
        way.end()

    in_a_thread(work).join()
    async with asyncio.timeout(60):
        while pipes() - before:
            await asyncio.sleep(0)
    assert called == [1, 2]


async def test_a_call_that_fails_is_reported_and_stops_no_other():
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
    way = WayBack()
    called = asyncio.Event()

    def work():
        way.call([].remove, 1)
        way.call(called.set)
        way.end()

    in_a_thread(work).join()
    async with asyncio.timeout(60):
        await called.wait()
    assert [type(each) for each in reported] == [ValueError]


def test_calls_after_one_that_stops_the_loop_are_heard_when_it_goes_on():
    loop = asyncio.new_event_loop()
    way = loop.run_until_complete(made())
    called: list[int] = []

    def work():
        way.call(sys.exit)
        way.call(called.append, 1)
        way.end()

    in_a_thread(work).join()
    with pytest.raises(SystemExit):
        loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()

    assert called == [1]


def call_once(way, refused):
    try:
        way.call(print, "never")
    except RuntimeError as error:
        refused.append(str(error))
    way.end()


def in_a_loop_that_is_closed():
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(made())
    finally:
        loop.close()


async def made():
    return WayBack()


def test_a_closed_loop_is_told_to_the_thread_and_the_pipe_goes_with_it():
    before = pipes()
    refused: list[str] = []

    in_a_thread(partial(call_once, in_a_loop_that_is_closed(), refused)).join()

    assert refused == ["the loop is closed"]
    gc.collect()
    assert pipes() <= before


async def test_a_store_that_was_closed_leaves_no_pipe(tmp_path):
    before = pipes()
    store = open_store(f"sqlite:///{tmp_path / 'jobs.db'}")
    await store.open()
    assert pipes() > before

    await store.close()

    assert pipes() == before

"""What a caller gets wrong is refused in one sentence that names it, and nothing is done."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import story_jobs

from asyncjobs import (
    ForkedClient,
    InvalidOptions,
    JobClient,
    JobEngine,
    JobHandle,
    NotOpen,
    SettingsError,
    UnknownJobName,
)

CYCLE: dict[str, Any] = {}
CYCLE["itself"] = CYCLE
DEEP: dict[str, Any] = {"x": 1}
for _ in range(100_000):
    DEEP = {"x": DEEP}
NO_PARAMS = [
    pytest.param(params, id=name)
    for name, params in {
        "a list": [1],
        "a number as key": {1: 1},
        "a number as key within": {"a": [{"b": {1: 1}}]},
        "None as key": {None: 1},
        "a set": {"a": {1}},
        "itself": CYCLE,
        "deep": DEEP,
        "beyond every digit": {"a": 10**5000},
    }.items()
]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[JobClient]:
    async with JobClient(f"sqlite:///{tmp_path}/jobs.db", jobs=[story_jobs]) as client:
        yield client


async def test_a_filter_that_is_unknown_is_refused_and_the_one_meant_is_named(client: JobClient) -> None:
    sentence = r"list has no filter 'satus' \(did you mean 'status'\?\); there are: status, name, created_after, "

    with pytest.raises(InvalidOptions, match=sentence):
        await client.list(satus="PENDING")  # type: ignore[call-arg]


async def test_iterate_refuses_what_list_refuses(client: JobClient) -> None:
    with pytest.raises(InvalidOptions, match="list has no filter 'bogus'; there are: status"):
        _ = [job async for job in client.iterate(bogus=1)]  # type: ignore[call-arg]


async def test_delete_with_an_unknown_filter_deletes_nothing(client: JobClient) -> None:
    handle = await client.submit(story_jobs.add, 1, 2)
    await handle.cancel()

    with pytest.raises(InvalidOptions, match=r"delete has no filter 'older_then' \(did you mean 'older_than'\?\)"):
        await client.delete(older_then=60)  # type: ignore[arg-type]

    assert (await handle.job()).id == handle.id


@pytest.mark.parametrize("params", NO_PARAMS)
async def test_params_that_no_job_could_have_are_refused_as_a_filter(client: JobClient, params: Any) -> None:
    with pytest.raises(InvalidOptions, match="params takes a dict of names to JSON values, not"):
        await client.list(params=params)


@pytest.mark.parametrize("age", [True, False, "1", [1], float("nan"), float("inf"), -1, timedelta(-1), 10**30])
async def test_an_age_that_is_none_is_refused(client: JobClient, age: Any) -> None:
    with pytest.raises(InvalidOptions, match="older_than"):
        await client.delete(older_than=age)


@pytest.mark.parametrize("timeout", [True, "1", float("nan"), timedelta(seconds=1)])
async def test_a_time_to_wait_that_is_none_is_refused(client: JobClient, timeout: Any) -> None:
    handle = await client.submit(story_jobs.add, 1, 2)

    with pytest.raises(InvalidOptions, match="timeout takes seconds"):
        await handle.result(timeout=timeout)
    with pytest.raises(InvalidOptions, match="timeout takes seconds"):
        await client.wait(handle.id, timeout=timeout)


@pytest.mark.parametrize("limit", [True, 0, -1, 1001, 1.0, "10", None])
async def test_a_page_of_no_size_is_refused(client: JobClient, limit: Any) -> None:
    with pytest.raises(InvalidOptions, match="limit must be a whole number from 1 to 1000"):
        await client.list(limit=limit)


@pytest.mark.parametrize(
    "calls", [None, 7, story_jobs.add, story_jobs.add.bind(1, 2)], ids=["None", "a number", "a job", "a call"]
)
async def test_what_is_no_list_of_calls_is_refused(client: JobClient, calls: Any) -> None:
    with pytest.raises(
        InvalidOptions, match=r"submit_many takes a list of calls made by definition\.bind\(\.\.\.\), not"
    ):
        await client.submit_many(calls)


async def test_one_that_is_no_call_among_many_stores_none(client: JobClient) -> None:
    calls: Any = [story_jobs.add.bind(1, 2), story_jobs.add]

    with pytest.raises(InvalidOptions, match=r"calls made by definition\.bind"):
        await client.submit_many(calls)

    assert (await client.list()).jobs == ()


async def test_options_by_name_are_refused_as_those_of_using_are(client: JobClient) -> None:
    with pytest.raises(InvalidOptions, match=r"no option 'delya' \(did you mean 'delay'\?\)"):
        await client.submit_named("add", {"a": 1, "b": 2}, delya=5)


@pytest.mark.parametrize("kind", [JobClient, JobEngine])
@pytest.mark.parametrize("settings", [{"max_retries": 5}, 7, "jobs"], ids=repr)
def test_settings_that_are_none_are_refused(tmp_path: Path, kind: type[JobClient], settings: Any) -> None:
    with pytest.raises(SettingsError, match=r"settings takes Settings\(\.\.\.\), not"):
        kind(f"sqlite:///{tmp_path}/jobs.db", settings=settings)


@pytest.mark.parametrize("name", [None, 7, ["add"], {}], ids=repr)
async def test_what_can_be_no_name_is_an_unknown_name(tmp_path: Path, name: Any) -> None:
    async with JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=[story_jobs.add_inline]) as engine:
        with pytest.raises(UnknownJobName, match="no job is named"):
            engine.resize(name, 3)
        with pytest.raises(UnknownJobName, match="no job is named"):
            await engine.prepare(name)
        with pytest.raises(UnknownJobName, match="no job is named"):
            await engine.submit_named(name, {})
        assert engine.definition(name) is None


async def every(iterator: AsyncIterator[object]) -> list[object]:
    return [each async for each in iterator]


async def within(client: JobClient) -> object:
    return client.within(None)


async def logs(client: JobClient) -> object:
    return client.logs("id")


CALLS: dict[str, Callable[[JobClient], Awaitable[object]]] = {
    "submit": lambda client: client.submit(story_jobs.add, 1, 2),
    "submit_named": lambda client: client.submit_named("add", {"a": 1, "b": 2}),
    "submit_many": lambda client: client.submit_many([story_jobs.add.bind(1, 2)]),
    "within": within,
    "get": lambda client: client.get("id"),
    "wait": lambda client: client.wait("id"),
    "logs": logs,
    "progress": lambda client: client.progress("id"),
    "list": lambda client: client.list(),
    "iterate": lambda client: every(client.iterate()),
    "engines": lambda client: client.engines(),
    "cancel": lambda client: client.cancel("id"),
    "retry": lambda client: client.retry("id"),
    "delete": lambda client: client.delete(),
}
OF_HANDLES: dict[str, Callable[[JobHandle[Any]], Awaitable[object]]] = {
    "result": lambda handle: handle.result(),
    "wait": lambda handle: handle.wait(),
    "job": lambda handle: handle.job(),
    "progress": lambda handle: handle.progress(),
    "cancel": lambda handle: handle.cancel(),
}


@pytest.mark.parametrize("verb", CALLS)
async def test_a_call_of_a_client_that_is_not_open_says_so_as_its_docstring_does(tmp_path: Path, verb: str) -> None:
    client = JobClient(f"sqlite:///{tmp_path}/jobs.db", jobs=[story_jobs])

    with pytest.raises(NotOpen, match="this JobClient is not open: use it inside `async with`"):
        await CALLS[verb](client)
    assert "NotOpen" in raised_by(getattr(JobClient, verb))


@pytest.mark.parametrize("verb", OF_HANDLES)
async def test_a_call_of_a_handle_after_its_client_says_so_as_its_docstring_does(tmp_path: Path, verb: str) -> None:
    async with JobClient(f"sqlite:///{tmp_path}/jobs.db", jobs=[story_jobs]) as client:
        handle = await client.submit(story_jobs.add, 1, 2)

    with pytest.raises(NotOpen, match="this JobClient is not open: use it inside `async with`"):
        await OF_HANDLES[verb](handle)
    assert "NotOpen" in raised_by(getattr(JobHandle, verb))


@pytest.mark.parametrize("verb", CALLS)
async def test_a_call_in_a_forked_process_says_so_as_its_docstring_does(
    client: JobClient, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: -1)
        with pytest.raises(ForkedClient, match="was opened before the process forked: open a new one in the child"):
            await CALLS[verb](client)

    assert "ForkedClient" in raised_by(getattr(JobClient, verb))


@pytest.mark.parametrize("verb", sorted(CALLS.keys() - {"within"}))
def test_every_call_that_asks_the_database_says_that_it_may_be_unavailable(verb: str) -> None:
    assert "StoreUnavailable" in raised_by(getattr(JobClient, verb))


def raised_by(verb: object) -> str:
    return (inspect.getdoc(verb) or "").partition("Raises:")[2]

"""Hosts that fork while an engine is open in them."""

from __future__ import annotations

import time

import pytest
from crash_jobs import nothing, work
from crash_programs import BOUND, Programs, Work

from asyncjobs import JobClient, JobStatus


@pytest.mark.parametrize(
    "fault",
    ["", "forks_a_child_by_os_fork", "forks_a_child_by_multiprocessing"],
    ids=["without a fork", "os.fork", "multiprocessing"],
)
async def test_the_death_of_an_engine_is_noticed_as_fast_with_a_forked_child_left(
    client: JobClient, programs: Programs, a_work: Work, fault: str
) -> None:
    """F60b: the child has inherited the lock's descriptor, and lives on."""
    handle = await client.submit(work, a_work.folder)
    host = await programs.engine(work, fault=fault)
    await a_work.runs(attempt=1)
    watching = await programs.engine(work)

    await host.kill()
    killed = time.monotonic()
    await watching.says("started", handle.id, "2")
    noticed = time.monotonic() - killed
    a_work.release()

    print(f"rerun {noticed:.2f} s after the kill")
    assert (await handle.wait(timeout=BOUND)).status is JobStatus.SUCCEEDED
    assert noticed < 5


@pytest.mark.parametrize("verb", ["submit", "get", "wait", "list", "cancel", "retry", "delete"])
async def test_using_the_engine_in_a_forked_child_raises_at_once(programs: Programs, verb: str) -> None:
    """F49: the child never touches the connection that it inherited."""
    host = await programs.engine(nothing, fault="is_used_in_a_forked_child")

    error, took = await host.says("forked-child", verb)

    assert error == "ForkedClient"
    assert float(took) < 1


async def test_an_engine_works_on_after_a_forked_child_has_tried_to_use_it(
    client: JobClient, programs: Programs
) -> None:
    """F49, seen from the parent: its lock is still its own, and so is its connection."""
    host = await programs.engine(nothing, fault="is_used_in_a_forked_child")
    await host.says("forked-child", "delete")
    handle = await client.submit(nothing)

    assert (await handle.wait(timeout=BOUND)).status is JobStatus.SUCCEEDED

"""What type checkers must say of the public API; run by mypy, never imported."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from asyncjobs import Job, JobClient, JobEngine, JobHandle, LogChunk, Page, Progress, Settings, job


@job
def plain(path: Path, width: int = 200) -> str:
    return str(path) * width


@job(name="called", max_workers=4, timeout=30, transient_error_classes=[ConnectionError])
async def called(x: int) -> list[int]:
    return [x]


async def use(client: JobClient, engine: JobEngine) -> None:
    assert_type(plain(Path("a")), str)
    assert_type(await called(3), list[int])
    assert_type(await client.submit(plain, Path("cat.png"), width=320), JobHandle[str])
    assert_type(await engine.submit(called, 3), JobHandle[list[int]])
    assert_type(await (await engine.submit(called, 3)).result(timeout=60), list[int])
    assert_type(await engine.submit(plain.using(timeout=5), Path("a")), JobHandle[str])
    assert_type(await engine.submit_many([called.bind(1), called.bind(2)]), list[JobHandle[list[int]]])
    assert_type(await engine.wait("id"), Job)
    assert_type(await engine.progress("id"), Progress | None)
    assert_type(await (await engine.submit(called, 3)).progress(), Progress | None)
    assert_type([chunk async for chunk in engine.handle("id").logs(follow=True)], list[LogChunk])
    await client.submit(plain, 3)  # type: ignore[arg-type]
    await client.submit(plain, Path("a"), widht=3)  # type: ignore[call-arg]
    await client.submit(called)  # type: ignore[call-arg]
    called.bind("x")  # type: ignore[arg-type]
    job(max_workers="4")  # type: ignore[call-overload]
    job(isolation="thread")  # type: ignore[call-overload]
    job(tiemout=4)  # type: ignore[call-overload]
    plain.using(tiemout=4)  # type: ignore[arg-type]
    plain.using(isolation="inline")  # type: ignore[arg-type]
    assert_type(await client.list(status="PENDING", limit=3), Page)
    assert_type([each async for each in client.iterate(name=["plain"], params={"x": 1})], list[Job])
    await client.list(statsu="PENDING")  # type: ignore[call-arg]
    client.iterate(created_after="yesterday")  # type: ignore[arg-type]
    await client.delete(older=3)  # type: ignore[arg-type]
    Settings(max_proceses=3)  # type: ignore[call-arg]

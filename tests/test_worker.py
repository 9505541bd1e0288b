"""The tasks in which a worker runs attempts."""

import asyncio
import tracemalloc

from asyncjobs import JobEngine, job

MANY = 40


@job(isolation="inline", max_workers=5)
async def length(text: str) -> int:
    await asyncio.sleep(0)
    return len(text)


def tasks_of(name: str) -> int:
    return sum(task.get_name() == f"asyncjobs {name}" for task in asyncio.all_tasks())


async def test_attempts_are_run_by_few_tasks_one_after_another_which_end_with_the_engine(tmp_path):
    async with JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=[length]) as engine:
        handles = await engine.submit_many([length.bind("x" * n) for n in range(MANY)])
        assert [await handle.result(timeout=60) for handle in handles] == list(range(MANY))

        assert 0 < tasks_of(length.name) <= 2 * length.max_workers  # one runs in a slot while another's end is written
    assert tasks_of(length.name) == 0


async def test_a_worker_keeps_nothing_of_what_its_jobs_were_given(tmp_path):
    async with JobEngine(f"sqlite:///{tmp_path}/jobs.db", jobs=[length]) as engine:
        await (await engine.submit(length, "")).result(timeout=60)
        tracemalloc.start()
        try:
            handles = [await engine.submit(length, "x" * 1_000_000) for _ in range(MANY)]
            assert {await handle.result(timeout=60) for handle in handles} == {1_000_000}
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert kept < 5_000_000

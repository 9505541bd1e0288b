"""Several real processes on one file, and what a kill leaves there."""

import asyncio
import signal

import pytest

from builders import EVERY_JOB, insert, make_job, opened

WRITE_FOR_A_WHILE = """
import asyncio, os, sys, time
import asyncjobs.store.sql, asyncjobs.store.sqlite
from builders import insert, make_id, make_job, opened

async def write(address, number, seconds):
    written, until = 0, time.monotonic() + seconds
    async with opened(address) as store:
        while time.monotonic() < until:
            await insert(store, make_job(id=f"{make_id()}-{number}", name=f"writer {number}"))
            written += 1
    return written

address, writers, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
for number in range(writers):
    if os.fork() == 0:
        os.write(1, b"%d\\n" % asyncio.run(write(address, number, seconds)))
        os._exit(0)
sys.exit(any([os.wait()[1] for _ in range(writers)]))
"""
CLAIM_TO_THE_END = """
import asyncio, os, sys
import asyncjobs.store.sql, asyncjobs.store.sqlite
from builders import SUCCEEDED, claim_all, finish, opened

async def work(address, engine_id):
    done = 0
    async with opened(address) as store:
        while jobs := await claim_all(store, limit=8, engine_id=engine_id):
            ends = await asyncio.gather(*(finish(store, job, SUCCEEDED) for job in jobs))
            assert all(ends), ends
            done += len(ends)
    return done

for number in range(4):
    if os.fork() == 0:
        os.write(1, b"%d\\n" % asyncio.run(work(sys.argv[1], f"engine-{number}")))
        os._exit(0)
sys.exit(any([os.wait()[1] for _ in range(4)]))
"""
SUBMIT_UNTIL_KILLED = """
import asyncio, sys
from builders import insert, make_job, opened

async def submit(address):
    async with opened(address) as store:
        while True:
            jobs = [make_job() for _ in range(8)]
            await asyncio.gather(*(insert(store, job) for job in jobs))
            print(*(job.id for job in jobs), sep="\\n", flush=True)

asyncio.run(submit(sys.argv[1]))
"""
# A loop by select(2): one by epoll(7) shares its kernel state with the child, which ends it for both.
FORK_AFTER_OPENING = """
import asyncio, os, selectors, sys
from builders import EVERY_JOB, insert, make_job, open_store

async def fork_while_writing(store):
    writing = asyncio.create_task(insert(store, *(make_job() for _ in range(5000))))
    for _ in range(5):
        await asyncio.sleep(0)  # by now the turn is in the thread's hands
    if os.fork() == 0:
        sys.stderr = open(os.devnull, "w")
        {how}
    await writing
    assert os.wait()[1] == 0
    await insert(store, make_job())
    print(len(await store.page(EVERY_JOB, limit=10_000, before=None)))
    await store.close()

store = open_store(sys.argv[1])
runner = asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector()))
runner.run(store.open())
runner.run(fork_while_writing(store))
runner.close()
"""


async def count(address, wanted=EVERY_JOB):
    async with opened(address) as store:
        return len(await store.page(wanted, limit=1_000_000, before=None))


async def test_eight_processes_that_open_and_write_one_new_file_at_once_meet_no_error(run_python, address, seconds):
    """F41, F79, D8"""
    printed = await asyncio.to_thread(run_python, WRITE_FOR_A_WHILE, address, 8, seconds)

    written = [int(line) for line in printed.split()]
    assert len(written) == 8
    assert min(written) > 0
    assert await count(address) == sum(written)


async def test_four_processes_hand_each_attempt_out_once(run_python, address):
    """F08, D6"""
    async with opened(address) as store:
        await insert(store, *(make_job() for _ in range(4000)))

    printed = await asyncio.to_thread(run_python, CLAIM_TO_THE_END, address)

    assert sum(int(line) for line in printed.split()) == 4000
    async with opened(address) as store:
        jobs = await store.page(EVERY_JOB, limit=10_000, before=None)
    assert {(job.status, job.attempt) for job in jobs} == {("SUCCEEDED", 1)}


async def test_every_acknowledged_job_is_there_after_a_kill(start_python, address):
    """F46"""
    process = start_python(SUBMIT_UNTIL_KILLED, address)
    acknowledged = [process.stdout.readline().strip() for _ in range(500)]

    process.send_signal(signal.SIGKILL)
    process.wait()

    acknowledged += process.stdout.read().split("\n")[:-1]
    async with opened(address) as store:
        stored = {job.id for job in await store.page(EVERY_JOB, limit=1_000_000, before=None)}
    assert set(acknowledged) - stored == set()


@pytest.mark.parametrize(
    "how",
    ["sys.exit(0)", "del store; import gc; gc.collect(); sys.exit(0)"],
    ids=["exits", "collects garbage and exits"],
)
def test_a_forked_child_leaves_the_connection_to_its_parent(run_python, address, how):
    """F49"""
    printed = run_python(FORK_AFTER_OPENING.format(how=how), address)

    assert printed == "5001\n"


async def test_a_child_of_multiprocessing_leaves_the_connection_to_its_parent(run_python, address):
    """F49"""
    script = """
import asyncio, multiprocessing, sys
from builders import insert, make_job, opened

async def main(address):
    async with opened(address) as store:
        await insert(store, make_job())
        child = multiprocessing.get_context("fork").Process(target=sys.exit)
        child.start()
        await asyncio.to_thread(child.join)
        await insert(store, make_job())

asyncio.run(main(sys.argv[1]))
"""
    run_python(script, address)

    assert await count(address) == 2

"""An engine's process for tests that kill or block it: it runs one job that does not end by itself.

engine_for_tests.py <isolation> <folder for marks> <job> [<seconds for which the loop is blocked>]
"""

import asyncio
import sys
import time
from pathlib import Path

import jobs_for_tests as jobs
from bench import RUNNERS, Bench, until

JOBS = {
    "ignores": (jobs.ignore_sigterm, ()),
    "spins": (jobs.spin_with_daemon, ()),
    "setsid": (jobs.leave_processes, ("setsid", True)),
    "daemon": (jobs.leave_processes, ("daemon", True)),
    "cleared": (jobs.leave_processes, ("daemon", True, False)),
}


async def main(isolation: str, marks: Path, job: str, blocked: float = 0.0) -> None:
    bench = Bench(RUNNERS[isolation](), isolation)
    definition, arguments = JOBS[job]
    timeout = 1.0 if blocked else 600.0
    running = asyncio.create_task(bench.run(definition, marks, *arguments, timeout=timeout, kill_grace=1.0))
    await until((marks / "began").exists)
    if blocked:
        time.sleep(blocked)
    ended = await running
    await bench.runner.close()
    print(type(ended.outcome).__name__)


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], *map(float, sys.argv[4:])))

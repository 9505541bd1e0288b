"""An engine's process for tests that kill or block it: it runs one job that does not end by itself.

engine_for_tests.py <isolation> <folder for marks> <job> [blocked]

`blocked`: once the job has begun, the loop is blocked until the folder has a file `unblock`.
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
TIMEOUTS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""The first in which the job can begin on this machine is the one that counts."""


async def main(isolation: str, marks: Path, job: str, blocked: bool) -> None:
    bench = Bench(RUNNERS[isolation](), isolation)
    definition, arguments = JOBS[job]
    for timeout in TIMEOUTS if blocked else (600.0,):
        began_at = time.time()
        running = asyncio.create_task(bench.run(definition, marks, *arguments, timeout=timeout, kill_grace=1.0))
        await until(lambda: running.done() or (marks / "began").exists())  # noqa: B023
        if blocked and not running.done():
            (marks / "blocked").write_text(str(began_at))
            while not (marks / "unblock").exists():
                time.sleep(0.01)
        ended = await running
        if (marks / "began").exists():
            break
    await bench.runner.close()
    print(type(ended.outcome).__name__)


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], "blocked" in sys.argv[4:]))

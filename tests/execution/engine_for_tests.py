"""An engine's process for tests that kill it: it runs one job that does not end, beside standbys."""

import asyncio
import sys
from pathlib import Path

import jobs_for_tests as jobs
from bench import SETTINGS, Bench

from asyncjobs.execution.process import SpawnRunner


async def main(marks: Path, kind: str = "") -> None:
    bench = Bench(SpawnRunner(engine_id="engine-in-a-script", settings=SETTINGS))
    if kind:
        await bench.run(jobs.leave_processes, marks, kind, True, timeout=600)
    else:
        await bench.run(jobs.ignore_sigterm, marks, timeout=600)


asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))

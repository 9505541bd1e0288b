"""What runs one job on a runner, and what waits for its marks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncjobs import Job, JobDefinition, Settings
from asyncjobs.codec import encode_call
from asyncjobs.execution import Asked, Ended, Runner
from asyncjobs.execution.inline import InlineRunner
from asyncjobs.execution.inside import tree
from asyncjobs.execution.runner import ProcessRunner
from asyncjobs.model.job import Progress

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
# Each worker of pytest has its own, since it sweeps all that has its name; the processes that it starts have it, too.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
ENGINE = os.environ.setdefault(f"ASYNCJOBS_TEST_ENGINE_{_WORKER}", f"engine-under-test-{_WORKER}-{os.getpid()}")
SETTINGS = Settings(max_result_bytes=6_000_000, max_output_bytes=10_000)
PATIENCE = 60.0

RUNNERS: dict[str, Callable[[], Runner]] = {
    "fork": lambda: ProcessRunner("fork", engine_id=ENGINE, settings=SETTINGS),
    "spawn": lambda: ProcessRunner("spawn", engine_id=ENGINE, settings=SETTINGS),
    "reuse": lambda: ProcessRunner("reuse", engine_id=ENGINE, settings=SETTINGS),
    "inline": lambda: InlineRunner(settings=SETTINGS),
}


def make_job(definition: JobDefinition[..., Any], *args: Any, **options: Any) -> Job:
    """A job of the definition, with `kwargs` as its arguments by name."""
    kwargs = options.pop("kwargs", {})
    params = encode_call(definition.function, args, kwargs, limit=20_000_000)
    defaults = {"id": "job-1", "attempt": 1, "timeout": PATIENCE, "kill_grace": 5.0}
    return Job(name=definition.name, params_json=params, created_at=NOON, run_at=NOON, **{**defaults, **options})


class Bench:
    """Runs jobs on one runner, and keeps what they print."""

    def __init__(self, runner: Runner, isolation: str) -> None:
        self.runner = runner
        self.isolation = isolation
        self.order: list[str] = []
        self.printed: dict[str, str] = {"stdout": "", "stderr": ""}
        self.told: list[Progress] = []
        self.detailed: dict[str, Any] = {}

    async def run(
        self,
        definition: JobDefinition[..., Any],
        *args: Any,
        asked: Asked | None = None,
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Ended:
        asked = asyncio.get_running_loop().create_future() if asked is None else asked
        job = make_job(definition, *args, **options)
        return await self.runner.run(job, definition, env=env or {}, asked=asked, notes=self)

    def output(self, stream: str, text: str) -> None:
        self.printed[stream] += text
        if self.order[-1:] != [stream]:
            self.order.append(stream)

    @property
    def exit_code(self) -> int | None:
        """What a normal end leaves: a warm process has not ended."""
        return None if self.isolation == "reuse" else 0

    def progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def details(self, changes: dict[str, Any]) -> None:
        self.detailed.update(changes)


@contextmanager
def engine_of_its_own(isolation: str, marks: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start engine_for_tests.py, and kill it at the end."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("engine_for_tests.py")), isolation, str(marks), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def run_into_timeout(
    bench: Bench, definition: JobDefinition[..., Any], marks: Path, *args: Any, **options: Any
) -> Ended:
    """Run a job past its timeout, the shortest in which it can begin on this machine."""
    for timeout in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0):
        ended = await bench.run(definition, marks, *args, timeout=timeout, **options)
        if (marks / "began").exists():
            return ended
    raise AssertionError("it never began")


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that nothing announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.002)


def alive(pid: int) -> bool:
    process = tree.read_process(pid)
    return process is not None and not process.dead


def pids_in(marks: Path) -> list[int]:
    return [int(each) for each in (marks / "pids").read_text().split()]

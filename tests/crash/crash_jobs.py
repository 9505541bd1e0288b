"""The jobs that these tests run; their own processes import this file, so it imports little."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from asyncjobs import TransientError, current_job, job

LONGEST_SECONDS = 60.0

# A grandchild in a session of its own, which goes on until somebody ends it.
_BEATING = """
import os, sys, time
file, attempt = sys.argv[1:]
while True:
    with open(file, "a") as beats:
        beats.write(f"{attempt} {os.getpid()} {time.monotonic_ns()}\\n")
    time.sleep(0.002)
"""


def add_line(file: Path, line: str) -> None:
    """Append a line in one write, which other processes' lines can't come into."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


@job(max_workers=4, kill_grace=0.2)
def work(folder: Path, with_grandchild: bool = False) -> int:
    """Write a beat each few milliseconds until there is a file `release`; return the attempt."""
    attempt = current_job().attempt
    if with_grandchild:
        import subprocess

        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BEATING, str(folder / "beats"), str(attempt)], start_new_session=True
        )
    end = time.monotonic() + LONGEST_SECONDS
    while not (folder / "release").exists() and time.monotonic() < end:
        add_line(folder / "beats", f"{attempt} {os.getpid()} {time.monotonic_ns()}")
        time.sleep(0.005)
    return attempt


@job(max_workers=4, kill_grace=0.2)
def other_work(folder: Path) -> int:
    """Do the same under another name."""
    return work.function(folder)


@job(kill_grace=600)
def stubborn_work(folder: Path) -> int:
    """Do the same, and not end when asked to, as long as its grace lasts."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return work.function(folder)


@job(max_workers=8)
def add(file: Path, number: int) -> int:
    add_line(file, str(number))
    return number


@job(max_workers=20, isolation="inline")
async def add_inline(file: Path, number: int) -> int:
    """Do the same many times more often."""
    add_line(file, str(number))
    return number


@job(max_workers=8)
def add_slowly(file: Path, seconds: float) -> None:
    """Add the job's id after so long."""
    time.sleep(seconds)
    add_line(file, current_job().id)


@job
def kill_my_engine() -> None:
    template = os.getppid()
    engine = int(Path(f"/proc/{template}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(engine, signal.SIGKILL)
    time.sleep(LONGEST_SECONDS)


@job
def fail_once(delay: float) -> int:
    """Fail for a while on the first attempt."""
    attempt = current_job().attempt
    if attempt == 1:
        raise TransientError("not now")
    return attempt


@job(max_workers=50, isolation="inline")
async def nothing() -> None:
    return


@job(max_workers=4)
def process_id() -> int:
    return os.getpid()


runs: Counter[str] = Counter()
"""How often each job has begun in this process, for `inline` ones."""


@job(max_workers=50, isolation="inline")
async def count_run() -> None:
    runs[current_job().id] += 1


@job(max_workers=1, isolation="inline")
async def wait_for_release(folder: Path) -> int:
    import asyncio

    attempt = current_job().attempt
    add_line(folder / "beats", f"{attempt} {os.getpid()} {time.monotonic_ns()}")
    while not (folder / f"release-{attempt}").exists():
        await asyncio.sleep(0.005)
    return attempt

"""The jobs of the stories, as an application would have them in a module."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from uuid import UUID

from asyncjobs import Cancel, Retry, TransientError, current_job, job


class Colour(Enum):
    RED = "red"


@dataclass
class Order:
    number: int
    placed: datetime
    total: Decimal
    colours: tuple[Colour, ...] = ()


class FlakyError(Exception):
    class Worse(Exception):
        pass


class VeryFlakyError(FlakyError):
    pass


@job
def add(a: int, b: int = 2) -> int:
    return a + b


@job(max_workers=8, isolation="inline")
async def add_inline(a: int, b: int = 2) -> int:
    return a + b


@job(max_workers=4, max_running=2, isolation="inline")
async def two_at_once(seconds: float = 0.03) -> None:
    await asyncio.sleep(seconds)


@job
async def add_slowly(a: int, b: int = 2) -> int:
    await asyncio.sleep(0.01)
    return a + b


@job
def echo_order(order: Order, key: UUID, day: date, folder: Path) -> tuple[Order, UUID, date, Path]:
    return order, key, day, folder


@job(name="any json", max_workers=2)
def anything(value):
    return value


@job
def length(text: str) -> int:
    return len(text)


@job
def fail(message: str) -> None:
    raise ValueError(message)


@job(max_retries=2, transient_error_classes=[FlakyError, FlakyError.Worse])
def flaky(file: Path, error: str, succeed_on: int) -> int:
    attempt = current_job().attempt
    with file.open("a") as lines:
        print(attempt, time.time(), file=lines)
    if attempt < succeed_on:
        raise {
            "listed": FlakyError("flaky"),
            "subclass": VeryFlakyError("very flaky"),
            "nested": FlakyError.Worse("worse"),
            "transient": TransientError(OSError("the net")),
            "retry": Retry(after=0.01),
            "other": RuntimeError("no"),
        }[error]
    return attempt


@job(timeout=0.3)
def sleep_past_the_timeout() -> None:
    time.sleep(60)


@job(timeout=3, retry_on=["timeout"], max_retries=1)
def sleep_on_the_first_attempt() -> int:
    if current_job().attempt == 1:
        time.sleep(60)
    return current_job().attempt


@job(retry_on=["crash"], max_retries=1)
def crash_on_the_first_attempt() -> int:
    if current_job().attempt == 1:
        os._exit(7)
    return current_job().attempt


@job
def give_up(reason: str) -> None:
    raise Cancel(reason)


@job(max_workers=4)
def wait_for(file: Path) -> str:
    """Say that it runs, then wait for the file to vanish."""
    written = file.with_suffix(".writing")
    written.write_text(f"{os.getpid()}")
    written.rename(file.with_suffix(".running"))  # whoever sees it finds all of it
    while file.exists():
        time.sleep(0.005)
    return "done"


@job(max_workers=4)
def tidy_up(file: Path) -> None:
    try:
        file.write_text("running")
        time.sleep(60)
    finally:
        file.write_text("tidied")


@job(max_workers=2)
def note(file: Path, word: str) -> None:
    with file.open("a") as lines:
        print(word, file=lines)


@job
def environment(name: str) -> str | None:
    return os.environ.get(name)


@job
def who() -> tuple[str, str, int]:
    me = current_job()
    return me.id, me.name, me.attempt


@job
def talk() -> None:
    print("to stdout")
    os.write(2, b"to stderr\n")


@job(max_workers=4, isolation="spawn", max_retries=1)
def talk_until(file: Path, *, fail_first: bool = False) -> None:
    """Print a line, wait for the file to vanish, print another; the first attempt may fail then."""
    attempt = current_job().attempt
    print(f"begin {attempt}", flush=True)
    while file.exists():
        time.sleep(0.005)
    if fail_first and attempt == 1:
        raise TransientError(OSError("the net"))
    print(f"end {attempt}")


@job(isolation="spawn")
def print_lines(count: int) -> None:
    for number in range(count):
        print(f"line {number}")


@job
def nonsense() -> object:
    return {"deep": [object()]}


@job
def long_text(size: int) -> str:
    return "x" * size


def not_a_job() -> None:
    pass


def now() -> datetime:
    return datetime.now(UTC)


@job(max_workers=4, isolation="inline")
async def note_one(folder: Path, at_least: int = 1) -> None:
    await note_running(folder, at_least)


@job(max_workers=4, isolation="inline")
async def note_other(folder: Path, at_least: int = 1) -> None:
    await note_running(folder, at_least)


async def note_running(folder: Path, at_least: int) -> None:
    """Note how many of these run at this moment; end once so many have run at once, and a moment later."""
    mark = folder / f"running-{current_job().id}"
    mark.touch()
    with (folder / "counts").open("a") as counts:
        counts.write(f"{len(list(folder.glob('running-*')))}\n")
    async with asyncio.timeout(20):
        while most_at_once(folder) < at_least:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    mark.unlink()


def most_at_once(folder: Path) -> int:
    """Return how many of these have run at the same moment."""
    return max(map(int, (folder / "counts").read_text().split()))


@job
def leave_a_daemon() -> None:
    import subprocess

    subprocess.Popen(["sleep", "600"], start_new_session=True)


@job(memory_limit=100 * 1024 * 1024)
def take_much_memory() -> int:
    return len(bytearray(400 * 1024 * 1024))


@job
def say_how_far(files: int) -> None:
    import logging

    logging.getLogger("files").info("counting")
    for number in range(files):
        current_job().progress(number + 1, files, unit="files", phase="reading")
    current_job().update_details({"last": files})
    print("done")


@job(timeout=0.3)
def leave_a_long_thread() -> str:
    threading.Thread(target=time.sleep, args=(600,)).start()
    return "done"


@job(isolation="reuse")
def leave_a_daemon_thread() -> tuple[int, int]:
    """Return the process, and how many threads there are that it was left with before."""
    found = sum(each.name == "left" for each in threading.enumerate())
    threading.Thread(target=time.sleep, args=(600,), name="left", daemon=True).start()
    return os.getpid(), found


left_open: list[ThreadPoolExecutor] = []


@job(isolation="reuse")
def leave_a_pool() -> int:
    left_open.append(ThreadPoolExecutor(1))
    left_open[-1].submit(time.sleep, 0).result()
    return os.getpid()


@job
def print_without_end(size: int, piece: bytes) -> str:
    """Print `size` bytes made of `piece` between a head and a tail."""
    os.write(1, b"the head\n")
    block = piece * (100_000 // len(piece))
    left = size
    while left:
        left -= os.write(1, block[: min(left, len(block))])
    os.write(1, b"the tail\n")
    return "done"

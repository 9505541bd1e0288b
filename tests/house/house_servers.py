"""Scripts and servers in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from house_sources import EXAMPLES

BOUND = 60.0
"""Seconds after which a wait has failed."""


@dataclass(frozen=True)
class Server:
    """A running uvicorn."""

    process: subprocess.Popen[str]
    url: str


def run_example(name: str, *arguments: str, folder: Path) -> str:
    """Run an example to its end, in a folder of its own; return what it printed."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BOUND)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def started_example(name: str, *, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start an example; its process is ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLES / name)], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def served(app: str, *, app_dir: Path, environ: dict[str, str]) -> Iterator[Server]:
    """Serve an app by uvicorn, on a port that the system chooses."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--app-dir", str(app_dir), "--port", "0", app],
        env={**os.environ, **environ},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Server(process, _address(process))
        finally:
            process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"running on (http://\S+)", line)
        if found:
            return found[1]
    raise AssertionError("the server ended before it listened")


def line_with(words: str, process: subprocess.Popen[str]) -> str:
    """Wait for a line on stdout that has these words."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"it ended and never printed {words!r}")


def processes_with(variable: str) -> list[int]:
    """Return the processes whose environment has a variable that begins so."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            variables = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if any(each.startswith(variable.encode()) for each in variables):
            found.append(int(entry.name))
    return found

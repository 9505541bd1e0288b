"""Jobs that take down what runs them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from asyncjobs import job


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@job
def kill_my_template() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


@job
def kill_my_engine() -> None:
    in_a_process_of_its_own = "ASYNCJOBS_PROCESS" in os.environ
    os.kill(parent_of(os.getppid()) if in_a_process_of_its_own else os.getpid(), signal.SIGKILL)
    time.sleep(600)

"""Starts the processes of these tests as copies of one that has imported everything.

    python crash_launcher.py DESCRIPTOR

Importing SQLAlchemy costs half a second of CPU, and these tests start some hundred engines. Each
request is a packet on the socket of this descriptor: the name of a program, its arguments, and the
pipe to which it speaks. Each program gets a session of its own and a keeper beside it, which says
`exit CODE` on that pipe when the program has ended. End-of-file, as when the tests were killed, ends
the launcher, its end the keepers, and theirs the programs (Linux: the parent-death signal).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import sys

import crash_engine
import crash_submitter
from crash_faults import say

import asyncjobs.store.sql  # noqa: F401 - so that no copy has to
from asyncjobs import JobClient, JobEngine  # noqa: F401

PROGRAMS = {"engine": crash_engine.main, "submitter": crash_submitter.main}


_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def launch(requests: socket.socket) -> None:
    while True:
        packet, pipes, _, _ = socket.recv_fds(requests, 1 << 20, 1)
        if not packet:
            return
        if os.fork() == 0:
            die_with_parent()
            requests.close()
            os.dup2(pipes[0], 1)
            os.close(pipes[0])
            keep(*json.loads(packet))
        os.close(pipes[0])


def keep(program: str, *arguments: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        die_with_parent()
        os.setsid()
        run(program, *arguments)
    say("pid", pid)
    _, status = os.waitpid(pid, 0)
    say("exit", os.waitstatus_to_exitcode(status))
    os._exit(0)


def run(program: str, *arguments: str) -> None:
    code = 1
    try:
        asyncio.run(PROGRAMS[program](*arguments))
        code = 0
    except Exception as error:
        say("raised", type(error).__name__, error)
    finally:
        os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the keepers
    launch(socket.socket(fileno=int(sys.argv[1])))

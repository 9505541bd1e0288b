"""Processes that the kernel would give only by chance, or never: with an id of our choice, or impossible to end."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE3 = 435
_PTRACE_SEIZE = 0x4206
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def stranger_with_id(pid: int) -> Iterator[None]:
    """Have a process with an id that is free, as `man 2 clone` allows root to choose; it runs until the end."""
    wanted = ctypes.c_int(pid)
    arguments = struct.pack("11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
    got = _libc.syscall(_CLONE3, ctypes.create_string_buffer(arguments, len(arguments)), len(arguments))
    if got == 0:
        os.execve("/bin/sleep", ["sleep", "600"], {})
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def held_by_a_debugger(pid: int) -> Iterator[None]:
    """Keep a descendant from being over: killed, it is not reaped before its tracer has (`man 2 ptrace`)."""
    if _libc.ptrace(_PTRACE_SEIZE, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        yield
    finally:
        os.waitpid(pid, 0)

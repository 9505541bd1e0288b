"""What a job says while it runs, on its way to the engine.

A signal handler of the job's may say something while the code that it interrupts does so, in the same
thread: what it says is gathered then, and told by that code.

Loaded by path into the job's process, once the job says something: built-in modules alone.
"""

from __future__ import annotations

import _thread
import posix
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EACH_SECONDS = 0.02
_MOST_TOGETHER = 14  # one change of details is at most 64 KiB (`context.py`), and a frame's header 1 MiB (`wire.py`)
_child: Any = sys.modules["_asyncjobs_child"]
_lock = _thread.RLock()  # again in the same thread: by a signal handler
_busy = False  # whether who holds the lock is at work on what follows, and not to be disturbed
_unsaid: list[dict[str, dict[str, Any]]] = []  # a frame each
_changes = 0  # of details in the last of them
_said_at = 0.0
_promised = False  # whether a thread will tell what has gathered


def tell(kind: str, values: dict[str, Any]) -> None:
    """Tell the engine of `progress` or `details`; what comes fast goes together, within 20 ms."""
    global _busy
    if not _child.is_own_process():
        return  # a copy that the job forked
    with _lock:
        if _child.replying:
            return  # a thread that goes on after the job
        if _busy:
            _gather(kind, values)
            return
        _busy = True
        try:
            _gather(kind, values)
        finally:
            _busy = False
        while _unsaid and not _is_promised():
            _say()


def tell_now() -> None:
    """Tell the engine what it has not been told; once `replying` is set, nothing is written after that."""
    with _lock:
        if _child.is_own_process():
            _say()


def _tell_later(wait: float) -> None:
    global _promised
    time.sleep(wait)
    with _lock:
        _promised = False
        _say()


def _gather(kind: str, values: dict[str, Any]) -> None:
    global _changes
    if not _unsaid or _changes >= _MOST_TOGETHER:
        _unsaid.append({})
        _changes = 0
    if kind == "details":
        _unsaid[-1].setdefault(kind, {}).update(values)
        _changes += 1
    else:
        _unsaid[-1][kind] = values


def _is_promised() -> bool:
    """Return whether a thread tells what has gathered; False where it is due now, or no thread can be started."""
    global _promised
    wait = _said_at + _EACH_SECONDS - time.monotonic()
    if _changes >= _MOST_TOGETHER or wait <= 0:
        return False
    if not _promised:
        try:
            _thread.start_new_thread(_tell_later, (wait,))
        except (RuntimeError, MemoryError):  # mostly a limit of memory: a thread takes 8 MB of it for its stack
            return False
        _promised = True
    return True


def _say() -> None:
    """Write what was gathered, and what a signal handler adds meanwhile; whoever calls holds the lock."""
    global _busy, _said_at
    _busy = True
    try:
        _said_at = time.monotonic()
        while _unsaid:
            header = _child.codec.dumps({"note": _unsaid.pop(0)}).encode()
            _write(_child.wire.pack(header))
    finally:
        _busy = False


def _write(frame: bytes) -> None:
    try:
        posix.set_blocking(_child.channel, True)
        _child.wire.write_all(_child.channel, frame)
    except OSError:
        pass  # the engine is gone, or the job has closed its channel: its end will show

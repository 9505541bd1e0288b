"""What a job says while it runs, on its way to the engine.

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
_lock = _thread.allocate_lock()
_unsaid: dict[str, dict[str, Any]] = {}
_said_at = 0.0
_gathered = 0
_promised = False  # whether a thread will tell what has gathered


def tell(kind: str, values: dict[str, Any]) -> None:
    """Tell the engine of `progress` or `details`; what comes fast goes together, within 20 ms."""
    global _gathered
    if not _child.is_own_process():
        return  # a copy that the job forked
    with _lock:
        if _child.replying:
            return  # a thread that goes on after the job
        if kind == "details":
            _unsaid.setdefault(kind, {}).update(values)
            _gathered += 1
        else:
            _unsaid[kind] = values
        if _gathered >= _MOST_TOGETHER or not _is_promised():
            _say()


def _is_promised() -> bool:
    """Return whether a thread tells what has gathered; False where it is due now, or no thread can be started."""
    global _promised
    wait = _said_at + _EACH_SECONDS - time.monotonic()
    if not _promised and wait > 0:
        try:
            _thread.start_new_thread(_tell_later, (wait,))
        except (RuntimeError, MemoryError):  # mostly a limit of memory: a thread takes 8 MB of it for its stack
            return False
        _promised = True
    return _promised


def _tell_later(wait: float) -> None:
    global _promised
    time.sleep(wait)
    with _lock:
        _promised = False
        if _unsaid:
            _say()


def tell_now() -> None:
    """Tell the engine what it has not been told; once `replying` is set, nothing is written after that."""
    with _lock:
        if _unsaid and _child.is_own_process():
            _say()


def _say() -> None:
    """Write what was gathered; whoever calls holds the lock."""
    global _said_at, _gathered
    _said_at = time.monotonic()
    header = _child.codec.dumps({"note": _unsaid}).encode()
    _unsaid.clear()
    _gathered = 0
    try:
        posix.set_blocking(_child.channel, True)
        _child.wire.write_all(_child.channel, _child.wire.pack(header))
    except OSError:
        pass  # the engine is gone, or the job has closed its channel: its end will show

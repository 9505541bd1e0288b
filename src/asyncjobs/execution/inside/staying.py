"""What a process looks at after a job, when it is to run another: threads left over, memory and time used.

Loaded by path into warm processes: built-in modules alone.
"""

from __future__ import annotations

import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def has_leaked_threads() -> bool:
    """Return whether a job has left a thread that would keep the interpreter alive."""
    threading: Any = sys.modules.get("threading")
    if threading is None:
        return False
    return any(each is not threading.main_thread() and not each.daemon for each in threading.enumerate())


_cpu_before = 0.0


def used() -> tuple[int, float]:
    """Return the most memory used so far, in bytes, and the seconds of CPU since the last request."""
    global _cpu_before
    own = resource.getrusage(resource.RUSAGE_SELF)
    below = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + below.ru_utime + below.ru_stime
    used, _cpu_before = cpu - _cpu_before, cpu
    return own.ru_maxrss * (1024 if sys.platform == "linux" else 1), used

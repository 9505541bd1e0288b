"""How many processes each job has, where its definition limits them.

    limit ─> due, some times a second ─> above: the jobs that have too many

To count, all of `/proc` has to be read: not every kernel lists the children of a process. So it is done
only when there may be something to find. Process ids are given out in ascending order, and the kernel
tells the last one (`man 5 proc_loadavg`): a job that could start so many more at the last count has not
exceeded its limit before so many ids have been given out. Where that file is emulated (LXC can do so)
it says something else, so a count is made each second whatever it says.

Loaded by path into a template whose jobs have such a limit.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

EVERY = 0.05
COUNTED = 1.0
_tree: Any = sys.modules["_asyncjobs_tree"]


class Watch:
    """The jobs whose processes are counted, each known by its process id; its session is its own."""

    def __init__(self) -> None:
        self.due: float | None = None
        self._limits: dict[int, int] = {}
        self._last_id = 0  # at the last count
        self._room = 0  # how many ids may be given out from there before a job can be above its limit
        self._count_at = 0.0

    def limit(self, job: int, most: int, now: float) -> None:
        """Have no more than so many processes counted for a job; it has one now."""
        if not self._limits:
            self._last_id, self._room, self._count_at = _last_id(), most - 1, now + COUNTED
            self.due = now + EVERY
        self._limits[job] = most
        self._room = min(self._room, most - 1)

    def forget(self, job: int) -> None:
        """Count no more for a job."""
        if self._limits.pop(job, None) is not None and not self._limits:
            self.due = None

    def above(self, now: float) -> list[int]:
        """Return the jobs that have too many processes, and look again soon."""
        self.due = now + EVERY
        last_id = _last_id()
        if 0 <= last_id - self._last_id <= self._room and now < self._count_at:
            return []
        counts = _tree.before_others(self._counts)
        self._last_id, self._count_at = last_id, now + COUNTED
        self._room = min(most - counts[job] for job, most in self._limits.items())
        return [job for job, most in self._limits.items() if counts[job] > most]

    def _counts(self) -> dict[int, int]:
        """Count the processes of each job; not all of them, once one is known to be above its limit.

        The newest come first, since what multiplies leaves us little time of the processor.
        """
        counts = dict.fromkeys(self._limits, 0)
        children: dict[int, list[int]] = {}
        for process in _newest_first():
            children.setdefault(process.ppid, []).append(process.pid)
            if process.session in counts:
                counts[process.session] += 1
                if counts[process.session] > self._limits[process.session]:
                    return counts
        return {job: _size(job, children) for job in counts}


def _size(pid: int, children: dict[int, list[int]]) -> int:
    """Return how many processes a tree has."""
    found = [pid]
    for each in found:
        found += children.get(each, ())
    return len(found)


def _newest_first() -> Iterator[Any]:
    for pid in sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True):
        process = _tree.read_process(pid)
        if process is not None:
            yield process


def _last_id() -> int:
    """Return the process id that was given out last; 0 where the kernel does not say."""
    fields = _tree._read("/proc/loadavg").split()
    return int(fields[4]) if len(fields) == 5 else 0

"""The limits of a job's process, as the kernel keeps them (`man 2 setrlimit`).

Loaded by path into a job's process, where its definition asks for any: built-in modules alone.
"""

from __future__ import annotations

import posix
import resource

_PAGE = resource.getpagesize()
_FORGIVEN = 0.1
_stands_back = False
_before: dict[int, int] = {}  # the soft limits that we have found


def apply(*, memory: int | None, cpu: float | None, files: int | None, nice: int) -> None:
    """Limit this process from here on; what it has mapped already is not counted against `memory`.

    A warm process comes here before each job: time and memory are counted anew.
    """
    global _stands_back
    if cpu is not None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        # The kernel counts whole seconds. What a new process has used to begin with is forgiven.
        seconds = usage.ru_utime + usage.ru_stime + cpu - _FORGIVEN
        _lower(resource.RLIMIT_CPU, max(1, -int(-seconds // 1)))
        _lower(resource.RLIMIT_CORE, 0)
    if files is not None:
        _lower(resource.RLIMIT_NOFILE, files)
    if memory is not None:
        _lower(resource.RLIMIT_AS, _mapped() + memory)
    if nice and not _stands_back:
        posix.nice(nice)
        _stand_back_as_a_session(nice)
        _stands_back = True


def lift() -> None:
    """End the limit of memory, if there was one."""
    if resource.RLIMIT_AS in _before:
        resource.setrlimit(resource.RLIMIT_AS, (_before[resource.RLIMIT_AS], resource.getrlimit(resource.RLIMIT_AS)[1]))


def _stand_back_as_a_session(nice: int) -> None:
    """Do the same where the kernel shares processors out among sessions first (`man 7 sched`, autogroups)."""
    try:
        descriptor = posix.open("/proc/self/autogroup", posix.O_WRONLY)
    except OSError:
        return  # it does not
    try:
        posix.write(descriptor, str(nice).encode())
    except OSError:
        pass  # only ten times a second, but for root
    finally:
        posix.close(descriptor)


def _lower(kind: int, wanted: int) -> None:
    """Set the soft limit, never above what it was: the hard one can't be raised again, and a warm process must."""
    soft, hard = resource.getrlimit(kind)
    before = _before.setdefault(kind, soft)
    resource.setrlimit(kind, (wanted if before == resource.RLIM_INFINITY else min(wanted, before), hard))


def _mapped() -> int:
    """Return the bytes of address space in use; 0 where the kernel does not say."""
    try:
        descriptor = posix.open("/proc/self/statm", posix.O_RDONLY)
    except OSError:
        return 0
    try:
        return int(posix.read(descriptor, 256).split()[0]) * _PAGE
    finally:
        posix.close(descriptor)

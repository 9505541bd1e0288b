"""`current_job()`: what a running job may know of itself.

It works the same in a job's own process and in the engine's loop (`inline`).
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import ContextVar

CHILD_MODULE = "_asyncjobs_child"
"""The name under which a job's process runs `execution/child.py`."""


class JobContext:
    """The running attempt: `id` and `name` of its job, and `attempt`, the number of this run (from 1)."""

    __slots__ = ("attempt", "id", "name")

    def __init__(self, *, id: str, name: str, attempt: int) -> None:
        self.id = id
        self.name = name
        self.attempt = attempt

    def __repr__(self) -> str:
        return f"<job {self.name} {self.id} attempt {self.attempt}>"


_inline: ContextVar[JobContext] | None = None


def current_job() -> JobContext:
    """Return the job that is running here.

    Raises:
        RuntimeError: called outside a job.
    """
    child = sys.modules.get(CHILD_MODULE)
    request = getattr(child, "current", None)
    if request is not None:
        return JobContext(id=request["id"], name=request["name"], attempt=request["attempt"])
    context = None if _inline is None else _inline.get(None)
    if context is None:
        raise RuntimeError("current_job() works inside a running job only")
    return context


def inline_context() -> ContextVar[JobContext]:
    """Return the variable in which the engine's own process keeps the job that runs in its loop."""
    global _inline
    if _inline is None:
        from contextvars import ContextVar

        _inline = ContextVar("asyncjobs_current_job")
    return _inline

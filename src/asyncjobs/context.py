"""`current_job()`: what a running job may know of itself.

It works in a job's own process and in the engine's (`inline`).
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar
    from typing import Any

    Tell = Callable[[str, dict[str, Any]], None]

CHILD_MODULE = "_asyncjobs_child"
"""The name under which a job's process runs `execution/inside/child.py`."""


LONGEST_TEXT = 1000
LARGEST_DETAILS = 64 * 1024


class JobContext:
    """The running attempt: `id` and `name` of its job, and `attempt`, the number of this run (from 1)."""

    __slots__ = ("_tell", "attempt", "id", "name")

    def __init__(self, *, id: str, name: str, attempt: int, tell: Tell) -> None:
        self.id = id
        self.name = name
        self.attempt = attempt
        self._tell = tell

    def progress(
        self,
        completed: float,
        total: float | None = None,
        *,
        unit: str | None = None,
        phase: str | None = None,
        message: str | None = None,
    ) -> None:
        """Say how far the job is: `completed` of `total` `unit`s, in a `phase`, with a `message` for people.

        It replaces what was said before, returns at once, and may be called as often as you like, from
        any thread: what comes faster than it can be stored is told together.

        Raises:
            ValueError: a number is negative or no number, or a text is none or longer than 1000 characters.
        """
        for name, number in (("completed", completed), ("total", total)):
            if number is not None and not _is_amount(number):
                raise ValueError(f"progress: {name} must be a number from 0 on, not {number!r}")
        for name, text in (("unit", unit), ("phase", phase), ("message", message)):
            if text is not None and (not isinstance(text, str) or len(text) > LONGEST_TEXT):
                raise ValueError(f"progress: {name} must be a text of at most {LONGEST_TEXT} characters")
        said = {"completed": completed, "total": total, "unit": unit, "phase": phase, "message": message}
        self._tell("progress", said)

    def update_details(self, changes: dict[str, Any]) -> None:
        """Merge keys and JSON values into the job's details, key by key; returns at once.

        Raises:
            ValueError: that is no dictionary of texts to JSON values, longer than 64 KiB as JSON, or a value is
                nested deeper than 200 levels, as no parameter or result may be either.
        """
        self._tell("details", _as_told(changes))

    def __repr__(self) -> str:
        return f"<job {self.name} {self.id} attempt {self.attempt}>"


def _is_amount(number: object) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 <= number < 1e300


def _as_told(changes: dict[str, Any]) -> dict[str, Any]:
    """Return changes of details as the engine will read them."""
    import json  # dear, and most jobs have nothing to say

    from asyncjobs.jsonvalues import TOO_DEEP, is_too_deep

    try:
        text = json.dumps(changes)
        told = json.loads(text)
    except RecursionError:
        raise ValueError(f"update_details takes JSON values: {TOO_DEEP}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"update_details takes JSON values: {error}") from None
    if not isinstance(changes, dict) or not all(isinstance(key, str) for key in changes):
        raise ValueError(f"update_details takes a dict with texts as keys, not {type(changes).__name__}")
    if len(text) > LARGEST_DETAILS:
        raise ValueError(f"update_details takes at most {LARGEST_DETAILS} bytes of JSON, not {len(text)}")
    if any(map(is_too_deep, told.values())):
        raise ValueError(f"update_details takes JSON values: {TOO_DEEP}")
    return told  # type: ignore[no-any-return]


def _tell_the_engine(kind: str, values: dict[str, Any]) -> None:
    sys.modules[CHILD_MODULE].load("telling").tell(kind, values)


_inline: ContextVar[JobContext] | None = None


def current_job() -> JobContext:
    """Return the job that is running here.

    In a job's own process any thread may call it. With isolation `inline`, of the threads that a job starts those do
    that run in a copy of its context, as with `asyncio.to_thread`.

    Raises:
        RuntimeError: called outside a job.
    """
    child = sys.modules.get(CHILD_MODULE)
    request = getattr(child, "current", None)
    if request is not None:
        return JobContext(id=request["id"], name=request["name"], attempt=request["attempt"], tell=_tell_the_engine)
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

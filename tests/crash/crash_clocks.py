"""A wall clock that is wrong, as far as asyncjobs reads it in this process; monotonic clocks go on as they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from random import getrandbits
from typing import Any
from uuid import UUID

import asyncjobs.engine.engine
import asyncjobs.store.postgresql
import asyncjobs.store.sqlite  # noqa: F401 - so that what reads a clock is there to be patched

Patch = Callable[[Any, str, Any], None]

off = 0.0
"""By how many seconds the wall clock is ahead."""
_time, _time_ns = time.time, time.time_ns


def turn(seconds: float) -> None:
    """Have the wall clock jump."""
    global off
    off += seconds


def install(patch: Patch = setattr) -> None:
    """Have everything of asyncjobs in this process read this clock."""
    patch(time, "time", lambda: _time() + off)
    patch(time, "time_ns", lambda: _time_ns() + int(off * 1e9))
    for name, module in list(sys.modules.items()):
        if name.startswith("asyncjobs.") and getattr(module, "datetime", None) is datetime:
            patch(module, "datetime", _DateTime)
    # The library reads the system's clock in a language of its own.
    patch(sys.modules["asyncjobs.client.submission"], "uuid7", _uuid7)


_newest = 0


def _uuid7() -> UUID:
    """Return an id of the wall clock's millisecond, or of the newest id's where that is later, as the library does."""
    global _newest
    _newest = max(_newest, time.time_ns() // 1_000_000)
    return UUID(int=_newest << 80 | 7 << 76 | 2 << 62 | getrandbits(62))


class _AlsoPlain(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


class _DateTime(datetime, metaclass=_AlsoPlain):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.fromtimestamp(time.time(), tz)

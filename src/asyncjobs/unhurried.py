"""Many small things one after another, with the loop going on in between: a million calls must not stop it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 256


async def unhurried(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return `function(item)` for each item."""
    done: list[R] = []
    for item in items:
        if len(done) % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
        done.append(function(item))
    return done

"""Threads of their own: for what blocks, and must not wait for a place in the host's executor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


def in_thread(function: Callable[[Unpack[Ts]], R], *args: *Ts, name: str) -> asyncio.Future[R]:
    """Run a function in a daemon thread of its own; the future has what it returns or raises.

    Cancelling the future does not stop the thread, and a loop that closes does not wait for it.

    Raises:
        RuntimeError: no thread could be started.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def settle(result: R | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        result: R | None = None
        problem: BaseException | None = None
        try:
            result = function(*args)
        except BaseException as error:  # handed to whoever awaits the future
            problem = error
        try:
            loop.call_soon_threadsafe(settle, result, problem)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    threading.Thread(target=run, name=name, daemon=True).start()
    return future

"""`Orders`: the engine's way to a template.

What is begun in one turn of the loop goes out in one message: a system call, a wake-up of the template
and, there, a round of its own loop for several jobs together. Whatever else is told goes at once, and
takes along what waits.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from asyncjobs.codec import dumps
from asyncjobs.execution.inside.wire import pack
from asyncjobs.execution.process import Ends

MOST_STARTS = 32
"""Starts in one message: the kernel passes 253 descriptors at most (`man 7 unix`)."""


class Orders:
    """What one template is told."""

    def __init__(self, control: socket.socket, *, on_broken: Callable[[], None]) -> None:
        self._control = control
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._data = b""
        self._starts: list[tuple[Ends, Callable[[str], None]]] = []

    def begin(self, order: dict[str, Any], ends: Ends, *, on_refused: Callable[[str], None]) -> None:
        """Have a process started with its ends of channel and pipes, soon; they are closed here then."""
        if not self._starts:
            self._loop.call_soon(self._send)
        self._data += pack(dumps(order).encode())
        self._starts.append((ends, on_refused))
        if len(self._starts) == MOST_STARTS:
            self._send()

    def tell(self, order: dict[str, Any]) -> None:
        """Send an order now."""
        self._data += pack(dumps(order).encode())
        self._send(starts_only=False)

    def _send(self, *, starts_only: bool = True) -> None:
        data, self._data = self._data, b""
        starts, self._starts = self._starts, []
        if not data:
            return
        try:
            descriptors = [each for ends, _ in starts for each in (ends.channel.fileno(), ends.stdout, ends.stderr)]
            sent = socket.send_fds(self._control, [data], descriptors) if starts else self._control.send(data)
        except OSError as error:
            sent = len(data) if starts_only else 0
            for _, refused in starts:
                refused(f"no process could be started: {error}")
        finally:
            for ends, _ in starts:
                ends.close()
        if sent != len(data):  # half an order can't be taken back
            self._on_broken()

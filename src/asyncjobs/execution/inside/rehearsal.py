"""A job of nothing, run where no job waits: what a process does for the first time is dear.

A copy of a template has to copy each page that it writes to, and for a small job that is most of what it
takes. Code that has run before writes less: the interpreter has adapted it by then, and finds what it
looks up where it last was. So a template rehearses before it forks. A copy that has nothing to do yet
rehearses once more, and has those pages for its own when its job comes.

Loaded by path into templates: built-in modules alone.
"""

from __future__ import annotations

import posix
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNTIL_ADAPTED = 20  # CPython adapts a function that has been called eight times


def rehearse_for_copies(child: Any, parent: int, number: int) -> None:
    """Do in a template, whose parent is the engine, what its copies will do, until nothing of it is new.

    It takes the signal `number` when the engine ends.
    """
    forking = child.load("forking")
    for _ in range(_UNTIL_ADAPTED):
        _rehearse(child)
        # It binds us to the engine anew, last: the job of nothing may have taken the signal of its death.
        forking.begin(parent, number, (1, 2), ())


def rehearse_meanwhile(child: Any, channel: int) -> None:
    """Do what this process is about to do, unless a request has come."""
    waiting = select.poll()
    waiting.register(channel, select.POLLIN)
    if not waiting.poll(0):
        _rehearse(child)


def _rehearse(child: Any) -> None:
    codec, wire = child.codec, child.wire
    request = {"id": "", "name": "", "attempt": 1, "module": __name__, "function": "nothing", "result_limit": 100}
    inlet, outlet = posix.pipe()
    try:
        wire.write_all(outlet, wire.pack(codec.dumps(request).encode(), b'{"n": 1}'))
        header, params = wire.read_frame(inlet)
        reply, result, _ = child.run(codec.loads(header.decode()), params.decode())
        child.flush()
        child.has_children()
        child.identity(inlet)
        posix.set_blocking(outlet, True)
        wire.pack(codec.dumps(reply).encode(), result.encode())
    finally:
        posix.close(inlet)
        posix.close(outlet)


def nothing(n: int) -> int:
    """Return at once."""
    return n

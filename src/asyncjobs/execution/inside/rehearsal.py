"""A job of nothing, run by a forked process that has nothing to do yet.

What a copy of a template writes to has to be copied for it, page by page, and for a small job that is
most of what it takes: half a millisecond that is better spent before the job comes.

Loaded by path into templates: built-in modules alone.
"""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def rehearse(child: Any, channel: int) -> None:
    """Do what a job's process does, unless a request has come."""
    waiting = select.poll()
    waiting.register(channel, select.POLLIN)
    if waiting.poll(0):
        return
    codec, finding = child.codec, child.finding
    request = codec.loads(codec.dumps({"setup": None, "limits": None, "environ": {}, "unset": []}))
    finding.restore_environment(finding.set_environment(request))
    child.call(_nothing, codec.decode_params(_nothing, "{}"))
    child.wire.pack(codec.dumps({"ok": True}).encode(), codec.encode_result(_nothing, None, limit=100).encode())
    child.flush()


def _nothing() -> None:
    pass

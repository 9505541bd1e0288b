"""What a template does for the processes that it forks, and what each of them does first.

Loaded by path into templates: built-in modules alone.
"""

from __future__ import annotations

import faulthandler
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Any

_child: Any = sys.modules["_asyncjobs_child"]
_reseed: Callable[[], object] | None = None


def foresee(functions: Iterable[Callable[..., Any]]) -> None:
    """Do in a template, once it has imported these functions, what each of its copies would have to."""
    global _reseed
    faulthandler.enable(2)
    # That of `random` is new in each copy already.
    _reseed = getattr(getattr(sys.modules.get("numpy"), "random", None), "seed", None)
    for each in functions:
        try:
            _child.codec.plan_ahead(each)
        except BaseException:  # its jobs meet that themselves, and report it
            continue


def begin(parent: int, number: int, output: tuple[int, int], inherited: Collection[int]) -> None:
    """Become a process of our own: with another `output`, and nothing that is the template's.

    It takes the signal `number` when the parent ends.
    """
    _child.reset_signals()
    posix.dup2(output[0], 1)
    posix.dup2(output[1], 2)
    for each in inherited:
        posix.close(each)
    _child.bind_to(parent, number)
    _child.own_pid = posix.getpid()
    if _reseed is not None:
        _reseed()

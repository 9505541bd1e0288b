"""What a template does before its first fork: it imports the module of its jobs, and rehearses one.

Loaded by path into templates: built-in modules alone.
"""

from __future__ import annotations

import gc
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_child: Any = sys.modules["_asyncjobs_child"]


def prepared(order: dict[str, Any], parent: int, number: int) -> dict[str, Any]:
    """Import the module that the jobs will want, and say how that went.

    The template takes the signal `number` when its parent, the engine, ends.
    """
    ready: dict[str, Any] = {"is": "ready", "problem": None, "threads": 1, "files": []}
    functions = []
    if order["setup"] is not None:
        before = set(sys.modules)
        try:
            _child.finding.prepare(order["setup"])
            functions = _child.finding.functions_in(_child.finding.module_of(order), order["function"])
        except BaseException as error:  # each job will meet it itself, and report it
            ready["problem"] = f"{type(error).__name__}: {error}"
        ready["files"] = _files(set(sys.modules) - before)
        ready["threads"] = _threads()
        _child.flush()
    __import__("resource")  # for the limits of jobs, once for all of them
    _child.load("forking").foresee(functions)
    gc.collect()
    _child.load("rehearsal").rehearse_for_copies(_child, parent, number)
    gc.freeze()
    return ready


def _files(names: set[str]) -> list[str]:
    """Return the source files of modules, but for those that are installed."""
    found = [getattr(sys.modules.get(name), "__file__", None) for name in names]
    installed = ("/site-packages/", "/dist-packages/", f"{sys.base_prefix}/lib/")
    return [each for each in found if isinstance(each, str) and not any(part in each for part in installed)]


def _threads() -> int:
    """Count our threads after a fork: some libraries end theirs before one (numpy's BLAS does)."""
    pid = posix.fork()
    if pid == 0:
        posix._exit(0)
    posix.waitpid(pid, 0)
    try:
        return len(posix.listdir("/proc/self/task"))
    except OSError:
        threading: Any = sys.modules.get("threading")
        return 1 if threading is None else threading.active_count()

"""What a job's process is told: how to look like the engine's, which function to find, what to run."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from asyncjobs.execution.templates import Recipe
from asyncjobs.execution.wire import pack

if TYPE_CHECKING:
    from asyncjobs.definition import JobDefinition
    from asyncjobs.execution.process import JobProcess
    from asyncjobs.model.job import Job


def recipe_of(definition: JobDefinition[..., object], *, fresh: bool) -> Recipe:
    """Return what the template of a definition's jobs is made of."""
    setup = _setup()
    if fresh:
        return Recipe(python=sys.executable, setup=json.dumps(setup), fresh=True)
    function = definition.function
    target = {"setup": setup, "module": function.__module__, "main": _main_of(function.__module__)}
    env = tuple(sorted(definition.env.items()))
    return Recipe(python=sys.executable, setup=json.dumps(setup), target=json.dumps(target), env=env)


def request_of(
    job: Job,
    definition: JobDefinition[..., object],
    process: JobProcess,
    *,
    env: dict[str, str],
    result_limit: int,
    stays: bool,
) -> bytes:
    """Return the frame that has `process` run an attempt.

    Raises:
        FrameError: the header or the params are too long for a frame.
    """
    function = definition.function
    environ = os.environ.copy()
    recipe = process.template.recipe
    prepared = recipe.target is not None or process.runs > 0
    header: dict[str, Any] = {
        "id": job.id,
        "name": job.name,
        "attempt": job.attempt,
        "module": function.__module__,
        "function": function.__qualname__,
        "main": _main_of(function.__module__),
        "setup": None if prepared else json.loads(recipe.setup),
        # What has changed since the process was started, and what is the job's own.
        "environ": {k: v for k, v in environ.items() if process.template.environ.get(k) != v} | env,
        "unset": [name for name in process.template.environ if name not in environ],
        "limits": _limits(definition),
        "result_limit": result_limit,
        "stays": stays,
    }
    return pack(json.dumps(header).encode(), job.params_json.encode())


def _setup() -> dict[str, Any]:
    return {
        "path": [each for each in sys.path if isinstance(each, str)],
        "argv": getattr(sys, "argv", [""]),
        "prefixes": (sys.prefix, sys.exec_prefix),
        "bytecode": (sys.dont_write_bytecode, sys.pycache_prefix),
        "site": _has_editable_finder(),
        "borrowed": {},
    }


def _limits(definition: JobDefinition[..., object]) -> dict[str, Any] | None:
    limits = {
        "memory": definition.memory_limit,
        "cpu": definition.cpu_limit,
        "files": definition.open_files,
        "nice": definition.nice,
    }
    return limits if any(limits.values()) else None


def _main_of(module: str) -> dict[str, str] | None:
    """Say how another process finds this program's main module, if it is that: by its name, or by its path."""
    if module != "__main__":
        return None
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return {"module": spec.name}
    return {"path": getattr(main, "__file__", None) or "<no file>"}


def _has_editable_finder() -> bool:
    """Return whether packages are imported through a hook that only `site` installs."""
    return any("editable" in str(getattr(finder, "__module__", "")) for finder in sys.meta_path)

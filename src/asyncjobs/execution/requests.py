"""What a job's process is told: how to look like the engine's, which function to find, what to run."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from asyncjobs.codec import dumps
from asyncjobs.execution.inside.wire import pack
from asyncjobs.execution.templates import Recipe
from asyncjobs.main_module import main_of

if TYPE_CHECKING:
    from asyncjobs.definition import JobDefinition
    from asyncjobs.execution.environments import Environment
    from asyncjobs.execution.process import JobProcess
    from asyncjobs.model.job import Job


def recipe_of(definition: JobDefinition[..., object], environment: Environment | None, *, fresh: bool) -> Recipe:
    """Return what the template of a definition's jobs is made of."""
    function = definition.function
    setup = _setup() if environment is None else _setup_inside(environment, function.__module__)
    python = sys.executable if environment is None else environment.python
    if fresh:
        return Recipe(python=python, setup=json.dumps(setup), fresh=True)
    target = {"setup": setup, "module": function.__module__, "main": main_of(function)}
    env = tuple(sorted(definition.env.items()))
    return Recipe(
        python=python, setup=json.dumps(setup), target=json.dumps(target), likely=function.__qualname__, env=env
    )


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
    recipe = process.template.recipe
    header: dict[str, Any] = {
        "id": job.id,
        "name": job.name,
        "attempt": job.attempt,
        "module": function.__module__,
        "function": function.__qualname__,
        "result_limit": result_limit,
        **_changes(process.template.environ, env),
    }
    # What most jobs do without is left out: it would cost their processes a page to read each of it.
    if function.__module__ == "__main__":
        header["main"] = main_of(function)
    if recipe.target is None and process.runs == 0:
        header["setup"] = json.loads(recipe.setup)
    if stays:
        header["stays"] = True
    limits = _limits(definition)
    if limits is not None:
        header["limits"] = limits
    return pack(dumps(header).encode(), job.params_json.encode())


_seen: tuple[dict[bytes, bytes], dict[str, str]] = ({}, {})


def _environment() -> dict[str, str]:
    """Return a copy of our environment: the last one, where nothing has changed, at a hundredth of the cost."""
    global _seen
    data: dict[bytes, bytes] | None = getattr(os.environ, "_data", None)
    if data is None:
        return os.environ.copy()
    if data != _seen[0]:
        _seen = (dict(data), os.environ.copy())
    return _seen[1]


def _changes(since: dict[str, str], env: dict[str, str]) -> dict[str, Any]:
    """Return what has changed since a process was started, and what is the job's own."""
    now = _environment()
    if now == since:
        return {"environ": env, "unset": []} if env else {}
    return {
        "environ": {name: value for name, value in now.items() if since.get(name) != value} | env,
        "unset": [name for name in since if name not in now],
    }


def _setup() -> dict[str, Any]:
    return {
        "path": [each for each in sys.path if isinstance(each, str)],
        "argv": getattr(sys, "argv", [""]),
        "prefixes": (sys.prefix, sys.exec_prefix),
        "bytecode": (sys.dont_write_bytecode, sys.pycache_prefix),
        "site": _has_editable_finder(),
        "packages": None,
        "borrowed": {},
    }


def _setup_inside(environment: Environment, module: str) -> dict[str, Any]:
    """Return what makes an environment's interpreter look like the engine's, with packages of its own.

    It finds the application's sources, not what is installed beside the engine: that would shadow its
    own. `asyncjobs` and the package of the job's module are lent to it, wherever they are.
    """
    sources = [each for each in sys.path if isinstance(each, str) and not _is_installed(each)]
    return {
        **_setup(),
        "path": sources,
        "prefixes": (str(environment.folder), str(environment.folder)),
        "site": False,
        "packages": list(environment.site_packages),
        "borrowed": {name: folder for name in ("asyncjobs", module.partition(".")[0]) if (folder := _folder_of(name))},
    }


def _is_installed(folder: str) -> bool:
    library = os.path.dirname(os.__file__)
    return os.path.basename(folder) in ("site-packages", "dist-packages") or folder.startswith(
        (library, os.path.join(sys.base_prefix, "lib"), os.path.join(sys.prefix, "lib"))
    )


def _folder_of(package: str) -> str | None:
    """Return where a top-level module is found, or None when it has no file."""
    file: str | None = getattr(sys.modules.get(package), "__file__", None)
    if package == "__main__" or file is None:
        return None
    folder = os.path.dirname(os.path.abspath(file))
    return os.path.dirname(folder) if os.path.basename(file).startswith("__init__.") else folder


def _limits(definition: JobDefinition[..., object]) -> dict[str, Any] | None:
    limits = {
        "memory": definition.memory_limit,
        "cpu": definition.cpu_limit,
        "files": definition.open_files,
        "nice": definition.nice,
    }
    return limits if any(limits.values()) else None


def _has_editable_finder() -> bool:
    """Return whether packages are imported through a hook that only `site` installs."""
    return any("editable" in str(getattr(finder, "__module__", "")) for finder in sys.meta_path)

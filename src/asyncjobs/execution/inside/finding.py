"""How a job's process finds the function of a request: its interpreter made like the engine's, its module.

Loaded by path into templates and jobs' processes: built-in modules alone until the user's own.
"""

from __future__ import annotations

import sys
from _frozen_importlib_external import SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType
    from typing import Any

# The name that the main module has in multiprocessing's own children, to which a job may send its functions.
MAIN_AGAIN = "__mp_main__"


def prepare(setup: dict[str, Any]) -> None:
    """Make this interpreter look like the engine's: its paths, prefixes and arguments."""
    import builtins

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    if setup["site"]:
        import site

        site.main()
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # what `site` would have added
    sys.argv[:] = setup["argv"]
    sys.prefix, sys.exec_prefix = setup["prefixes"]
    if setup["packages"] is None:
        sys.path[:] = setup["path"]
    else:  # an environment's interpreter: its own library and packages come first
        import site

        for folder in setup["packages"]:
            site.addsitedir(folder)
        sys.path += setup["path"]
    sys.dont_write_bytecode, sys.pycache_prefix = setup["bytecode"]
    if setup["borrowed"]:
        sys.modules["_asyncjobs_child"].load("borrowing").install(setup["borrowed"])


def set_environment(request: dict[str, Any]) -> dict[str, str | None]:
    """Set what the engine's environment has and ours has not; return what was there before."""
    if "environ" not in request:
        return {}
    import os

    before = {name: os.environ.get(name) for name in (*request["environ"], *request["unset"])}
    for name in request["unset"]:
        os.environ.pop(name, None)
    os.environ.update(request["environ"])
    return before


def restore_environment(before: dict[str, str | None]) -> None:
    """Undo what `set_environment` has done."""
    if not before:
        return
    import os

    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class FunctionGone(Exception):
    """The module has no such function (any more)."""


def function_of(request: dict[str, Any]) -> Callable[..., Any]:
    """Return the function that a request names.

    Raises:
        FunctionGone: there is none; the import of its module may raise anything.
    """
    name = request["module"]
    module = module_of(request)
    try:
        found = getattr(module, request["function"])
    except AttributeError:
        raise FunctionGone(
            f"{name} has no {request['function']!r}: it was renamed or removed since the job was defined"
        ) from None
    if not hasattr(found, "__code__") and _is_definition(found):
        found = found.function
    if not callable(found):
        raise FunctionGone(f"{name}.{request['function']} is no function but a {type(found).__qualname__}")
    return found  # type: ignore[no-any-return]


def functions_in(module: ModuleType, likely: str) -> list[Callable[..., Any]]:
    """Return the functions of a module's jobs, and the one of that name."""
    found = [each.function for each in list(vars(module).values()) if _is_definition(each)]
    named: Any = getattr(module, likely, None)
    return [*found, named] if hasattr(named, "__code__") else found


def _is_definition(found: object) -> bool:
    return any(each.__module__ == "asyncjobs.definition" for each in type(found).__mro__)


def module_of(request: dict[str, Any]) -> ModuleType:
    """Return the job's module, imported once."""
    name = request["module"]
    if name == "__main__":
        return _main or _main_again(request["main"])
    if name not in sys.modules:
        __import__(name)
    return sys.modules[name]


_main: ModuleType | None = None


def _main_again(main: dict[str, str]) -> ModuleType:
    """Run the program's main module once more, under a name with which it does not start anew."""
    global _main
    module = type(sys)(MAIN_AGAIN)
    if "module" in main:
        code = _code_of_module(module, main["module"])
    else:
        loader = SourceFileLoader(MAIN_AGAIN, main["path"])
        code = loader.get_code(MAIN_AGAIN)
        module.__file__ = main["path"]
        module.__loader__ = loader
        module.__package__ = ""
    sys.modules[MAIN_AGAIN] = sys.modules["__main__"] = module
    exec(code, module.__dict__)  # type: ignore[arg-type]
    _main = module
    return module


def _code_of_module(module: ModuleType, name: str) -> CodeType | None:
    from importlib import machinery, util

    spec = machinery.PathFinder.find_spec(name) if name == "__main__" else util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"no module named {name!r}, which was the program's main module")
    module.__file__ = spec.origin
    module.__loader__ = spec.loader
    module.__package__ = spec.parent
    module.__spec__ = spec
    return spec.loader.get_code(name)  # type: ignore[attr-defined, no-any-return]

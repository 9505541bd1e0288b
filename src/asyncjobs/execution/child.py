"""What runs in a job's process: one request in, one reply out, and nothing left behind.

    bind to the engine -> wait for the request -> import -> decode -> call -> encode
    -> join threads, run atexit, flush, sweep -> reply -> exit

The reply is the last thing before the exit, so that an engine that has a whole reply and sees exit
code 0 knows that all before it went well. Whatever goes wrong on the way is a reply too; only what
ends the process at once (a signal, `os._exit`) has none.

A fresh interpreter costs 8 ms, and most of the standard library as much again (`json`, `signal`,
`traceback`, `ctypes`, `typing`); so this file imports what is built in, loads its neighbours by path,
and the dear ones only when they are needed. It runs under other interpreters too: Python 3.9 and up.
"""

from __future__ import annotations

import faulthandler
import posix
import sys
from _frozen_importlib_external import SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from types import CodeType, ModuleType
    from typing import Any

    Reply = tuple[dict[str, Any], str, int]  # header, result text, exit code
else:
    import _signal

current: dict[str, Any] | None = None
"""The request of the job that runs here; `asyncjobs.current_job()` reads it."""

MAIN_AGAIN = "__asyncjobs_main__"
_FOLDER = __file__[: -len("child.py")]
_BEYOND_WORDS = "no memory or descriptor was left to say more"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_own_pid = posix.getpid()
_codec: Any = None
_cancel: Callable[[], object] | None = None  # of the `async def` that runs


def main(channel: int, parent: int) -> None:
    """Run the one job that comes over `channel`, and end the process; an end-of-file ends it too."""
    global current, _codec
    _bind_to(parent)
    _reset_signals()
    posix.set_inheritable(channel, False)
    identity = _identity(channel)
    wire = _load("wire")
    package = _FOLDER[: -len("execution/")]
    _load("jsonvalues", folder=package)
    _codec = codec = _load("codec", folder=package)
    faulthandler.enable(2)  # a segfault then says in the job's stderr where it was
    frame = wire.read_frame(channel)
    if frame is None:
        posix._exit(0)
    current = request = codec.loads(frame[0].decode())
    header, result, code = _run(request, frame[1].decode())
    _leave_if_forked(code)
    header["leftovers"] = _finish()
    header["rss"] = _peak_memory()
    header["cpu"] = _cpu_time()
    if _identity(channel) != identity:
        _say("the job closed its control channel, so its end can't be reported")
        posix._exit(1)
    try:
        posix.set_blocking(channel, True)
        wire.write_all(channel, wire.pack(codec.dumps(header).encode(), result.encode()))
    except OSError:
        posix._exit(1)  # the engine is gone
    posix._exit(code)


def _bind_to(parent: int) -> None:
    """End with the engine, whatever ends it, and become the parent of orphaned grandchildren."""
    if sys.platform == "linux":
        try:
            import _ctypes

            prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]

            def call(option: int, value: int) -> None:
                _ctypes.call_function(prctl, (option, value, 0, 0, 0))

        except (ImportError, AttributeError, OSError):
            import ctypes

            call = ctypes.CDLL(None).prctl  # 4 ms more
        call(_PR_SET_PDEATHSIG, 9)
        call(_PR_SET_CHILD_SUBREAPER, 1)
    if posix.getppid() != parent:
        posix._exit(0)


def _reset_signals() -> None:
    """Undo what an exec inherits from the engine: ignored and blocked signals."""
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _run(request: dict[str, Any], params: str) -> Reply:
    stage = "import"
    try:
        _prepare(request)
        function = _function(request)
        stage = "params"
        arguments = _codec.decode_params(function, params)
        stage = "exception"
        value = _call(function, arguments)
        stage = "result"
        return {"ok": True}, _codec.encode_result(function, value, limit=request["result_limit"]), 0
    except _FunctionGone as error:
        return {"ok": False, "kind": "import", "class_name": None, "message": str(error), "mro": []}, "", 1
    except _codec.CodecError as error:
        if stage != "exception":
            return {"ok": False, "kind": stage, "class_name": None, "message": str(error), "mro": []}, "", 1
        return _failed(error, stage)
    except BaseException as error:  # whatever ends the function is its failure
        return _failed(error, stage)


def _prepare(request: dict[str, Any]) -> None:
    """Make this interpreter look like the engine's: its paths, prefixes, environment and arguments."""
    import builtins

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    if request["site"]:
        import site

        site.main()
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # what `site` would have added
    sys.path[:] = request["path"]
    sys.argv[:] = request["argv"]
    sys.prefix, sys.exec_prefix = request["prefixes"]
    sys.dont_write_bytecode, sys.pycache_prefix = request["bytecode"]
    if request["environ"] or request["unset"]:
        import os

        for name in request["unset"]:
            os.environ.pop(name, None)
        os.environ.update(request["environ"])


class _FunctionGone(Exception):
    """The module has no such function (any more)."""


def _function(request: dict[str, Any]) -> Callable[..., Any]:
    name = request["module"]
    if name == "__main__":
        module = _main_again(request["main"])
    else:
        __import__(name)
        module = sys.modules[name]
    try:
        found = getattr(module, request["function"])
    except AttributeError:
        raise _FunctionGone(
            f"{name} has no {request['function']!r}: it was renamed or removed since the job was defined"
        ) from None
    if any(each.__module__ == "asyncjobs.definition" for each in type(found).__mro__):
        found = found.function
    if not callable(found):
        raise _FunctionGone(f"{name}.{request['function']} is no function but a {type(found).__qualname__}")
    return found  # type: ignore[no-any-return]


def _main_again(main: dict[str, str]) -> ModuleType:
    """Run the program's main module once more, under a name with which it does not start anew."""
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


def _call(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    ours = _signal.getsignal(_signal.SIGTERM) == _signal.SIG_DFL  # a handler of the user's own wins
    if ours:
        _signal.signal(_signal.SIGTERM, _interrupt)
    try:
        value = function(**arguments)
        if hasattr(value, "cr_await"):
            value = _awaited(value)
    finally:
        if ours and _signal.getsignal(_signal.SIGTERM) is _interrupt:
            _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    return value


def _awaited(coroutine: Any) -> Any:
    import asyncio

    async def outermost() -> Any:
        global _cancel
        loop = asyncio.get_running_loop()
        task: Any = asyncio.current_task()

        def cancel() -> None:
            loop.call_soon_threadsafe(task.cancel)  # from a signal handler: the loop must wake up

        _cancel = cancel
        try:
            return await coroutine
        finally:
            _cancel = None

    return asyncio.run(outermost())


class JobInterrupted(BaseException):
    """What a `def` is interrupted by where asyncjobs itself has not been imported."""


def _interrupt(number: int, _frame: object) -> None:
    """Pass SIGTERM on to the job: as cancellation, or as an exception in the main thread."""
    if posix.getpid() != _own_pid:  # a copy that the job forked: there it does what it does by default
        _signal.signal(number, _signal.SIG_DFL)
        posix.kill(posix.getpid(), number)
    elif _cancel is not None:
        _cancel()
    else:
        raise _interruption()("the job was asked to end")


def _interruption() -> type[BaseException]:
    if "asyncjobs" not in sys.modules:
        return JobInterrupted
    return __import__("asyncjobs.errors", fromlist=("JobInterrupted",)).JobInterrupted  # type: ignore[no-any-return]


def _failed(error: BaseException, kind: str) -> Reply:
    code = 1
    try:
        failure = _load_failure()
        if isinstance(error, SystemExit):
            code = failure.exit_code(error)
        own_files = {__file__, _codec.__file__}
        return failure.described(error, kind=kind, own_files=own_files), "", code
    except BaseException:  # memory or descriptors are used up: its name must do
        name = type(error).__qualname__
        names = [f"{each.__module__}.{each.__qualname__}" for each in type(error).__mro__]
        return {"ok": False, "kind": kind, "class_name": name, "message": _BEYOND_WORDS, "mro": names}, "", 1


def _load_failure() -> ModuleType:
    try:
        return _load("failure")
    except OSError:
        posix.close(0)  # the job has used up its descriptors: one is enough to go on
        return _load("failure")


def _leave_if_forked(code: int) -> None:
    """End a copy that the job forked and that came back from its function; the reply is not its own."""
    if posix.getpid() != _own_pid:
        _flush()
        posix._exit(code)


def _finish() -> int:
    """Do what the interpreter does at its end, and return how many processes the job left behind."""
    for module, function in (("threading", "_shutdown"), ("atexit", "_run_exitfuncs")):
        if module in sys.modules:
            try:
                getattr(sys.modules[module], function)()
            except BaseException as error:  # as at a normal end, it is shown and goes no further
                sys.excepthook(type(error), error, error.__traceback__)
    _flush()
    return _sweep()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # closed, or replaced by anything: nobody is left to tell
            pass


def _say(text: str) -> None:
    try:
        sys.stderr.write(f"asyncjobs: {text}\n")
    except BaseException:  # closed as well
        pass


def _sweep() -> int:
    """Kill what descends from this process, and return how many that were; -1 when that went wrong."""
    if not hasattr(posix, "waitid") or not _has_children():
        return 0  # on macOS the engine kills the process group
    # The tracker of multiprocessing ends by itself, after it has cleaned up.
    tracker: Any = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    keep = () if getattr(tracker, "_pid", None) is None else (tracker._pid,)
    try:
        killed = _load("tree").kill_descendants(_own_pid, keep=keep)
        if keep:
            tracker._stop()
        _reap()
    except BaseException:  # no memory or descriptor left: the engine will sweep
        return -1
    return killed  # type: ignore[no-any-return]


def _has_children() -> bool:
    try:
        posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _reap() -> None:
    """Wait until the killed are gone, at most for a second."""
    import time

    deadline = time.monotonic() + 1.0
    try:
        while time.monotonic() < deadline:
            if posix.waitpid(-1, posix.WNOHANG)[0] == 0:
                time.sleep(0.0005)
    except ChildProcessError:
        return


def _peak_memory() -> int | None:
    """Return the most memory used, in bytes; `ru_maxrss` would count the engine's, from before the exec."""
    try:
        if sys.platform == "darwin":
            import resource

            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        descriptor = posix.open("/proc/self/status", posix.O_RDONLY)
        status = posix.read(descriptor, 8192)
        posix.close(descriptor)
        return int(status[status.index(b"VmHWM:") + 6 :].split(None, 1)[0]) * 1024
    except (OSError, ValueError):
        return None


def _cpu_time() -> float:
    """Return the seconds of CPU used by this process and those of its children that it waited for."""
    import time

    times = posix.times()
    return time.process_time() + times.children_user + times.children_system


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        status = posix.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _load(name: str, folder: str = _FOLDER) -> ModuleType:
    """Import a file of ours by its path, under a name that no module of the user's has."""
    full_name = "_asyncjobs_" + name
    module = sys.modules.get(full_name)
    if module is None:
        module = type(sys)(full_name)
        module.__file__ = f"{folder}{name}.py"
        sys.modules[full_name] = module
        try:
            SourceFileLoader(full_name, module.__file__).exec_module(module)
        except BaseException:
            del sys.modules[full_name]
            raise
    return module

"""What runs in a job's process: one request in, one reply out, and nothing left behind.

    begin ─> wait for the request ─> import ─> decode ─> limits ─> call ─> encode
    ─> join threads, run atexit, flush, sweep ─> reply ─> exit

It begins in a fresh interpreter (`main`) or in a copy of a template (`forking.py`). With
`isolation="reuse"` it goes on after the reply, to the next request.

The reply is the last thing before the exit, so that an engine that has a whole reply and sees exit
code 0 knows that all before it went well. Whatever goes wrong on the way is a reply too; only what
ends the process at once (a signal, `os._exit`) has none.

A fresh interpreter costs 8 ms, and most of the standard library as much again (`json`, `signal`,
`traceback`, `ctypes`, `typing`); so this file imports what is built in, loads its neighbours by path,
and the dear ones only when they are needed. It runs under other interpreters too: Python 3.9 and up.
"""

from __future__ import annotations

import _thread
import faulthandler
import posix
import sys
from _frozen_importlib_external import SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    Reply = tuple[dict[str, Any], str, int]  # header, result text, exit code
else:
    import _signal

current: dict[str, Any] | None = None
"""The request of the job that runs here; `asyncjobs.current_job()` reads it."""
channel = -1
"""Its descriptor of the control channel."""
replying = False
"""Whether the job is over, and nothing but its reply may be written; the next request ends that."""
wire: Any = None
codec: Any = None
finding: Any = None

LINUX = sys.platform == "linux"
_FOLDER = __file__[: -len("child.py")]
_BEYOND_WORDS = "no memory or descriptor was left to say more"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

own_pid = posix.getpid()
"""Not that of a copy which the job has forked."""
_loading = _thread.RLock()
_cancel: Callable[[], object] | None = None  # of the `async def` that runs
_libc: dict[str, Callable[..., int]] = {}


def main(descriptor: int, parent: int) -> None:
    """Begin in a fresh interpreter, and serve."""
    bind_to(parent, _signal.SIGKILL)
    reset_signals()
    posix.set_inheritable(descriptor, False)
    load_neighbours()
    faulthandler.enable(2)  # a segfault then says in the job's stderr where it was
    serve(descriptor)


def serve(descriptor: int) -> None:
    """Run what comes over the channel, and end the process; an end-of-file ends it too."""
    global current, channel, replying
    channel = descriptor
    known = identity(channel)
    output = None
    while True:
        frame = wire.read_frame(channel)
        if frame is None:
            if current is not None:
                _finish()
            posix._exit(0)
        current = request = codec.loads(frame[0].decode())
        replying = False
        stays = request.get("stays", False)
        if stays and output is None:
            output = identity(1), identity(2)
        header, result, code = run(request, frame[1].decode())
        _leave_if_forked(code)
        if stays:
            stays = output == (identity(1), identity(2)) and not load("staying").has_leaked_threads()
            stays = stays and header.get("mro", ())[:1] != ["builtins.SystemExit"]
        header["stays"] = stays
        header["leftovers"] = _finish(for_good=not stays)
        replying = True  # before the look: a thread may just be about to load it
        if "_asyncjobs_telling" in sys.modules:
            load("telling").tell_now()
        if "stays" in request:
            header["pid"], (header["rss"], header["cpu"]) = own_pid, load("staying").used()
        if identity(channel) != known:
            say("the job closed its control channel, so its end can't be reported")
            posix._exit(1)
        try:
            posix.set_blocking(channel, True)
            wire.write_all(channel, wire.pack(codec.dumps(header).encode(), result.encode()))
        except OSError:
            posix._exit(1)  # the engine is gone
        if not stays:
            posix._exit(code)
        del header, result, request


def load_neighbours() -> None:
    """Load what reads requests, finds functions and writes replies."""
    global wire, codec, finding
    package = _FOLDER[: -len("execution/inside/")]
    wire = load("wire")
    finding = load("finding")
    load("jsonvalues", folder=package)
    codec = load("codec", folder=package)


def bind_to(parent: int, number: int) -> None:
    """Take the signal `number` when the parent ends, and become the parent of orphaned grandchildren."""
    if LINUX:
        prctl = _from_libc("prctl")
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if posix.getppid() != parent:
        posix._exit(0)


def _from_libc(name: str) -> Callable[..., int]:
    """Return a function of the C library that takes and returns `int`s, or a null pointer for None."""
    if name not in _libc:
        _libc[name] = _found_in_libc(name)
    return _libc[name]


def _found_in_libc(name: str) -> Callable[..., int]:
    try:
        import _ctypes

        address = _ctypes.dlsym(_ctypes.dlopen(None, 0), name)  # type: ignore[arg-type]
        return lambda *arguments: _ctypes.call_function(address, arguments)
    except (ImportError, AttributeError, OSError):
        import ctypes

        return getattr(ctypes.CDLL(None), name)  # type: ignore[no-any-return]  # 4 ms more


def reset_signals() -> None:
    """Undo what is inherited: ignored, blocked and foreign signals."""
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.signal(_signal.SIGURG, _look_for_signals)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _look_for_signals(_number: int, _frame: object) -> None:
    """End a call that blocks, so that Python calls the handler of a SIGTERM that came just before it."""


def run(request: dict[str, Any], params: str) -> Reply:
    """Find the function of a request, call it, and return what is to be replied."""
    stage = "import"
    limits = request.get("limits")
    before = finding.set_environment(request)
    try:
        if "setup" in request:
            finding.prepare(request["setup"])
        function = finding.function_of(request)
        if "_asyncjobs_logs" not in sys.modules:
            load("logs").show()
        stage = "params"
        arguments = codec.decode_params(function, params)
        stage = "exception"
        value = call(function, arguments) if limits is None else _limited(limits, function, arguments)
        stage = "result"
        return {"ok": True}, codec.encode_result(function, value, limit=request["result_limit"]), 0
    except finding.FunctionGone as error:
        return {"ok": False, "kind": "import", "class_name": None, "message": str(error), "mro": []}, "", 1
    except codec.CodecError as error:
        if stage != "exception":
            return {"ok": False, "kind": stage, "class_name": None, "message": str(error), "mro": []}, "", 1
        return _failed(error, stage)
    except BaseException as error:  # whatever ends the function is its failure
        return _failed(error, stage)
    finally:
        if "stays" in request:
            finding.restore_environment(before)


def _limited(limits: dict[str, Any], function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    kernel = load("limits")
    kernel.apply(**limits)
    try:
        return call(function, arguments)
    finally:
        kernel.lift()  # what is to be said of the job needs memory too


def call(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a job's function; SIGTERM interrupts it meanwhile."""
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
    if not is_own_process():  # there it does what it does by default
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
        own_files = {__file__, codec.__file__}
        return failure.described(error, kind=kind, own_files=own_files), "", code
    except BaseException:  # memory or descriptors are used up: its name must do
        name = type(error).__qualname__
        names = [f"{each.__module__}.{each.__qualname__}" for each in type(error).__mro__]
        return {"ok": False, "kind": kind, "class_name": name, "message": _BEYOND_WORDS, "mro": names}, "", 1


def _load_failure() -> ModuleType:
    try:
        return load("failure")
    except OSError:
        posix.close(0)  # the job has used up its descriptors: one is enough to go on
        return load("failure")


def is_own_process() -> bool:
    """Return whether this is the job's process itself, not a copy that the job forked."""
    return posix.getpid() == own_pid


def _leave_if_forked(code: int) -> None:
    """End a copy that came back from its function; the reply is not its own."""
    if not is_own_process():
        _flush_and_exit(code)


def _finish(*, for_good: bool = True) -> int:
    """Do what is due at a job's end, and at the interpreter's; return how many processes the job left behind."""
    for module, function in (("threading", "_shutdown"), ("atexit", "_run_exitfuncs")):
        if for_good and module in sys.modules:
            try:
                getattr(sys.modules[module], function)()
            except BaseException as error:  # as at a normal end, it is shown and goes no further
                sys.excepthook(type(error), error, error.__traceback__)
    flush()
    return _sweep()


def _flush_and_exit(code: int) -> None:
    flush()
    posix._exit(code)


def flush() -> None:
    """Write out what is buffered."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # closed, or replaced by anything: nobody is left to tell
            pass


def say(text: str) -> None:
    """Write a line to the job's stderr."""
    try:
        sys.stderr.write(f"asyncjobs: {text}\n")
    except BaseException:  # closed as well
        pass


def _sweep() -> int:
    """Kill what descends from this process, and return how many that were; -1 when that went wrong."""
    if not has_children():
        return 0  # on macOS the template kills the process group
    # The tracker of multiprocessing ends by itself, after it has cleaned up.
    tracker: Any = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    keep = () if getattr(tracker, "_pid", None) is None else (tracker._pid,)
    try:
        killed = load("tree").kill_descendants(own_pid, keep=keep)
        if keep:
            tracker._stop()
        reap()
    except BaseException:  # no memory or descriptor left: the engine will sweep
        return -1
    return killed  # type: ignore[no-any-return]


def has_children() -> bool:
    """Return whether this process has a child, alive or not yet reaped; False where the kernel does not say."""
    if not LINUX:
        return False
    # Python's own would make an exception of what is the rule, and that is a tenth of what a job costs.
    options = posix.WEXITED | posix.WNOHANG | posix.WNOWAIT
    return _from_libc("waitid")(posix.P_ALL, 0, None, options) == 0


def reap() -> None:
    """Wait until the killed are gone, at most for a second."""
    import time

    deadline = time.monotonic() + 1.0
    try:
        while time.monotonic() < deadline:
            if posix.waitpid(-1, posix.WNOHANG)[0] == 0:
                time.sleep(0.0005)
    except ChildProcessError:
        return


def identity(descriptor: int) -> tuple[int, int] | None:
    """Return what tells a descriptor's file from another that may have taken its number."""
    try:
        status = posix.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def load(name: str, folder: str = _FOLDER) -> ModuleType:
    """Import a file of ours by its path, under a name that no module of the user's has."""
    full_name = "_asyncjobs_" + name
    with _loading:  # a job's threads may come here at once
        if full_name in sys.modules:
            return sys.modules[full_name]
        module = type(sys)(full_name)
        module.__file__ = f"{folder}{name}.py"
        SourceFileLoader(full_name, module.__file__).exec_module(module)
        # A signal handler that came in between may have loaded it too, and then its own is in use.
        return sys.modules.setdefault(full_name, module)

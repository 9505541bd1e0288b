"""The jobs that the tests of this folder run, most of them ill-behaved."""

import asyncio
import ctypes
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from asyncjobs import Cancel, JobInterrupted, Retry, TransientError, current_job, job

SLEEPER = [sys.executable, "-I", "-S", "-c", "import time; print('x', flush=True); time.sleep(600)"]


class Flaky(Exception):
    pass


class VeryFlaky(Flaky):
    pass


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@job
def add(a: int, b: int = 10) -> int:
    return a + b


@job
async def add_async(a: int, b: int = 10) -> int:
    await asyncio.sleep(0)
    return a + b


@job
def next_year(day: datetime) -> datetime:
    return day.replace(year=day.year + 1)


@job
def fail(message: str) -> None:
    inner(message)


def inner(message: str) -> None:
    raise ValueError(message)


@job
async def fail_async(message: str) -> None:
    inner(message)


@job(transient_error_classes=[Flaky])
def fail_flaky(very: bool = False) -> None:
    raise VeryFlaky("later") if very else Flaky("later")


@job(transient_error_classes=[ConnectionError])
def fail_connecting() -> None:
    raise ConnectionResetError("gone")


@job
def fail_transiently() -> None:
    try:
        raise KeyError("origin")
    except KeyError as error:
        raise TransientError(error) from error


@job
def retry(after: float | None = None) -> None:
    raise Retry(after, "not yet")


@job
def cancel_itself() -> None:
    raise Cancel("nothing to do")


@job
def fail_unspeakably() -> None:
    raise Unspeakable


@job
def fail_at_length() -> None:
    raise ValueError("x" * 1_000_000)


@job
def fail_with_surrogate() -> None:
    raise ValueError("\udc80")


@job
def recurse() -> None:
    recurse.function()


@job
def use_up_memory() -> None:
    raise MemoryError


@job
def raise_keyboard_interrupt() -> None:
    raise KeyboardInterrupt


@job
async def raise_cancelled() -> None:
    raise asyncio.CancelledError


@job
async def cancel_own_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)


@job
def exit_with(code: Any = None) -> None:
    sys.exit(code)


@job
async def exit_async(code: int) -> None:
    await asyncio.sleep(0)
    sys.exit(code)


@job
def return_object() -> Any:
    return object()


@job
def return_text(length: int) -> str:
    return "x" * length


@job
def length_of(text: str) -> int:
    return len(text)


@job
def who_am_i() -> list[Any]:
    me = current_job()
    return [me.id, me.name, me.attempt]


@job
async def who_am_i_async() -> list[Any]:
    await asyncio.sleep(0)
    return who_am_i.function()


@job
async def bounds_in_its_first_step() -> list[str]:
    """Say what it is told by all that looks for the task which runs it, before it has waited for anything."""
    task = asyncio.current_task()
    assert task is not None
    said = [task.get_name()]
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)
    except TimeoutError:
        said.append("timed out")
    task.cancel()
    try:
        async with asyncio.TaskGroup():
            await asyncio.sleep(60)
    except asyncio.CancelledError:
        said.append("canceled")
    task.uncancel()
    return said


@job
async def sleep_async(marks: Path) -> None:
    """Say that it began, and how it ended."""
    (marks / "began").touch()
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        (marks / "cancelled").touch()
        raise


@job
async def swallow_cancellation(marks: Path) -> str:
    (marks / "began").touch()
    while not (marks / "enough").exists():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            (marks / "cancelled").touch()
    return "late"


@job
def sleep_until(marks: Path) -> str:
    (marks / "began").touch()
    while not (marks / "enough").exists():
        time.sleep(0.005)
    return "late"


@job
def sleep_and_clean_up(marks: Path) -> None:
    try:
        (marks / "began").touch()
        time.sleep(600)
    except JobInterrupted:
        (marks / "interrupted").touch()
        raise
    finally:
        (marks / "cleaned").touch()


@job(retry_on=["timeout"])
def ignore_sigterm(marks: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (marks / "began").touch()
    while True:
        time.sleep(600)


@job
def swallow_interruption(marks: Path) -> str:
    try:
        (marks / "began").touch()
        time.sleep(600)
    except BaseException:
        pass
    return "result"


@job
def handle_sigterm_itself(marks: Path) -> None:
    def handler(*_: object) -> None:
        (marks / "own handler").touch()
        os._exit(7)

    signal.signal(signal.SIGTERM, handler)
    (marks / "began").touch()
    time.sleep(600)


@job
def miss_sigterm(marks: Path) -> None:
    """Be in a call that blocks as SIGTERM comes, which does not end that call: a thread takes it."""
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        (marks / "began").touch()
        time.sleep(600)
    finally:
        (marks / "cleaned").touch()


@job
def spin(marks: Path) -> None:
    """Hold the GIL in C for ever, nearly."""
    (marks / "began").touch()
    sum(range(10**15))


@job
def spin_with_daemon(marks: Path, spin: bool = True) -> None:
    """Ignore SIGTERM, leave a daemon in a session of its own, and hold the GIL in C for ever, nearly."""
    if not spin:
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (marks / "job").write_text(str(os.getpid()))
    leave_processes.function(marks, "daemon")
    sum(range(10**15))


@job
def leave_processes(marks: Path, kind: str, stay: bool = False, with_env: bool = True) -> str:
    """Start a grandchild of the kind and note its pid; stay, or return at once."""
    env = None if with_env else {}
    if kind == "plain":
        pid = start_sleeper(env)
    elif kind == "setsid":
        pid = start_sleeper(env, start_new_session=True)
    elif kind == "daemon":
        reader, writer = os.pipe()
        first = os.fork()
        if first == 0:
            os.setsid()
            os.write(writer, str(start_sleeper(env)).encode())
            os._exit(0)
        os.waitpid(first, 0)
        pid = int(os.read(reader, 100))
    else:
        raise ValueError(kind)
    (marks / "pids").write_text(str(pid))
    (marks / "began").touch()
    if stay:
        time.sleep(600)
    return "left"


def start_sleeper(env: dict[str, str] | None, **options: Any) -> int:
    process = subprocess.Popen(SLEEPER, env=env, stdout=subprocess.PIPE, **options)
    assert process.stdout is not None
    process.stdout.read(1)
    return process.pid


@job
def leave_one_that_holds_stdout(marks: Path) -> str:
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    (marks / "pids").write_text(str(process.pid))
    return "left"


@job
def leave_zombie() -> str:
    pid = os.spawnv(os.P_NOWAIT, "/bin/true", ["true"])
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return "left"


@job
def leave_one_and_crash(marks: Path) -> None:
    (marks / "pids").write_text(str(start_sleeper(None, start_new_session=True)))
    os._exit(9)


@job
def fork_and_return_twice() -> str:
    return "child" if os.fork() == 0 else "parent"


@job
def fork_and_terminate() -> int:
    """Return how a forked copy ends that gets SIGTERM."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"x")  # a signal before that may get lost in the fork itself
        while True:  # one that comes right before a sleep is acted on only after it
            time.sleep(0.01)
    os.read(reader, 1)
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@job(retry_on=["crash"])
def crash_with(code: int) -> None:
    print("last words", file=sys.stderr)
    os._exit(code)


@job
def segfault() -> None:
    ctypes.string_at(0)


@job
def kill_itself(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(600)


@job
def close_descriptors() -> str:
    os.closerange(0, 256)
    return "done"


@job
def close_stdout() -> str:
    sys.stdout.close()
    os.close(2)
    return "done"


def control_channel() -> int:
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                return int(name)
        except OSError:
            continue
    raise AssertionError("no channel")


@job
def write_to_channel(data: bytes, and_exit: bool = False) -> str:
    os.write(control_channel(), data)
    if and_exit:
        os._exit(0)
    return "done"


@job
def hide_channel_behind_file(path: Path) -> str:
    """Put a file where the channel was, as a daemon does that closes all and opens its log."""
    channel = control_channel()
    os.close(channel)
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.dup2(file, channel)
    return "done"


@job
def look_for_params(secret: str) -> list[bool]:
    """Return where the params can be seen by others."""
    marker = secret[:100].encode()
    return [marker in Path(f"/proc/self/{name}").read_bytes() for name in ("environ", "cmdline")]


@job
def environment(name: str) -> str | None:
    return os.environ.get(name)


@job
def print_lines(count: int, stream: str = "stdout") -> None:
    for number in range(count):
        print(f"line {number}", file=getattr(sys, stream))


@job
def log(own: bool = False) -> None:
    if own:
        logging.basicConfig(level=logging.DEBUG, format="own %(message)s", stream=sys.stderr)
    logging.getLogger("files").debug("looking")
    logging.getLogger("files").info("counting")


@job
def print_bytes(data: bytes) -> str:
    os.write(1, data)
    return "done"


@job
def print_much(size: int) -> str:
    left = size
    while left:
        left -= os.write(1, b"x" * min(left, 100_000))
    return "done"


@job
def use_up_descriptors() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    held = []
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))


@job
def leave_thread(path: Path) -> str:
    def later() -> None:
        time.sleep(0.05)
        path.write_text("written by a thread")

    threading.Thread(target=later).start()
    return "done"


@job
def register_atexit(path: Path) -> str:
    import atexit

    atexit.register(path.write_text, "written at exit")
    return "done"


@job
def use_process_pool() -> list[int]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(abs, [-1, -2]))


@job
def interpreter() -> dict[str, Any]:
    return {
        "path": sys.path,
        "prefix": sys.prefix,
        "argv": sys.argv,
        "executable": sys.executable,
        "session": os.getsid(0) == os.getpid(),
        "inheritable": os.get_inheritable(control_channel()),
    }


@job
def modules() -> list[str]:
    return sorted(sys.modules)


@job
def pid() -> int:
    return os.getpid()


@job
def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@job
def print_and_wait(marks: Path) -> None:
    print("waiting")
    sleep_until.function(marks)


def plain_function(number: int) -> int:
    return number * 2


@job
def kill_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


@job
def take_memory(size: int) -> int:
    return len(bytearray(size))


kept: list[bytearray] = []


@job
def fork_bomb(marks: Path, session_each: bool = False, most: int = 300) -> None:
    """Multiply, and keep the processors busy; even where nobody prevents it, only so often and for 20 s."""
    shares, writer = os.pipe()
    os.write(writer, b"x" * most)
    os.set_blocking(shares, False)
    pids = os.open(marks / "pids", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    while True:
        signal.alarm(20)
        os.write(pids, f"{os.getpid()}\n".encode())
        try:
            os.read(shares, 1)
        except BlockingIOError:
            break
        if os.fork() == 0 and session_each:
            os.setsid()
    while True:
        pass


@job
def start_processes(count: int) -> int:
    """Have so many processes at once, this one among them."""
    started = [subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL) for _ in range(count - 1)]
    time.sleep(1.5)
    for each in started:
        each.kill()
        each.wait()
    return len(started)


@job
def remember() -> int:
    """Return how often this process has remembered."""
    kept.append(bytearray(1))
    return len(kept)


@job
def leak_daemon_thread() -> int:
    """Leave a thread that never ends, and return how many there are of them."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return threading.active_count() - 1


@job
def note_own_pid_and_stay(marks: Path) -> None:
    (marks / "pids").write_text(str(os.getpid()))
    (marks / "began").touch()
    time.sleep(600)


@job
def keep_memory(size: int) -> None:
    kept.append(bytearray(b"x" * size))


@job
def own_limits() -> list[int]:
    import resource

    return [resource.getrlimit(resource.RLIMIT_NOFILE)[0], os.getpriority(os.PRIO_PROCESS, 0)]


@job
def end_by(what: str) -> None:
    if what == "sleep":
        time.sleep(600)
    elif what == "exit":
        sys.exit(0)
    elif what == "crash":
        os._exit(0)
    elif what == "mute":
        os.close(1)


@job
def print_unfinished(text: str) -> None:
    print(text, end="")


@job
def say_from_threads(threads: int) -> None:
    def say() -> None:
        barrier.wait()
        for number in range(20):
            current_job().progress(number + 1, 20)

    barrier = threading.Barrier(threads)
    started = [threading.Thread(target=say) for _ in range(threads)]
    for each in started:
        each.start()
    for each in started:
        each.join()


@job(memory_limit=32 * 1024 * 1024)
def say_without_threads(times: int) -> None:
    threading.stack_size(64 * 1024 * 1024)  # above the limit: none can be started
    for number in range(times):
        current_job().progress(number + 1, times)


@job
def say_in_a_handler() -> None:
    """Get a signal in the middle of a frame, and say something in its handler."""
    wire = sys.modules["_asyncjobs_child"].wire
    write_all = wire.write_all

    def write_interrupted(channel: int, frame: bytes) -> None:
        wire.write_all = write_all
        write_all(channel, frame[:10])
        os.kill(os.getpid(), signal.SIGUSR1)
        write_all(channel, frame[10:])

    signal.signal(signal.SIGUSR1, lambda *_: current_job().progress(2))
    wire.write_all = write_interrupted
    current_job().progress(1)


@job
def say_while_handlers_do(times: int) -> int:
    """Say numbered details until a handler, which comes at any moment, has done so often enough; return how many."""
    handled: list[int] = []
    said = 0

    def handle(*_: object) -> None:
        number = next(numbers)  # a handler may be interrupted by the next
        current_job().update_details({f"handled {number}": True})
        handled.append(number)

    numbers = itertools.count()
    handle()  # what it imports is there from now on
    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    while len(handled) < times:
        said += 1
        current_job().update_details({f"said {said}": True})
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # one may be on its way
    return len(handled) + said


@job
def say_beyond_the_end(marks: Path, size: int) -> str:
    """Return a long text while a thread goes on to say how far the job is."""
    me = current_job()

    def say() -> None:
        while True:
            me.progress(1, message="still at work")
            time.sleep(0.001)

    threading.Thread(target=say, daemon=True).start()
    sleep_until.function(marks)
    return "x" * size


@job
def say_much(times: int) -> None:
    for number in range(times):
        current_job().update_details({f"part {number}": "x" * 65_000})


@job
def say_nested(levels: int) -> None:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    current_job().update_details({"deep": value})


@job
def say_in_a_copy() -> None:
    pid = os.fork()
    if pid == 0:
        current_job().progress(9)
        os._exit(0)
    os.waitpid(pid, 0)
    current_job().progress(1)


@job
def note_limit_at_exit(file: Path) -> None:
    import atexit
    import resource

    atexit.register(lambda: file.write_text(str(resource.getrlimit(resource.RLIMIT_AS)[0])))


@job
def print_without_end(size: int, piece: bytes) -> str:
    """Print `size` bytes made of `piece` between a head and a tail."""
    os.write(1, b"the head\n")
    block = piece * (100_000 // len(piece))
    left = size
    while left:
        left -= os.write(1, block[: min(left, len(block))])
    os.write(1, b"the tail\n")
    return "done"


def hold(marks: Path, kind: str, take: Callable[[], object]) -> None:
    """Take again and again, until it is enough."""
    (marks / kind).touch()
    while not (marks / "enough").exists():
        take()


@job(process_limit=20, nice=19)
def hold_processes(marks: Path) -> None:
    for _ in range(19):
        if os.fork() == 0:
            while True:
                pass
    hold(marks, "processes", lambda: sum(range(100_000)))


@job(open_files=64, nice=19)
def hold_descriptors(marks: Path) -> None:
    held = []

    def give_back() -> None:
        while held:
            os.close(held.pop())

    def take() -> None:
        try:
            held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            give_back()

    hold(marks, "descriptors", take)
    give_back()  # a warm process runs other jobs after this one


@job(memory_limit=100 * 1024 * 1024, nice=19)
def hold_memory(marks: Path) -> None:
    held = []

    def take() -> None:
        try:
            held.append(b"x" * 1_000_000)
        except MemoryError:
            held.clear()

    hold(marks, "memory", take)

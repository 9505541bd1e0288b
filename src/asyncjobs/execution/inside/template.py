"""What runs in a template process: it imports a job's module once, then forks a process for each job.

    start + three descriptors ──> fork ──> child.serve(channel)     the job, in a session of its own
    deadline, ask, kill      ──> SIGTERM to its group; stop, walk and kill of its tree
    limit                    ──> the same once it has too many processes
    ended                    <── wait4: status, memory, time

The template is single-threaded and runs nothing of the user's once it has imported the module. Only it
reaps and only it kills, so no process id can be reused under it. It is the subreaper of its jobs, as
each job is of what it starts: whatever a job leaves behind becomes the template's child when the job
has died, and is killed then. It keeps the deadlines itself, so an engine whose loop is blocked delays
the record only. When the engine is gone (end of file, or the kernel's signal at its death) it kills
all that descends from it, and ends. A SIGTERM it ignores: where a service manager sends one to every
process, the engine decides how long the jobs may go on.

For a job that needs a fresh interpreter the forked process executes one; the template is bare then.

It runs under other interpreters too, and its size is paid at each fork (0.08 ms for each MB): built-in
modules alone, and its neighbours by path.
"""

from __future__ import annotations

import posix
import sys
from _frozen_importlib_external import SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from types import ModuleType
    from typing import Any
else:
    import _signal

_FOLDER = __file__[: -len("template.py")]
_CHILD_MODULE = "_asyncjobs_child"
_SLACK = 0.05  # after a deadline: the engine is the first to act on it, unless its loop is blocked
_NUDGE_AFTER = 0.05
_MOST_DESCRIPTORS = 3 * 32
_OOM_SCORE = b"500"
# The signal of the engine's death is one that nobody else sends. macOS has neither.
_ENGINE_GONE = getattr(_signal, "SIGRTMAX", 0)


class Process:
    """A job's process, as its parent sees it."""

    __slots__ = ("asked", "grace", "kill_at", "killed", "late", "many", "n", "pid", "when")

    def __init__(self, n: int, pid: int) -> None:
        self.n = n
        self.pid = pid
        self.when: float | None = None  # the next thing to do to it: to ask, to nudge, to kill
        self.grace = self.kill_at = 0.0
        self.asked = self.killed = self.late = self.many = False


def main(control: int, parent: int) -> None:
    """Serve the engine at the other end of `control` until it is gone, then end this process."""
    child = _load_child()
    child.bind_to(parent, _ENGINE_GONE)
    child.reset_signals()
    _be_killed_first()
    child.load_neighbours()
    frame = child.wire.read_frame(control)
    if frame is None:
        posix._exit(0)
    order = child.codec.loads(frame[0].decode())
    ready = child.load("preparing").prepared(order, parent, _ENGINE_GONE)
    _Template(control, child).serve(ready)


def _be_killed_first() -> None:
    """Have the kernel take a job rather than the engine when memory runs out; jobs inherit it."""
    try:
        descriptor = posix.open("/proc/self/oom_score_adj", posix.O_WRONLY)
    except OSError:
        return
    try:
        posix.write(descriptor, _OOM_SCORE)
    except OSError:
        pass
    finally:
        posix.close(descriptor)


class _Template:
    """The loop: the engine's frames, the ends of processes, their deadlines."""

    def __init__(self, control: int, child: Any) -> None:
        import _socket
        import select
        import time

        self._child = child
        self._control = _socket.socket(fileno=control)
        self._flags = getattr(_socket, "MSG_CMSG_CLOEXEC", 0)  # macOS has none
        self._decoder = child.wire.Decoder(0)
        self._poll = select.poll()
        self._readable = select.POLLIN
        self._socket = _socket
        self._now = time.monotonic
        self._begin = child.load("forking").begin
        self._rehearse = child.load("rehearsal").rehearse_meanwhile
        self._descriptors: list[int] = []
        self._by_n: dict[int, Process] = {}
        self._by_pid: dict[int, Process] = {}
        self._pid = posix.getpid()
        self._wake_in, self._wake_out = posix.pipe()
        self._own = (control, self._wake_in, self._wake_out)
        self._strangers: set[int] = set()  # children that the module's import has left, if any
        self._due: float | None = None
        self._watch: Any = None  # of how many processes the jobs have, where that is limited
        self._unsaid = b""
        self._over = False

    def serve(self, ready: dict[str, Any]) -> None:
        """Do what the engine says until it is gone."""
        self._listen_to_signals()
        self._strangers = self._others() if self._child.has_children() else set()
        self._say(ready)
        self._send()
        for descriptor in (self._control.fileno(), self._wake_in):
            self._poll.register(descriptor, self._readable)
        while not self._over:
            for descriptor, _ in self._poll.poll(self._milliseconds()):
                if descriptor == self._wake_in:
                    self._note_signals()
                    self._reap()
                else:
                    self._read()
            self._keep_deadlines()
            self._send()
        self._leave()

    def _listen_to_signals(self) -> None:
        for descriptor in (self._wake_in, self._wake_out):
            posix.set_blocking(descriptor, False)
        for number in filter(None, (_signal.SIGCHLD, _ENGINE_GONE)):
            _signal.signal(number, _nothing)
        for number in (_signal.SIGINT, _signal.SIGTERM):
            _signal.signal(number, _signal.SIG_IGN)
        _signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)

    def _note_signals(self) -> None:
        if _ENGINE_GONE in posix.read(self._wake_in, 4096):
            self._over = True

    def _milliseconds(self) -> float | None:
        self._due = None if self._watch is None else self._watch.due
        for each in self._by_n.values():
            if each.when is not None and (self._due is None or each.when < self._due):
                self._due = each.when
        return None if self._due is None else max(0.0, (self._due - self._now()) * 1000 + 1)

    # --- the engine's frames --------------------------------------------------------------------

    def _read(self) -> None:
        space = self._socket.CMSG_LEN(_MOST_DESCRIPTORS * 4)
        try:
            data, extra, _, _ = self._control.recvmsg(65536, space, self._flags)
        except OSError:
            data, extra = b"", []
        for level, kind, content in extra:
            if level == self._socket.SOL_SOCKET and kind == self._socket.SCM_RIGHTS:
                whole = len(content) // 4 * 4
                received = memoryview(content[:whole]).cast("i").tolist()
                self._descriptors += received
                if not self._flags:
                    for each in received:
                        posix.set_inheritable(each, False)
        if not data:
            self._over = True
        for header, _ in self._decoder.feed(data):
            order = self._child.codec.loads(header.decode())
            if order["do"] == "start":
                self._start(order)
            elif order["n"] in self._by_n:
                getattr(self, "_" + order["do"])(self._by_n[order["n"]], order)
            elif order["do"] == "sweep":
                self._say({"is": "swept", "n": order["n"], "count": self._kill_orphans()})

    def _say(self, news: dict[str, Any]) -> None:
        """Have the engine told at the end of this round, with what else there is by then."""
        self._unsaid += self._child.wire.pack(self._child.codec.dumps(news).encode())

    def _send(self) -> None:
        data, self._unsaid = self._unsaid, b""
        try:
            if data:
                self._control.sendall(data)
        except OSError:
            self._over = True  # the engine is gone

    def _start(self, order: dict[str, Any]) -> None:
        descriptors, self._descriptors = self._descriptors[:3], self._descriptors[3:]
        # A SIGTERM that finds the copy before its handlers are its own has to wait.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM,))
        try:
            pid = posix.fork()
        except OSError as error:
            self._say({"is": "failed", "n": order["n"], "error": str(error)})
        else:
            if pid == 0:
                self._become_a_job(order, *descriptors)
            process = self._by_n[order["n"]] = self._by_pid[pid] = Process(order["n"], pid)
            if "seconds" in order:
                self._deadline(process, order)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTERM,))
        for each in descriptors:
            posix.close(each)

    def _become_a_job(self, order: dict[str, Any], channel: int, stdout: int, stderr: int) -> None:
        """Be the job's process from here on; this never returns."""
        try:
            posix.setsid()
            _signal.set_wakeup_fd(-1)
            inherited = (stdout, stderr, *self._descriptors, *self._own)
            self._begin(self._pid, _signal.SIGKILL, (stdout, stderr), inherited)
            if "execute" in order:
                posix.set_inheritable(channel, True)
                arguments = [*order["execute"], str(channel), str(self._pid)]
                posix.execv(arguments[0], arguments)
            if "ahead" in order:
                self._rehearse(self._child, channel)
            self._child.serve(channel)
        except BaseException as error:  # nothing may run on as a second template
            self._child.say(f"{type(error).__name__}: {error}")
        finally:
            posix._exit(1)

    def _deadline(self, process: Process, order: dict[str, Any]) -> None:
        seconds = order["seconds"]
        process.when = None if seconds is None else self._now() + seconds + _SLACK
        process.grace = order["grace"]

    def _ask(self, process: Process, order: dict[str, Any]) -> None:
        process.grace = order["grace"]
        self._send_sigterm(process)

    def _kill(self, process: Process, _order: dict[str, Any] | None = None) -> None:
        tree = self._tree()
        process.killed = True
        process.when = None
        started = tree.start_time(process.pid)
        if started is None:
            return
        try:
            # Its group at once: what forks faster than we can walk would keep ahead of us.
            posix.killpg(process.pid, _signal.SIGSTOP)
        except OSError:
            pass  # it has no session of its own yet
        tree.before_others(tree.kill_tree, process.pid, started)

    def _limit(self, process: Process, order: dict[str, Any]) -> None:
        """Count its processes from now on, or no more."""
        if not self._child.LINUX:
            return
        if self._watch is None:
            self._tree()
            self._watch = self._child.load("watching").Watch()
        if order["processes"] is None:
            self._watch.forget(process.pid)
        else:
            self._watch.limit(process.pid, order["processes"], self._now())

    def _sweep(self, process: Process, _order: dict[str, Any]) -> None:
        self._say({"is": "swept", "n": process.n, "count": 0})  # it has not ended: nothing is an orphan

    # --- deadlines and ends ---------------------------------------------------------------------

    def _keep_deadlines(self) -> None:
        now = self._now()
        if self._due is None or self._due > now:
            return
        for process in list(self._by_n.values()):
            if process.when is None or process.when > now:
                continue
            if not process.asked:
                process.late = True
                self._send_sigterm(process, late=now - process.when)
            elif now < process.kill_at:
                self._nudge(process)
            else:
                self._kill(process)
        if self._watch is not None and self._watch.due is not None and self._watch.due <= now:
            for pid in self._watch.above(now):
                self._by_pid[pid].many = True
                self._kill(self._by_pid[pid])

    def _send_sigterm(self, process: Process, *, late: float = -_SLACK) -> None:
        if process.asked:
            return
        process.asked = True
        now = self._now()
        process.kill_at = now + process.grace - late  # one slack is enough
        process.when = min(now + _NUDGE_AFTER, process.kill_at)
        try:
            posix.killpg(process.pid, _signal.SIGTERM)
        except OSError:  # it has no session of its own yet
            _send_to(process.pid, _signal.SIGTERM)

    def _nudge(self, process: Process) -> None:
        """Have Python look for a SIGTERM that came after its last look and before a call that blocks.

        It would look again only when that call has ended. Where no handler of a job's is there to take
        this signal it does nothing (`man 7 signal`).
        """
        process.when = process.kill_at
        _send_to(process.pid, _signal.SIGURG)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = posix.wait4(-1, posix.WNOHANG)
            except OSError:
                return
            if pid == 0:
                return
            process = self._by_pid.pop(pid, None)
            if process is None:
                continue  # an orphan that we have killed, or that has ended by itself
            del self._by_n[process.n]
            if self._watch is not None:
                self._watch.forget(pid)
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            cpu = usage.ru_utime + usage.ru_stime
            news = {"is": "ended", "n": process.n, "pid": pid, "status": status, "rss": peak, "cpu": cpu}
            if status != 0:
                news["swept"] = self._kill_orphans()
            for each in ("late", "many"):
                if getattr(process, each):
                    news[each] = True
            self._say(news)

    def _kill_orphans(self) -> int:
        """Kill what ended jobs have left: our children that are no jobs, and all below them."""
        if not self._child.LINUX:
            return 0
        return self._tree().kill_orphans(self._pid, spared={*self._by_pid, *self._strangers})  # type: ignore[no-any-return]

    def _others(self) -> set[int]:
        return {each.pid for each in self._tree().descendants(self._pid)}

    def _leave(self) -> None:
        """Kill all that descends from us, and end."""
        tree = self._tree()
        if self._child.LINUX:
            tree.kill_descendants(self._pid)
        else:
            for process in self._by_n.values():
                tree.kill_group(process.pid)
        self._child.reap()
        posix._exit(0)

    def _tree(self) -> Any:
        return self._child.load("tree")


def _send_to(pid: int, number: int) -> None:
    try:
        posix.kill(pid, number)
    except OSError:
        pass  # it has become another user's


def _nothing(_number: int, _frame: object) -> None:
    """Be a handler, so that a signal wakes the loop."""


def _load_child() -> ModuleType:
    module = type(sys)(_CHILD_MODULE)
    module.__file__ = f"{_FOLDER}child.py"
    sys.modules[_CHILD_MODULE] = module
    SourceFileLoader(_CHILD_MODULE, module.__file__).exec_module(module)
    return module

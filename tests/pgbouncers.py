"""A PgBouncer of Debian's in front of a PostgreSQL, on a port of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from postgres import SECONDS, _free_port, _unprivileged

_SETTINGS = """
[databases]
* = host={host} port={port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
unix_socket_dir =
logfile = {folder}/log
server_login_retry = 0.2
"""


@contextmanager
def pgbouncer_to(url: str, *, mode: str, size: int = 4) -> Iterator[str]:
    """Run a PgBouncer for the time of the block; return the database's address by way of it."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    assert program is not None, "these tests need PgBouncer: `apt-get install pgbouncer`"
    target, own = make_url(url), _free_port()
    with tempfile.TemporaryDirectory(prefix="asyncjobs-pgbouncer-") as folder:
        Path(folder).chmod(0o777)
        ini = Path(folder, "pgbouncer.ini")
        ini.write_text(
            _SETTINGS.format(host=target.host, port=target.port, own=own, mode=mode, size=size, folder=folder)
        )
        with subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", program, "--quiet", ini], cwd="/", **_unprivileged()
        ) as process:
            try:
                _await_port(own, process)
                yield target.set(host="127.0.0.1", port=own).render_as_string(hide_password=False)
            finally:
                process.kill()


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise RuntimeError(f"PgBouncer did not start ({process.poll()})")

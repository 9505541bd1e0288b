"""uv, which makes environments: how it is found and run, and what its failures mean.

uv gets the application's environment, and so its indexes, proxies, certificates and cache, but
nothing that names another environment, project or interpreter. It runs in the folder of the
environments: which `pyproject.toml` and `uv.toml` it finds does not depend on the working directory
of the engine.

It dies with the process that runs it (Linux: by `PR_SET_PDEATHSIG`, `man 2 prctl`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import sys
from pathlib import Path

from asyncjobs.errors import EnvironmentFailed
from asyncjobs.execution.inside import tree
from asyncjobs.threads import in_thread

LONGEST_WORDS = 4000
"""Characters that are quoted of what uv printed; the log has them all."""

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR)

_STEERING = (
    "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__",
    "UV", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY", "UV_PYTHON",
    "UV_SYSTEM_PYTHON", "UV_VENV_SEED", "UV_VENV_CLEAR", "UV_VENV_RELOCATABLE",
)  # fmt: skip

# Becomes the program once its output goes to the log and it is sure to die with its parent; where there
# is no prctl it does so all the same.
_LEASH = """\
import os, sys
parent, log, *command = sys.argv[1:]
output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
os.dup2(output, 1)
os.dup2(output, 2)
os.write(1, os.fsencode("$ " + " ".join(command) + "\\n"))
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
except (ImportError, OSError, AttributeError):
    pass
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""

# Where uv's account of its failure begins; in its older versions with a cross.
_FAILURE = re.compile(r"^(error: | *× )", re.MULTILINE)

# What tells of the requirements themselves is looked for first: it may quote anything.
_LASTING = re.compile(
    r"No solution found|No interpreter found|HTTP status client error \((?!408|425|429)",
    re.IGNORECASE,
)
_TRANSIENT = re.compile(
    r"error sending request|HTTP status (server|client) error|time(d |-)?out|dns error|temporary failure"
    r"|connection (refused|reset|closed|aborted)|network is unreachable|error decoding response body"
    r"|unexpected (end of file|eof)|no space left|disk quota|too many open files|cannot allocate memory"
    r"|resource temporarily unavailable",
    re.IGNORECASE,
)


def find_uv() -> str:
    """Return the path of uv: that of the package `uv`, else the one on PATH.

    Raises:
        EnvironmentFailed: there is neither.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, OSError):  # OSError: the package without its program
        found = shutil.which("uv")
    if found is None:
        raise EnvironmentFailed(
            'environments need uv: `pip install "asyncjobs-engine[environments]"`, or put uv on PATH', transient=False
        )
    return os.path.abspath(found)


async def run(*command: str, purpose: str, folder: Path, log: Path, lock: int) -> None:
    """Run a program in `folder` to its end, with its output at the end of `log`.

    The program inherits the descriptor `lock`: what it locks stays locked while it lives, even when
    this process is killed. Cancelling kills it with its process group and waits for its end.

    Raises:
        EnvironmentFailed: it could not be started, or failed; `purpose` begins the message.
    """
    try:
        returncode = await _run(command, folder=folder, log=log, lock=lock)
    except (OSError, RuntimeError) as error:  # RuntimeError: no thread to watch it with
        transient = not isinstance(error, OSError) or is_passing(error)
        raise EnvironmentFailed(f"{purpose}: no process could be started: {error}", transient=transient) from error
    if returncode != 0:
        try:
            words = await in_thread(_last_words, log, name="read a build log")
        except OSError as error:
            words = f"its log can't be read: {error}"
        if returncode < 0:
            words = f"killed by signal {-returncode}\n{words}".strip()
        raise EnvironmentFailed(f"{purpose}: {words}", transient=is_transient(words, returncode), log_path=log)


async def _run(command: tuple[str, ...], *, folder: Path, log: Path, lock: int) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), str(log), *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in _STEERING},
        pass_fds=(lock,),
        start_new_session=True,
    )  # fmt: skip
    try:
        return await process.wait()
    except BaseException:
        while process.returncode is None:
            tree.kill_group(process.pid)
            try:
                await process.wait()
            except asyncio.CancelledError:
                continue
        raise


def is_transient(words: str, returncode: int) -> bool:
    """Return whether what uv says of its failure may be different next time; unknown words are final."""
    if returncode < 0:
        return True  # killed: by an operator, or for want of memory
    return _LASTING.search(words) is None and _TRANSIENT.search(words) is not None


def is_passing(error: OSError) -> bool:
    """Return whether an error of the system is a shortage, which may be over next time."""
    return error.errno in _PASSING


def _last_words(log: Path) -> str:
    """Return what the last command in a log printed, from its error on, without the middle of long ones."""
    output = log.read_text(errors="replace").rpartition("\n$ ")[2].partition("\n")[2]
    failure = _FAILURE.search(output)
    words = output[failure.start() :] if failure else output
    words = words.removeprefix("error: ").strip()
    if len(words) > LONGEST_WORDS:
        half = LONGEST_WORDS // 2
        return f"{words[:half]}\n[...]\n{words[-half:]}"
    return words or "it said nothing"

"""Jobs defined where people first define them: in the script that they run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from dataclasses import dataclass
    from asyncjobs import JobEngine, job

    @dataclass
    class Point:
        x: int
        y: int

    @job
    def mirror(point: Point) -> Point:
        assert __name__ == "__mp_main__"
        return Point(point.y, point.x)

    async def main():
        async with JobEngine("sqlite:///jobs.db", jobs=[mirror]) as engine:
            print(await (await engine.submit(mirror, Point(1, 2))).result(timeout=30))

    if __name__ == "__main__":
        asyncio.run(main())
    """
)


async def run(*command: str, cwd: Path, stdin: str = "", **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_job_of_a_script_run_by_path_works(tmp_path: Path) -> None:
    """D33."""
    (tmp_path / "script.py").write_text(SCRIPT)

    code, out, err = await run("script.py", cwd=tmp_path)

    assert (code, out) == (0, "Point(x=2, y=1)\n"), err


async def test_a_job_of_a_module_run_by_name_works(tmp_path: Path) -> None:
    """D33."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "sibling.py").write_text("NAME = 'sibling'\n")
    (package / "script.py").write_text(SCRIPT + "\nfrom . import sibling\n")

    code, out, err = await run("-m", "package.script", cwd=tmp_path)

    assert (code, out) == (0, "Point(x=2, y=1)\n"), err


async def test_a_script_without_a_main_guard_is_told_to_have_one(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.replace('if __name__ == "__main__":\n    asyncio', "asyncio"))

    code, _out, err = await run("script.py", cwd=tmp_path)

    assert code != 0
    assert 'if __name__ == "__main__":' in err


async def test_a_job_of_a_repl_is_refused_with_what_to_do(tmp_path: Path) -> None:
    code, _out, err = await run("-c", SCRIPT, cwd=tmp_path)

    assert code != 0
    assert "move it into a module" in err


async def test_a_job_of_a_program_on_standard_input_is_refused_with_what_to_do(tmp_path: Path) -> None:
    code, _out, err = await run(cwd=tmp_path, stdin=SCRIPT)

    assert code != 0
    assert "move it into a module" in err


async def test_an_inline_job_works_in_a_repl(tmp_path: Path) -> None:
    inline = SCRIPT.replace("@job\n", "@job(isolation='inline')\n").replace('assert __name__ == "__mp_main__"', "")

    code, out, err = await run("-c", inline, cwd=tmp_path)

    assert (code, out) == (0, "Point(x=2, y=1)\n"), err


async def test_ctrl_c_ends_a_script_cleanly(tmp_path: Path) -> None:
    slow = SCRIPT.replace("return Point", "import time; print('running', flush=True); time.sleep(60); return Point")
    (tmp_path / "script.py").write_text(slow.replace("async def main():", LISTEN + "\nasync def main():"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "script.py",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        async for line in process.stderr:
            if b"running" in line:
                break
        process.send_signal(signal.SIGINT)
        _out, err = await process.communicate()

    assert process.returncode != 0
    assert err.decode().strip().splitlines()[-1] == "KeyboardInterrupt"
    assert "never retrieved" not in err.decode()


# What a shell has started in the background ignores Ctrl-C, and so does all that it starts.
LISTEN = """
import logging, signal
logging.basicConfig(level="INFO")
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


@pytest.mark.parametrize("isolation", ["fork", "spawn", "reuse"])
async def test_a_script_runs_its_own_jobs_in_processes_of_every_kind(tmp_path: Path, isolation: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.replace("@job\n", f"@job(isolation={isolation!r})\n"))

    code, out, err = await run("script.py", cwd=tmp_path)

    assert (code, out, err) == (0, "Point(x=2, y=1)\n", "")


async def test_where_the_loop_forks_to_start_processes_the_templates_are_started_early(tmp_path: Path) -> None:
    """uvloop's way to start a process copies the page tables of the application."""
    (tmp_path / "hosts.py").write_text(
        textwrap.dedent(
            """
            import asyncio, os
            import uvloop
            from asyncjobs import JobEngine, job
            from asyncjobs.execution.inside import tree

            @job
            def double(number: int) -> int:
                return 2 * number

            async def main():
                async with JobEngine("sqlite:///jobs.db", jobs=[double]) as engine:
                    while not tree.descendants(os.getpid()):
                        await asyncio.sleep(0.005)
                    print("a template, and no job yet:", len((await engine.list()).jobs))
                    print(await (await engine.submit(double, 21)).result(timeout=30))

            if __name__ == "__main__":
                uvloop.run(main())
            """
        )
    )

    code, printed, said = await run("hosts.py", cwd=tmp_path)

    assert (code, printed) == (0, "a template, and no job yet: 0\n42\n"), said

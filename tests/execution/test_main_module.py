"""Jobs of the program's own main module, which another process has to find."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ISOLATIONS = pytest.mark.parametrize("isolation", ["fork", "spawn", "reuse"])
SCRIPT = """
    import asyncio, sys
    from asyncjobs import job
    {imports}

    @job
    def where() -> list:
        return [__name__, __package__ or "", sys.argv[1:], {value}]

    @job
    def fail() -> None:
        raise OwnError("from main")

    class OwnError(Exception):
        pass

    if __name__ == "__main__":
        import bench
        from asyncjobs.execution.runner import ProcessRunner

        async def main():
            one = bench.Bench(ProcessRunner("{isolation}", engine_id="script", settings=bench.SETTINGS), "{isolation}")
            good = await one.run(where)
            bad = await one.run(job(transient_error_classes=[OwnError])(fail.function))
            await one.runner.close()
            print(good.outcome.result_json)
            print(bad.outcome.error.class_name, bad.outcome.transient)

        asyncio.run(main())
"""


def run_script(*arguments: str, cwd: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, *arguments, "an argument"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@ISOLATIONS
def test_a_job_defined_in_the_script_itself_runs(tmp_path: Path, isolation: str):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT.format(imports="", value=0, isolation=isolation)))

    lines = run_script("script.py", cwd=tmp_path)

    assert lines == ['["__mp_main__", "", ["an argument"], 0]', "__main__.OwnError True"]


@ISOLATIONS
def test_a_job_defined_in_a_module_run_by_name_runs(tmp_path: Path, isolation: str):
    package = tmp_path / "package_of_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "other.py").write_text("VALUE = 5")
    program = SCRIPT.format(imports="from .other import VALUE", value="VALUE", isolation=isolation)
    (package / "program.py").write_text(textwrap.dedent(program))

    lines = run_script("-m", "package_of_test.program", cwd=tmp_path)

    assert lines == [
        '["__mp_main__", "package_of_test", ["an argument"], 5]',
        "__main__.OwnError True",
    ]


@ISOLATIONS
def test_a_job_defined_in_a_package_run_by_name_runs(tmp_path: Path, isolation: str):
    package = tmp_path / "package_of_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(textwrap.dedent(SCRIPT.format(imports="", value=0, isolation=isolation)))

    lines = run_script("-m", "package_of_test", cwd=tmp_path)

    assert lines[0] == '["__mp_main__", "package_of_test", ["an argument"], 0]'


@ISOLATIONS
def test_a_job_defined_in_a_folder_that_is_run_runs(tmp_path: Path, isolation: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(
        textwrap.dedent(SCRIPT.format(imports="", value=0, isolation=isolation))
    )

    lines = run_script("folder", cwd=tmp_path)

    assert lines[0] == '["__mp_main__", "", ["an argument"], 0]'


@ISOLATIONS
def test_a_job_defined_in_a_script_that_a_profiler_runs_runs(tmp_path: Path, isolation: str):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT.format(imports="", value=0, isolation=isolation)))

    lines = run_script("-m", "cProfile", "-o", "profile", "script.py", cwd=tmp_path)

    assert lines == ['["__mp_main__", "", ["an argument"], 0]', "__main__.OwnError True"]


def test_a_job_that_a_decorator_of_another_module_wraps_runs_under_a_profiler_too(tmp_path: Path):
    (tmp_path / "decorators.py").write_text(
        textwrap.dedent(
            """
            import functools

            def twice(function):
                @functools.wraps(function)
                def wrapper():
                    return function() * 2

                return wrapper
            """
        )
    )
    program = SCRIPT.format(imports="import decorators", value=0, isolation="fork")
    program = program.replace("def where", "@decorators.twice\n    def where")
    (tmp_path / "script.py").write_text(textwrap.dedent(program))

    lines = run_script("-m", "cProfile", "-o", "profile", "script.py", cwd=tmp_path)

    assert lines[0] == '["__mp_main__", "", ["an argument"], 0, "__mp_main__", "", ["an argument"], 0]'


SHARES = """
    import asyncio, sys
    from asyncjobs import job

    class Model:
        def __init__(self, number):
            self.number = number

    def model(number):
        return Model(number)

    @job
    def pooled(method: str) -> int:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
            return pool.submit(model, 7).result().number

    @job
    def pickled() -> bytes:
        import pickle

        return pickle.dumps(Model(8))

    if __name__ == "__main__":
        import bench
        from asyncjobs.codec import decode_result
        from asyncjobs.execution.runner import ProcessRunner

        async def result_of(*call):
            one = bench.Bench(ProcessRunner("fork", engine_id="script", settings=bench.SETTINGS), "fork")
            ended = await one.run(*call)
            await one.runner.close()
            return decode_result(call[0].function, ended.outcome.result_json)

        {program}
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_job_of_the_script_sends_its_functions_to_a_pool_of_processes(tmp_path: Path, method: str):
    program = f"print(asyncio.run(result_of(pooled, {method!r})))"
    (tmp_path / "script.py").write_text(textwrap.dedent(SHARES.format(program=program)))

    assert run_script("script.py", cwd=tmp_path) == ["7"]


def test_what_a_job_of_the_script_pickles_can_be_read_by_the_script(tmp_path: Path):
    program = "import pickle; print(pickle.loads(asyncio.run(result_of(pickled))).number)"
    (tmp_path / "script.py").write_text(textwrap.dedent(SHARES.format(program=program)))

    assert run_script("script.py", cwd=tmp_path) == ["8"]

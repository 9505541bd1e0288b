"""Environments: built whole or not at all, once for all who want them, and removed when nobody does."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import light_jobs
import pytest
from bench import alive, until
from blockbuster import blockbuster_ctx
from wheels import SlowPackage, add_wheel

from asyncjobs import job
from asyncjobs.execution.environments import (
    BuildFinished,
    BuildStarted,
    EnvironmentFailed,
    Environments,
    Wanted,
    default_folder,
)
from asyncjobs.execution.environments.places import Place
from asyncjobs.execution.environments.uv import is_transient
from asyncjobs.execution.environments.uv import run as run_logged
from asyncjobs.execution.inside import tree
from asyncjobs.threads import in_thread

OURS = f"{sys.version_info[0]}.{sys.version_info[1]}"
AT_ONCE = timedelta(0)
A_DAY = timedelta(days=1)


def plain() -> None: ...


def wanted(*requirements: str, python_version: str | None = None) -> Wanted:
    """What a definition with these asks for."""
    definition = job(python_version=python_version, pip_requirements=list(requirements))(plain)
    found = Wanted.of(definition)
    assert found is not None
    return found


TINY_1 = wanted("tiny==1.0")
TINY_2 = wanted("tiny==2.0")
SLOW = wanted("slow")


PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from asyncjobs.execution.environments import Environments, Wanted

def tell(event):
    print(type(event).__name__, flush=True)

async def main():
    environments = Environments(folder=Path(sys.argv[1]), notify=tell)
    await environments.ready(Wanted(python_version=None, requirements=(sys.argv[2],)))
    print("ready", flush=True)
    {then}

asyncio.run(main())
"""
ENDS = PROGRAM.format(then="")
USES_IT_UNTIL_TOLD = PROGRAM.format(then="sys.stdin.read()")
LEAVES_A_FORKED_CHILD = PROGRAM.format(
    then="if os.fork() == 0: print('forked', os.getpid(), flush=True); signal.pause()"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "environments"


@pytest.fixture
async def another(folder: Path) -> AsyncIterator[Callable[..., Environments]]:
    """Makes an `Environments` on the folder, as another process would have it."""
    made: list[Environments] = []

    def make(**options: Any) -> Environments:
        made.append(Environments(folder=folder, **options))
        return made[-1]

    yield make
    for each in made:
        await each.close()


@pytest.fixture
def environments(another: Callable[..., Environments]) -> Environments:
    return another()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv")


@pytest.fixture(autouse=True)
def wheels(request: pytest.FixtureRequest, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that uv has to choose from: the package `tiny`, in two versions."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    if request.node.get_closest_marker("network"):
        return folder
    for version in ("1.0", "2.0"):
        add_wheel(folder, "tiny", version)
    config = tmp_path / "uv.toml"
    config.write_text(f'no-index = true\nfind-links = ["{folder}"]\n')
    monkeypatch.setenv("UV_CONFIG_FILE", str(config))
    monkeypatch.setenv("UV_CACHE_DIR", str(cache))
    for name in ("UV_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def slow(tmp_path: Path, wheels: Path) -> Iterator[SlowPackage]:
    """The package `slow`; what builds it is gone with the test."""
    package = SlowPackage(wheels, tmp_path / "marks")
    yield package
    package.release()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives uv an index instead of the folder."""

    def use(url: str) -> None:
        (tmp_path / "uv.toml").write_text(f'index-url = "{url}"\n')
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")

    return use


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


async def failure(environments: Environments, wanted: Wanted) -> EnvironmentFailed:
    with pytest.raises(EnvironmentFailed) as failed:
        await environments.ready(wanted)
    return failed.value


def make_folder(folder: Path, wanted: Wanted, *files: str) -> Path:
    """An environment's folder with nothing in it but these files."""
    made = folder / wanted.key
    made.mkdir(parents=True)
    for each in files:
        (made / each).touch()
    return made


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def age(folder: Path, *, days: int) -> None:
    """Let an environment's last use be that long ago."""
    then = time.time() - days * 86400
    for each in (folder / "complete", folder.with_name(f"{folder.name}.log")):
        os.utime(each, (then, then))


# What is wanted


def test_a_definition_without_version_and_requirements_wants_no_environment():
    assert Wanted.of(light_jobs.nothing) is None


def test_requirements_in_another_order_and_spelling_want_the_same_environment():
    assert wanted("Six >=1", "attrs").key == wanted("attrs", "six>=1", "attrs").key


def test_the_version_of_the_engines_own_interpreter_wants_the_same_as_none():
    assert wanted("six", python_version=OURS).key == wanted("six").key


@pytest.mark.parametrize(
    "other",
    [wanted("six==1.16"), wanted("six==1.17", "attrs"), wanted("six==1.17", python_version="3.99")],
    ids=["version of a requirement", "one more requirement", "version of Python"],
)
def test_what_is_made_of_something_else_has_another_key(other: Wanted):
    assert other.key != wanted("six==1.17").key


# Building


async def test_a_python_version_alone_is_enough(environments: Environments):
    """D25."""
    environment = await environments.ready(wanted(python_version=OURS))

    assert run(environment.python, "-c", "import platform; print(platform.python_version())") == environment.version
    assert environment.version.startswith(f"{OURS}.")


async def test_two_versions_of_a_package_stand_side_by_side(environments: Environments):
    first, second = await asyncio.gather(environments.ready(TINY_1), environments.ready(TINY_2))

    assert run(first.python, "-c", "import tiny; print(tiny.VERSION)") == "1.0"
    assert run(second.python, "-c", "import tiny; print(tiny.VERSION)") == "2.0"


async def test_site_packages_are_where_the_packages_are(environments: Environments):
    environment = await environments.ready(TINY_1)

    assert any(Path(each, "tiny.py").exists() for each in environment.site_packages)


async def test_scripts_of_packages_run(environments: Environments):
    environment = await environments.ready(TINY_1)

    assert run(str(environment.folder / "bin" / "tiny")) == "1.0"


async def test_a_complete_environment_is_not_built_again(
    environments: Environments, another: Callable[..., Environments]
):
    built = await environments.ready(TINY_1)
    told: list[object] = []

    found = await another(notify=told.append).ready(TINY_1)

    assert found == built
    assert told == []


async def test_a_build_is_announced_and_reported(another: Callable[..., Environments]):
    told: list[BuildStarted | BuildFinished] = []

    environment = await another(notify=told.append).ready(TINY_1)

    started, finished = told
    assert started == BuildStarted(TINY_1, environment.folder.with_name(f"{TINY_1.key}.log"))
    assert isinstance(finished, BuildFinished)
    assert (finished.wanted, finished.environment) == (TINY_1, environment)


async def test_callers_of_one_process_share_a_build(another: Callable[..., Environments]):
    told: list[object] = []
    environments = another(notify=told.append)

    ready = await asyncio.gather(*(environments.ready(TINY_1) for _ in range(5)))

    assert len(set(ready)) == 1
    assert len(told) == 2


async def test_two_processes_at_once_build_one_environment_once(folder: Path, slow: SlowPackage, start_python: Any):
    """D30."""
    processes = [start_python(ENDS, folder, SLOW.requirements[0]) for _ in range(2)]
    await until(slow.pids)
    slow.release()

    told = [line for each in processes for line in each.communicate(timeout=60)[0].split()]

    assert sorted(told) == ["BuildFinished", "BuildStarted", "ready", "ready"]


async def test_an_environment_whose_interpreter_is_gone_is_built_again(folder: Path, environments: Environments):
    environments.release(await environments.ready(TINY_1))
    (folder / TINY_1.key / "bin" / "python").unlink()

    environment = await environments.ready(TINY_1)

    assert run(environment.python, "-c", "import tiny; print(tiny.VERSION)") == "1.0"


@pytest.mark.parametrize(
    "variable", ["VIRTUAL_ENV", "CONDA_PREFIX", "UV_PROJECT_ENVIRONMENT", "UV_WORKING_DIR", "UV_VENV_SEED"]
)
async def test_the_applications_own_environment_does_not_steer_uv(
    environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))

    environment = await environments.ready(TINY_1)

    assert not (tmp_path / "elsewhere").exists()
    assert (environment.folder / "bin" / "tiny").exists()


async def test_only_the_user_can_look_into_the_folder(folder: Path, environments: Environments):
    await environments.ready(TINY_1)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / TINY_1.key / "requirements.txt").stat().st_mode) == 0o600


async def test_no_call_blocks_the_loop(environments: Environments):
    with blockbuster_ctx("asyncjobs"):
        environments.release(await environments.ready(TINY_1))
        await failure(environments, wanted("nowhere"))
        await environments.prune(unused_for=AT_ONCE)
        await environments.ready(TINY_2)
        await environments.close()


@pytest.mark.network
async def test_two_versions_of_a_package_of_the_index_stand_side_by_side(environments: Environments):
    first, second = await asyncio.gather(
        environments.ready(wanted("inflection==0.3.1")), environments.ready(wanted("inflection==0.5.1"))
    )

    asked = "import inflection; print(inflection.__version__)"
    assert (run(first.python, "-c", asked), run(second.python, "-c", asked)) == ("0.3.1", "0.5.1")


# Failures


@pytest.mark.parametrize(
    ("unavailable", "words"),
    [
        pytest.param(wanted("nowhere"), "nowhere was not found", id="no such package"),
        pytest.param(wanted("tiny==9"), "no version of tiny==9", id="no such version"),
        pytest.param(wanted("tiny<2", "tiny>1"), "unsatisfiable", id="no version that fits"),
        pytest.param(wanted(python_version="3.99"), "No interpreter found for Python 3.99", id="no such Python"),
    ],
)
async def test_what_does_not_exist_fails_for_good_in_uvs_own_words(
    environments: Environments, unavailable: Wanted, words: str
):
    failed = await failure(environments, unavailable)

    assert words in str(failed)
    assert not failed.transient
    assert failed.log_path is not None
    assert words in failed.log_path.read_text()


async def test_an_index_that_nobody_answers_is_a_transient_failure(
    environments: Environments, index: Callable[[str], None], unused_tcp_port: int
):
    index(f"http://127.0.0.1:{unused_tcp_port}/simple")

    failed = await failure(environments, TINY_1)

    assert failed.transient
    assert "uv can't install the requirements" in str(failed)


@pytest.mark.parametrize(
    ("words", "transient"),
    [
        ("Failed to fetch: `https://index/six/` HTTP status server error (503 Service Unavailable)", True),
        ("Failed to fetch: `https://index/six/` HTTP status client error (429 Too Many Requests)", True),
        ("Failed to fetch: `https://index/six/` HTTP status client error (403 Forbidden)", False),
        ("Failed to download distribution due to network timeout. Try increasing UV_HTTP_TIMEOUT", True),
        ("error sending request for url (https://index/six/): dns error: Temporary failure", True),
        ("failed to write to file: No space left on device (os error 28)", True),
        ("No solution found: there is no version of async-timeout==99", False),
        ("The wheel filename `x.whl` is invalid: Must have a version", False),
        ("Failed to build `six`: Call to `backend.build_wheel` failed", False),
    ],
)
def test_a_failure_is_transient_when_the_network_or_the_machine_is_at_fault(words: str, transient: bool):
    assert is_transient(words, 1) is transient


def test_uv_killed_by_somebody_is_a_transient_failure():
    assert is_transient("", -signal.SIGKILL)


async def test_a_failed_build_leaves_only_its_log(folder: Path, environments: Environments):
    await failure(environments, wanted("nowhere"))

    key = wanted("nowhere").key
    assert {each.name for each in folder.iterdir()} == {f"{key}.log", f"{key}.lock"}


async def test_a_failed_build_is_tried_again_by_the_next_caller(environments: Environments, wheels: Path):
    late = wanted("late")
    await failure(environments, late)
    add_wheel(wheels, "late", "1.0")

    environment = await environments.ready(late)

    assert run(environment.python, "-c", "import late; print(late.VERSION)") == "1.0"


async def test_all_who_share_a_build_see_its_failure(environments: Environments):
    ends = await asyncio.gather(*(environments.ready(wanted("nowhere")) for _ in range(3)), return_exceptions=True)

    assert [type(each) for each in ends] == [EnvironmentFailed] * 3


async def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()

    failed = await failure(Environments(folder=file / "environments"), TINY_1)

    assert str(failed).startswith(f"{file / 'environments'} must be a folder that this user can write")
    assert not failed.transient


async def test_without_uv_the_failure_says_how_to_get_it(environments: Environments, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "")

    failed = await failure(environments, TINY_1)

    assert 'pip install "asyncjobs-engine[environments]"' in str(failed)
    assert not failed.transient


async def test_uv_on_the_path_does_without_the_package(environments: Environments, monkeypatch: pytest.MonkeyPatch):
    from uv import find_uv_bin

    monkeypatch.setenv("PATH", os.path.dirname(find_uv_bin()), prepend=os.pathsep)
    monkeypatch.setitem(sys.modules, "uv", None)

    environment = await environments.ready(TINY_1)

    assert run(environment.python, "-c", "import tiny; print(tiny.VERSION)") == "1.0"


# Time limits, cancellation and death


async def test_a_build_past_its_limit_is_killed_and_may_work_later(
    folder: Path, another: Callable[..., Environments], slow: SlowPackage
):
    """D30."""
    environments = another(build_limit=timedelta(seconds=2))

    failed = await failure(environments, SLOW)

    assert failed.transient
    assert "within 2 s" in str(failed)
    await until(lambda: not any(map(alive, slow.pids())))
    assert not (folder / SLOW.key).exists()


async def test_a_build_of_others_past_the_limit_is_not_waited_for(
    environments: Environments, another: Callable[..., Environments], slow: SlowPackage
):
    building = asyncio.create_task(environments.ready(SLOW))
    await until(slow.pids)

    failed = await failure(another(build_limit=timedelta(seconds=0.3)), SLOW)

    assert failed.transient
    assert "another process still builds or removes it" in str(failed)
    await cancel(building)


async def test_a_canceled_caller_leaves_the_build_to_the_others(environments: Environments, slow: SlowPackage):
    first, second = (asyncio.create_task(environments.ready(SLOW)) for _ in range(2))
    await until(slow.pids)

    await cancel(first)
    slow.release()

    assert run((await second).python, "-c", "import slow; print(slow.VERSION)") == "1.0"
    assert len(slow.pids()) == 1


async def test_the_last_callers_cancellation_kills_uv_and_leaves_nothing(
    folder: Path, environments: Environments, slow: SlowPackage
):
    """D30."""
    callers = [asyncio.create_task(environments.ready(SLOW)) for _ in range(2)]
    await until(slow.pids)
    (builder,) = slow.pids()

    for each in callers:
        await cancel(each)

    await until(lambda: not alive(builder))
    assert not (folder / SLOW.key).exists()
    assert [each for each in tree.descendants(os.getpid()) if "uv" in comm(each.pid)] == []


async def test_after_a_canceled_build_the_next_caller_builds_it_whole(environments: Environments, slow: SlowPackage):
    building = asyncio.create_task(environments.ready(SLOW))
    await until(slow.pids)
    await cancel(building)
    slow.release()

    environment = await environments.ready(SLOW)

    assert run(environment.python, "-c", "import slow; print(slow.VERSION)") == "1.0"


async def test_closing_ends_a_build_and_cancels_who_waits_for_it(environments: Environments, slow: SlowPackage):
    building = asyncio.create_task(environments.ready(SLOW))
    await until(slow.pids)

    await environments.close()

    with pytest.raises(asyncio.CancelledError):
        await building
    await until(lambda: not any(map(alive, slow.pids())))


async def test_a_builder_killed_half_way_leaves_nothing_that_looks_complete(
    folder: Path, environments: Environments, slow: SlowPackage, start_python: Any
):
    """D30: uv dies with its builder, and the next caller builds all of it."""
    builder = start_python(ENDS, folder, SLOW.requirements[0])
    await until(slow.pids)
    (uv,) = [each.pid for each in tree.descendants(builder.pid) if "uv" in comm(each.pid)]
    builder.kill()
    await until(lambda: not alive(uv))
    half_made = {each.name for each in (folder / SLOW.key).iterdir()}
    slow.release()

    environment = await environments.ready(SLOW)

    assert "bin" in half_made
    assert "complete" not in half_made
    assert run(environment.python, "-c", "import slow; print(slow.VERSION)") == "1.0"


async def test_a_lock_lasts_as_long_as_what_its_builder_has_started(folder: Path):
    """D30: were uv to outlive its builder, nobody would build where it still writes."""
    place, others = Place(folder / TINY_1.key), Place(folder / TINY_1.key)
    place.enter()
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    sleeping = asyncio.create_task(run_logged(*command, purpose="", folder=folder, log=place.log, lock=place.fileno()))
    await until(place.log.exists)

    place.forget()
    others.enter()
    locked_by_others_meanwhile = others.locked
    await cancel(sleeping)
    others.enter()

    assert not locked_by_others_meanwhile
    assert others.locked
    others.forget()


async def test_a_folder_without_its_mark_is_not_taken_for_an_environment(folder: Path, environments: Environments):
    """D30: that a folder exists says nothing."""
    rubbish = make_folder(folder, TINY_1, "rubbish", "complete.new") / "rubbish"

    environment = await environments.ready(TINY_1)

    assert not rubbish.exists()
    assert run(environment.python, "-c", "import tiny; print(tiny.VERSION)") == "1.0"


# Pruning


async def test_an_environment_unused_for_long_is_removed_with_its_log(folder: Path, environments: Environments):
    """D30."""
    environment = await environments.ready(TINY_1)
    environments.release(environment)
    age(environment.folder, days=2)

    pruned = await environments.prune(unused_for=A_DAY)

    assert pruned == [environment.folder]
    assert list(folder.iterdir()) == []


async def test_an_environment_used_since_stays(environments: Environments):
    environment = await environments.ready(TINY_1)
    age(environment.folder, days=2)
    environments.release(environment)

    assert await environments.prune(unused_for=A_DAY) == []
    assert await environments.prune(unused_for=A_DAY) == []
    assert Path(environment.python).exists()


async def test_pruning_is_no_use(environments: Environments):
    environment = await environments.ready(TINY_1)
    environments.release(environment)
    age(environment.folder, days=2)

    await environments.prune(unused_for=timedelta(days=3))

    assert await environments.prune(unused_for=A_DAY) == [environment.folder]


async def test_an_environment_in_use_stays_until_each_call_of_ready_is_released(environments: Environments):
    environment = await environments.ready(TINY_1)
    await environments.ready(TINY_1)

    environments.release(environment)
    while_used = await environments.prune(unused_for=AT_ONCE)
    environments.release(environment)
    afterwards = await environments.prune(unused_for=AT_ONCE)

    assert while_used == []
    assert afterwards == [environment.folder]


async def test_an_environment_that_was_removed_while_in_use_is_built_again(folder: Path, environments: Environments):
    environment = await environments.ready(TINY_1)
    shutil.rmtree(environment.folder)

    again = await environments.ready(TINY_1)
    environments.release(environment)
    while_used = await environments.prune(unused_for=AT_ONCE)
    environments.release(again)
    afterwards = await environments.prune(unused_for=AT_ONCE)

    assert again == environment
    assert while_used == []
    assert afterwards == [environment.folder]


async def test_after_a_failed_build_of_what_was_removed_the_next_caller_builds_it(
    folder: Path, environments: Environments
):
    environment = await environments.ready(TINY_1)
    shutil.rmtree(folder)
    folder.touch()

    await failure(environments, TINY_1)
    folder.unlink()

    assert await environments.ready(TINY_1) == environment


async def test_closing_releases_all_environments(environments: Environments):
    environment = await environments.ready(TINY_1)
    await environments.close()
    await environments.close()

    assert await environments.prune(unused_for=AT_ONCE) == [environment.folder]


async def test_an_environment_in_use_by_another_process_stays(
    folder: Path, environments: Environments, start_python: Any
):
    other = start_python(USES_IT_UNTIL_TOLD, folder, "tiny==1.0")
    await until_line(other, "ready")

    assert await environments.prune(unused_for=AT_ONCE) == []

    other.communicate(timeout=60)
    assert await environments.prune(unused_for=AT_ONCE) == [folder / TINY_1.key]


async def test_a_forked_child_of_the_host_keeps_no_environment_in_use(
    folder: Path, environments: Environments, start_python: Any
):
    """F60b: it inherits the descriptor of the lock, and closes it."""
    host = start_python(LEAVES_A_FORKED_CHILD, folder, "tiny==1.0")
    child = int(await until_line(host, "forked"))
    await in_thread(host.wait, name="wait")

    pruned = await environments.prune(unused_for=AT_ONCE)
    was_alive = alive(child)
    os.kill(child, signal.SIGKILL)

    assert was_alive
    assert pruned == [folder / TINY_1.key]


async def test_what_is_being_built_stays(
    environments: Environments, another: Callable[..., Environments], slow: SlowPackage
):
    building = asyncio.create_task(environments.ready(SLOW))
    await until(slow.pids)

    pruned = await another().prune(unused_for=AT_ONCE)
    slow.release()

    assert pruned == []
    assert Path((await building).python).exists()


async def test_what_a_dead_builder_left_and_old_logs_are_removed(folder: Path, environments: Environments):
    """D30."""
    half_made = make_folder(folder, TINY_1, "complete.new")
    log = folder / f"{TINY_2.key}.log"
    log.touch()

    pruned = await environments.prune(unused_for=AT_ONCE)

    assert pruned == [half_made]
    assert list(folder.iterdir()) == []


async def test_the_log_of_a_recent_failure_stays(environments: Environments):
    log = (await failure(environments, wanted("nowhere"))).log_path

    assert await environments.prune(unused_for=A_DAY) == []
    assert log is not None
    assert log.exists()


async def test_what_is_no_environment_stays(folder: Path, environments: Environments):
    strange = folder / "somebody's folder"
    strange.mkdir(parents=True)

    assert await environments.prune(unused_for=AT_ONCE) == []
    assert strange.exists()


async def test_a_folder_that_does_not_exist_has_nothing_to_prune(environments: Environments):
    assert await environments.prune(unused_for=AT_ONCE) == []


# The folder


def test_the_folder_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert default_folder() == tmp_path / "asyncjobs" / "environments"


@pytest.mark.parametrize(("platform", "cache"), [("linux", ".cache"), ("darwin", "Library/Caches")])
def test_the_cache_is_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, cache: str):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert default_folder() == tmp_path / cache / "asyncjobs" / "environments"


async def until_line(process: subprocess.Popen[str], words: str) -> str:
    """Wait for a line that begins with these words, and return the rest of it."""
    assert process.stdout is not None
    while True:
        line = await in_thread(process.stdout.readline, name="read a line")
        assert line, "it ended without saying so"
        if line.startswith(words):
            return line.removeprefix(words).strip()


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""

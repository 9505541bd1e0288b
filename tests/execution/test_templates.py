"""What is particular to templates: their import, who shares one, when it is replaced."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jobs_for_tests as jobs
import light_jobs
import pytest
from bench import ENGINE, SETTINGS, Bench, until
from test_hosts import our_templates, template_of

from asyncjobs import Settings, job
from asyncjobs.execution.runner import ProcessRunner
from asyncjobs.execution.templates import Recipe, Template
from asyncjobs.model.outcome import Canceled, Crashed, Failed, Succeeded, TimedOut

MakeModule = Callable[[str, str], ModuleType]


@pytest.fixture
def module(tmp_path: Path, monkeypatch) -> MakeModule:
    """A function that writes a module, and imports it here without what it does elsewhere."""

    def make(name: str, text: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(tmp_path))
        (tmp_path / f"{name}.py").write_text("HERE = True\ndef work(): return 7\n")
        imported = __import__(name)
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return imported

    return make


def value(ended) -> object:
    assert isinstance(ended.outcome, Succeeded), ended
    return json.loads(ended.outcome.result_json)


async def test_the_module_is_imported_once_for_all_jobs(fork: Bench, module: MakeModule, tmp_path: Path):
    counted = module("counted", f"open({str(tmp_path / 'count')!r}, 'a').write('x')\ndef work(): return 7\n")
    definition = job(counted.work)

    for _ in range(5):
        assert value(await fork.run(definition)) == 7

    assert (tmp_path / "count").read_text() == "x"


async def test_how_values_are_converted_is_found_out_once_for_all_jobs(fork: Bench, module: MakeModule, tmp_path: Path):
    typed = module(
        "typed",
        f"""
        from dataclasses import dataclass

        def noted():
            open({str(tmp_path / "count")!r}, "a").write("x")
            return int

        @dataclass
        class Point:
            x: "noted()"

        def work() -> Point:
            return Point(7)
        """,
    )
    definition = job(typed.work)

    for _ in range(3):
        assert value(await fork.run(definition)) == {"x": 7}

    assert (tmp_path / "count").read_text() == "x"


async def test_jobs_of_one_module_share_a_template(fork: Bench):
    await fork.run(jobs.add, 1)
    await fork.run(jobs.burn, 0.0)

    assert len(our_templates()) == 1


async def test_jobs_with_an_environment_of_their_own_find_it_at_import(fork: Bench, module: MakeModule):
    reader = module("reader", "import os\nSEEN = os.environ.get('AT_IMPORT')\ndef work(): return SEEN\n")
    reader.work.__module__ = "reader"

    ended = await fork.run(job(env={"AT_IMPORT": "seen"})(reader.work))

    assert value(ended) == "seen"


async def test_each_job_has_random_numbers_of_its_own(fork: Bench, module: MakeModule):
    dice = module("dice", "import random\ndef work(): return random.random()\n")
    definition = job(dice.work)

    thrown = {value(await fork.run(definition)) for _ in range(4)}

    assert len(thrown) == 4


async def test_a_job_inherits_no_descriptor_but_its_own(fork: Bench):
    ended = await fork.run(light_jobs.descriptors)

    found = value(ended)
    assert isinstance(found, list)
    assert found[:3] == [0, 1, 2]
    assert len(found) == 4  # and its control channel


async def test_an_import_that_raises_fails_each_attempt_with_its_own_error(fork: Bench, module: MakeModule):
    """F54"""
    broken = module("broken", "raise LookupError('at import')\n")

    ended = await fork.run(job(broken.work))

    assert isinstance(ended.outcome, Failed)
    assert (ended.outcome.error.kind, ended.outcome.error.class_name) == ("import", "LookupError")


async def test_an_import_that_ends_the_process_is_the_jobs_crash(fork: Bench, module: MakeModule):
    """F55"""
    deadly = module("deadly", "import os\nos._exit(9)\n")

    ended = await fork.run(job(deadly.work))

    assert ended.outcome == Crashed(reason="exited with code 9 without a reply")


async def test_an_import_that_hangs_times_out_and_harms_no_other_module(fork: Bench, module: MakeModule):
    hanging = module("hanging", "import time\ntime.sleep(600)\n")

    ended = await fork.run(job(hanging.work), timeout=0.3, kill_grace=0.1)
    other = await fork.run(light_jobs.nothing)

    assert ended.outcome == TimedOut()
    assert other.outcome == Succeeded("null")


async def test_an_import_that_one_job_gave_up_goes_on_for_those_that_wait_for_it(fork: Bench, module: MakeModule):
    hanging = module("hanging_for_all", "import time\ntime.sleep(600)\n")
    definition = job(hanging.work)

    impatient, patient = await asyncio.gather(
        fork.run(definition, timeout=0.3, kill_grace=0.1), fork.run(definition, timeout=1.0, kill_grace=0.1)
    )

    assert (impatient.outcome, patient.outcome) == (TimedOut(), TimedOut())


async def test_a_module_with_threads_gets_fresh_interpreters_and_a_warning(module: MakeModule):
    threaded = module(
        "threaded",
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "def work(): return threading.active_count()\n",
    )
    warnings: list[tuple[str, str]] = []
    runner = ProcessRunner("fork", engine_id=ENGINE, settings=SETTINGS, warn=lambda *said: warnings.append(said))
    bench = Bench(runner, "fork")

    counts = [value(await bench.run(job(threaded.work))) for _ in range(2)]
    await runner.close()

    assert counts == [2, 2]  # a forked copy would have had one
    assert warnings == [("threaded", "has 2 threads after its import")]


async def test_a_template_is_replaced_after_its_share_of_processes():
    runner = ProcessRunner("fork", engine_id=ENGINE, settings=Settings(template_jobs=3))
    bench = Bench(runner, "fork")

    seen = {value(await bench.run(light_jobs.parent)) for _ in range(8)}
    await until(lambda: len(our_templates()) == 1)
    await runner.close()

    assert len(seen) >= 2


async def test_a_template_is_replaced_at_its_age():
    runner = ProcessRunner("fork", engine_id=ENGINE, settings=Settings(template_seconds=1))
    bench = Bench(runner, "fork")

    first = value(await bench.run(light_jobs.parent))
    old_at = time.monotonic() + 1.2
    await until(lambda: time.monotonic() > old_at)
    second = value(await bench.run(light_jobs.parent))
    await until(lambda: our_templates() == [second])
    await runner.close()

    assert first != second


@pytest.mark.parametrize(("reload", "expected"), [(True, 8), (False, 7)])
async def test_a_changed_module_is_imported_anew_where_that_is_wanted(
    module: MakeModule, monkeypatch, tmp_path: Path, reload: bool, expected: int
):
    monkeypatch.setattr("asyncjobs.execution.supply.LOOK_AT_FILES", 0.0)
    changing = module("changing", "def work(): return 7\n")
    runner = ProcessRunner("fork", engine_id=ENGINE, settings=Settings(reload=reload))
    bench = Bench(runner, "fork")

    before = value(await bench.run(job(changing.work)))
    (tmp_path / "changing.py").write_text("def work(): return 8\n")
    os.utime(tmp_path / "changing.py", (1, 1))
    after = value(await bench.run(job(changing.work)))
    await runner.close()

    assert (before, after) == (7, expected)


async def test_close_ends_templates(fork: Bench):
    await fork.run(light_jobs.nothing)

    await fork.runner.close()

    assert our_templates() == []


async def test_a_stranger_with_the_process_id_of_a_template_that_has_ended_is_not_killed(monkeypatch):
    """F59, for every isolation: which process it is was noted at its start."""
    monkeypatch.setattr("asyncjobs.execution.templates.KILL_BOUND", 0.05)
    recipe = Recipe(python=sys.executable, setup="{}", fresh=True)
    template = await Template.start(recipe, f"{ENGINE}.stranger", payload_limit=1000)
    assert template._process_began is not None
    template._process_began -= 1

    await template.kill()

    assert not template.gone.done()
    template.end()
    await template.gone


async def test_a_job_is_the_child_of_its_template(fork: Bench, marks: Path):
    asked = asyncio.get_running_loop().create_future()
    work = fork.run(jobs.leave_processes, marks, "plain", True, asked=asked, kill_grace=0.0)
    running = asyncio.create_task(work)
    await until((marks / "began").exists)
    [template] = our_templates()

    assert template_of(template_of_sleeper(marks)) == template
    asked.set_result(Canceled())
    await running


def template_of_sleeper(marks: Path) -> int:
    return template_of(int((marks / "pids").read_text()))

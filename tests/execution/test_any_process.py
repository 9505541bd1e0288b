"""What every isolation with a process of its own promises: no job harms anybody else, or stays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import jobs_for_tests as jobs
import light_jobs
import pytest
from bench import ENGINE, Bench, alive, pids_in, run_into_timeout, until
from strangers import held_by_a_debugger, stranger_with_id

from asyncjobs import Settings, job
from asyncjobs.execution import Ended
from asyncjobs.execution.inside import tree
from asyncjobs.execution.inside.wire import pack
from asyncjobs.execution.process import JobProcess
from asyncjobs.execution.runner import ProcessRunner
from asyncjobs.model.outcome import Canceled, Crashed, Failed, Interrupted, Succeeded, TimedOut


def crash(ended: Ended) -> Crashed:
    assert isinstance(ended.outcome, Crashed), ended
    return ended.outcome


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


# What the job sees


async def test_a_job_runs_in_a_session_and_with_a_channel_of_its_own(process: Bench):
    ended = await process.run(jobs.interpreter)

    assert isinstance(ended.outcome, Succeeded)
    seen = json.loads(ended.outcome.result_json)
    assert seen["session"]
    assert not seen["inheritable"]


async def test_a_job_imports_what_the_engine_can_import(process: Bench):
    import sys

    ended = await process.run(jobs.interpreter)

    assert isinstance(ended.outcome, Succeeded)
    seen = json.loads(ended.outcome.result_json)
    assert (seen["path"], seen["prefix"], seen["executable"]) == (sys.path, sys.prefix, sys.executable)
    assert seen["argv"] == sys.argv


async def test_a_job_writes_numbers_as_long_as_the_engine_does(process: Bench):
    """Its interpreter reads no variables, such as PYTHONINTMAXSTRDIGITS."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(5000)
    try:
        ended = await process.run(light_jobs.most_digits)
    finally:
        sys.set_int_max_str_digits(before)

    assert ended.outcome == Succeeded("5000")


async def test_environment_variables_reach_the_job_alone(process: Bench):
    ended = await process.run(jobs.environment, "FOR_THIS_JOB", env={"FOR_THIS_JOB": "secret"})

    assert ended.outcome == Succeeded('"secret"')
    assert "FOR_THIS_JOB" not in os.environ


async def test_a_change_of_the_engines_environment_reaches_the_next_job(process: Bench, monkeypatch):
    await process.run(light_jobs.nothing)
    monkeypatch.setenv("SET_LATER", "seen")

    ended = await process.run(jobs.environment, "SET_LATER")

    assert ended.outcome == Succeeded('"seen"')


async def test_params_appear_in_no_environment_and_no_command_line(process: Bench):
    """D1"""
    ended = await process.run(jobs.look_for_params, "a secret that nobody else may read " * 4)

    assert ended.outcome == Succeeded("[false, false]")


async def test_params_of_a_megabyte_arrive_whole(process: Bench):
    """D1"""
    ended = await process.run(jobs.length_of, "x" * 1_000_000)

    assert ended.outcome == Succeeded("1000000")


async def test_the_process_is_reported(process: Bench):
    ended = await process.run(jobs.burn, 0.05)

    assert ended.process.pid is not None
    assert (ended.process.exit_code, ended.process.signal, ended.process.leftovers) == (process.exit_code, None, 0)
    assert ended.process.peak_rss is not None
    assert 5_000_000 < ended.process.peak_rss < 500_000_000
    assert ended.process.cpu_time is not None
    assert 0.05 <= ended.process.cpu_time < 5


async def test_a_killed_process_is_reported_too(process: Bench, marks: Path):
    ended = await run_into_timeout(process, jobs.ignore_sigterm, marks, kill_grace=0.05)

    assert ended.process.signal == signal.SIGKILL
    assert ended.process.peak_rss is not None
    assert ended.process.cpu_time is not None


# What the job says


async def test_threads_of_a_job_may_say_how_far_it_is(process: Bench):
    await process.run(jobs.say_from_threads, 8)

    assert process.told[-1].completed == 20
    assert process.printed["stderr"] == ""


async def test_a_job_that_can_start_no_thread_says_how_far_it_is_at_once(process: Bench):
    ended = await process.run(jobs.say_without_threads, 50)

    assert ended.outcome == Succeeded("null")
    assert [each.completed for each in process.told] == list(range(1, 51))


async def test_details_that_come_fast_and_are_large_arrive_whole(process: Bench):
    ended = await process.run(jobs.say_much, 100)

    assert ended.outcome == Succeeded("null")
    assert {len(value) for value in process.detailed.values()} == {65_000}
    assert len(process.detailed) == 100


async def test_a_thread_that_goes_on_to_say_something_harms_no_large_reply(process: Bench, marks: Path):
    running = asyncio.create_task(process.run(jobs.say_beyond_the_end, marks, 3_000_000))
    await until((marks / "began").exists)

    (marks / "enough").touch()
    time.sleep(0.15)  # nobody reads: whoever writes now is held up in the middle of it
    ended = await running

    assert ended.outcome == Succeeded('"' + "x" * 3_000_000 + '"')
    assert process.told[-1].message == "still at work"


async def test_a_signal_handler_says_something_in_the_middle_of_what_it_interrupts(process: Bench):
    ended = await process.run(jobs.say_in_a_handler, timeout=10)

    assert ended.outcome == Succeeded("null")
    assert [each.completed for each in process.told] == [1, 2]


async def test_of_what_signal_handlers_and_the_code_they_interrupt_say_nothing_is_lost(process: Bench):
    ended = await process.run(jobs.say_while_handlers_do, 50, timeout=10)

    assert ended.outcome == Succeeded(str(len(process.detailed)))


async def test_a_copy_that_the_job_forked_says_nothing(process: Bench):
    ended = await process.run(jobs.say_in_a_copy)

    assert ended.outcome == Succeeded("null")
    assert [each.completed for each in process.told] == [1]


async def test_a_note_nested_beyond_reading_is_left_out_and_ends_no_attempt(process: Bench):
    notes = b"".join(pack(b'{"note": {"details": {"deep": ' + nested(levels) + b"}}}") for levels in (250, 985, 20_000))

    ended = await process.run(jobs.write_to_channel, notes + pack(b'{"note": {"details": {"flat": 1}}}'))

    assert ended.outcome == Succeeded('"done"')
    assert process.detailed == {"flat": 1}


async def test_a_listener_of_notes_that_raises_ends_no_attempt(process: Bench):
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    process.progress = lambda *_: 1 / 0

    ended = await process.run(jobs.say_from_threads, 1)

    assert ended.outcome == Succeeded("null")
    assert set(told) == {"what takes a job's notes failed"}


# What the job prints


async def test_output_is_kept_apart_by_stream(process: Bench):
    await process.run(jobs.print_lines, 2)
    await process.run(jobs.print_lines, 1, "stderr")

    assert process.printed == {"stdout": "line 0\nline 1\n", "stderr": "line 0\n"}


async def test_output_is_there_while_the_job_runs(process: Bench, marks: Path):
    running = asyncio.create_task(process.run(jobs.print_and_wait, marks))

    await until(lambda: process.printed["stdout"] == "waiting\n")
    (marks / "enough").touch()

    assert (await running).outcome == Succeeded("null")


@pytest.mark.parametrize(
    "definition", [jobs.log, light_jobs.log, light_jobs.log_async], ids=["module", "function", "coroutine"]
)
async def test_what_a_job_logs_is_printed_wherever_it_imports_logging(process: Bench, definition):
    ended = await process.run(definition)

    assert ended.outcome == Succeeded("null")
    assert process.printed["stderr"] == "INFO files: counting\n"


@pytest.mark.parametrize("definition", [jobs.log, light_jobs.log], ids=["module", "function"])
async def test_a_job_that_configures_logging_itself_has_its_way(process: Bench, definition):
    await process.run(definition, True)

    assert process.printed["stderr"] == "own looking\nown counting\n"


async def test_a_module_that_configures_logging_itself_has_its_way(process: Bench, tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "logs_as_it_likes.py").write_text(
        "import logging\n"
        "logging.basicConfig(level=logging.ERROR, format='own %(message)s')\n"
        "def work():\n"
        "    logging.getLogger('files').info('counting')\n"
        "    logging.getLogger('files').error('lost count')\n"
    )
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)  # here it is imported too

    await process.run(job(__import__("logs_as_it_likes").work))

    assert process.printed["stderr"] == "own lost count\n"


async def test_binary_output_corrupts_nothing(process: Bench):
    ended = await process.run(jobs.print_bytes, b"\xff\x00\xfe{}\x00\x00\x00\x02")

    assert ended.outcome == Succeeded('"done"')
    assert process.printed["stdout"] == "\ufffd\x00\ufffd{}\x00\x00\x00\x02"


async def test_of_much_output_the_head_and_the_tail_are_kept_and_the_rest_is_counted(process: Bench):
    """F50"""
    ended = await process.run(jobs.print_much, 5_000_000)

    assert ended.outcome == Succeeded('"done"')
    assert process.printed["stdout"] == "x" * 10_000
    assert process.printed["stderr"] == "[4990000 bytes of output dropped: above max_output]\n"
    assert process.order == ["stdout", "stderr", "stdout"]


async def test_a_definition_says_how_much_output_is_kept(process: Bench):
    """F50"""
    await process.run(job(max_output=10)(jobs.print_much.function), 1000)

    assert process.printed["stdout"] == "x" * 10


@pytest.mark.parametrize("limit", [17, 19], ids=["after its first byte", "after its second byte"])
async def test_a_character_in_which_the_head_ends_is_whole_where_nothing_is_dropped(process: Bench, limit):
    await process.run(job(max_output=limit)(jobs.print_unfinished.function), "xé€é€xéé")

    assert process.printed == {"stdout": "xé€é€xéé", "stderr": ""}


async def test_a_listener_of_the_output_that_raises_ends_no_attempt(process: Bench):
    """F67"""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    process.output = lambda *_: 1 / 0

    ended = await process.run(jobs.print_lines, 1)

    assert ended.outcome == Succeeded("null")
    assert told == ["what takes a job's output failed, and gets no more of it"]


async def test_a_closed_stdout_harms_nothing(process: Bench):
    """F55"""
    ended = await process.run(jobs.close_stdout)

    assert ended.outcome == Succeeded('"done"')


# How it ends by itself


@pytest.mark.parametrize("code", [0, 3])
async def test_an_exit_without_a_reply_is_a_crash_that_says_the_code(process: Bench, code):
    """F55"""
    ended = await process.run(jobs.crash_with, code)

    assert crash(ended).reason == (f"exited with code {code} without a reply\nThe end of its stderr:\nlast words")
    assert ended.process.exit_code == code


async def test_a_crash_is_transient_where_the_definition_says_so(process: Bench):
    listed = await process.run(jobs.crash_with, 1)
    unlisted = await process.run(jobs.segfault)

    assert crash(listed).transient
    assert not crash(unlisted).transient


async def test_a_segfault_is_a_crash_that_shows_where(process: Bench):
    """F55"""
    ended = await process.run(jobs.segfault)

    assert crash(ended).reason.startswith("killed by signal 11 (SIGSEGV) without a reply")
    assert "jobs_for_tests.py" in crash(ended).reason
    assert ended.process.signal == signal.SIGSEGV


async def test_a_sigkill_from_outside_is_taken_for_want_of_memory(process: Bench):
    """F55"""
    ended = await process.run(jobs.kill_itself, int(signal.SIGKILL))

    assert crash(ended).reason.startswith("killed by signal 9 (SIGKILL), probably out of memory")


async def test_a_sigterm_from_outside_interrupts_the_job(process: Bench):
    ended = await process.run(jobs.kill_itself, int(signal.SIGTERM))

    assert isinstance(ended.outcome, Failed)
    assert ended.outcome.error.class_name == "asyncjobs.errors.JobInterrupted"


async def test_an_exit_code_is_the_one_that_the_job_chose(process: Bench):
    ended = await process.run(jobs.exit_with, 3)

    assert ended.process.exit_code == 3


async def test_a_job_without_a_grace_may_end_by_itself(process: Bench):
    ended = await process.run(jobs.add, 1, kill_grace=0.0)

    assert ended.outcome == Succeeded("11")
    assert ended.process.exit_code == process.exit_code


async def test_threads_are_waited_for(process: Bench, tmp_path: Path):
    ended = await process.run(jobs.leave_thread, tmp_path / "written")

    assert ended.outcome == Succeeded('"done"')
    assert (tmp_path / "written").read_text() == "written by a thread"


async def test_exit_handlers_run(process: Bench, tmp_path: Path):
    ended = await process.run(jobs.register_atexit, tmp_path / "written")
    await process.runner.close()

    assert ended.outcome == Succeeded('"done"')
    assert (tmp_path / "written").read_text() == "written at exit"


async def test_a_job_that_has_no_descriptor_left_still_reports_its_error(process: Bench):
    """F56"""
    ended = await process.run(jobs.use_up_descriptors)

    assert isinstance(ended.outcome, Failed)
    assert ended.outcome.error.class_name == "OSError"
    assert "Too many open files" in ended.outcome.error.message


# The control channel


async def test_garbage_on_the_control_channel_fails_that_attempt_alone(process: Bench):
    """F57"""
    garbage, other = await asyncio.gather(process.run(jobs.write_to_channel, b"\xff" * 100), process.run(jobs.add, 1))

    assert crash(garbage).reason.startswith("garbage on the control channel: a header of 4294967295 bytes")
    assert other.outcome == Succeeded("11")


@pytest.mark.parametrize(
    "header",
    [b"[]", nested(20_000), b'{"ok": true, "stays": false, "leftovers": Infinity}'],
    ids=["list", "nested beyond reading", "endless number"],
)
async def test_a_frame_that_is_no_reply_fails_the_attempt(process: Bench, header: bytes):
    """F57"""
    ended = await process.run(jobs.write_to_channel, pack(header), kwargs={"and_exit": True})

    assert crash(ended).reason.startswith("garbage on the control channel: a reply that can't be read")


async def test_an_end_is_noted_though_what_was_said_last_can_not_be_read(monkeypatch):
    process = JobProcess(None, 1)
    process.connect(payload_limit=0).close()
    monkeypatch.setattr(process.channel, "drain", lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        process.over({"pid": 1, "status": 0, "rss": 0, "cpu": 0.0})
    process.close()

    assert process.ended.done()
    assert process.news.done()


async def test_a_forged_reply_before_the_real_one_fails_the_attempt(process: Bench):
    """F57"""
    header = b'{"ok": true, "stays": false, "leftovers": 0}'
    frame = len(header).to_bytes(4, "big") + (4).to_bytes(4, "big") + header + b"null"

    ended = await process.run(jobs.write_to_channel, frame)

    assert crash(ended).reason.startswith("garbage on the control channel: a second reply")


async def test_a_partial_reply_fails_the_attempt(process: Bench):
    """F57"""
    ended = await process.run(jobs.write_to_channel, b"\0\0\0\x50\0\0", kwargs={"and_exit": True})

    assert crash(ended).reason.startswith("exited with code 0 in the middle of its reply")


async def test_a_job_that_closes_all_descriptors_crashes(process: Bench):
    ended = await process.run(jobs.close_descriptors)

    assert crash(ended).reason.startswith("exited with code 1 without a reply")


async def test_a_file_where_the_control_channel_was_is_not_written_to(process: Bench, tmp_path: Path):
    ended = await process.run(jobs.hide_channel_behind_file, tmp_path / "log")

    assert "the job closed its control channel" in crash(ended).reason
    assert (tmp_path / "log").read_bytes() == b""


async def test_a_copy_that_the_job_forked_does_not_reply(process: Bench):
    ended = await process.run(jobs.fork_and_return_twice)

    assert ended.outcome == Succeeded('"parent"')


# Timeouts and questions


async def test_a_job_that_ignores_sigterm_is_killed_after_its_grace(process: Bench, marks: Path):
    """F21"""
    ended = await run_into_timeout(process, jobs.ignore_sigterm, marks, kill_grace=0.1)

    assert ended.outcome == TimedOut(transient=True)
    assert ended.process.signal == signal.SIGKILL
    assert ended.busy is None


async def test_a_job_has_its_grace_before_it_is_killed(process: Bench, marks: Path):
    """F21"""
    asked = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(process.run(jobs.ignore_sigterm, marks, asked=asked, kill_grace=0.3))
    await until((marks / "began").exists)

    asked_at = time.monotonic()
    asked.set_result(Canceled())
    ended = await running

    assert time.monotonic() - asked_at >= 0.3
    assert ended.process.signal == signal.SIGKILL


async def test_a_job_that_spins_in_c_is_killed_after_its_grace(process: Bench, marks: Path):
    ended = await run_into_timeout(process, jobs.spin, marks, kill_grace=0.1)

    assert ended.outcome == TimedOut()
    assert ended.process.signal == signal.SIGKILL


async def test_a_job_that_is_asked_to_end_cleans_up(process: Bench, marks: Path):
    asked = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(process.run(jobs.sleep_and_clean_up, marks, asked=asked))
    await until((marks / "began").exists)

    asked.set_result(Canceled(reason="enough"))
    ended = await running

    assert ended.outcome == Canceled(reason="enough")
    assert (marks / "interrupted").exists()
    assert (marks / "cleaned").exists()


async def test_what_a_job_returns_after_it_was_asked_changes_nothing(process: Bench, marks: Path):
    asked = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(process.run(jobs.swallow_interruption, marks, asked=asked))
    await until((marks / "began").exists)

    asked.set_result(Interrupted(reason="a deploy"))
    ended = await running

    assert ended.outcome == Interrupted(reason="a deploy")
    assert ended.process.exit_code == 0


async def test_a_jobs_own_sigterm_handler_wins(process: Bench, marks: Path):
    asked = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(process.run(jobs.handle_sigterm_itself, marks, asked=asked))
    await until((marks / "began").exists)

    asked.set_result(Canceled())
    ended = await running

    assert ended.process.exit_code == 7
    assert (marks / "own handler").exists()


async def test_a_sigterm_just_before_a_call_that_blocks_is_not_missed(process: Bench, marks: Path):
    """Python looks for signals between two steps: one that comes after that look waits for the end of the call."""
    asked = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(process.run(jobs.miss_sigterm, marks, asked=asked))
    await until((marks / "began").exists)

    asked.set_result(Canceled())
    ended = await running

    assert ended.outcome == Canceled()
    assert (marks / "cleaned").exists()


async def test_a_forked_copy_dies_of_sigterm_as_processes_do(process: Bench):
    ended = await process.run(jobs.fork_and_terminate)

    assert ended.outcome == Succeeded("-15")


async def test_a_timeout_counts_the_import_of_the_module(process: Bench, tmp_path: Path, monkeypatch):
    module = tmp_path / "slow_to_import.py"
    module.write_text("import os, time\nif 'SLOW' in os.environ: time.sleep(600)\ndef work(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import slow_to_import

    monkeypatch.setenv("SLOW", "1")

    ended = await process.run(job(slow_to_import.work), timeout=0.3, kill_grace=0.1)

    assert ended.outcome == TimedOut()


# The tree


async def test_a_grandchild_is_dead_after_a_timeout(process: Bench, marks: Path):
    """F22, D12"""
    ended = await run_into_timeout(process, jobs.leave_processes, marks, "daemon", True, kill_grace=0.0)

    assert ended.outcome == TimedOut()
    assert not any(map(alive, pids_in(marks)))


@pytest.mark.parametrize("with_env", [True, False], ids=["with the token", "without it"])
@pytest.mark.parametrize("kind", ["plain", "setsid", "daemon"])
async def test_a_grandchild_is_dead_after_a_kill(process: Bench, marks: Path, kind, with_env):
    """F22, D12"""
    asked = asyncio.get_running_loop().create_future()
    work = process.run(jobs.leave_processes, marks, kind, True, with_env, asked=asked, kill_grace=0.0)
    running = asyncio.create_task(work)
    await until((marks / "began").exists)

    asked.set_result(Canceled())
    ended = await running

    assert ended.outcome == Canceled()
    await until(lambda: not any(map(alive, pids_in(marks))))


@pytest.mark.parametrize("kind", ["plain", "setsid", "daemon"])
async def test_a_grandchild_is_dead_after_a_normal_end_and_reported(process: Bench, marks: Path, kind):
    """F22, D12"""
    ended = await process.run(jobs.leave_processes, marks, kind)

    assert ended.outcome == Succeeded('"left"')
    assert ended.process.leftovers == 1
    assert not any(map(alive, pids_in(marks)))


async def test_a_grandchild_of_a_crashed_job_is_dead(process: Bench, marks: Path):
    """F22, D12"""
    ended = await process.run(jobs.leave_one_and_crash, marks)

    assert crash(ended).reason.startswith("exited with code 9")
    assert ended.process.leftovers == 1
    assert not any(map(alive, pids_in(marks)))


async def test_a_grandchild_that_holds_stdout_open_delays_nothing(process: Bench, marks: Path):
    """F22"""
    ended = await process.run(jobs.leave_one_that_holds_stdout, marks)

    assert ended.outcome == Succeeded('"left"')
    assert not any(map(alive, pids_in(marks)))


async def test_a_child_that_has_ended_already_is_not_left_behind(process: Bench):
    ended = await process.run(jobs.leave_zombie)

    assert ended.process.leftovers == 0


async def test_a_job_may_use_a_process_pool(process: Bench):
    ended = await process.run(jobs.use_process_pool)

    assert ended.outcome == Succeeded("[1, 2]")
    assert ended.process.leftovers == 0


async def test_a_canceled_run_leaves_no_process(process: Bench, marks: Path):
    running = asyncio.create_task(process.run(jobs.leave_processes, marks, "daemon", True))
    await until((marks / "began").exists)

    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()
    assert not any(map(alive, pids_in(marks)))


async def test_a_run_that_is_canceled_again_and_again_leaves_no_process(process: Bench, marks: Path):
    running = asyncio.create_task(process.run(jobs.leave_processes, marks, "setsid", True))
    await until((marks / "began").exists)

    while not running.done():
        running.cancel()
        await asyncio.sleep(0)

    assert running.cancelled()
    assert not any(map(alive, pids_in(marks)))


@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_a_run_that_is_canceled_while_it_starts_leaves_no_process(process: Bench, marks: Path, turns):
    running = asyncio.create_task(process.run(jobs.ignore_sigterm, marks))
    for _ in range(turns):
        await asyncio.sleep(0)

    running.cancel()
    await asyncio.wait([running])

    assert running.cancelled()


async def test_two_hundred_runs_leak_no_descriptor_process_or_thread(process: Bench):
    async def eight() -> None:
        await asyncio.gather(*(process.run(light_jobs.nothing, id=f"job-{n}") for n in range(8)))

    threads = threading.active_count()
    await eight()
    await process.runner.close()
    await until(lambda: threading.active_count() <= threads)
    before = len(os.listdir("/proc/self/fd"))
    processes = {each.pid for each in tree.descendants(os.getpid())}

    for _ in range(25):
        await eight()
    await process.runner.close()

    await until(lambda: threading.active_count() <= threads)
    assert len(os.listdir("/proc/self/fd")) == before
    assert {each.pid for each in tree.descendants(os.getpid())} == processes  # the unreaped would be among them


# Who is not harmed


@pytest.mark.machines
async def test_a_stranger_with_the_process_id_of_a_job_that_has_ended_is_left_alone(process: Bench, marks: Path):
    """F59. A job of `inline` has no process."""
    ended = await process.run(jobs.kill_itself, int(signal.SIGKILL))

    assert ended.process.pid is not None
    with stranger_with_id(ended.process.pid):
        await process.run(light_jobs.nothing)
        await run_into_timeout(process, jobs.ignore_sigterm, marks, kill_grace=0.0)
        await process.runner.close()
        await asyncio.to_thread(tree.sweep, ENGINE)
        assert alive(ended.process.pid)


async def test_a_process_that_can_not_be_ended_keeps_its_slot_alone(process: Bench, marks: Path, monkeypatch):
    """F24. What `inline` can't end is a thread, see test_inline.py."""
    monkeypatch.setattr("asyncjobs.execution.process.KILL_BOUND", 0.1)
    asked = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(process.run(jobs.note_own_pid_and_stay, marks, asked=asked, kill_grace=0.0))
    await until((marks / "began").exists)

    with held_by_a_debugger(pids_in(marks)[0]):
        asked.set_result(Canceled())
        ended = await running
        beside = await process.run(light_jobs.nothing)

        assert (ended.outcome, beside.outcome) == (Canceled(), Succeeded("null"))
        assert ended.busy is not None
        assert not ended.busy.done()
    await ended.busy


@pytest.mark.parametrize("definition", [jobs.remember, jobs.leak_daemon_thread], ids=["globals", "daemon threads"])
@pytest.mark.parametrize(
    ("isolation", "found"), [("fork", [1, 1, 1, 1]), ("spawn", [1, 1, 1, 1]), ("reuse", [1, 2, 1, 2])]
)
async def test_what_a_job_leaves_in_its_process_ends_with_that(isolation: str, found: list[int], definition):
    """F60: a warm process is recycled by count here; with `inline` it is the engine's, and stays."""
    bench = Bench(ProcessRunner(isolation, engine_id=ENGINE, settings=Settings(reuse_jobs=2)), isolation)

    ends = [(await bench.run(definition)).outcome for _ in range(4)]
    await bench.runner.close()

    assert ends == [Succeeded(str(count)) for count in found]


# The module


async def test_a_module_that_can_not_be_imported_fails_the_attempt(process: Bench, tmp_path: Path, monkeypatch):
    """F54"""
    module = tmp_path / "broken_later.py"
    module.write_text("def work(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import broken_later

    from asyncjobs import job

    definition = job(broken_later.work)
    module.write_text("import nowhere_to_be_found_at_all\n")
    ended = await process.run(definition)

    assert isinstance(ended.outcome, Failed)
    assert (ended.outcome.error.kind, ended.outcome.error.class_name) == ("import", "ModuleNotFoundError")
    assert ended.outcome.error.traceback is not None
    assert "broken_later.py" in ended.outcome.error.traceback


async def test_a_function_that_is_gone_fails_the_attempt(process: Bench, tmp_path: Path, monkeypatch):
    """F54"""
    module = tmp_path / "renamed_later.py"
    module.write_text("def work(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import renamed_later

    from asyncjobs import job

    definition = job(renamed_later.work)
    module.write_text("def work_renamed(): pass\n")
    ended = await process.run(definition)

    assert isinstance(ended.outcome, Failed)
    assert ended.outcome.error.kind == "import"
    assert "renamed_later has no 'work'" in ended.outcome.error.message


async def test_a_function_without_a_decorator_is_called_too(process: Bench):
    from asyncjobs import job

    ended = await process.run(job(jobs.plain_function), 2)

    assert ended.outcome == Succeeded("4")

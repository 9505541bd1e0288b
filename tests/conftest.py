"""What every test may ask for."""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from postgres import PostgresServer, databases_for_tests

TESTS = Path(__file__).parent

hypothesis.settings.register_profile("here", deadline=None)  # a busy machine makes any example slow
hypothesis.settings.load_profile("here")


@pytest.fixture
def seconds():
    """How long a test lasts whose nature is to last."""
    return float(os.environ.get("ASYNCJOBS_TEST_SECONDS", "5"))


@pytest.fixture(scope="session")
def databases():
    """Make and drop databases on one PostgreSQL, started with the first test that asks for one."""
    with databases_for_tests() as databases:
        yield databases


@pytest.fixture
def postgres_url(databases):
    """The address of an empty PostgreSQL database."""
    url = databases.create()
    yield url
    databases.drop(url)


@pytest.fixture
def postgres():
    """A PostgreSQL server of the test's own, which it may stop, kill and start again."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def start_python():
    """Start a Python of its own on a script, with the builders at hand; none outlives the module's tests."""
    started = []

    def start(script, *args):
        path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture(scope="module")
def run_python(start_python):
    """Run a script to its end and return what it printed; it must exit with 0."""

    def run(script, *args):
        process = start_python(script, *args)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return out

    return run

"""What time it is: by the machine's clock, which may be set, or by a server's, whatever the machine's says."""

from datetime import UTC, datetime, timedelta

import pytest

from asyncjobs.store import clock as clock_module
from asyncjobs.store.clock import TOLERANCE, MachineClock, ServerClock
from builders import NOON

HOUR = 3600


class Machine:
    """A machine's two clocks; `turn` sets the one that can be set."""

    def __init__(self):
        self._wall, self._monotonic = NOON.timestamp(), 1000.0

    def time(self):
        return self._wall

    def monotonic(self):
        return self._monotonic

    def go_on(self, seconds):
        self._wall += seconds
        self._monotonic += seconds

    def turn(self, seconds):
        self._wall += seconds


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(clock_module, "time", machine)
    return machine


def after_noon(moment):
    return pytest.approx((moment - NOON).total_seconds(), abs=0.001)


def at(seconds):
    return NOON + timedelta(seconds=seconds)


# --- the machine's -------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [-HOUR, HOUR], ids=["back", "forward"])
def test_a_machines_clock_that_is_set_has_moved_once(machine, by):
    clock = MachineClock()

    machine.turn(by)
    machine.go_on(1)

    assert clock.now() == at(by + 1)
    assert (clock.moved(), clock.moved(), clock.ahead) == (pytest.approx(by), 0.0, timedelta(0))


def test_a_machines_clock_that_is_adjusted_by_little_has_not_moved(machine):
    clock = MachineClock()

    machine.turn(-TOLERANCE / 2)

    assert clock.moved() == 0.0


# --- a server's ----------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [-300, 300], ids=["behind", "ahead"])
def test_a_server_is_believed_from_its_first_answer_on(machine, off):
    machine.turn(off)
    clock = ServerClock()

    clock.agree(at(-0.01), round_trip=0.02)  # it said so half way
    machine.go_on(10)

    assert after_noon(clock.now()) == 10
    assert clock.ahead.total_seconds() == pytest.approx(off, abs=0.001)
    assert clock.moved() == 0.0


@pytest.mark.parametrize("by", [-HOUR, HOUR], ids=["back", "forward"])
def test_time_goes_on_evenly_when_the_machines_clock_is_set(machine, by):
    """Also before the server has said so, and after."""
    clock = ServerClock()
    clock.agree(at(0), round_trip=0.0)

    machine.turn(by)
    machine.go_on(1)
    at_once = clock.now(), clock.ahead
    clock.agree(at(1), round_trip=0.0)

    assert (at_once[0], at_once[1].total_seconds()) == (at(1), pytest.approx(by))
    assert (clock.now(), clock.moved()) == (at(1), 0.0)


def test_an_answer_that_took_long_moves_nothing_that_it_does_not_contradict(machine):
    """As after a loop that was blocked between question and answer."""
    clock = ServerClock()
    clock.agree(at(0), round_trip=0.0)
    machine.go_on(60)

    clock.agree(at(0.1), round_trip=60.0)

    assert (clock.now(), clock.moved(), clock.ahead) == (at(60), 0.0, timedelta(0))


def test_what_differs_by_little_is_the_machines_time(machine):
    clock = ServerClock()

    clock.agree(at(TOLERANCE / 2), round_trip=0.0)

    assert (clock.now(), clock.ahead) == (NOON, timedelta(0))


def test_a_server_whose_clock_is_turned_back_moves_the_time(machine):
    clock = ServerClock()
    clock.agree(at(0), round_trip=0.0)
    machine.go_on(1)

    clock.agree(at(1 - HOUR), round_trip=0.0)

    assert after_noon(clock.now()) == 1 - HOUR
    assert (clock.moved(), clock.moved()) == (-HOUR, 0.0)


def test_the_time_is_in_utc():
    assert MachineClock().now().tzinfo is ServerClock().now().tzinfo is UTC
    assert abs(MachineClock().now() - datetime.now(UTC)) < timedelta(seconds=TOLERANCE)

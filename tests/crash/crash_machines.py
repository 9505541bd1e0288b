"""Another machine, as far as the network tells: a network namespace with a cable that can be cut.

It takes root and `ip`, of Debian's `iproute2`. Where there are none, another machine is one by its name alone.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from os import getpid

_numbers = count(1)
_NOBODY = "02:00:00:00:00:99"


class Machine:
    """A network namespace, `address` being ours as seen from there."""

    def __init__(self) -> None:
        number = getpid() * 7 + next(_numbers)
        self.name = f"aj{number % 10**8}"
        self._near, self._far = f"{self.name}n", f"{self.name}f"
        block = f"10.{100 + number % 100}.{number // 100 % 250}"
        self.address, self._there = f"{block}.1", f"{block}.2"
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.name)
            _ip("address", "add", f"{self.address}/30", "dev", self._near)
            _ip("link", "set", self._near, "up")
            _ip("-n", self.name, "address", "add", f"{self._there}/30", "dev", self._far)
            _ip("-n", self.name, "link", "set", self._far, "up")
        except BaseException:
            self.remove()
            raise

    def cut(self) -> None:
        """Have every packet swallowed, both ways: each side sends to a card that nobody has."""
        permanent = ("lladdr", _NOBODY, "nud", "permanent")
        _ip("neighbour", "replace", self._there, *permanent, "dev", self._near)
        _ip("-n", self.name, "neighbour", "replace", self.address, *permanent, "dev", self._far)

    def mend(self) -> None:
        """Let packets through again."""
        _ip("neighbour", "delete", self._there, "dev", self._near)
        _ip("-n", self.name, "neighbour", "delete", self.address, "dev", self._far)

    def remove(self) -> None:
        _ip("netns", "delete", self.name)


class NamedMachine:
    """This machine by another name, whose cable nobody can cut."""

    name = "elsewhere"
    address = "127.0.0.1"

    def cut(self) -> None:
        raise AssertionError("to cut a cable takes root and `ip`: `apt-get install iproute2`")

    mend = cut

    def remove(self) -> None:
        return


@contextmanager
def another_machine() -> Iterator[Machine | NamedMachine]:
    machine: Machine | NamedMachine
    try:
        machine = Machine()
    except (AssertionError, FileNotFoundError):
        machine = NamedMachine()
    try:
        yield machine
    finally:
        machine.remove()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"

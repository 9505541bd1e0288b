"""The locks by which engines on one SQLite file know who is alive.

Each engine holds an `flock` on a file of its own, in a folder beside the database; the kernel frees
it the moment the process is gone, however it went. A forked child of the host would share the lock
and keep a dead engine alive, so it closes its copy at once.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from asyncjobs.errors import StoreUnavailable


class EngineLocks:
    """The folder of lock files beside a database, and those that this process holds."""

    def __init__(self, database: Path) -> None:
        self.folder = database.with_name(database.name + "-engines")
        self._held: dict[str, int] = {}
        _every.add(self)

    def hold(self, engine_id: str) -> None:
        """Take the lock of an engine of this process; it must have been told to nobody yet."""
        try:
            descriptor = self._create(engine_id)
        except OSError as error:
            raise StoreUnavailable(f"{self.folder} must be a folder that this user can write: {error}") from error
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held[engine_id] = descriptor

    def _create(self, engine_id: str) -> int:
        while True:
            self.folder.mkdir(exist_ok=True)
            try:
                return os.open(self.folder / engine_id, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # an engine that left took the empty folder away in between

    def is_free(self, engine_id: str) -> bool | None:
        """Say whether nobody holds an engine's lock; None if its file is gone."""
        if engine_id in self._held:
            return False
        try:
            descriptor = os.open(self.folder / engine_id, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"the lock of engine {engine_id} can't be read: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(descriptor)

    def let_go(self, engine_id: str) -> None:
        """Free an engine's lock, if it is held here; its file stays."""
        descriptor = self._held.pop(engine_id, None)
        if descriptor is not None:
            os.close(descriptor)

    def remove(self, engine_id: str) -> None:
        """Free an engine's lock and take its file away; nothing happens if that was done."""
        try:
            (self.folder / engine_id).unlink(missing_ok=True)
        finally:
            self.let_go(engine_id)
        if not self._held:
            try:
                self.folder.rmdir()
            except OSError:
                return  # other engines' files are in it

    def let_go_all(self) -> None:
        """Close every descriptor: in a forked child they are copies, and the locks stay the parent's."""
        held, self._held = self._held, {}
        for descriptor in held.values():
            os.close(descriptor)


_every: weakref.WeakSet[EngineLocks] = weakref.WeakSet()


def _forget_all() -> None:
    for locks in list(_every):
        locks.let_go_all()


os.register_at_fork(after_in_child=_forget_all)

"""The place of one environment on the disk: its folder, its lock and its build log.

    <key>/            the environment, complete only with the file `complete` in it
    <key>.lock        locked exclusively by who builds or removes it, shared by who uses it
    <key>.log         what its last build printed

Nothing here waits for a lock, but all of it blocks as files do, so it belongs into a thread; only
`leave` and `in_place` are quick enough for the loop.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import weakref
from dataclasses import dataclass
from pathlib import Path

# Run by the environment's own interpreter, which so proves that it starts.
SELF_PORTRAIT = (
    "import json, os, sys, sysconfig; "
    "paths = [os.path.relpath(sysconfig.get_path(each), sys.prefix) for each in ('purelib', 'platlib')]; "
    "facts = {'version': '%d.%d.%d' % sys.version_info[:3], 'site_packages': list(dict.fromkeys(paths))}; "
    "file = open(sys.argv[1], 'w'); json.dump(facts, file); file.close()"
)

_MARK = "complete"
_NAME = re.compile(r"([0-9a-f]{32})(\.lock|\.log)?")


@dataclass(frozen=True, slots=True)
class Environment:
    """A complete environment: its interpreter, where its packages are, and which Python it is ("3.11.7")."""

    python: str
    site_packages: tuple[str, ...]
    version: str
    folder: Path

    @property
    def in_place(self) -> bool:
        """Whether nobody has removed it: its mark is there, and its interpreter."""
        return os.access(self.folder / _MARK, os.F_OK) and os.access(self.python, os.F_OK)


class Place:
    """The files of one environment, whether it is complete, half-made or absent, and our lock on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}.log")
        self.python = folder / "bin" / "python"
        self.portrait = folder / "complete.new"
        self._complete = folder / _MARK
        self._lock = folder.with_name(f"{folder.name}.lock")
        self._descriptor = -1
        _every.add(self)

    @property
    def locked(self) -> bool:
        """Whether we hold the lock, of either kind."""
        return self._descriptor >= 0

    def fileno(self) -> int:
        """Return the descriptor that holds the lock, for a process that is to hold it with us."""
        return self._descriptor

    def enter(self) -> Environment | None:
        """Lock a complete environment shared and return it; lock the place of an absent one exclusively.

        Look at `locked` then: somebody else may have the lock.

        Raises:
            OSError: the folder of environments can't be made, read or written.
        """
        os.makedirs(self.folder.parent, mode=0o700, exist_ok=True)
        found = self._read()
        if not self._take(fcntl.LOCK_EX if found is None else fcntl.LOCK_SH):
            return None
        if self._read() != found:  # it was built or removed in between
            self.forget()
            return None
        if found is not None:
            os.utime(self._complete)
        return found

    def clear(self) -> None:
        """Remove what an unfinished build has left, and the log of the last; the exclusive lock is ours."""
        self.remove()
        self.log.unlink(missing_ok=True)

    def complete(self) -> Environment | None:
        """Make the environment visible and exchange our exclusive lock for a shared one.

        None when somebody removed it in between, which the exchange permits.
        """
        self.portrait.replace(self._complete)
        _make_durable(self.folder)
        found = self._read()
        return found if self._take(fcntl.LOCK_SH) and self._read() == found else None

    def remove(self) -> None:
        """Remove the environment, complete or half-made; the exclusive lock is ours."""
        self._complete.unlink(missing_ok=True)  # first, so that what remains of it is known for rubbish
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def prune(self, before: float) -> bool:
        """Remove all of it that was not used since `before`, unless it is locked; return whether there was any.

        A half-made environment goes whatever its age: with the lock free its builder is dead.
        """
        try:
            if not self._take(fcntl.LOCK_EX) or _changed(self._complete) > before:
                return False
            found = self.folder.exists()
            self.remove()
            if _changed(self.log) <= before:
                self.log.unlink(missing_ok=True)
            self._lock.unlink()
            return found
        finally:
            self.forget()

    def leave(self) -> None:
        """Let go of the lock, if we hold it, and note until when the environment was used."""
        if self._descriptor < 0:
            return
        try:
            os.utime(self._complete)
        except OSError:
            pass  # there is none
        self.forget()

    def forget(self) -> None:
        """Close our descriptor: the lock is free when every process that inherited it has done so."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _take(self, kind: int) -> bool:
        """Take the lock, or exchange the one we have, and say whether we hold it now."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            self.forget()
            return False
        if not self._is_in_place():
            self.forget()
            return False
        return True

    def _is_in_place(self) -> bool:
        """Return whether the file that we have locked is still the one that others will open."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._lock.stat())
        except FileNotFoundError:
            return False

    def _read(self) -> Environment | None:
        """Return the environment, or None when it is not complete or its interpreter is gone."""
        try:
            facts = json.loads(self._complete.read_text())
        except (FileNotFoundError, ValueError):
            return None
        if not self.python.exists():
            return None
        return Environment(
            python=str(self.python),
            site_packages=tuple(str(self.folder / each) for each in facts["site_packages"]),
            version=facts["version"],
            folder=self.folder,
        )


def places_in(folder: Path) -> list[Place]:
    """Return the places of which there is anything in a folder of environments."""
    if not folder.exists():
        return []
    names = {match[1] for name in os.listdir(folder) if (match := _NAME.fullmatch(name))}
    return [Place(folder / name) for name in sorted(names)]


def _changed(file: Path) -> float:
    """Return when a file was changed, in seconds since the epoch; 0 when there is none."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _make_durable(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_every: weakref.WeakSet[Place] = weakref.WeakSet()


def _forget_all() -> None:
    for place in list(_every):
        place.forget()


os.register_at_fork(after_in_child=_forget_all)  # the locks are the parent's, and would outlive it in a child

"""`Slots`: how many attempts run at once over all names of an engine.

Names take turns: a slot that comes free is kept for who has waited longest, so one that is always busy
can't keep the others out.
"""

from __future__ import annotations

from collections.abc import Callable

Wake = Callable[[], None]


class Slots:
    """A count of attempts up to a limit; None is no limit, and nothing is counted."""

    def __init__(self, limit: int | None) -> None:
        self._free = limit
        self._waiting: dict[Wake, None] = {}
        self._woken: set[Wake] = set()

    def take(self, wanted: int, *, wake: Wake) -> int:
        """Take at most so many; when it is fewer, `wake` is called once there are more."""
        if self._free is None:
            return wanted
        was_woken = wake in self._woken
        self._woken.discard(wake)
        kept_for_others = len(self._woken) + (0 if was_woken else len(self._waiting.keys() - {wake}))
        taken = max(0, min(wanted, self._free - kept_for_others))
        self._free -= taken
        if taken < wanted:
            self._waiting.setdefault(wake)
        else:
            self._waiting.pop(wake, None)
        return taken

    def give_back(self, count: int) -> None:
        """Give back so many, and wake who has waited longest for each."""
        if self._free is not None:
            self._free += count
            self._keep(self._free)

    def leave(self, wake: Wake) -> None:
        """Wait no more: what is kept for `wake` is kept for the next."""
        if self._free is not None:
            self._waiting.pop(wake, None)
            self._woken.discard(wake)
            self._keep(self._free)

    def _keep(self, free: int) -> None:
        for wake in list(self._waiting)[: max(0, free - len(self._woken))]:
            del self._waiting[wake]
            self._woken.add(wake)
            wake()

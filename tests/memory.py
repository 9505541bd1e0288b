"""How much memory this process takes, as the kernel counts it (`man 5 proc_pid_status`)."""

from __future__ import annotations

from pathlib import Path

MEGABYTE = 1_000_000


class PeakMemory:
    """The most memory that this process has had since, beyond what it had then."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
        self._before = _bytes("VmRSS")

    @property
    def growth(self) -> int:
        """Bytes by now."""
        return _bytes("VmHWM") - self._before


def _bytes(field: str) -> int:
    [line] = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(field + ":")]
    return int(line.split()[1]) * 1024

"""Output without end: what is kept of it, and what it costs the engine."""

from __future__ import annotations

import time

import jobs_for_tests as jobs
import pytest
from bench import Bench

from asyncjobs.model.outcome import Succeeded
from memory import MEGABYTE, PeakMemory

GIGABYTE = 1000 * MEGABYTE
KEPT = 5000  # of the head and of the tail each: bench.SETTINGS


@pytest.mark.quiet
@pytest.mark.parametrize(
    ("size", "piece"),
    [
        pytest.param(GIGABYTE, b"a line of thirty-two characters\n", id="1 GB of lines"),
        pytest.param(500 * MEGABYTE, b"x", id="one line of 500 MB"),
        pytest.param(GIGABYTE, bytes(range(256)), id="1 GB of binary"),
    ],
)
async def test_of_output_without_end_head_and_tail_are_kept_in_bounded_memory(process: Bench, size: int, piece: bytes):
    """F50. What a job of `inline` prints goes where its engine's own output goes."""
    memory = PeakMemory()
    began = time.monotonic()

    ended = await process.run(jobs.print_without_end, size, piece, timeout=600)

    took = time.monotonic() - began
    print(f"{process.isolation}: {size / took / MEGABYTE:.0f} MB/s, peak +{memory.growth / MEGABYTE:.1f} MB")
    kept = process.printed["stdout"]
    assert ended.outcome == Succeeded('"done"')
    assert memory.growth < 100 * MEGABYTE
    assert kept.startswith("the head\n" + piece.decode("utf-8", "replace"))
    assert kept.endswith(piece.decode("utf-8", "replace")[-1:] + "the tail\n")
    assert len(kept.encode("utf-8", "surrogateescape")) >= 2 * KEPT
    assert process.printed["stderr"] == f"[{size + 18 - 2 * KEPT} bytes of output dropped: above max_output]\n"

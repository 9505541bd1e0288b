"""The no-op jobs that are measured."""

from asyncjobs import job


@job(max_workers=8, isolation="inline")
async def inline(n: int) -> int:
    """Return at once, in the engine's loop."""
    return n


@job(max_workers=8, isolation="spawn")
def spawned(n: int) -> int:
    """Return at once, in a fresh interpreter."""
    return n

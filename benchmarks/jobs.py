"""The no-op jobs that are measured, one for each isolation and number of slots."""

from asyncjobs import JobDefinition, job


@job(max_workers=8, isolation="inline")
async def inline(n: int) -> int:
    """Return at once, in the engine's loop."""
    return n


@job(max_workers=8, isolation="spawn")
def spawned(n: int) -> int:
    """Return at once, in a fresh interpreter."""
    return n


@job(max_workers=20, isolation="inline")
async def inline_20(n: int) -> int:
    """Return at once, in the engine's loop."""
    return n


def no_op(n: int) -> int:
    """Return at once."""
    return n


def with_slots(isolation: str, slots: int) -> JobDefinition[[int], int]:
    """Return a no-op job of an isolation, of which so many run at once."""
    return job(f"{isolation}-{slots}", isolation=isolation, max_workers=slots)(no_op)  # type: ignore[call-overload, no-any-return]

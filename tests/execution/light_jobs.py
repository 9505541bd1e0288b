"""Jobs in a module that imports next to nothing."""

import sys

from asyncjobs import job


@job
def nothing() -> None:
    pass


@job
def modules() -> list:  # type: ignore[type-arg]
    return sorted(sys.modules)

"""Stand-ins for what a job's environment has no packages for, such as `JobEngine`.

A program's main module is run again in the process of each job that it defines. Where those jobs have
an environment of their own, SQLAlchemy is not in it; the module may name and make an engine all the
same, as long as it does not enter it: that is the engine's side of the program.
"""

from __future__ import annotations

import sys

from asyncjobs.context import CHILD_MODULE
from asyncjobs.errors import NestedEngine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Elsewhere:
    """Something of the engine's side, of no use in a job's environment."""

    def __init__(self, *_args: Any, **_options: Any) -> None:
        """Take whatever the real one would."""

    def __class_getitem__(cls, _parameters: object) -> type[Elsewhere]:
        """Be generic, as in an annotation."""
        return cls

    def __getattr__(self, _name: str) -> NoReturn:
        """Say where we are.

        Raises:
            NestedEngine: always.
        """
        raise NestedEngine

    async def __aenter__(self) -> NoReturn:
        """Say where we are.

        Raises:
            NestedEngine: always.
        """
        raise NestedEngine

    async def __aexit__(self, *_error: object) -> None:
        """Do nothing: it is never entered."""


def stand_in(name: str) -> type[Elsewhere]:
    """Return a class to be used by this name; where this is no job's process, the import's error goes on.

    Raises:
        ModuleNotFoundError: as it was.
    """
    if CHILD_MODULE not in sys.modules:
        raise
    return type(name, (Elsewhere,), {})

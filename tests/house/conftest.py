"""One folder of compiled files for all processes that these tests start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(bytecode: Path) -> Iterator[None]:
    """Where Python writes no compiled files, each process would compile SQLAlchemy and FastAPI anew."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        environment.setenv("PYTHONPYCACHEPREFIX", str(bytecode))
        yield

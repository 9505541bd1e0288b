"""The rules of the house that no linter knows: who imports what, names of tasks, sizes of files."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from house_sources import SOURCE, files_under, imports_of, label, tree_of

# Loaded by path in a job's process, which runs under other interpreters too.
IN_A_JOBS_PROCESS = [
    SOURCE / name
    for name in (
        "execution/inside/child.py",
        "execution/inside/wire.py",
        "execution/inside/tree.py",
        "execution/inside/failure.py",
        "execution/inside/logs.py",
        "codec.py",
        "jsonvalues.py",
        "conversion/compiler.py",
        "conversion/alternatives.py",
        "conversion/containers.py",
        "conversion/spelling.py",
        "conversion/hints.py",
        "conversion/sameness.py",
        "conversion/classes.py",
    )
]

# Imported by users' modules in every job's process.
BY_USERS_MODULES = [SOURCE / name for name in ("__init__.py", "definition.py", "errors.py")]

NOT_THE_STANDARD_LIBRARY = {
    "msgspec": "only where an annotation names one of its types",
    "pydantic": "only where an annotation names one of its types",
    "pydantic_core": "only where an annotation names one of its types",
    "annotationlib": "the standard library's, from Python 3.14",
    **{f"_asyncjobs_{path.stem}": "the name of a file that a job's process has loaded" for path in IN_A_JOBS_PROCESS},
}

# codec.py loads its other half by path where it runs in a job's process, and as a module elsewhere.
LOADED_ELSEWHERE = {"src/asyncjobs/codec.py": {"asyncjobs"}}

LARGEST_FILE = 400


@pytest.mark.parametrize("path", IN_A_JOBS_PROCESS, ids=label)
def test_what_a_jobs_process_loads_imports_the_standard_library_only(path: Path) -> None:
    foreign = {name for name in imports_of(path) if name.partition(".")[0] not in sys.stdlib_module_names}

    assert foreign <= NOT_THE_STANDARD_LIBRARY.keys() | LOADED_ELSEWHERE.get(label(path), set())


@pytest.mark.parametrize("path", BY_USERS_MODULES, ids=label)
def test_what_users_modules_import_imports_nothing_but_its_like(path: Path) -> None:
    dear = {"typing", "dataclasses", "inspect", "functools", "asyncio", "logging", "json", "datetime", "sqlalchemy"}

    assert imports_of(path).isdisjoint(dear)


@pytest.mark.parametrize("path", files_under(SOURCE), ids=label)
def test_sqlalchemy_is_imported_in_the_store_alone(path: Path) -> None:
    of_databases = {name for name in imports_of(path) if name.partition(".")[0] in ("sqlalchemy", "aiosqlite")}

    assert of_databases == set() or path.is_relative_to(SOURCE / "store")


@pytest.mark.parametrize("path", files_under(SOURCE), ids=label)
def test_every_task_has_a_name(path: Path) -> None:
    calls = [
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("create_task", "ensure_future"))
    ]

    nameless = [node.lineno for node in calls if "name" not in {keyword.arg for keyword in node.keywords}]

    assert nameless == []


@pytest.mark.parametrize("path", files_under(SOURCE), ids=label)
def test_no_file_is_too_long_to_read(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert lines <= LARGEST_FILE


@pytest.mark.parametrize("path", files_under(SOURCE), ids=label)
def test_no_exception_is_swallowed_in_silence(path: Path) -> None:
    """`except Exception: pass`, or bare."""
    handlers = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ExceptHandler)]

    swallowing = [
        node.lineno
        for node in handlers
        if (node.type is None or ast.unparse(node.type) == "Exception")
        and all(isinstance(each, ast.Pass) for each in node.body)
    ]

    assert swallowing == []


@pytest.mark.parametrize("path", files_under(SOURCE), ids=label)
def test_nothing_is_pickled(path: Path) -> None:
    """What the database holds can't run code."""
    assert imports_of(path).isdisjoint({"pickle", "marshal", "shelve", "dill", "cloudpickle"})


@pytest.mark.parametrize("path", files_under(SOURCE), ids=label)
def test_every_module_says_what_it_knows(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))

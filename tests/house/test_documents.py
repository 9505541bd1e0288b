"""What the documents say is there, is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from house_sources import ROOT, documents, label, links_in, texts

import asyncjobs
from asyncjobs import JobDefinition, JobEngine, JobHandle

README = (ROOT / "README.md").read_text(encoding="utf-8")
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")

# The name on PyPI belongs to another project; ours is asyncjobs-engine.
WRONG_INSTALL = re.compile(r"pip install (?:--?\S+ )*asyncjobs(?!-engine)\b")


@pytest.mark.parametrize("document", documents(), ids=label)
def test_every_link_leads_somewhere(document: Path) -> None:
    lost = [target for target in links_in(document) if not (document.parent / target).exists()]

    assert lost == []


def test_the_files_in_the_readmes_commands_are_there() -> None:
    named = re.findall(r"uv run (?:uvicorn --app-dir )?((?:examples|benchmarks)/[\w./]+)", README)

    assert "examples/quickstart.py" in named
    assert [each for each in named if not (ROOT / each).exists()] == []


def test_the_files_that_the_guarantees_name_are_there() -> None:
    tests = re.findall(r"`((?:store|crash|execution|stories|house|model)/test_\w+\.py)`", GUARANTEES)
    sources = re.findall(r"`((?:engine|store|client|execution|model)/(?!test_)\w+\.py)`", GUARANTEES)

    assert [each for each in tests if not (ROOT / "tests" / each).exists()] == []
    assert [each for each in sources if not (ROOT / "src" / "asyncjobs" / each).exists()] == []


def test_the_verbs_in_the_readme_are_there() -> None:
    table = README.partition("## The calls")[2].partition("\n\nInside a job")[0]
    of_definitions = set(re.findall(r"`fn\.(\w+)\(", table))
    of_handles = set(re.findall(r"`(?:handle)?\.(\w+)\(", table))
    of_engines = set(re.findall(r"`(?:await )?(?:engine\.)?(\w+)\(", table)) - {"JobClient"}

    assert {"submit", "get", "run", "subscribe"} <= of_engines | of_handles
    assert [verb for verb in of_definitions if not hasattr(JobDefinition, verb)] == []
    assert [verb for verb in of_handles if not hasattr(JobHandle, verb) and not hasattr(JobEngine, verb)] == []
    assert [verb for verb in of_engines if not hasattr(JobEngine, verb)] == []


def test_the_first_program_of_the_readme_runs_as_it_is_and_prints_what_it_says(tmp_path: Path) -> None:
    program = README.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "first.py").write_text(program)

    printed = subprocess.run(
        [sys.executable, "first.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    ).stdout

    assert "# cat.320.png" in program
    assert printed == "cat.320.png\n"


def test_the_names_that_the_readme_imports_are_public() -> None:
    imported = {
        name.strip() for line in re.findall(r"from asyncjobs import ([\w, ]+)", README) for name in line.split(",")
    }

    assert imported
    assert imported <= set(asyncjobs.__all__)


@pytest.mark.parametrize("path", texts(), ids=label)
def test_nobody_is_told_to_install_the_other_asyncjobs(path: Path) -> None:
    # This file speaks of it, as does the pattern above.
    assert path == Path(__file__) or not WRONG_INSTALL.search(path.read_text(encoding="utf-8"))

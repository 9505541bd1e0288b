"""The sources of the house, as these tests read them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "asyncjobs"
EXAMPLES = ROOT / "examples"


def files_under(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def label(path: Path) -> str:
    """Return what a test calls this file."""
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports when it runs; those under `if TYPE_CHECKING:` are not."""
    found: set[str] = set()
    for node in _executed(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _executed(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for each in child.orelse:
                found += [each, *_executed(each)]
            continue
        found += [child, *_executed(child)]
    return found


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def texts() -> list[Path]:
    """Return every text that a reader of the house may meet."""
    folders = ("src", "tests", "docs", "examples", "benchmarks")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md")]
    return sorted([*ROOT.glob("*.md"), ROOT / "pyproject.toml", *inside])


def links_in(document: Path) -> list[str]:
    """Return the targets of a document's links that are neither addresses nor anchors."""
    found = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    return [target.partition("#")[0] for target in found if "://" not in target and not target.startswith("#")]

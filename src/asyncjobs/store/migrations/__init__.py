"""The numbered steps from an empty database to today's schema; forward only, never edited once released."""

from __future__ import annotations

from importlib.resources import files


def migrations(database: str) -> list[tuple[int, list[str]]]:
    """Return each version with its statements, oldest first, for `sqlite` or `postgresql`."""
    folder = files(__name__).joinpath(database)
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".sql"))
    return [(int(name[:4]), _statements(folder.joinpath(name).read_text(encoding="utf-8"))) for name in names]


def _statements(script: str) -> list[str]:
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]

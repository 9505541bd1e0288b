"""Packages made by hand, so that environments are built without an index."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path


def add_wheel(folder: Path, name: str, version: str) -> None:
    """Add a package of one module, with its version and a script that prints it."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n\ndef main():\n    print(VERSION)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = "".join(f"{each},,\n" for each in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


# Says that it builds, and goes on when it is let; bounded, since it must not outlive a failed test for long.
_BACKEND = """
import os, time

def build_wheel(directory, settings=None, metadata=None):
    with open({marks!r} + "/building", "a") as file:
        file.write(f"{{os.getpid()}}\\n")
    deadline = time.monotonic() + 60
    while not os.path.exists({marks!r} + "/released"):
        if time.monotonic() > deadline:
            raise SystemExit("nobody released the build")
        time.sleep(0.01)
    import shutil
    shutil.copy({wheel!r}, directory)
    return os.path.basename({wheel!r})
"""


class SlowPackage:
    """A package `slow` whose build shows that it runs, and waits to be released."""

    def __init__(self, folder: Path, marks: Path) -> None:
        self.marks = marks
        marks.mkdir()
        add_wheel(marks, "slow", "1.0")
        wheel = marks / "slow-1.0-py3-none-any.whl"
        files = {
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
            "backend.py": _BACKEND.format(marks=str(marks), wheel=str(wheel)),
            "PKG-INFO": "Metadata-Version: 2.2\nName: slow\nVersion: 1.0\n",
        }
        with tarfile.open(folder / "slow-1.0.tar.gz", "w:gz") as archive:
            for name, text in files.items():
                member = tarfile.TarInfo(f"slow-1.0/{name}")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))

    def pids(self) -> list[int]:
        """The processes that have built it, or do."""
        building = self.marks / "building"
        return [int(line) for line in building.read_text().split()] if building.exists() else []

    def release(self) -> None:
        """Let every build of it go on."""
        (self.marks / "released").touch()

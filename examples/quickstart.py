"""The main job in one file: real work in processes of its own, and its results.

    uv run examples/quickstart.py

It makes three pictures, has their thumbnails drawn, counts the words of this Python's own library
meanwhile, and prints what came back. Kill it half way and start it again: what was submitted is done.
"""

import asyncio
import re
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from asyncjobs import JobEngine, JobHandle, job

FOLDER = Path("quickstart-files")


@dataclass
class Words:
    files: int
    total: int
    most_common: list[str]


@job(max_workers=2, timeout=60)
def thumbnail(path: Path, width: int = 200) -> Path:
    """Write a small copy of a picture beside it."""
    from PIL import Image

    small = path.with_suffix(f".{width}.png")
    with Image.open(path) as picture:
        picture.thumbnail((width, width))
        picture.save(small)
    return small


@job(timeout=300)
def count_words(folder: Path, least_length: int = 4) -> Words:
    """Count the words of every Python file in a folder: work for a processor."""
    counts: Counter[str] = Counter()
    files = sorted(folder.glob("*.py"))
    for file in files:
        counts.update(re.findall(rf"[a-z]{{{least_length},}}", file.read_text("utf-8", "replace").lower()))
    return Words(len(files), counts.total(), [word for word, _ in counts.most_common(3)])


def draw_pictures() -> list[Path]:
    from PIL import Image

    FOLDER.mkdir(exist_ok=True)
    paths = []
    for name, scale in (("dawn", 1.0), ("noon", 2.5), ("dusk", 0.4)):
        picture = Image.effect_mandelbrot((1200, 800), (-2.2 / scale, -1.1 / scale, 1.0 / scale, 1.1 / scale), 60)
        path = FOLDER / f"{name}.png"
        picture.save(path)
        paths.append(path)
    return paths


async def show(what: str, handle: JobHandle[Path]) -> None:
    print(f"  {what}: {await handle.result(timeout=120)}")


async def main() -> None:
    pictures = draw_pictures()
    async with JobEngine(f"sqlite:///{FOLDER}/jobs.db", jobs=[thumbnail, count_words]) as engine:
        words = await engine.submit(count_words, Path(sysconfig.get_path("stdlib")))
        handles = await engine.submit_many([thumbnail.bind(path, width=320) for path in pictures])
        print(f"submitted {1 + len(handles)} jobs; from here on they survive a crash")
        async with asyncio.TaskGroup() as group:
            for path, handle in zip(pictures, handles, strict=True):
                group.create_task(show(path.name, handle))
        counted = await words.result(timeout=300)
        print(f"  {counted.total} words in {counted.files} files, most of all {', '.join(counted.most_common)}")
        record = await words.wait()
        print(f"{record.name}: {record.status} on attempt {record.attempt}")


if __name__ == "__main__":
    asyncio.run(main())

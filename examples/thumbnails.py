"""A folder of pictures, a few processes at a time, a bar on the terminal.

    uv run examples/thumbnails.py                          # makes 24 pictures to work on
    uv run examples/thumbnails.py FOLDER --width 320       # or takes yours

Stop it with Ctrl-C and start it again: pictures that are done are not done again, since each is
submitted under a key.
"""

import argparse
import asyncio
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from asyncjobs import JobEnded, JobEngine, JobHandle, job

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@job(max_workers=4, timeout=60)
def thumbnail(path: Path, target: Path, width: int) -> int:
    """Write a small copy of a picture; return its size in bytes."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.thumbnail((width, width))
        picture.convert("RGB").save(target, "JPEG", quality=85)
    return target.stat().st_size


def make_pictures(folder: Path, count: int) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        zoom = 1 + number / 4
        extent = (-2.0 / zoom, -1.2 / zoom, 0.8 / zoom, 1.2 / zoom)
        Image.effect_mandelbrot((960, 640), extent, 40).save(folder / f"picture-{number:03d}.png")


async def main(folder: Path, width: int) -> None:
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    target = folder / "thumbnails"
    target.mkdir(exist_ok=True)
    async with JobEngine(f"sqlite:///{folder}/jobs.db", jobs=[thumbnail]) as engine:
        async for record in engine.iterate(name="thumbnail", status=["FAILED", "TIMEOUT", "CANCELED"]):
            await engine.retry(record.id)  # of an earlier run
        handles = await engine.submit_many(
            thumbnail.using(key=f"{path.name} {width}").bind(path, target / f"{path.name}.jpg", width)
            for path in pictures
        )
        console = Console()
        with Progress(console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("thumbnails", total=len(handles))

            async def follow(path: Path, handle: JobHandle[int]) -> int | None:
                try:
                    return await handle.result()
                except JobEnded as error:  # it failed, timed out or was canceled
                    console.print(f"{path.name}: {error}", soft_wrap=True, highlight=False)
                    return None
                finally:
                    progress.advance(bar)

            sizes = await asyncio.gather(*(follow(*each) for each in zip(pictures, handles, strict=True)))
    done = [size for size in sizes if size is not None]
    print(f"{len(done)} of {len(pictures)} thumbnails in {target}, {sum(done) // 1024} KiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make thumbnails of a folder of pictures.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("thumbnail-files"))
    parser.add_argument("--width", type=int, default=200)
    parser.add_argument("--make", type=int, default=24, help="pictures to make where the folder is not there")
    chosen = parser.parse_args()
    if not chosen.folder.exists():
        make_pictures(chosen.folder, chosen.make)
    asyncio.run(main(chosen.folder, chosen.width))

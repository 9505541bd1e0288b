"""A model trained in an environment of its own: neither this program nor its engine has scikit-learn.

    uv run examples/train_model.py

The first run builds the environment with uv (tens of megabytes from the package index, kept in the
user's cache); later ones find it. Progress and logs are followed while the job runs.
"""

import asyncio
import logging
import tempfile
from pathlib import Path

from asyncjobs import JobEngine, JobHandle, current_job, job


@job(pip_requirements=["scikit-learn>=1.5"], timeout=300, memory_limit=4 * 1024**3)
def train(trees: int, rounds: int) -> dict[str, float]:
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import train_test_split

    log = logging.getLogger("training")
    images, digits = load_digits(return_X_y=True)
    seen, unseen, right, wanted = train_test_split(images, digits, random_state=1)
    forest = RandomForestClassifier(n_estimators=0, warm_start=True, random_state=1)
    accuracy = 0.0
    for number in range(1, rounds + 1):
        forest.n_estimators = trees * number // rounds
        forest.fit(seen, right)
        accuracy = forest.score(unseen, wanted)
        log.info("%d trees: %.3f of %d digits read rightly", forest.n_estimators, accuracy, len(wanted))
        current_job().progress(number, rounds, unit="rounds", phase="training")
        current_job().update_details({"accuracy": round(accuracy, 3)})
    return {"accuracy": round(accuracy, 3), "trees": trees}


async def show_logs(handle: JobHandle[dict[str, float]]) -> None:
    async for chunk in handle.logs(follow=True):
        print(chunk.text, end="", flush=True)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with JobEngine(f"sqlite:///{Path(folder)}/jobs.db", jobs=[train]) as engine:
            print("preparing the environment ...", flush=True)
            await engine.prepare()
            handle = await engine.submit(train, trees=100, rounds=5)
            async with asyncio.TaskGroup() as group:
                group.create_task(show_logs(handle), name="logs")
                result = await handle.result(timeout=600)
            progress = await handle.progress()
            assert progress is not None
            print(f"{progress.completed:g} of {progress.total:g} {progress.unit}, {progress.details}")
            print(f"a forest of {result['trees']} trees reads {result['accuracy']:.1%} of the digits")


if __name__ == "__main__":
    asyncio.run(main())

"""Jobs with environments of their own: their module imports nothing that those don't have."""

from asyncjobs import job


def version_of_isodate() -> str:
    from importlib.metadata import version

    import isodate  # type: ignore[import-not-found]  # noqa: F401

    return version("isodate")


older = job("older", pip_requirements=["isodate==0.6.1"])(version_of_isodate)
newer = job("newer", pip_requirements=["isodate==0.7.2"])(version_of_isodate)
absent = job("absent", pip_requirements=["no-package-has-this-name-of-ours"], max_retries=3)(version_of_isodate)

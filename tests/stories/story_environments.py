"""Jobs with environments of their own: their module imports nothing that those don't have."""

import sys

from asyncjobs import job


def version_of_isodate() -> str:
    from importlib.metadata import version

    import isodate  # type: ignore[import-not-found]  # noqa: F401

    return version("isodate")


def folder_of_the_interpreter() -> str:
    return sys.prefix


bare = job("bare", python_version=f"{sys.version_info[0]}.{sys.version_info[1]}")(folder_of_the_interpreter)
older = job("older", pip_requirements=["isodate==0.6.1"])(version_of_isodate)
newer = job("newer", pip_requirements=["isodate==0.7.2"])(version_of_isodate)
absent = job("absent", pip_requirements=["no-package-has-this-name-of-ours"], max_retries=3)(version_of_isodate)

"""Jobs in a module that imports next to nothing."""

import sys

from asyncjobs import job


@job
def nothing() -> None:
    pass


@job
def modules() -> list:  # type: ignore[type-arg]
    return sorted(sys.modules)


@job
def most_digits() -> int:
    return sys.get_int_max_str_digits()


@job
def parent() -> int:
    import posix

    return posix.getppid()


@job
def descriptors() -> list:
    import posix

    found = []
    for each in range(256):
        try:
            posix.fstat(each)
        except OSError:
            continue
        found.append(each)
    return found


@job
def log(own: bool = False) -> None:
    import logging

    if own:
        logging.basicConfig(level=logging.DEBUG, format="own %(message)s", stream=sys.stderr)
    logging.getLogger("files").debug("looking")
    logging.getLogger("files").info("counting")


@job
async def log_async() -> None:
    import logging

    logging.getLogger("files").info("counting")

"""An exception as plain data: what a reply says of it, and what a `JobError` is made of.

A job's process loads this file by path, and only once a job has failed, since `traceback` is dear
(15 ms): standard library only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType
    from typing import Any

LONGEST_MESSAGE = 8 * 1024
LONGEST_TRACEBACK = 64 * 1024
LONGEST_NAME = 500
MAIN_AGAIN = "__mp_main__"
TRANSIENT_ERROR = "asyncjobs.errors.TransientError"
RETRY = "asyncjobs.errors.Retry"
CANCEL = "asyncjobs.errors.Cancel"


def described(error: BaseException, *, kind: str, own_files: Collection[str] = ()) -> dict[str, Any]:
    """Return a failed attempt's header: kind, class name, message, traceback and the classes' names.

    Frames of `own_files` are left out of the traceback, and so is whatever called them. Nothing that
    the exception's own methods do can make this fail.
    """
    names = mro_names(type(error))
    shown: Any = error
    if TRANSIENT_ERROR in names:
        shown = getattr(error, "origin_error", error)
    header: dict[str, Any] = {
        "ok": False,
        "kind": kind,
        "class_name": class_name(type(shown if isinstance(shown, BaseException) else error)),
        "message": message_of(shown),
        "traceback": traceback_text(error, own_files),
        "mro": names,
    }
    if RETRY in names:
        header["retry_after"] = _number(getattr(error, "after", None))
    if CANCEL in names:
        header["cancel"] = message_of(getattr(error, "reason", ""))
    return header


def mro_names(kind: type) -> list[str]:
    """Return the dotted names of a class and its bases, as the engine knows them."""
    return [f"{_module(each)}.{each.__qualname__}"[:LONGEST_NAME] for each in kind.__mro__[:100]]


def class_name(kind: type) -> str:
    """Return the name of a class, with its module unless it is built in."""
    module = _module(kind)
    name = kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    return name[:LONGEST_NAME]


def message_of(error: Any) -> str:
    """Return what an exception says, or that it can't say it."""
    if isinstance(error, SystemExit):
        return f"exited with code {_shown_code(error.code)} (SystemExit)"
    try:
        text = str(error)
    except BaseException as problem:  # whatever the job's own __str__ raises
        text = f"<its str() raised {type(problem).__qualname__}>"
    return shortened(text, LONGEST_MESSAGE)


def exit_code(error: SystemExit) -> int:
    """Return the code with which a process ends that nobody kept from exiting."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def shortened(text: str, limit: int) -> str:
    """Return the text, or its two ends when it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def traceback_text(error: BaseException, own_files: Collection[str]) -> str | None:
    """Return the traceback as Python prints it, or None when it can't be made."""
    try:
        import traceback

        frames = _outside(error.__traceback__, own_files)
        lines = traceback.format_exception(type(error), error, frames)
        text = "".join(lines).replace(MAIN_AGAIN, "__main__")
    except BaseException:  # foreign code is asked for its source, its str, its repr
        return None
    return shortened(text, LONGEST_TRACEBACK)


def _outside(frames: TracebackType | None, own_files: Collection[str]) -> TracebackType | None:
    """Return the part below the last call made by our own code, without our signal handler at its end."""
    chain: list[TracebackType] = []
    while frames is not None:
        chain.append(frames)
        frames = frames.tb_next
    if len(chain) > 1 and _is_own(chain[-1], own_files) and not _is_own(chain[-2], own_files):
        chain.pop()
        chain[-1].tb_next = None
    while any(_is_own(each, own_files) for each in chain):
        del chain[0]
    return chain[0] if chain else None


def _is_own(frame: TracebackType, own_files: Collection[str]) -> bool:
    return frame.tb_frame.f_code.co_filename in own_files


def _module(kind: type) -> str:
    module = getattr(kind, "__module__", None)
    return "__main__" if module == MAIN_AGAIN else str(module)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _shown_code(code: object) -> str:
    if code is None:
        return "0"
    return str(code) if isinstance(code, int) else message_of(code)

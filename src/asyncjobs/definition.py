"""`@job`: a function with a name and the rules by which it runs.

User modules import this inside every job's process, where each millisecond counts: it imports
nothing but errors (no typing, dataclasses, inspect or functools; measured, they cost 10 to 30 ms).
"""

from __future__ import annotations

import sys

from asyncjobs.errors import DefinitionError, InvalidOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from datetime import datetime, timedelta
    from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

    P = ParamSpec("P")
    R = TypeVar("R")
    Seconds = float | timedelta
    RetryOn = Literal["timeout", "crash"]
    Isolation = Literal["fork", "spawn", "reuse", "inline"]

    class _Typed(Generic[P, R]):
        """At run time it is plain, so that `typing` need not be imported."""

else:
    P = R = None

    class _Typed:
        def __class_getitem__(cls, _parameters):
            return cls

    def overload(function):
        return function


ISOLATIONS = ("fork", "spawn", "reuse", "inline")
NAME_LENGTH = 200
PRIORITY_LIMIT = 1000
LONGEST_SECONDS = 10 * 365 * 86400.0
_COROUTINE_FLAG = 0x80  # inspect.CO_COROUTINE


class JobDefinition(_Typed[P, R]):
    """A function that can be submitted, with its name and options; made by `@job`, still callable.

    An option of None is taken from the settings of the client that submits. Times are seconds.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        max_workers: int = 1,
        timeout: Seconds | None = None,
        kill_grace: Seconds | None = None,
        max_retries: int | None = None,
        retry_delay: Seconds | None = None,
        retry_max_delay: Seconds | None = None,
        transient_error_classes: Iterable[type[BaseException]] = (),
        retry_on: Iterable[RetryOn] = (),
        isolation: Isolation | None = None,
        priority: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.function = _checked_function(function)
        self.name = _checked_name(function.__name__ if name is None else name)
        self.max_workers = _checked_int("max_workers", max_workers, least=1, most=10_000)
        self.timeout = _checked_seconds("timeout", timeout, least=0.001)
        self.kill_grace = _checked_seconds("kill_grace", kill_grace)
        self.max_retries = None if max_retries is None else _checked_int("max_retries", max_retries, least=0)
        self.retry_delay = _checked_seconds("retry_delay", retry_delay)
        self.retry_max_delay = _checked_seconds("retry_max_delay", retry_max_delay)
        self.transient_error_classes = _checked_classes(transient_error_classes)
        self.retry_on = _checked_retry_on(retry_on)
        self.isolation = _checked_isolation(isolation)
        self.priority = _checked_int("priority", priority, least=-PRIORITY_LIMIT, most=PRIORITY_LIMIT)
        self.env = _checked_env(env)
        if self.env and isolation == "inline":
            raise DefinitionError("isolation='inline' shares the engine's environment: it can't have an env of its own")
        self.run_at: datetime | None = None
        self.delay: float | None = None
        self.key: str | None = None
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def using(
        self,
        *,
        timeout: Seconds | None = None,
        kill_grace: Seconds | None = None,
        max_retries: int | None = None,
        retry_delay: Seconds | None = None,
        retry_max_delay: Seconds | None = None,
        priority: int | None = None,
        env: Mapping[str, str] | None = None,
        run_at: datetime | None = None,
        delay: Seconds | None = None,
        key: str | None = None,
    ) -> JobDefinition[P, R]:
        """Return a copy with options for one submission; None keeps what the definition says.

        `run_at` (aware) or `delay` says when the job may start at the earliest. `key` makes the
        submission idempotent: while a job of this name has the key, submitting again returns that
        job instead of making another. `env` is added to the definition's own.

        Raises:
            InvalidOptions: a value is out of range or of the wrong type; the message names it.
        """
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        try:
            for option, value in (
                ("timeout", timeout),
                ("kill_grace", kill_grace),
                ("retry_delay", retry_delay),
                ("retry_max_delay", retry_max_delay),
                ("delay", delay),
            ):
                if value is not None:
                    least = 0.001 if option == "timeout" else 0.0
                    setattr(copy, option, _checked_seconds(option, value, least=least))
            if max_retries is not None:
                copy.max_retries = _checked_int("max_retries", max_retries, least=0)
            if priority is not None:
                copy.priority = _checked_int("priority", priority, least=-PRIORITY_LIMIT, most=PRIORITY_LIMIT)
            if env and self.isolation == "inline":
                raise DefinitionError("a job of isolation='inline' can't have an env of its own")
            if env is not None:
                copy.env = {**self.env, **_checked_env(env)}
            if run_at is not None:
                copy.run_at = _checked_instant(run_at)
            if key is not None:
                copy.key = _checked_key(key)
        except DefinitionError as error:
            raise InvalidOptions(str(error)) from None
        if copy.run_at is not None and copy.delay is not None:
            raise InvalidOptions("give run_at or delay, not both")
        return copy

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Return a prepared call of this definition, for `submit_many`.

        Nothing is checked before it is submitted.
        """
        return Call(self, args, kwargs)

    def __repr__(self) -> str:
        return f"<job {self.name!r}: {self.__module__}.{self.__qualname__}>"


class FunctionJob(JobDefinition[P, R]):
    """A definition made of a `def`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, here and now; no job is made."""
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]


class CoroutineJob(JobDefinition[P, R]):
    """A definition made of an `async def`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function itself, here and now; no job is made."""
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]


class Call(_Typed[..., R]):
    """A definition with its arguments, not yet submitted."""

    __slots__ = ("args", "definition", "kwargs")

    def __init__(self, definition: JobDefinition[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.definition = definition
        self.args = args
        self.kwargs = kwargs


if TYPE_CHECKING:

    class _Decorator(Protocol):
        @overload
        def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineJob[P, R]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(self, function: Callable[P, R], /) -> FunctionJob[P, R]: ...


@overload
def job(name: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineJob[P, R]: ...  # type: ignore[overload-overlap]
@overload
def job(name: Callable[P, R], /) -> FunctionJob[P, R]: ...
@overload
def job(
    name: str | None = None,
    *,
    max_workers: int = 1,
    timeout: Seconds | None = None,
    kill_grace: Seconds | None = None,
    max_retries: int | None = None,
    retry_delay: Seconds | None = None,
    retry_max_delay: Seconds | None = None,
    transient_error_classes: Iterable[type[BaseException]] = (),
    retry_on: Iterable[RetryOn] = (),
    isolation: Isolation | None = None,
    priority: int = 0,
    env: Mapping[str, str] | None = None,
) -> _Decorator: ...
def job(name: Any = None, **options: Any) -> Any:
    """Make a function a job that can be submitted; bare (`@job`) or called (`@job(timeout=30)`).

    Args:
        name: what the job is called in the store; the function's own name by default.
        max_workers: how many of it one engine runs at a time.
        timeout: seconds an attempt may take, from the start of its process.
        kill_grace: seconds between asking a job to end and killing it.
        max_retries: how often a transient error is retried.
        retry_delay: seconds before the first retry; doubles with each.
        retry_max_delay: the most that it grows to.
        transient_error_classes: exceptions (and their subclasses) worth a retry, besides
            `TransientError` and `Retry`.
        retry_on: makes these ends transient too: `"timeout"`, `"crash"`.
        isolation: `"fork"`, `"spawn"`, `"reuse"` or `"inline"`.
        priority: jobs of a higher one are started first.
        env: environment variables for the job's process alone; in no record, event or log.

    Raises:
        DefinitionError: the function is a lambda, nested or a method, or an option is out of range.
    """
    if name is None or isinstance(name, str):

        def decorate(function: Any) -> Any:
            return _define(function, name=name, **options)

        return decorate
    if options:
        raise DefinitionError("options go before the function: @job(timeout=30), or job(timeout=30)(function)")
    return _define(name)


def _define(function: Any, **options: Any) -> JobDefinition[..., Any]:
    _checked_function(function)
    kind = CoroutineJob if function.__code__.co_flags & _COROUTINE_FLAG else FunctionJob
    return kind(function, **options)


def location(definition: JobDefinition[..., Any]) -> str:
    """Return where the definition's function stands, as `module.function`."""
    return f"{definition.function.__module__}.{definition.function.__qualname__}"


def unloadable_reason(definition: JobDefinition[..., Any]) -> str | None:
    """Say why another process could not load the function, or None when it can."""
    if definition.function.__module__ != "__main__":
        return None
    main = sys.modules.get("__main__")
    if getattr(main, "__spec__", None) is not None:
        return None
    file = getattr(main, "__file__", None)
    if file is not None and "ipykernel" not in sys.modules:
        return None
    return (
        f"the job {definition.name!r} is defined in a notebook, REPL, -c or standard input, where its own "
        f"process can't find it: move it into a module and import it, or give it isolation='inline'"
    )


def _checked_function(function: Any) -> Callable[..., Any]:
    if isinstance(function, JobDefinition):
        raise DefinitionError(f"{function!r} is a job already: use job(...)({function.__name__}.function)")
    if not hasattr(function, "__code__") or not hasattr(function, "__qualname__"):
        raise DefinitionError(f"@job takes a function, not {function!r}")
    flags = function.__code__.co_flags
    if flags & 0x20 or flags & 0x200:  # inspect.CO_GENERATOR, CO_ASYNC_GENERATOR
        raise DefinitionError(f"{function.__qualname__} is a generator: a job returns its result at once")
    where = f"{function.__module__}.{function.__qualname__}"
    if function.__name__ == "<lambda>":
        raise DefinitionError(f"a lambda can't be a job ({where}): give it a name with `def`")
    if "<locals>" in function.__qualname__:
        raise DefinitionError(f"{where} is nested: a job must stand at the top of a module")
    if "." in function.__qualname__:
        raise DefinitionError(f"{where} is a method: a job must be a function at the top of a module")
    return function  # type: ignore[no-any-return]


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise DefinitionError(f"a job's name has 1 to {NAME_LENGTH} printable characters, not {name!r}")
    if "," in name or name != name.strip():
        raise DefinitionError(f"a job's name has no comma and no space around it, not {name!r}")
    return name


def _checked_int(option: str, value: Any, *, least: int, most: int = 1_000_000) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise DefinitionError(f"{option} must be a whole number from {least} to {most}, not {value!r}")
    return value


def _checked_seconds(option: str, value: Any, *, least: float = 0.0) -> float | None:
    if value is None:
        return None
    seconds = value.total_seconds() if hasattr(value, "total_seconds") else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise DefinitionError(f"{option} takes seconds or a timedelta, not {value!r}")
    if not least <= seconds <= LONGEST_SECONDS:
        raise DefinitionError(f"{option} must be from {least:g} to {LONGEST_SECONDS:g} seconds, not {value!r}")
    return float(seconds)


def _checked_classes(classes: Any) -> tuple[type[BaseException], ...]:
    listed = tuple(classes) if isinstance(classes, (list, tuple, set, frozenset)) else None
    if listed is None or not all(isinstance(each, type) and issubclass(each, BaseException) for each in listed):
        raise DefinitionError(f"transient_error_classes takes a list of exception classes, not {classes!r}")
    return listed


def _checked_retry_on(ends: Any) -> tuple[RetryOn, ...]:
    listed = tuple(ends) if isinstance(ends, (list, tuple, set, frozenset)) else None
    if listed is None or not all(each in ("timeout", "crash") for each in listed):
        raise DefinitionError(f'retry_on takes a list of "timeout" and "crash", not {ends!r}')
    return listed


def _checked_isolation(isolation: Any) -> Isolation | None:
    if isolation is not None and isolation not in ISOLATIONS:
        raise DefinitionError(f"isolation must be one of {', '.join(ISOLATIONS)}, not {isolation!r}")
    return isolation  # type: ignore[no-any-return]


def _checked_env(env: Any) -> dict[str, str]:
    if env is None:
        return {}
    if not hasattr(env, "items"):
        raise DefinitionError("env takes a mapping of names to texts")
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise DefinitionError(f"env has a name that no variable can have: {name!r}")
        if not isinstance(value, str) or "\0" in value:
            raise DefinitionError(f"the value of {name!r} in env must be a text without NUL")
    return dict(env)


def _checked_instant(run_at: Any) -> datetime:
    if not hasattr(run_at, "utcoffset") or not hasattr(run_at, "year"):
        raise DefinitionError(f"run_at takes a datetime, not {run_at!r}")
    if run_at.utcoffset() is None:
        raise DefinitionError("run_at must be aware: datetime.now(UTC), not datetime.now()")
    return run_at  # type: ignore[no-any-return]


def _checked_key(key: Any) -> str:
    if not isinstance(key, str) or not key or len(key) > 500 or "\0" in key:
        raise DefinitionError(f"key takes a text of 1 to 500 characters, not {key!r}")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise DefinitionError(f"key takes a text that UTF-8 can write, not {key!r}") from None
    return key

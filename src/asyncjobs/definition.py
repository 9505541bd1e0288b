"""`@job`: a function with a name and the rules by which it runs.

User modules import this inside every job's process, where each millisecond counts: it imports
nothing but errors (no typing, dataclasses, inspect or functools; measured, they cost 10 to 30 ms).
"""

from __future__ import annotations

import sys

from asyncjobs.errors import DefinitionError, InvalidOptions
from asyncjobs.options import (
    MOST_WORKERS,
    PRIORITY_LIMIT,
    checked_classes,
    checked_env,
    checked_instant,
    checked_int,
    checked_isolation,
    checked_key,
    checked_lines,
    checked_name,
    checked_optional,
    checked_retry_on,
    checked_seconds,
    checked_version,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from datetime import datetime, timedelta
    from typing import Any, Generic, Never, ParamSpec, Protocol, TypeVar, overload

    from asyncjobs.options import Isolation, RetryOn

    P = ParamSpec("P")
    R = TypeVar("R")
    Seconds = float | timedelta

    class _Typed(Generic[P, R]):
        """At run time it is plain, so that `typing` need not be imported."""

else:
    P = R = None

    class _Typed:
        def __class_getitem__(cls, _parameters):
            return cls

    def overload(function):
        return function


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
        max_running: int | None = None,
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
        memory_limit: int | None = None,
        cpu_limit: Seconds | None = None,
        max_output: int | None = None,
        open_files: int | None = None,
        process_limit: int | None = None,
        nice: int = 0,
        python_version: str | None = None,
        pip_requirements: Iterable[str] = (),
    ) -> None:
        self.function = _checked_function(function)
        self.name = checked_name(function.__name__ if name is None else name)
        self.max_workers = checked_int("max_workers", max_workers, least=1, most=MOST_WORKERS)
        self.max_running = checked_optional("max_running", max_running, least=1)
        self.timeout = checked_seconds("timeout", timeout, least=0.001)
        self.kill_grace = checked_seconds("kill_grace", kill_grace)
        self.max_retries = None if max_retries is None else checked_int("max_retries", max_retries, least=0)
        self.retry_delay = checked_seconds("retry_delay", retry_delay)
        self.retry_max_delay = checked_seconds("retry_max_delay", retry_max_delay)
        self.transient_error_classes = checked_classes(transient_error_classes)
        self.retry_on = checked_retry_on(retry_on)
        self.isolation = checked_isolation(isolation)
        self.priority = checked_int("priority", priority, least=-PRIORITY_LIMIT, most=PRIORITY_LIMIT)
        self.env = checked_env(env)
        if self.env and isolation == "inline":
            raise DefinitionError("isolation='inline' shares the engine's environment: it can't have an env of its own")
        self.memory_limit = checked_optional("memory_limit", memory_limit, least=1024 * 1024)
        self.cpu_limit = checked_seconds("cpu_limit", cpu_limit, least=1)
        self.max_output = checked_optional("max_output", max_output, least=0)
        self.open_files = checked_optional("open_files", open_files, least=16)
        self.process_limit = checked_optional("process_limit", process_limit, least=1)
        self.nice = checked_int("nice", nice, least=0, most=19)
        self.python_version = checked_version(python_version)
        self.pip_requirements = checked_lines(pip_requirements)
        if isolation == "inline" and self.needs_a_process():
            raise DefinitionError(
                "isolation='inline' shares the engine's process: limits and environments need another"
            )
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
        **unknown: Never,
    ) -> JobDefinition[P, R]:
        """Return a copy with options for one submission; None keeps what the definition says.

        `run_at` (aware) or `delay` says when the job may start at the earliest. `key` makes the
        submission idempotent: while a job of this name has the key, submitting again returns that
        job instead of making another. `env` is added to the definition's own.

        Raises:
            InvalidOptions: there is no such option, or its value is out of range or of the wrong type; the
                message names it.
        """
        if unknown:
            raise InvalidOptions(_no_option_of_a_submission(next(iter(unknown))))
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
                    setattr(copy, option, checked_seconds(option, value, least=least))
            if max_retries is not None:
                copy.max_retries = checked_int("max_retries", max_retries, least=0)
            if priority is not None:
                copy.priority = checked_int("priority", priority, least=-PRIORITY_LIMIT, most=PRIORITY_LIMIT)
            if env and self.isolation == "inline":
                raise DefinitionError("a job of isolation='inline' can't have an env of its own")
            if env is not None:
                copy.env = {**self.env, **checked_env(env)}
            if run_at is not None:
                copy.run_at = checked_instant(run_at)
            if key is not None:
                copy.key = checked_key(key)
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

    def needs_a_process(self) -> bool:
        """Whether it asks for what `inline` can't give: variables, limits or an environment of its own."""
        limits = (self.memory_limit, self.cpu_limit, self.open_files, self.process_limit, self.python_version)
        return bool(self.env or self.nice or self.pip_requirements) or any(each is not None for each in limits)

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
    max_running: int | None = None,
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
    memory_limit: int | None = None,
    cpu_limit: Seconds | None = None,
    max_output: int | None = None,
    open_files: int | None = None,
    process_limit: int | None = None,
    nice: int = 0,
    python_version: str | None = None,
    pip_requirements: Iterable[str] = (),
) -> _Decorator: ...
def job(name: Any = None, **options: Any) -> Any:
    """Make a function a job that can be submitted; bare (`@job`) or called (`@job(timeout=30)`).

    Seconds are numbers or a `timedelta`; what is None is as the settings say.

    Args:
        name: what the job is called in the store; the function's own name by default.
        max_workers: how many of it one engine runs at a time.
        max_running: how many of it run at a time over all engines on one database; the others wait.
        timeout: seconds an attempt may take, the import of its module included, the building of its environment not.
        kill_grace: seconds between asking a job to end and killing it.
        max_retries: how often a transient error is retried.
        retry_delay: seconds before the first retry; doubles with each.
        retry_max_delay: the most that it grows to.
        transient_error_classes: exceptions (and their subclasses) worth a retry, besides
            `TransientError` and `Retry`.
        retry_on: makes these ends transient too: `"timeout"`, `"crash"`.
        isolation: `"fork"` (a process of its own, forked from one that has imported its module; the default on
            Linux), `"spawn"` (a fresh interpreter), `"reuse"` (a warm process that runs one after another) or
            `"inline"` (the engine's own process, where nothing can be killed).
        priority: jobs of a higher one are started first.
        env: environment variables for the job's process alone; in no record, event or log.
        memory_limit: bytes of address space that a job may use beyond what its process begins with;
            beyond it, it gets a `MemoryError`.
        cpu_limit: seconds of processor time, after which an attempt is killed.
        max_output: bytes of output kept of an attempt, half of them its beginning and half its end. The
            second half can be read once the attempt has ended.
        open_files: how many descriptors a job may have open.
        process_limit: how many processes a job may have at once, its own among them; with more, it is
            killed with all of them. They are counted some times a second, threads are not.
        nice: how far a job stands back for other processes, 0 to 19.
        python_version: such as `"3.12"`: the job runs under this interpreter.
        pip_requirements: such as `["scikit-learn==1.7"]`: the job runs in an environment that has
            these, built by `uv` when it is first needed.

    Raises:
        DefinitionError: the function is a lambda, nested or a method, or an option is unknown or out of range.
    """
    for option in options:
        if option not in _OPTIONS:
            raise DefinitionError(_no_option_of_a_definition(option))
    if name is None or isinstance(name, str):

        def decorate(function: Any) -> Any:
            return _define(function, name=name, **options)

        return decorate
    if options:
        raise DefinitionError("options go before the function: @job(timeout=30), or job(timeout=30)(function)")
    return _define(name)


_OPTIONS: tuple[str, ...] = tuple(JobDefinition.__init__.__kwdefaults__ or ())
_OPTIONS_OF_ONE: tuple[str, ...] = tuple(JobDefinition.using.__kwdefaults__ or ())


def _no_option_of_a_definition(option: str) -> str:
    if option in _OPTIONS_OF_ONE:
        return f"{option} is of one submission, not of a definition: submit fn.using({option}=...)"
    from asyncjobs.nearest import unknown

    return f"@job has no option {unknown(option, _OPTIONS)}"


def _no_option_of_a_submission(option: str) -> str:
    if option in _OPTIONS:
        return f"{option} is of the definition, @job({option}=...): no single submission can have another"
    from asyncjobs.nearest import unknown

    return f"a submission has no option {unknown(option, _OPTIONS_OF_ONE)}"


def _define(function: Any, **options: Any) -> JobDefinition[..., Any]:
    _checked_function(function)
    if function.__module__ == "__main__":
        # What a job pickles names the script's classes so, as in multiprocessing's children: here they are found, too.
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])
    kind = CoroutineJob if function.__code__.co_flags & _COROUTINE_FLAG else FunctionJob
    return kind(function, **options)


def location(definition: JobDefinition[..., Any]) -> str:
    """Return where the definition's function stands, as `module.function`."""
    return f"{definition.function.__module__}.{definition.function.__qualname__}"


def _checked_function(function: Any) -> Callable[..., Any]:
    if isinstance(function, JobDefinition):
        raise DefinitionError(f"{function!r} is a job already: use job(...)({function.__name__}.function)")
    if not hasattr(function, "__code__") or not hasattr(function, "__qualname__"):
        raise DefinitionError(f"@job takes a function, not {function!r}")
    flags = function.__code__.co_flags
    if flags & 0x20 or flags & 0x200:  # inspect.CO_GENERATOR, CO_ASYNC_GENERATOR
        raise DefinitionError(f"{function.__qualname__} is a generator: a job returns its result at once, as a list")
    where = f"{function.__module__}.{function.__qualname__}"
    if function.__name__ == "<lambda>":
        raise DefinitionError(f"a lambda can't be a job ({where}): give it a name with `def`")
    if "<locals>" in function.__qualname__:
        raise DefinitionError(f"{where} is nested: a job must stand at the top of a module")
    if "." in function.__qualname__:
        raise DefinitionError(f"{where} is a method: a job must be a function at the top of a module")
    return function  # type: ignore[no-any-return]

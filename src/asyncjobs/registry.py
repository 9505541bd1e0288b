"""The definitions that a client knows, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from asyncjobs.definition import JobDefinition, location
from asyncjobs.errors import DefinitionError, DuplicateJobName, UnknownJobName
from asyncjobs.main_module import unloadable_reason

Definition = JobDefinition[..., Any]


class Registry:
    """Names and their definitions; a name belongs to one function."""

    def __init__(self, sources: Iterable[Definition | str | ModuleType], *, isolation: str) -> None:
        self._definitions: dict[str, Definition] = {}
        self._isolation = isolation
        if isinstance(sources, JobDefinition | str | ModuleType):
            sources = [sources]
        if not isinstance(sources, Iterable):
            raise DefinitionError(f"jobs= takes functions with @job, dotted names and modules, not {sources!r}")
        self.add_all(sources)

    def add_all(self, sources: Iterable[Definition | str | ModuleType]) -> None:
        """Register definitions, dotted names and whole modules; errors as of `add`."""
        for source in sources:
            for definition in _definitions_in(source):
                self.add(definition)

    def add(self, definition: Definition) -> None:
        """Register a definition; the same one again changes nothing.

        Raises:
            DuplicateJobName: another function has its name.
            DefinitionError: its own process could not load the function, it needs one and would have
                none, or a line of its `pip_requirements` is no requirement.
        """
        if self.holds(definition):
            return
        inline = (definition.isolation or self._isolation) == "inline"
        reason = unloadable_reason(definition)
        if reason is not None and not inline:
            raise DefinitionError(reason)
        if inline and definition.needs_a_process():
            raise DefinitionError(
                f"the job {definition.name!r} asks for variables, limits or an environment of its own, and the setting "
                f"isolation is 'inline', which has no process for them: give the job another with @job(isolation=...)"
            )
        if definition.pip_requirements:
            from asyncjobs.requirements import checked_requirements  # dear, and most have none

            checked_requirements(definition.pip_requirements)
        self._definitions[definition.name] = definition

    def holds(self, definition: Definition) -> bool:
        """Return whether a definition is registered, by its name and function.

        Raises:
            DuplicateJobName: another function has its name.
        """
        known = self._definitions.get(definition.name)
        if known is None:
            return False
        if known.function is not definition.function:
            raise DuplicateJobName(definition.name, location(known), location(definition))
        return True

    def get(self, name: str) -> Definition:
        """Return the definition of a name.

        Raises:
            UnknownJobName: nothing is registered under it.
        """
        try:
            return self._definitions[name]
        except (KeyError, TypeError):
            raise UnknownJobName(name, self._definitions) from None

    def __contains__(self, name: str) -> bool:
        return name in self._definitions

    def __iter__(self) -> Iterator[Definition]:
        return iter(self._definitions.values())


def _definitions_in(source: Definition | str | ModuleType) -> list[Definition]:
    if isinstance(source, JobDefinition):
        return [source]
    if isinstance(source, ModuleType):
        found = [each for each in vars(source).values() if isinstance(each, JobDefinition)]
        if not found:
            raise DefinitionError(f"the module {source.__name__} defines no jobs")
        return found
    if isinstance(source, str):
        return [_named(source)]
    raise DefinitionError(f"jobs= takes functions with @job, dotted names and modules, not {source!r}")


def _named(dotted: str) -> Definition:
    module_name, _, attribute = dotted.rpartition(".")
    if not module_name or not attribute:
        raise DefinitionError(f"{dotted!r} is no dotted name of a function: write 'package.module.function'")
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever its code raises
        why = f"{type(error).__name__}: {error}"
        raise DefinitionError(f"the module of {dotted!r} can't be imported ({why}): correct its name, or it") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise DefinitionError(f"{module_name} has no {attribute!r}: name a function there that is decorated with @job")
    if not isinstance(found, JobDefinition):
        raise DefinitionError(f"{dotted} is not a job: decorate it with @job")
    return found

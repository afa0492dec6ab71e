"""Definitions, compiled once each: the ones new executions take, and those that running ones are
pinned to.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from service.asl import StateMachine, compile_definition
from service.engine.ports import (
    Current,
    DefinitionStore,
    Published,
    StateMachineDoesNotExist,
)

COMPILED_MAX: Final = 1_000


class Definitions:
    """The `Machines` of a process, over the store that all replicas share."""

    def __init__(self, store: DefinitionStore) -> None:
        self._store = store
        self._currents: dict[str, Current] = {}
        self._publications = 0
        self._compiled: OrderedDict[bytes, StateMachine] = OrderedDict()

    async def current(self, name: str) -> StateMachine:
        """Return the definition that new executions of this machine take.

        What another replica published counts from the next `refresh`. Raises
        StateMachineDoesNotExist.
        """
        if name not in self._currents:
            await self.refresh()
        if name not in self._currents:
            raise StateMachineDoesNotExist(name)
        return await self.pinned(self._currents[name].sha256)

    async def pinned(self, definition: bytes) -> StateMachine:
        """Return the definition with this SHA-256."""
        machine = self.cached(definition)
        if machine is None:
            text = await self._store.definition(definition)
            if text is None:
                raise LookupError(f"no definition has the SHA-256 {definition.hex()}")
            machine = self._keep(compile_definition(text))
        return machine

    def cached(self, definition: bytes) -> StateMachine | None:
        """Return a definition if it is compiled already."""
        machine = self._compiled.get(definition)
        if machine is not None:
            self._compiled.move_to_end(definition)
        return machine

    def is_current(self, name: str) -> bool:
        """Tell whether new executions of this machine can start, as far as this process knows."""
        return name in self._currents

    def role_arn(self, name: str) -> str | None:
        """Return the role that a machine was given, if it was."""
        current = self._currents.get(name)
        return None if current is None else current.role_arn

    def take(self, name: str, machine: StateMachine, role_arn: str | None) -> None:
        """Let new executions of a machine take what the store has just been told."""
        self._keep(machine)
        self._currents[name] = Current(machine.sha256, role_arn)
        self._publications += 1

    async def learn(self, name: str, sha256: bytes, role_arn: str | None) -> StateMachine:
        """Return a machine's definition as the store has just named it; executions that start now
        take it too, though another replica changed it a moment ago.
        """
        machine = await self.pinned(sha256)
        if self._currents.get(name) != (sha256, role_arn):
            self.take(name, machine, role_arn)
        return machine

    def drop(self, name: str) -> None:
        """Let no new execution of a machine start: the store has it as deleted."""
        self._currents.pop(name, None)
        self._publications += 1

    async def refresh(self) -> None:
        """Learn what is current now. Raises Unavailable."""
        before = self._publications
        currents = await self._store.currents()
        if before == self._publications:  # else they may be of before this process published
            self._currents = dict(currents)

    async def publish_file(
        self, name: str, file: str, machine: StateMachine, *, edited: bool
    ) -> Published:
        """Publish a file's definition by the rules of `DefinitionStore.publish_file`."""
        self._keep(machine)
        published = await self._store.publish_file(
            name, file, machine.text, machine.sha256, edited=edited
        )
        self._currents[name] = Current(published.current, self.role_arn(name))
        self._publications += 1
        return published

    def _keep(self, machine: StateMachine) -> StateMachine:
        self._compiled[machine.sha256] = machine
        while len(self._compiled) > COMPILED_MAX:
            self._compiled.popitem(last=False)
        return machine

"""Machines and executions as the Step Functions API keeps and reads them."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from uuid import UUID

import pytest

from service.engine.catalog import Created, Machine, MachineChange, MachineType, NewMachine
from service.engine.ports import Current
from service.store import Database, DefinitionRows, MachineRows
from service.store import catalog as module

TEXT, OTHER = '{"StartAt":"One"}', '{"StartAt":"Two"}'
REVISIONS = [UUID(int=n) for n in range(1, 5)]


def new(name: str = "flow", text: str = TEXT) -> NewMachine:
    digest = sha256(text.encode()).digest()
    return NewMachine(name, MachineType.EXPRESS, text, digest, "role", '{"level":"OFF"}', True)


def change(text: str | None = None, **fields: object) -> MachineChange:
    digest = None if text is None else sha256(text.encode()).digest()
    return MachineChange(text=text, sha256=digest, **fields)  # type: ignore[arg-type]


@pytest.fixture
def machines(database: Database) -> MachineRows:
    return MachineRows(database)


async def test_a_machine_is_kept_as_it_was_made(machines: MachineRows) -> None:
    machine, is_new = await machines.create(new())
    assert is_new
    assert machine == await machines.get("flow")
    assert machine == Machine(
        name="flow",
        type=MachineType.EXPRESS,
        sha256=new().sha256,
        file=None,
        role_arn="role",
        logging='{"level":"OFF"}',
        is_traced=True,
        revision=None,
        created_at=machine.created_at,
        updated_at=machine.created_at,
        is_deleted=False,
    )
    assert machine.is_made_like(new())
    assert not machine.is_made_like(new(text=OTHER))


async def test_a_name_is_taken_once(machines: MachineRows) -> None:
    made = await asyncio.gather(*(machines.create(new(text=f"{n}")) for n in range(5)))
    assert sorted(is_new for _, is_new in made) == [False] * 4 + [True]
    assert len({machine.sha256 for machine, _ in made}) == 1


async def test_what_is_current_is_what_new_executions_take(
    machines: MachineRows, database: Database
) -> None:
    await machines.create(new())
    definitions = DefinitionRows(database)
    assert await definitions.currents() == {"flow": Current(new().sha256, "role")}
    assert await definitions.definition(new().sha256) == TEXT
    await machines.delete("flow")
    assert await definitions.currents() == {}


async def test_only_what_changes_makes_a_revision_after_the_first(machines: MachineRows) -> None:
    await machines.create(new())
    revisions = []
    for revision, one in zip(
        REVISIONS,
        [change(TEXT), change(TEXT, role_arn="role"), change(OTHER), change(is_traced=True)],
        strict=True,
    ):
        machine = await machines.update("flow", one, revision)
        assert machine is not None
        revisions.append(machine.revision)
    assert revisions == [REVISIONS[0], REVISIONS[0], REVISIONS[2], REVISIONS[2]]


async def test_what_a_file_owns_or_nobody_made_is_left_alone(
    machines: MachineRows, database: Database
) -> None:
    await DefinitionRows(database).publish_file(
        "filed", "filed.asl.json", TEXT, new().sha256, edited=False
    )
    for name in ("filed", "none"):
        assert await machines.update(name, change(OTHER), REVISIONS[0]) is None
        assert not await machines.delete(name)
    filed = await machines.get("filed")
    assert filed is not None
    assert (filed.file, filed.sha256) == ("filed.asl.json", new().sha256)


async def test_a_deleted_name_may_be_taken_again(machines: MachineRows) -> None:
    await machines.create(new())
    await machines.update("flow", change(OTHER), REVISIONS[0])
    assert await machines.delete("flow")
    assert not await machines.delete("flow")
    assert await machines.page("", 10) == []
    deleted = await machines.get("flow")
    assert deleted is not None
    assert deleted.is_deleted
    again = await machines.create(new())
    assert again == Created(again.machine, True)
    assert (again.machine.revision, again.machine.is_deleted) == (None, False)


async def test_machines_are_bounded(machines: MachineRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MACHINES_MAX", 2)
    for name in ("a", "b"):
        await machines.create(new(name))
    assert not (await machines.create(new("a"))).is_new
    with pytest.raises(module.TooManyMachines):
        await machines.create(new("c"))
    assert await machines.get("c") is None
    assert [machine.name for machine in await machines.page("", 10)] == ["a", "b"]
    assert [machine.name for machine in await machines.page("a", 10)] == ["b"]

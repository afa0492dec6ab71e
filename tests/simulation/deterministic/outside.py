"""What is outside the replicas and outside the database: the mail server and the functions.

Both write down what reaches them, and by whom; and both see at once when something was performed
that no committed history knows of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

from service.engine.history import unpack
from service.engine.ports import HistoryRow, Key, Task
from tests.simulation.deterministic.network import Reply
from tests.simulation.deterministic.world import Process, World

SLOW_SHARE: Final = 0.2
SLOW_SECONDS: Final = 1.0
"""What some take to answer, for which their executions are in a replica's memory."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail, as far as its reader cares."""

    kind: str
    message_id: str
    recipient: str
    token: str

    def to_bytes(self) -> bytes:
        return "\n".join((self.kind, self.message_id, self.recipient, self.token)).encode()

    @classmethod
    def read(cls, message: bytes) -> Letter:
        return cls(*message.decode().split("\n"))


@dataclass(frozen=True, slots=True)
class Performed:
    """One effect outside: under which key, by which life of a replica, and when."""

    what: str
    key: UUID
    by: str
    at: float


class Outside:
    """The mail server and the functions, with their books."""

    def __init__(self, world: World) -> None:
        self.performed: list[Performed] = []
        self.letters: list[Letter] = []
        self.too_early: list[str] = []
        self.on_letter: Callable[[Letter], None] = lambda letter: None
        self.entered: dict[UUID, tuple[Key, str]] = {}  # by idempotency key: what is committed
        self.place: dict[Key, str] = {}  # the state that an execution has entered last
        self._world = world

    def hear(self, told: Sequence[HistoryRow]) -> None:
        """Learn from a commit which states were entered."""
        for row in told:
            for event in unpack(row.events):
                if event.type.endswith("StateEntered") and event.details is not None:
                    key = uuid5(row.key.id, str(event.id))
                    self.entered[key] = row.key, str(event.details["name"])
                    self.place[row.key] = str(event.details["name"])

    def take_mail(self, process: Process, message: bytes, reply: Reply) -> None:
        """Accept a mail: it is delivered from now on, whenever its sender learns of that."""
        letter = Letter.read(message)
        key = UUID(letter.message_id.strip("<>").partition("@")[0])
        self._note(f"mail {letter.kind}", key, process)
        self.letters.append(letter)
        self.on_letter(letter)
        self._answer(reply)

    def take_call(self, process: Process, task: Task, reply: Reply) -> None:
        """Have a function called."""
        self._note("function", task.idempotency_key, process)
        self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        random = self._world.random
        seconds = random.uniform(0.0, SLOW_SECONDS) if random.random() < SLOW_SHARE else 0.0
        self._world.after(seconds, lambda: reply(None, None))

    def _note(self, what: str, key: UUID, process: Process) -> None:
        world = self._world
        self.performed.append(Performed(what, key, process.name, world.now))
        world.say(process.name, f"performs {what} {key}")
        if key not in self.entered:
            self.too_early.append(f"{what} {key} by {process.name} at {world.now:.3f}")

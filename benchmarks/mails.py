"""The service under load, and two ways in which it sends no mail: unwritten, or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.options import Mail
from service.app import Service
from service.asl import Json
from service.config import Config
from service.engine.ports import Answer, CoroutineHandler, Task
from service.mail import SmtpTransport


async def _pretend(input: Json, task: Task) -> Answer:
    return Answer({"sent": True, "status": "pending"})


NO_MAIL_TASKS: Final[Mapping[str, CoroutineHandler]] = {
    f"send_{kind}_email": CoroutineHandler(_pretend)
    for kind in ("verification", "reminder", "welcome")
}
"""Tasks that do nothing: what is measured then is the engine, as with its peers."""


class Discard(SmtpTransport):
    """A transport whose mails are accepted and forgotten before any server hears of them."""

    def __init__(self) -> None:
        super().__init__("localhost", 25, "none")

    async def check(self) -> None:
        """Find nothing wrong."""

    async def send(self, sender: str, recipient: str, message: bytes) -> None:
        """Return at once."""


def service_with(config: Config, mail: Mail) -> Service:
    """Return the service, its mails treated so."""
    return Service(
        config,
        transport=Discard() if mail == "discard" else None,
        mail_tasks=NO_MAIL_TASKS if mail == "none" else None,
    )

"""How the functions that ship answer when a flow is simulated: by an account that exists nowhere.

The account functions read their input and word their answers by the very code that serves in
production; only the row that they ask the database for is made up here.
"""

from __future__ import annotations

from typing import Final

from service.asl import Json
from service.documents import dumps
from service.tasks.accounts import delete_unverified_account, get_account
from service.tasks.handlers import BUILT_IN
from service.tasks.inputs import read_account, read_whole_number

EXPIRES_IN_SECONDS_MAX: Final = 604_800
"""What `LINK_SECONDS_MAX` is unless an operator sets it."""


class SimulatedAccount:
    """One account, from pending to verified or expired."""

    functions: Final = BUILT_IN

    def __init__(self, data: Json = None) -> None:
        """Begin as pending; `data` is what the visitor left with the signup."""
        self._status = "pending"
        self._data = data

    def verify(self) -> bool:
        """Verify the account if it is pending, and return whether it was."""
        if self._status != "pending":
            return False
        self._status = "verified"
        return True

    def answer(self, function: str, input: Json) -> Json:
        """Return what a function that ships answers now. Raise ExecutionError for a bad input."""
        match function:
            case "get_account":
                return get_account(input).answer(self._row()).output
            case "delete_unverified_account":
                return self._delete(input)
            case "send_welcome_email":
                read_account(input)
                return {"sent": self._status == "verified", "status": self._status}
            case "send_verification_email" | "send_reminder_email":
                read_account(input)
                most = EXPIRES_IN_SECONDS_MAX
                read_whole_number(input, "expires_in_seconds", least=1, most=most, default=most)
                return {"sent": self._status == "pending", "status": self._status}
        raise ValueError(f"function: {function!r} is none of {', '.join(sorted(BUILT_IN))}")

    @staticmethod
    def acknowledges_signal(function: str, output: Json) -> bool:
        """Return whether an answer tells what the signal of a verification would."""
        if not isinstance(output, dict):
            return False
        if function == "get_account":
            return output.get("verified") is True
        return function == "delete_unverified_account" and output.get("status") == "verified"

    def _delete(self, input: Json) -> Json:
        handler = delete_unverified_account(input)
        is_deleted = self._status == "pending"
        if is_deleted:
            self._status, self._data = "expired", None
        return handler.answer({"status": self._status, "deleted": is_deleted}).output

    def _row(self) -> dict[str, object]:
        data = None if self._data is None else dumps(self._data).decode()
        return {"status": self._status, "data": data}

"""The functions that ship, for an account that exists nowhere: they answer as in production."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from service.asl import ExecutionError
from service.engine.ports import Answer
from service.tasks import ACCOUNT_TASKS
from service.tasks.handlers import BUILT_IN
from service.tasks.simulated import SimulatedAccount

INPUT: Final = {"account_id": "01970000-0000-7000-8000-000000000001"}


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_function_that_ships_refuses_what_it_refuses_in_production(name: str) -> None:
    with pytest.raises(ExecutionError, match="account_id: 'x' is not a UUID"):
        SimulatedAccount().answer(name, {"account_id": "x"})


@pytest.mark.parametrize("name", ["send_verification_email", "send_reminder_email"])
def test_a_mail_that_states_no_possible_time_is_refused(name: str) -> None:
    with pytest.raises(ExecutionError, match="expires_in_seconds: 0 is not an integer from 1 to"):
        SimulatedAccount().answer(name, {**INPUT, "expires_in_seconds": 0})


@pytest.mark.parametrize(
    ("row", "make"),
    [
        ({"status": "pending"}, lambda account: None),
        ({"status": "verified"}, SimulatedAccount.verify),
    ],
)
def test_an_answer_acknowledges_the_signal_as_in_production(
    row: dict[str, object], make: Callable[[SimulatedAccount], object]
) -> None:
    account = SimulatedAccount()
    make(account)
    row |= {"data": None, "deleted": row["status"] == "pending"}
    real = ACCOUNT_TASKS["get_account"](INPUT).answer(row)
    output = account.answer("get_account", INPUT)
    assert Answer(output, account.acknowledges_signal("get_account", output)) == real
    after = row | {"status": "expired"} if row["deleted"] else row
    real = ACCOUNT_TASKS["delete_unverified_account"](INPUT).answer(after)
    output = account.answer("delete_unverified_account", INPUT)
    assert Answer(output, account.acknowledges_signal("delete_unverified_account", output)) == real


def test_mails_tell_whether_they_were_sent() -> None:
    account = SimulatedAccount()
    sent = {name: account.answer(name, INPUT) for name in sorted(BUILT_IN) if "send" in name}
    account.verify()
    then = {name: account.answer(name, INPUT) for name in sorted(BUILT_IN) if "send" in name}
    assert [answer["sent"] for answer in sent.values()] == [True, True, False]  # type: ignore[index]
    assert [answer["sent"] for answer in then.values()] == [False, False, True]  # type: ignore[index]

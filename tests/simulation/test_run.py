"""A case being played: what its tasks answer, when its visitor verifies, and where it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest

from service.asl import RunTask
from service.cli import main
from service.engine.ids import key_of
from service.engine.ports import EffectHandler, Task
from service.simulation import failures_of, run
from service.tasks import ACCOUNT_TASKS, Registry
from tests.simulation.plays import ID, INPUT, came, chain, function, played

INVOKE: Final = "arn:aws:states:::lambda:invoke"


def test_results_are_given_in_order_and_the_last_one_from_then_on() -> None:
    definition = chain(
        A={"Resource": function("f"), "ResultPath": "$.a"},
        B={"Resource": function("f"), "ResultPath": "$.b"},
        C={"Resource": function("f"), "ResultPath": "$.c"},
    )
    one = played(definition, results={"f": [{"output": 1, "seconds": 2}, {"output": None}]})
    assert came(one) == ("SUCCEEDED", {**INPUT, "a": 1, "b": None, "c": None}, 2)


def test_a_result_of_the_state_goes_before_one_of_its_function() -> None:
    definition = chain(
        A={"Resource": function("f"), "ResultPath": "$.a"},
        B={"Resource": function("f"), "ResultPath": "$.b"},
    )
    results = {"f": [{"output": "f"}], "B": [{"output": "B"}]}
    assert played(definition, results=results).execution.output == {**INPUT, "a": "f", "b": "B"}


def test_an_error_is_retried_and_caught_as_in_production() -> None:
    retry = [{"ErrorEquals": ["Busy"], "IntervalSeconds": 10, "MaxAttempts": 2}]
    catch = [{"ErrorEquals": ["Broken"], "Next": "B", "ResultPath": "$.why"}]
    definition = chain(
        A={"Resource": function("f"), "Retry": retry, "Catch": catch}, B={"Type": "Succeed"}
    )
    results = {"f": [{"error": "Busy"}, {"error": "Broken", "cause": "beyond repair"}]}
    why = {"Error": "Broken", "Cause": "beyond repair"}
    assert came(played(definition, results=results)) == ("SUCCEEDED", {**INPUT, "why": why}, 10)


def test_an_answer_after_the_timeout_counts_for_nothing() -> None:
    catch = [{"ErrorEquals": ["States.Timeout"], "ResultPath": None, "Next": "B"}]
    definition = chain(
        A={"Resource": function("delete_unverified_account"), "TimeoutSeconds": 5, "Catch": catch},
        B={"Type": "Wait", "Seconds": 60},
        C={"Resource": function("get_account")},
    )
    one = played(definition, results={"A": [{"seconds": 6}]})
    pending = {"account_id": ID, "status": "pending", "verified": False}
    assert came(one) == ("SUCCEEDED", pending, 65)


def test_a_function_of_ones_own_needs_a_result_and_the_message_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.asl.json"
    file.write_text(json.dumps(chain(Price={"Resource": function("price_of_plan")})))
    assert main(["simulate", str(file)]) == 1
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "     state 'Price' calls the function 'price_of_plan', and nothing tells what that "
        "answers: add results for 'price_of_plan' or for 'Price'",
        "",
        "1 played: 1 FAIL (seed 1)",
    ]
    cases = {"results": {"price_of_plan": [{"output": 12}]}, "cases": [{"name": "told"}]}
    (tmp_path / "own.cases.json").write_text(json.dumps(cases))
    assert main(["simulate", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 played: 1 ran (seed 1)"


def test_an_invocation_names_its_function_in_its_input_and_is_answered_in_its_form() -> None:
    parameters = {"FunctionName.$": "$.name", "Payload": INPUT}
    definition = chain(A={"Resource": INVOKE, "Parameters": parameters})
    told = {"results": {"f": [{"output": 7}]}}
    for name in ("f", "f:prod", f"{function('f')}:$LATEST"):
        output = played(definition, input={"name": name}, **told).execution.output
        assert isinstance(output, dict)
        assert output["Payload"] == 7
    whole = {"A": [{"output": "whole"}]}
    assert played(definition, input={"name": "f"}, results=whole).execution.output == "whole"


def test_an_account_function_that_is_invoked_answers_as_in_production() -> None:
    parameters = {"FunctionName": "get_account", "Payload": INPUT}
    definition = chain(A={"Resource": INVOKE, "Parameters": parameters})
    registry = Registry(ACCOUNT_TASKS, region="r", account="a")
    resolved = registry.resolve(RunTask(1, 1, "A", INVOKE, parameters))
    assert isinstance(resolved, tuple)
    handler, payload = resolved
    assert isinstance(handler, EffectHandler)
    task = Task(key_of(UUID(ID)), "m", "n", "A", 1, 0)
    handler.effect(payload, task)
    answer = handler.answer({"status": "pending", "data": None})
    request_id, nobody = str(task.idempotency_key), str(UUID(int=0))
    expected = json.loads(json.dumps(answer.output).replace(request_id, nobody))
    assert played(definition).execution.output == expected


def test_a_resource_that_is_no_function_is_told_by_its_state() -> None:
    definition = chain(A={"Resource": "arn:aws:states:::sqs:sendMessage"})
    assert played(definition, results={"A": [{"output": 1}]}).execution.output == 1
    assert played(definition).problem == (
        "state 'A' calls arn:aws:states:::sqs:sendMessage, and nothing tells what that answers: "
        "add results for 'A'"
    )


def test_a_visitor_at_the_very_end_of_a_wait_is_in_time() -> None:
    definition = chain(A={"Type": "Wait", "Seconds": 60}, B={"Resource": function("get_account")})
    in_time, late = (played(definition, verified_at=at) for at in (60, 60.001))
    verified = {"account_id": ID, "status": "verified", "verified": True}
    assert came(in_time) == ("SUCCEEDED", verified, 60)
    assert came(late) == ("SUCCEEDED", verified | {"status": "pending", "verified": False}, 60)


def test_a_verification_before_any_wait_ends_the_next_one_unless_a_task_has_told_of_it() -> None:
    wait = {"Type": "Wait", "Seconds": 60}
    look = {"Resource": function("get_account"), "ResultPath": None}
    slow = [{"seconds": 10}]
    unseen = chain(A={"Resource": function("f"), "ResultPath": None}, B=dict(wait))
    seen = chain(A={"Resource": function("f")}, B=dict(look), C=dict(wait))
    results = {"f": [{"seconds": 10, "output": INPUT}]}
    assert played(unseen, verified_at=5, results=results).seconds == 10
    assert played(seen, verified_at=5, results=results).seconds == 70
    told = {"output": {"verified": True}}
    assert played(seen, verified_at=5, results=results | {"get_account": [told]}).seconds == 70
    assert played(chain(A=dict(look), B=wait), verified_at=5, results={"A": slow}).seconds == 70


def test_a_deleted_account_cannot_be_verified_any_more() -> None:
    definition = chain(
        A={"Resource": function("delete_unverified_account")}, B={"Type": "Wait", "Seconds": 60}
    )
    one = played(definition, verified_at=30)
    assert came(one) == ("SUCCEEDED", {"deleted": True, "status": "expired"}, 60)
    assert one.verified_at is None


def test_the_flow_sees_the_parts_of_data_that_it_names() -> None:
    parameters = {"account_id.$": "$.account_id", "fields": ["data.plan"]}
    definition = chain(A={"Resource": function("get_account"), "Parameters": parameters})
    one = played(definition, data={"plan": "pro", "secret": 1})
    pending = {"account_id": ID, "status": "pending", "verified": False}
    assert one.execution.output == pending | {"data": {"plan": "pro"}}


def test_the_same_seed_gives_the_same_jitter() -> None:
    retry = {"ErrorEquals": ["E"], "JitterStrategy": "FULL", "IntervalSeconds": 1000}
    definition = chain(A={"Resource": function("f"), "Retry": [retry]})
    results = {"f": [{"error": "E"}, {"output": 1}]}
    first, again, other = (played(definition, seed=s, results=results).seconds for s in (1, 1, 2))
    assert first == again != other


def test_a_case_does_not_last_longer_than_ten_years() -> None:
    nine = {"Type": "Wait", "Seconds": 9 * 366 * 86_400 // 3}
    states = [{**nine, "Seconds": 90_000_000} for _ in range(4)]
    one = played(chain(A=states[0], B=states[1], C=states[2], D=states[3]))
    assert came(one) == ("RUNNING", None, 270_000_000)
    assert failures_of(one) == ["still RUNNING after 316224000 seconds"]


def test_a_loop_ends_with_its_history_and_a_case_with_its_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never = [{"Variable": "$.account_id", "IsNull": True, "Next": "C"}]
    definition = chain(
        A={"Type": "Wait", "Seconds": 1},
        B={"Type": "Choice", "Choices": never, "Default": "A"},
        C={"Type": "Succeed"},
    )
    status, error, _ = came(played(definition))
    assert (status, error) == ("FAILED", "States.Runtime")
    monkeypatch.setattr(run, "STEPS_MAX", 3)
    assert played(definition).problem == "still RUNNING after 3 steps"

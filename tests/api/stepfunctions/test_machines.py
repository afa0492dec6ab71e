"""State machines are created, changed, shown, listed and deleted as the service does it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.asl import compile_definition
from tests.api.stepfunctions.conftest import (
    OTHER,
    PASS,
    REST,
    ROLE,
    Api,
    machine_arn,
    without_times,
)
from tests.engine.harness import definition, task

LOG_GROUP = {
    "cloudWatchLogsLogGroup": {"logGroupArn": "arn:aws:logs:us-east-1:000000000000:log-group:g:*"}
}
DEFAULTS = {
    "loggingConfiguration": {"level": "OFF", "includeExecutionData": False},
    "tracingConfiguration": {"enabled": False},
    "encryptionConfiguration": {"type": "AWS_OWNED_KEY"},
}


async def test_a_created_machine_is_shown_with_all_defaults(api: Api) -> None:
    arn = await api.create("flow")
    assert arn == machine_arn("flow")
    shown = await api.call("DescribeStateMachine", stateMachineArn=arn)
    assert without_times(shown) == {
        "stateMachineArn": arn,
        "name": "flow",
        "status": "ACTIVE",
        "type": "STANDARD",
        "roleArn": ROLE,
        "definition": PASS,
        **DEFAULTS,
    }


async def test_what_was_said_of_logging_and_tracing_is_shown(api: Api) -> None:
    logging = {"level": "ERROR", "includeExecutionData": True, "destinations": [LOG_GROUP]}
    arn = await api.create(
        "flow", loggingConfiguration=logging, tracingConfiguration={"enabled": True}
    )
    shown = await api.call("DescribeStateMachine", stateMachineArn=arn)
    assert shown["loggingConfiguration"] == logging
    assert shown["tracingConfiguration"] == {"enabled": True}


@pytest.mark.parametrize(
    "logging",
    [
        {"level": "ALL"},
        {"level": "FATAL", "destinations": []},
        {"level": "OFF", "destinations": [LOG_GROUP, LOG_GROUP]},
    ],
)
async def test_logging_needs_exactly_one_destination(api: Api, logging: Any) -> None:
    assert await api.error(
        "CreateStateMachine",
        name="flow",
        definition=PASS,
        roleArn=ROLE,
        loggingConfiguration=logging,
    ) == (
        "InvalidLoggingConfiguration",
        "Invalid Logging Configuration: Must specify exactly one Log Destination.",
    )


@pytest.mark.parametrize("destination", [{}, {"cloudWatchLogsLogGroup": {}}])
async def test_a_destination_without_a_log_group_is_refused(api: Api, destination: Any) -> None:
    logging = {"level": "ALL", "destinations": [destination]}
    assert await api.error(
        "CreateStateMachine",
        name="flow",
        definition=PASS,
        roleArn=ROLE,
        loggingConfiguration=logging,
    ) == (
        "InvalidLoggingConfiguration",
        "Invalid Logging Configuration: a destination names no log group.",
    )


async def test_the_same_machine_may_be_created_again_and_no_other(api: Api) -> None:
    same = {"name": "flow", "definition": PASS, "roleArn": ROLE}
    first = await api.call("CreateStateMachine", **same)
    other_role = same | {"roleArn": ROLE + "-other"}
    assert await api.call("CreateStateMachine", **other_role) == first
    assert await api.error("CreateStateMachine", **(same | {"definition": OTHER})) == (
        "StateMachineAlreadyExists",
        f"State Machine Already Exists: '{machine_arn('flow')}'",
    )


async def test_an_express_machine_waits_for_nobody(api: Api) -> None:
    waiting = {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution.sync"}
    text = definition("Wait", Wait={**waiting, "End": True})
    reason = (
        "SCHEMA_VALIDATION_FAILED: Express state machine does not support '.sync' service "
        "integration at /States/Wait/Resource"
    )
    refused = ("InvalidDefinition", f"Invalid State Machine Definition: '{reason}'")
    express = {"roleArn": ROLE, "type": "EXPRESS"}
    assert await api.error("CreateStateMachine", name="flow", definition=text, **express) == refused
    made = await api.call("CreateStateMachine", name="flow", definition=PASS, **express)
    arn = made["stateMachineArn"]
    assert await api.error("UpdateStateMachine", stateMachineArn=arn, definition=text) == refused
    checked = await api.call("ValidateStateMachineDefinition", definition=text, type="EXPRESS")
    assert checked["diagnostics"][0]["code"] == "SCHEMA_VALIDATION_FAILED"


async def test_what_is_wrong_with_a_definition_is_told_with_its_places(api: Api) -> None:
    text = definition("A", A={"Type": "Pass", "Next": "Gone"}, B=task("nothing", End=True))
    code, message = await api.error(
        "CreateStateMachine", name="flow", definition=text, roleArn=ROLE
    )
    assert code == "InvalidDefinition"
    assert message.startswith("Invalid State Machine Definition: 'MISSING_TRANSITION_TARGET: ")
    assert " at /States/A/Next" in message
    missing = definition("B", B=task("nothing", End=True))
    assert await api.error("CreateStateMachine", name="flow", definition=missing, roleArn=ROLE) == (
        "InvalidDefinition",
        "Invalid State Machine Definition: "
        "'UNKNOWN_RESOURCE: no handler is named 'nothing' at /States/B/Resource'",
    )


@pytest.mark.parametrize("name", ["a b", "a/b", "a:b", "a\nb", "a*", "\x7f", "{}"])
async def test_a_name_with_what_is_not_allowed_is_refused(api: Api, name: str) -> None:
    assert await api.error("CreateStateMachine", name=name, definition=PASS, roleArn=ROLE) == (
        "InvalidName",
        f"Invalid Name: '{name}'",
    )


async def test_every_broken_constraint_is_told_at_once(api: Api) -> None:
    assert await api.error("CreateStateMachine", name="", definition=PASS, type="FAST") == (
        "ValidationException",
        "3 validation errors detected: "
        "Value '' at 'name' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1; "
        "Value null at 'roleArn' failed to satisfy constraint: Member must not be null; "
        "Value 'FAST' at 'type' failed to satisfy constraint: "
        "Member must satisfy enum value set: [STANDARD, EXPRESS]",
    )


async def test_a_place_in_a_list_is_counted_from_one(api: Api) -> None:
    destinations = [LOG_GROUP, {"cloudWatchLogsLogGroup": {"logGroupArn": ""}}]
    _, message = await api.error(
        "CreateStateMachine",
        name="flow",
        definition=PASS,
        roleArn=ROLE,
        loggingConfiguration={"level": "ALL", "destinations": destinations},
    )
    assert message == (
        "1 validation error detected: Value '' at "
        "'loggingConfiguration.destinations.2.member.cloudWatchLogsLogGroup.logGroupArn' "
        "failed to satisfy constraint: Member must have length greater than or equal to 1"
    )


async def test_a_sensitive_value_is_not_told(api: Api) -> None:
    assert await api.error("ValidateStateMachineDefinition", definition="") == (
        "ValidationException",
        "1 validation error detected: Value at 'definition' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1",
    )


@pytest.mark.parametrize("pattern", ["sync", "waitForTaskToken"])
async def test_an_express_machine_waits_for_no_other_service(api: Api, pattern: str) -> None:
    """An UpdateStateMachine goes by the type of the machine that it changes."""
    resource = f"arn:aws:states:::states:startExecution.{pattern}"
    text = definition("A", A={"Type": "Task", "Resource": resource, "End": True})
    told = f"Express state machine does not support '.{pattern}' service integration"
    fault = (
        "InvalidDefinition",
        "Invalid State Machine Definition: "
        f"'SCHEMA_VALIDATION_FAILED: {told} at /States/A/Resource'",
    )
    made = {"name": "flow", "roleArn": ROLE, "type": "EXPRESS"}
    assert await api.error("CreateStateMachine", definition=text, **made) == fault
    arn = await api.create("flow", type="EXPRESS")
    assert await api.error("UpdateStateMachine", stateMachineArn=arn, definition=text) == fault
    checked = await api.call("ValidateStateMachineDefinition", definition=text, type="EXPRESS")
    assert checked["diagnostics"] == [
        {
            "severity": "ERROR",
            "code": "SCHEMA_VALIDATION_FAILED",
            "message": told,
            "location": "/States/A/Resource",
        }
    ]
    standard = await api.call("ValidateStateMachineDefinition", definition=text)
    assert standard["diagnostics"][0]["code"] == "NOT_SUPPORTED"


async def test_what_this_service_cannot_do_is_refused_and_not_ignored(api: Api) -> None:
    code, message = await api.error(
        "CreateStateMachine",
        name="flow",
        definition=PASS,
        roleArn=ROLE,
        publish=True,
        tags=[{"key": "k", "value": "v"}],
    )
    assert code == "ValidationException"
    assert "'publish' is not supported" in message
    assert "'tags' is not supported" in message


async def test_each_change_makes_a_revision_and_no_change_keeps_it(api: Api) -> None:
    arn = await api.create("flow")
    first = await api.call("UpdateStateMachine", stateMachineArn=arn, definition=OTHER)
    again = await api.call("UpdateStateMachine", stateMachineArn=arn, definition=OTHER)
    role = await api.call("UpdateStateMachine", stateMachineArn=arn, roleArn=ROLE + "-other")
    assert again["revisionId"] == first["revisionId"] != role["revisionId"]
    shown = await api.call("DescribeStateMachine", stateMachineArn=arn)
    assert (shown["definition"], shown["roleArn"], shown["revisionId"]) == (
        OTHER,
        ROLE + "-other",
        role["revisionId"],
    )


async def test_an_update_of_nothing_is_refused(api: Api) -> None:
    arn = await api.create("flow")
    assert await api.error("UpdateStateMachine", stateMachineArn=arn) == (
        "MissingRequiredParameter",
        "Either the definition, the role ARN, the LoggingConfiguration, or the "
        "TracingConfiguration must be specified",
    )


async def test_a_changed_machine_starts_on_its_new_definition_at_once(api: Api) -> None:
    arn = await api.create("flow", REST)
    running = await api.start(arn, name="before")
    await api.call("UpdateStateMachine", stateMachineArn=arn, definition=PASS)
    ended = await api.ended(await api.start(arn, name="after", input='{"n": 1}'))
    assert (ended["status"], ended["output"]) == ("SUCCEEDED", '{"n":1}')
    of_running = await api.call("DescribeStateMachineForExecution", executionArn=running)
    assert of_running["definition"] == REST
    assert "revisionId" not in of_running


@pytest.mark.parametrize("action", ["UpdateStateMachine", "DeleteStateMachine"])
async def test_a_machine_of_a_file_belongs_to_the_file(api: Api, action: str) -> None:
    await api.bench.publish("verification", PASS)
    arn = machine_arn("verification")
    members = {"definition": OTHER} if action == "UpdateStateMachine" else {}
    code, message = await api.error(action, stateMachineArn=arn, **members)
    assert code == "ConflictException"
    assert "'verification.asl.json'" in message
    shown = await api.call("DescribeStateMachine", stateMachineArn=arn)
    assert (shown["definition"], shown["status"]) == (PASS, "ACTIVE")


async def test_a_file_takes_over_a_machine_of_its_name_even_a_deleted_one(api: Api) -> None:
    arn = await api.create("flow", PASS, type="EXPRESS")
    await api.call("DeleteStateMachine", stateMachineArn=arn)
    published = await api.bench.engine.definitions.publish_file(
        "flow", "flow.asl.json", compile_definition(PASS), edited=False
    )
    assert published.is_published
    shown = await api.call("DescribeStateMachine", stateMachineArn=arn)
    assert (shown["status"], shown["type"]) == ("ACTIVE", "STANDARD")


async def test_a_deleted_machine_is_gone_at_once_when_nothing_runs(api: Api) -> None:
    arn = await api.create("flow")
    assert await api.call("DeleteStateMachine", stateMachineArn=arn) == {}
    assert await api.call("DeleteStateMachine", stateMachineArn=arn) == {}
    gone = ("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")
    assert await api.error("DescribeStateMachine", stateMachineArn=arn) == gone
    assert await api.error("StartExecution", stateMachineArn=arn) == gone
    assert await api.error("ListExecutions", stateMachineArn=arn) == gone
    assert await api.error("UpdateStateMachine", stateMachineArn=arn, roleArn=ROLE) == gone
    assert (await api.call("ListStateMachines"))["stateMachines"] == []


async def test_a_machine_is_deleting_while_an_execution_of_it_runs(api: Api) -> None:
    arn = await api.create("flow", REST)
    execution = await api.start(arn)
    await api.call("DeleteStateMachine", stateMachineArn=arn)
    shown = await api.call("DescribeStateMachine", stateMachineArn=arn)
    assert shown["status"] == "DELETING"
    listed = await api.call("ListExecutions", stateMachineArn=arn)
    assert [item["executionArn"] for item in listed["executions"]] == [execution]
    deleting = ("StateMachineDeleting", f"State Machine Is Deleting: '{arn}'")
    assert await api.error("StartExecution", stateMachineArn=arn) == deleting
    assert (
        await api.error("CreateStateMachine", name="flow", definition=PASS, roleArn=ROLE)
        == deleting
    )
    await api.call("StopExecution", executionArn=execution)
    gone = ("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")
    assert await api.error("ListExecutions", stateMachineArn=arn) == gone
    assert await api.create("flow", PASS) == arn
    assert (await api.ended(await api.start(arn)))["status"] == "SUCCEEDED"


async def test_machines_are_listed_by_name_a_page_at_a_time(api: Api) -> None:
    for name in ("c", "a", "b"):
        await api.create(name)
    first = await api.call("ListStateMachines", maxResults=2)
    assert [item["name"] for item in first["stateMachines"]] == ["a", "b"]
    rest = await api.call("ListStateMachines", maxResults=2, nextToken=first["nextToken"])
    assert [without_times(item) for item in rest["stateMachines"]] == [
        {"stateMachineArn": machine_arn("c"), "name": "c", "type": "STANDARD"}
    ]
    assert "nextToken" not in rest


@pytest.mark.parametrize("token", ["x", "AAAA", "eA==", "\u00e9"])
async def test_a_token_that_no_page_gave_is_refused(api: Api, token: str) -> None:
    assert await api.error("ListStateMachines", nextToken=token) == (
        "InvalidToken",
        "Invalid Token: 'Invalid token'",
    )


@pytest.mark.parametrize(
    ("arn", "reason"),
    [
        ("flow", "Invalid ARN prefix: flow"),
        ("arn:aws:sqs:us-east-1:0:stateMachine:flow", None),
        ("arn:aws:states:us-east-1:000000000000:activity:flow", None),
        ("arn:aws:states:us-east-1:000000000000:stateMachine:", None),
    ],
)
async def test_an_arn_of_something_else_is_invalid(api: Api, arn: str, reason: str | None) -> None:
    code, message = await api.error("DescribeStateMachine", stateMachineArn=arn)
    assert code == "InvalidArn"
    assert reason is None or message == f"Invalid Arn: '{reason}'"


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:states:us-east-1:000000000000:stateMachine:gone",
        "arn:aws:states:us-east-1:999999999999:stateMachine:flow",
        "arn:aws:states:eu-west-1:000000000000:stateMachine:flow",
        "arn:aws:states:us-east-1:000000000000:stateMachine:flow:1",
    ],
)
async def test_an_arn_that_names_none_of_the_machines_here(api: Api, arn: str) -> None:
    await api.create("flow")
    assert await api.error("DescribeStateMachine", stateMachineArn=arn) == (
        "StateMachineDoesNotExist",
        f"State Machine Does Not Exist: '{arn}'",
    )


async def test_a_definition_is_checked_without_a_machine(api: Api) -> None:
    good = await api.call("ValidateStateMachineDefinition", definition=PASS)
    assert good == {"result": "OK", "diagnostics": [], "truncated": False}
    bad = await api.call("ValidateStateMachineDefinition", definition="{}")
    assert bad == {
        "result": "FAIL",
        "diagnostics": [
            {
                "severity": "ERROR",
                "code": "SCHEMA_VALIDATION_FAILED",
                "message": "These fields are required: [States, StartAt]",
                "location": "/",
            }
        ],
        "truncated": False,
    }
    none = await api.call("ValidateStateMachineDefinition", definition=" ")
    assert none["diagnostics"] == [
        {
            "severity": "ERROR",
            "code": "SCHEMA_VALIDATION_FAILED",
            "message": "Definition must be a valid JSON object",
        }
    ]


async def test_warnings_are_told_when_asked_for_and_fail_nothing(api: Api) -> None:
    states = {"Only": {"Type": "Pass", "Parameters": {"a": ["$", {"b": "$.b"}]}, "End": True}}
    text = json.dumps({"StartAt": "Only", "States": states})
    silent = await api.call("ValidateStateMachineDefinition", definition=text)
    assert silent == {"result": "OK", "diagnostics": [], "truncated": False}
    warned = await api.call("ValidateStateMachineDefinition", definition=text, severity="WARNING")
    assert warned == {
        "result": "OK",
        "diagnostics": [
            {
                "severity": "WARNING",
                "code": "NO_DOLLAR",
                "message": "The value looks like a path or a function, "
                "but the name does not end with .$",
                "location": "/States/Only/Parameters/a[1]/b",
            }
        ],
        "truncated": False,
    }


async def test_diagnostics_end_at_the_number_asked_for(api: Api) -> None:
    states = {f"S{n}": {"Type": "Pass", "Next": "Gone"} for n in range(5)}
    text = json.dumps({"StartAt": "S0", "States": states})
    checked = await api.call("ValidateStateMachineDefinition", definition=text, maxResults=2)
    assert (len(checked["diagnostics"]), checked["truncated"]) == (2, True)

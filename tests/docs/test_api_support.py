"""docs/asl-support.md: the API's actions, limits and errors, and the recordings it differs from."""

from __future__ import annotations

import re
from typing import Any, cast

from service.api.stepfunctions import Executions, Machines, Starts, Trials, faults, protocol
from service.api.stepfunctions import history as pages
from service.api.stepfunctions import machines as machine_actions
from service.api.stepfunctions import requests as models
from service.engine import catalog, express
from tests.conformance.recordings import AREAS, MISSED_HISTORIES
from tests.docs.pages import ROOT, codes, read, rows, section

PAGE = read("docs/asl-support.md")
API = section(PAGE, "## The API")
NONE = cast(Any, None)


def _table(head: str) -> dict[str, str]:
    """Return a table of the API's section, by the cells of its first column."""
    table = API.split(f"| {head} |", 1)[1].split("\n\n", 1)[0]
    return {cells[0]: cells[1] for cells in rows(table) if len(cells) > 1}


def test_every_action_says_what_differs() -> None:
    actions = {
        **Machines(NONE, NONE, NONE, NONE).actions(),
        **Starts(NONE, NONE, NONE, NONE, NONE, NONE, NONE).actions(),
        **Executions(NONE, NONE, NONE, NONE, NONE, NONE).actions(),
        **Trials(NONE, NONE, NONE, NONE).actions(),
    }
    assert [codes(cell)[0] for cell in _table("action")] == [
        "CreateStateMachine",
        "UpdateStateMachine",
        "DescribeStateMachine",
        "DescribeStateMachineForExecution",
        "ListStateMachines",
        "DeleteStateMachine",
        "ValidateStateMachineDefinition",
        "StartExecution",
        "StartSyncExecution",
        "StopExecution",
        "RedriveExecution",
        "DescribeExecution",
        "ListExecutions",
        "GetExecutionHistory",
        "TestState",
    ]
    assert {codes(cell)[0] for cell in _table("action")} == actions.keys()


def test_every_error_of_the_api_is_listed() -> None:
    sources = (ROOT / "service" / "api" / "stepfunctions").glob("*.py")
    raised = {
        name
        for source in sources
        for name in re.findall(r'\bFault\(\s*"(\w+)"', source.read_text("utf-8"))
    }
    listed = {code for cell in _table("error") for code in codes(cell)}
    assert listed == raised
    of_the_port = set(codes(API.strip().rsplit("\n\n", 1)[1])) | listed
    assert of_the_port >= set(faults._CODES.values())


def test_limits_of_the_api_are_the_ones_of_the_code() -> None:
    definition, input = (
        models.CreateStateMachine.model_fields["definition"].metadata[1].max_length,
        models.StartExecution.model_fields["input"].metadata[0].max_length,
    )
    page = models.ListStateMachines.model_fields["max_results"].metadata[1].le
    assert _table("limit") == {
        "machines": f"{catalog.MACHINES_MAX:,}",
        "a request; a definition in it; an input": f"{protocol.BODY_BYTES_MAX:,} bytes; "
        f"{definition:,} characters; {input:,} characters",
        "items of a page; the JSON of a history's page": f"{page:,}, and {models.PAGE} unless "
        f"asked for; {pages.PAGE_BYTES_MAX:,} bytes, or one event",
        "an execution of an EXPRESS machine; at once in a process": (
            f"{express.EXPRESS_SECONDS_MAX} seconds; {express.RUNS_MAX:,}"
        ),
        "problems in the message of `InvalidDefinition`; diagnostics": (
            f"{faults.PROBLEMS_TOLD_MAX}; {machine_actions.DIAGNOSTICS}"
        ),
    }


def test_every_missed_history_is_explained_by_name() -> None:
    told = section(PAGE, "## Measured against the service")
    assert sorted(codes(cells[0])[0] for cells in rows(told)) == sorted(MISSED_HISTORIES)
    assert f"in {len(AREAS)} areas" in told

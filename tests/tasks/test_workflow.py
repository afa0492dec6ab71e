"""Tests of workflows/verification.asl.json: every branch, driven by hand through the language."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.asl import (
    About,
    Event,
    Execution,
    Json,
    RunTask,
    Signalled,
    Started,
    Status,
    TaskFailed,
    TaskSucceeded,
    TimerFired,
    advance,
    compile_definition,
)
from service.tasks import ACCOUNT_TASKS, Registry
from service.tasks.handlers import BUILT_IN

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)
ID = "0198c0de-0000-7000-8000-000000000001"
INPUT: Json = {"account_id": ID, "email_domain": "example.org", "locale": None}
TEXT = (Path(__file__).parents[2] / "workflows" / "verification.asl.json").read_text()
MACHINE = compile_definition(TEXT)

SENT: Json = {"sent": True, "status": "pending"}
VERIFIED: Json = {"account_id": ID, "status": "verified", "verified": True}
PENDING: Json = {"account_id": ID, "status": "pending", "verified": False}
SUPERSEDED: Json = {"account_id": ID, "status": "superseded", "verified": False}
DELETED: Json = {"deleted": True, "status": "expired"}
TOO_LATE: Json = {"deleted": False, "status": "verified"}


class Longest:
    """The random numbers that make every backoff as long as it can be."""

    def bits(self, n: int) -> int:
        return 0

    def uniform(self) -> float:
        return 1.0


@dataclass
class Run:
    """One execution, fed by hand; `path` lists the states in the order they were entered."""

    now: datetime = NOON
    execution: Execution = field(
        default_factory=lambda: Execution.new(
            About("arn:e", ID, NOON, INPUT, "arn:r", "arn:m", "verification")
        )
    )
    path: list[str] = field(default_factory=list)

    def feed(self, event: Event) -> None:
        step = advance(MACHINE, self.execution, event, self.now, Longest())
        self.execution = step.execution
        for happened in step.history:
            if happened.type.endswith("StateEntered"):
                assert happened.details is not None
                self.path.append(str(happened.details["name"]))

    def task(self) -> RunTask:
        """Return the one open task."""
        (command,) = self.execution.open_tasks
        return command

    def begin(self) -> Run:
        self.feed(Started())
        return self

    def answer(self, function: str, output: Json, *, acknowledges: bool = False) -> None:
        """Let the open task, which must be of this function, succeed."""
        command = self.task()
        assert command.resource.rpartition(":")[2] == function
        self.feed(TaskSucceeded(command.id, output, acknowledges))

    def fail(self, error: str) -> None:
        self.feed(TaskFailed(self.task().id, error, "why"))

    def pass_time(self, by: timedelta) -> None:
        self.now += by
        self.feed(TimerFired())

    def rest(self) -> timedelta:
        """Return how long the execution waits from now on."""
        assert self.execution.due_at is not None
        return self.execution.due_at - self.now

    def sleep(self) -> None:
        """Let the time pass until the next timer is due."""
        self.pass_time(self.rest())

    def end(self) -> tuple[str, list[str]]:
        """Return how the execution ended and by which states."""
        return self.execution.status.value, self.path


def mailed() -> Run:
    run = Run().begin()
    run.answer("send_verification_email", SENT)
    return run


TO_WAIT = ["SendVerificationEmail", "WaitForVerification"]
TO_CHECK = [*TO_WAIT, "GetAccount", "IsVerified"]
WELCOME = ["SendWelcomeEmail", "Verified"]
TO_DELETE = ["DeleteUnverifiedAccount", "WasVerifiedMeanwhile"]


def test_every_function_of_the_workflow_ships() -> None:
    shipped = Registry(
        dict.fromkeys(BUILT_IN, ACCOUNT_TASKS["get_account"]), region="r", account="a"
    )

    assert shipped.missing(MACHINE) == []


def test_mail_states_the_wait_and_knows_nothing_but_the_account() -> None:
    run = Run().begin()

    assert run.task().parameters == {"account_id": ID, "expires_in_seconds": 1800}
    run.answer("send_verification_email", SENT)
    assert run.rest() == timedelta(seconds=1800)


def test_the_wait_begins_when_the_mail_server_has_taken_the_mail() -> None:
    run = Run().begin()
    run.now += timedelta(seconds=90)
    run.answer("send_verification_email", SENT)

    assert run.execution.due_at == NOON + timedelta(seconds=90) + HALF_HOUR


def test_a_visitor_who_verifies_during_the_wait_is_welcomed_at_once() -> None:
    run = mailed()
    run.now += timedelta(minutes=5)
    run.feed(Signalled())
    run.answer("get_account", VERIFIED, acknowledges=True)
    run.answer("send_welcome_email", {"sent": True, "status": "verified"})

    assert run.end() == ("SUCCEEDED", [*TO_CHECK, *WELCOME])
    assert run.now == NOON + timedelta(minutes=5)


def test_a_visitor_who_verifies_while_the_mail_is_still_on_its_way_does_not_wait() -> None:
    run = Run().begin()
    run.feed(Signalled())
    run.answer("send_verification_email", SENT)
    run.answer("get_account", VERIFIED, acknowledges=True)
    run.answer("send_welcome_email", {"sent": True, "status": "verified"})

    assert run.end() == ("SUCCEEDED", [*TO_CHECK, *WELCOME])


def test_an_account_that_is_never_verified_is_deleted_after_half_an_hour() -> None:
    run = mailed()
    run.pass_time(HALF_HOUR - timedelta(microseconds=1))
    assert run.execution.open_tasks == ()
    run.pass_time(timedelta(microseconds=1))
    run.answer("get_account", PENDING)
    run.answer("delete_unverified_account", DELETED)

    assert run.end() == ("SUCCEEDED", [*TO_CHECK, *TO_DELETE, "Deleted"])


def test_a_superseded_signup_takes_the_course_and_the_time_of_an_ignored_one() -> None:
    run = mailed()
    run.sleep()
    run.answer("get_account", SUPERSEDED)
    run.answer("delete_unverified_account", DELETED)

    assert run.end() == ("SUCCEEDED", [*TO_CHECK, *TO_DELETE, "Deleted"])


def test_a_visitor_who_verifies_between_check_and_delete_is_welcomed() -> None:
    run = mailed()
    run.sleep()
    run.answer("get_account", PENDING)
    run.feed(Signalled())
    run.answer("delete_unverified_account", TOO_LATE, acknowledges=True)
    run.answer("send_welcome_email", {"sent": True, "status": "verified"})

    assert run.end() == ("SUCCEEDED", [*TO_CHECK, *TO_DELETE, *WELCOME])


def test_an_address_that_is_refused_for_good_is_deleted_at_once() -> None:
    run = Run().begin()
    run.fail("MailRefused")
    run.answer("delete_unverified_account", DELETED)

    assert run.end() == ("SUCCEEDED", ["SendVerificationEmail", *TO_DELETE, "Deleted"])
    assert run.now == NOON


@pytest.mark.parametrize(
    "error", ["InvalidTaskInput", "Lambda.ResourceNotFoundException", "KeyError"]
)
def test_a_mail_that_cannot_even_be_written_leaves_no_pending_account(error: str) -> None:
    run = Run().begin()
    run.fail(error)
    run.answer("delete_unverified_account", DELETED)

    assert run.end() == ("SUCCEEDED", ["SendVerificationEmail", *TO_DELETE, "Deleted"])


@pytest.mark.parametrize("error", ["MailUnavailable", "Unavailable", "Contended", "Overloaded"])
def test_a_mail_server_or_database_that_comes_back_is_tried_again_until_it_does(error: str) -> None:
    run = Run().begin()
    pauses = []
    for _ in range(10):
        run.fail(error)
        pauses.append(run.rest().total_seconds())
        run.sleep()
    run.answer("send_verification_email", SENT)

    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert run.rest() == HALF_HOUR
    assert run.path == TO_WAIT


def test_a_mail_server_that_stays_away_ends_the_signup_within_a_week() -> None:
    run = Run().begin()
    tries = 0
    while run.path == ["SendVerificationEmail"]:
        tries += 1
        run.fail("MailUnavailable")
        if run.path == ["SendVerificationEmail"]:
            run.sleep()
    run.answer("delete_unverified_account", DELETED)

    assert tries == 2001
    assert timedelta(days=6, hours=20) < run.now - NOON < timedelta(days=7)
    assert run.end() == ("SUCCEEDED", ["SendVerificationEmail", *TO_DELETE, "Deleted"])


def test_a_mail_that_takes_too_long_is_given_up_and_tried_again() -> None:
    run = Run().begin()
    first = run.task()
    assert run.rest() == timedelta(seconds=120)
    run.sleep()
    assert run.rest() == timedelta(seconds=2)
    run.sleep()
    second = run.task()

    assert (first.entered_event_id, first.attempt) == (second.entered_event_id, 0)
    assert second.attempt == 1
    run.feed(TaskSucceeded(first.id, SENT))  # the first try's answer comes too late to count
    assert run.path == ["SendVerificationEmail"]
    run.answer("send_verification_email", SENT)
    assert run.path == TO_WAIT


@pytest.mark.parametrize("function", ["get_account", "delete_unverified_account"])
def test_account_tasks_are_tried_again(function: str) -> None:
    run = mailed()
    run.sleep()
    if function == "delete_unverified_account":
        run.answer("get_account", PENDING)
    run.fail("Rejected")
    assert run.rest() == timedelta(seconds=1)
    run.sleep()

    assert run.task().resource.endswith(f":{function}")


def test_a_check_that_never_succeeds_fails_the_execution() -> None:
    run = mailed()
    run.sleep()
    for _ in range(20):
        run.fail("Rejected")
        run.sleep()
    run.fail("Rejected")

    assert run.end() == ("FAILED", [*TO_WAIT, "GetAccount"])
    assert run.execution.error == "Rejected"


@pytest.mark.parametrize("error", ["MailRefused", "MailUnavailable"])
def test_a_welcome_that_fails_takes_nothing_away(error: str) -> None:
    run = mailed()
    run.feed(Signalled())
    run.answer("get_account", VERIFIED, acknowledges=True)
    while run.execution.status is Status.RUNNING:
        run.fail(error)
        if run.execution.status is Status.RUNNING:
            run.sleep()

    assert run.end() == ("SUCCEEDED", [*TO_CHECK, *WELCOME])
    assert run.now - NOON < timedelta(hours=9)


def test_the_output_tells_what_was_decided_and_nothing_of_the_person() -> None:
    run = mailed()
    run.sleep()
    run.answer("get_account", PENDING)
    run.answer("delete_unverified_account", DELETED)

    assert run.execution.output == {
        "account_id": ID,
        "email_domain": "example.org",
        "locale": None,
        "account": PENDING,
        "deletion": DELETED,
    }

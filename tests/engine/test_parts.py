"""The parts of the engine one by one: ids, clock, timers, dispatch, definitions, lane, leases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from types import SimpleNamespace
from typing import Any
from uuid import RFC_4122, UUID, uuid4

import apscheduler.schedulers.base
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.asl import (
    About,
    Execution,
    ExecutionError,
    Json,
    RunTask,
    TaskFailed,
    TaskSucceeded,
    compile_definition,
)
from service.engine import clock as clocks
from service.engine import quarantine
from service.engine import timers as timer_module
from service.engine.arns import Arns
from service.engine.clock import DatabaseClock
from service.engine.definitions import Definitions
from service.engine.dispatch import Dispatch
from service.engine.ids import bucket_of, derived_id, key_of, name_bucket, new_id
from service.engine.ports import (
    Answer,
    Beat,
    Claim,
    CoroutineHandler,
    Current,
    Key,
    StateMachineDoesNotExist,
    Task,
)
from service.engine.quarantine import Quarantine
from service.engine.random import SystemRandom
from service.engine.rescuer import Rescuer
from service.engine.tenures import Tenures
from service.engine.timers import AHEAD_MAX, Timers
from service.engine.turn import Surroundings, Tenure, Turn
from service.engine.worker import Worker
from service.store.memory import MemoryDefinitions
from tests.engine.harness import Handlers, definition, lambda_arn
from tests.engine.small import until

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MACHINE = compile_definition(definition("Done", Done={"Type": "Succeed"}))
OTHER = compile_definition(definition("Gone", Gone={"Type": "Succeed"}))


class SetClock:
    """A clock that stands where a test has put it."""

    def __init__(self, now: datetime = NOON) -> None:
        self.moment = now

    def now(self) -> datetime:
        return self.moment

    def mark(self) -> float:
        return 0.0

    def set(self, now: datetime, *, asked_at: float | None = None) -> None:
        self.moment = now

    def observe(self, now: datetime) -> None:
        self.moment = max(self.moment, now)


# ids


@given(st.integers(0, 255), st.integers(0, 10_000_000_000_000))
def test_an_id_is_a_uuid7_of_its_moment_that_ends_in_its_bucket(
    bucket: int, milliseconds: int
) -> None:
    id = new_id(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds), bucket)
    assert (id.version, id.variant, id.bytes[-1]) == (7, RFC_4122, bucket)
    assert abs((id.int >> 80) - milliseconds) <= 1  # a float of seconds may round down
    assert (bucket_of(id), key_of(id)) == (bucket, Key(bucket, id))


def test_ids_of_later_milliseconds_are_greater_whatever_their_bucket() -> None:
    ids = [new_id(NOON + timedelta(milliseconds=n), 255 - n) for n in range(200)]
    assert ids == sorted(ids)


def test_ids_of_one_moment_and_bucket_differ() -> None:
    assert len({new_id(NOON, 7) for _ in range(1000)}) == 1000


def test_a_derived_id_is_a_uuid7_of_the_same_moment_and_the_same_for_ever() -> None:
    id = UUID("01a2049e-67a3-7eb7-b338-117e872a0efc")
    derived = derived_id(id, "seed", 77)
    assert derived == UUID("01a2049e-67a3-7f2d-a357-91f7881f8e4d")
    assert (derived.version, derived.variant, bucket_of(derived)) == (7, RFC_4122, 77)
    assert len({derived_id(id, f"{n}", 77) for n in range(1000)}) == 1000


def test_a_name_keeps_its_bucket_for_ever() -> None:
    names = [("flow", "one"), ("flow", "two"), ("other", "one"), ("flow", "\ud800")]
    assert [name_bucket(*name) for name in names] == [216, 77, 205, 9]


def test_a_name_that_begins_with_an_id_is_in_that_ids_bucket() -> None:
    id = new_id(NOON, 77)
    assert [name_bucket("flow", name) for name in (f"{id}", f"{id}-resend-2")] == [77, 77]
    others = (f"{id}x", f"x{id}", str(id).upper(), f"{uuid4()}")
    hashes = [sha256(f"flow\n{name}".encode()).digest()[0] for name in others]
    assert [name_bucket("flow", name) for name in others] == hashes


# The database's clock


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return what says how many seconds have passed, by the monotonic clock."""
    passed = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=lambda: passed.seconds))
    return passed


def test_the_clock_carries_the_databases_time_on_by_the_monotonic_one(
    passed: SimpleNamespace,
) -> None:
    clock = DatabaseClock()
    clock.set(NOON)
    passed.seconds += 90
    assert clock.now() == NOON + timedelta(seconds=90)
    clock.observe(NOON)
    assert clock.now() == NOON + timedelta(seconds=90), "an earlier moment holds nothing back"
    clock.observe(NOON + timedelta(seconds=100))
    passed.seconds += 1
    assert clock.now() == NOON + timedelta(seconds=101)
    clock.set(NOON)
    assert clock.now() == NOON, "a heartbeat's time counts, though it be earlier"


@pytest.mark.parametrize(
    ("says", "shows"),
    [(57.9, 57.9), (58, 60), (60, 60), (60.1, 60.1)],
    ids=["set back", "slow", "prompt", "set forward"],
)
def test_a_slow_answer_does_not_set_the_clock_back(
    passed: SimpleNamespace, says: float, shows: float
) -> None:
    clock = DatabaseClock()
    clock.set(NOON)
    passed.seconds += 60
    clock.set(NOON + timedelta(seconds=says), asked_at=1058.0)
    assert clock.now() == NOON + timedelta(seconds=shows)


# Timers


@pytest.fixture
async def timers() -> AsyncIterator[Timers]:
    timers = Timers(SetClock())
    timers.open()
    yield timers
    timers.close()


def armed(timers: Timers) -> list[datetime]:
    jobs = timers._scheduler.get_jobs()
    return [job.next_run_time for job in jobs if job.id == "due"]


@pytest.mark.parametrize("late", [timedelta(0), timedelta(hours=1), timedelta(days=4000)])
async def test_a_moment_past_fires_at_once(timers: Timers, late: timedelta) -> None:
    timers.arm(NOON - late)
    await until(timers.due.is_set)


async def test_an_earlier_moment_takes_the_place_of_a_later_one(timers: Timers) -> None:
    timers.arm(NOON + timedelta(hours=2))
    (later,) = armed(timers)
    timers.arm(NOON + timedelta(hours=1))
    (earlier,) = armed(timers)
    assert timedelta(minutes=59) < later - earlier < timedelta(minutes=61)
    timers.arm(NOON + timedelta(hours=3))
    assert armed(timers) == [earlier]
    timers.arm(NOON)
    await until(timers.due.is_set)


async def test_it_can_be_armed_again_once_it_has_fired(timers: Timers) -> None:
    for _ in range(3):
        timers.arm(NOON)
        await until(timers.due.is_set)
        timers.due.clear()


async def test_40_000_moments_at_once_are_one_job(timers: Timers) -> None:
    for n in range(40_000):
        timers.arm(NOON + timedelta(hours=1, microseconds=n))
    assert len(timers._scheduler.get_jobs()) == 1


@pytest.mark.parametrize("behind", [timedelta(0), timedelta(days=400)])
async def test_the_end_of_the_calendar_can_be_waited_for(behind: timedelta) -> None:
    timers = Timers(SetClock(datetime.now(UTC) - behind))
    timers.open()
    timers.arm(datetime.max.replace(tzinfo=UTC))
    (moment,) = armed(timers)
    assert moment - datetime.now(UTC) <= AHEAD_MAX
    timers.close()


async def test_pulses_come_again_and_again_while_it_is_open(timers: Timers) -> None:
    pulse = timers.every("pulse", 0.01)
    for _ in range(3):
        await until(pulse.is_set)
        pulse.clear()
    timers.close()
    assert timers._watch is not None
    assert timers._watch.cancelled()


async def test_a_pulse_may_set_an_event_that_something_else_sets_too(timers: Timers) -> None:
    assert timers.every("poll", 0.01, timers.due) is timers.due
    await until(timers.due.is_set)


@pytest.fixture
def back(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return by how many seconds the wall clock is set back, for a test to change."""
    back = SimpleNamespace(seconds=0.0)

    class Wall(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(seconds=back.seconds)

    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Wall)
    monkeypatch.setattr(timer_module, "datetime", Wall)
    monkeypatch.setattr(
        timer_module,
        "time",
        SimpleNamespace(time=lambda: time.time() - back.seconds, monotonic=time.monotonic),
    )
    return back


async def test_a_wall_clock_set_back_by_an_hour_stops_no_pulse(
    monkeypatch: pytest.MonkeyPatch, back: SimpleNamespace
) -> None:
    monkeypatch.setattr(timer_module, "WATCH_SECONDS", 0.02)
    timers = Timers(SetClock())
    pulse = timers.every("pulse", 0.05)
    timers.open()
    await until(pulse.is_set)
    back.seconds = 3600.0
    for _ in range(3):
        pulse.clear()
        await until(pulse.is_set)
    timers.close()


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
async def test_a_wall_clock_that_is_wrong_for_a_moment_stops_no_pulse(
    monkeypatch: pytest.MonkeyPatch, back: SimpleNamespace, seconds: float
) -> None:
    monkeypatch.setattr(timer_module, "WATCH_SECONDS", 3600.0)  # it looks when the test says so
    timers = Timers(SetClock())
    pulse = timers.every("pulse", 0.05)
    timers.open()
    await until(pulse.is_set)
    back.seconds = seconds
    timers.arm(NOON)  # for which the scheduler looks at its jobs, by the wrong clock
    await until(timers.due.is_set)
    back.seconds = 0.0
    timers._watch_wall_clock()
    for _ in range(3):
        pulse.clear()
        await until(pulse.is_set)
    timers.close()


# Dispatch

COMMAND = RunTask(5, 2, "Work", lambda_arn("work"), {}, 0)
TASK = Task(Key(0, UUID(int=0)), "flow", "name", "Work", 1, 0)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (ExecutionError("Own.Error", "so"), TaskFailed(5, "Own.Error", "so")),
        (ExecutionError(None, None), TaskFailed(5, "States.TaskFailed", None)),
        (ConnectionError("down"), TaskFailed(5, "ConnectionError", "down")),
        (ValueError("a\0b\ud800"), TaskFailed(5, "ValueError", "a\N{REPLACEMENT CHARACTER}b?")),
        (Unprintable(), TaskFailed(5, "Unprintable", None)),
        (
            asyncio.CancelledError(),
            TaskFailed(5, "States.TaskFailed", "the handler was cancelled"),
        ),
    ],
)
async def test_what_a_handler_raises_is_its_failure(
    error: BaseException, event: TaskFailed
) -> None:
    async def fail(input: Json, task: Task) -> Answer:
        raise error

    assert await Dispatch().perform(COMMAND, CoroutineHandler(fail), {}, TASK) == event


async def test_what_a_handler_answers_is_its_success() -> None:
    async def work(input: Json, task: Task) -> Answer:
        return Answer([input, task.state], acknowledges_signal=True)

    event = await Dispatch().perform(COMMAND, CoroutineHandler(work), "in", TASK)
    assert event == TaskSucceeded(5, ["in", "Work"], acknowledges_signal=True)


async def test_a_handler_that_answers_nonsense_has_failed() -> None:
    async def nonsense(input: Json, task: Task) -> Any:
        return None

    event = await Dispatch().perform(COMMAND, CoroutineHandler(nonsense), {}, TASK)
    assert isinstance(event, TaskFailed)
    assert event.error == "AttributeError"


async def test_no_more_handlers_run_at_once_than_allowed_and_a_cancelled_one_makes_room() -> None:
    running: list[str] = []

    async def wait(input: Json, task: Task) -> Answer:
        running.append(str(input))
        await asyncio.Event().wait()
        raise AssertionError

    dispatch = Dispatch(2)
    tasks = [
        asyncio.ensure_future(dispatch.perform(COMMAND, CoroutineHandler(wait), name, TASK))
        for name in "abc"
    ]
    await until(lambda: running == ["a", "b"])
    tasks[0].cancel()
    await until(lambda: running == ["a", "b", "c"])
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 3


# Definitions


class Texts(MemoryDefinitions):
    """Definitions that count how often they are read, and let a test read late."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def currents(self) -> Mapping[str, Current]:
        currents = await super().currents()
        await self.may_answer.wait()
        return currents

    async def definition(self, sha256: bytes) -> str | None:
        self.reads += 1
        return await super().definition(sha256)


async def test_a_machine_nobody_published_does_not_exist() -> None:
    definitions = Definitions(Texts())
    with pytest.raises(StateMachineDoesNotExist, match="'flow'"):
        await definitions.current("flow")
    assert not definitions.is_current("flow")


async def test_what_another_replica_published_is_found_and_compiled_once() -> None:
    texts = Texts()
    await Definitions(texts).publish_file("flow", "flow.asl.json", MACHINE, edited=False)
    definitions = Definitions(texts)
    first, second = [await definitions.current("flow") for _ in range(2)]
    assert first is second
    assert (first.sha256, texts.reads) == (MACHINE.sha256, 1)


async def test_an_execution_stays_on_its_definition_after_another_is_published() -> None:
    definitions = Definitions(Texts())
    await definitions.publish_file("flow", "flow.asl.json", MACHINE, edited=False)
    await definitions.publish_file("flow", "flow.asl.json", OTHER, edited=True)
    assert (await definitions.current("flow")).sha256 == OTHER.sha256
    assert (await definitions.pinned(MACHINE.sha256)).sha256 == MACHINE.sha256


async def test_a_definition_that_is_nowhere_is_named_by_its_hash() -> None:
    with pytest.raises(LookupError, match="00" * 32):
        await Definitions(Texts()).pinned(bytes(32))


async def test_a_refresh_under_way_does_not_undo_a_publication() -> None:
    texts = Texts()
    definitions = Definitions(texts)
    await definitions.publish_file("flow", "flow.asl.json", MACHINE, edited=False)
    texts.may_answer.clear()
    refreshing = asyncio.ensure_future(definitions.refresh())
    await asyncio.sleep(0)
    await definitions.publish_file("flow", "flow.asl.json", OTHER, edited=True)
    texts.may_answer.set()
    await refreshing
    assert (await definitions.current("flow")).sha256 == OTHER.sha256


# The lane and the leases


async def _as_it_comes(asked: Awaitable[Sequence[Claim]]) -> Sequence[Claim]:
    return await asked


async def test_a_lane_ends_when_it_is_cancelled_as_an_examination_ends() -> None:
    over = asyncio.Event()
    is_examining = asyncio.Event()

    class Counting:
        async def quarantine(self, key: Key, epoch: int, by: int) -> bool:
            is_examining.set()
            return True

    async def adopt(claim: Claim, *events: object, is_alone: bool = False) -> Any:
        return SimpleNamespace(over=over, is_alone=is_alone)

    lane = Quarantine(Counting(), _as_it_comes, adopt, _nothing)  # type: ignore[arg-type]
    lane.add(SimpleNamespace(key=Key(0, UUID(int=0)), epoch=1, claims=2, quarantined=0))  # type: ignore[arg-type]
    running = asyncio.ensure_future(lane.run())
    await is_examining.wait()
    await asyncio.sleep(0)
    over.set()
    await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=1)
    assert done == {running}


async def test_suspects_that_have_met_fewer_deaths_are_examined_first() -> None:
    examined: list[int] = []

    class Counting:
        async def quarantine(self, key: Key, epoch: int, by: int) -> bool:
            examined.append(key.bucket)
            return False

    lane = Quarantine(Counting(), _as_it_comes, _nothing, _nothing)  # type: ignore[arg-type]
    for bucket, deaths in enumerate([2, 0, 1, 0]):
        key = Key(bucket, UUID(int=0))
        lane.add(SimpleNamespace(key=key, epoch=1, claims=2, quarantined=deaths))  # type: ignore[arg-type]
    running = asyncio.ensure_future(lane.run())
    await until(lambda: not lane.suspects)
    running.cancel()
    await asyncio.wait([running])
    assert examined == [1, 3, 2, 0]


async def test_who_is_suspected_for_the_first_time_is_passed_on_soon_and_without_a_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quarantine, "FIRST_EXAMINATION_SECONDS_MAX", 0.01)
    counted: list[tuple[int, int]] = []
    tenures = []

    class Counting:
        async def quarantine(self, key: Key, epoch: int, by: int) -> bool:
            counted.append((key.bucket, by))
            return True

    async def adopt(claim: Claim, *events: object, is_alone: bool = False) -> Any:
        tenures.append(SimpleNamespace(until_over=asyncio.Event().wait, is_alone=is_alone))
        return tenures[-1]

    lane = Quarantine(Counting(), _as_it_comes, adopt, _nothing)  # type: ignore[arg-type]
    for bucket in (0, 1):
        key = Key(bucket, UUID(int=0))
        lane.add(SimpleNamespace(key=key, epoch=1, claims=1, quarantined=0))  # type: ignore[arg-type]
    running = asyncio.ensure_future(lane.run())
    await until(lambda: not lane.suspects)
    running.cancel()
    await asyncio.wait([running])
    assert counted == [(0, 1), (0, -1), (1, 1), (1, -1)]
    assert [tenure.is_alone for tenure in tenures] == [False, False]


class Leases:
    """A store whose clock a test sets, and in which only `lost` are to be rescued."""

    def __init__(self, lost: Sequence[Claim] = ()) -> None:
        self.now = NOON
        self.rescues = 0
        self._lost = lost

    async def heartbeat(self, owner: UUID, lease_seconds: float) -> Beat:
        return Beat(self.now, [], holds=True, others_hold=True)

    async def rescue(self, owner: UUID, lease_seconds: float, limit: int) -> Sequence[Claim]:
        self.rescues += 1
        return self._lost


async def _nothing(**_: object) -> None:
    return None


def with_room(slots: int) -> Tenures:
    """Return an empty memory for so many executions."""
    return Tenures(slots, reserved=lambda: 0)


@pytest.mark.parametrize(("passed_seconds", "rescues"), [(6.0, 1), (31.0, 0)])
async def test_whoever_was_stopped_for_a_lease_rescues_nobody_before_another_has_passed(
    passed_seconds: float, rescues: int
) -> None:
    leases = Leases()
    worker = SimpleNamespace(id=UUID(int=1), nudge=None, reconcile=_nothing, tenures=with_room(10))
    rescuer = Rescuer(worker, leases, SetClock(), 30.0)  # type: ignore[arg-type]
    await rescuer.open()
    rescuer._quiet_until = 0.0  # the quiet lease after its start has passed
    leases.now += timedelta(seconds=passed_seconds)
    pulse = asyncio.Event()
    running = asyncio.ensure_future(rescuer.run(pulse))
    pulse.set()
    await until(lambda: not pulse.is_set())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert leases.rescues == rescues


async def test_whoever_was_stopped_between_its_beat_and_the_rescue_rescues_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Found by the simulation (D1): what was missed may have been an outage that all others had.
    leases = Leases()
    loop, stopped_seconds = asyncio.get_running_loop(), 0.0
    time_without_stop = loop.time
    monkeypatch.setattr(loop, "time", lambda: time_without_stop() + stopped_seconds, raising=False)

    goes_on = asyncio.Event()

    async def stopped() -> None:
        nonlocal stopped_seconds
        stopped_seconds = 31.0
        goes_on.set()

    worker = SimpleNamespace(id=UUID(int=1), nudge=None, reconcile=stopped, tenures=with_room(10))
    rescuer = Rescuer(worker, leases, SetClock(), 30.0)  # type: ignore[arg-type]
    await rescuer.open()
    rescuer._quiet_until = 0.0
    pulse = asyncio.Event()
    running = asyncio.ensure_future(rescuer.run(pulse))
    pulse.set()
    await goes_on.wait()
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert leases.rescues == 0


class Owned:
    """A store of which only the rows are asked that a worker owns."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._rows = dict.fromkeys(keys, 1)

    async def owned(self, owner: UUID) -> Mapping[Key, int]:
        return self._rows


ROUNDS = 20
"""The least of them counts: a busy machine's shared caches may make one three times as dear."""


async def cost_of_reconciling(count: int) -> float:
    """Return the CPU seconds of a comparison with the rows while so many steps are queued."""
    keys = [key_of(new_id(NOON, n % 256)) for n in range(count)]
    surroundings = Surroundings(Handlers(), SetClock(), SystemRandom())  # type: ignore[arg-type]
    worker = Worker(UUID(int=1), Owned(keys), None, surroundings, Arns())  # type: ignore[arg-type]
    for key in keys:
        execution = Execution.new(About("", "", NOON, None, "", "", ""))
        tenure = Tenure(key, 1, MACHINE, "", execution)
        worker.begin(tenure, Turn(tenure, [], surroundings))
    costs = []
    for _ in range(ROUNDS):
        began = time.process_time()
        await worker.reconcile()
        costs.append(time.process_time() - began)
    worker.close()
    return min(costs)


async def test_comparing_memory_with_the_rows_costs_in_proportion_to_what_is_in_memory() -> None:
    """It is done with every heartbeat: for a full memory it stopped the loop for seconds."""
    few, many = await cost_of_reconciling(500), await cost_of_reconciling(4_000)
    assert many < 24 * few  # 8 in proportion, 64 when each is compared with all


@pytest.mark.parametrize(("count", "are_suspects"), [(1, True), (256, True), (257, False)])
async def test_what_is_rescued_is_suspected_unless_it_is_too_much(
    count: int, are_suspects: bool
) -> None:
    taken: list[tuple[int, bool]] = []

    async def adopt(claims: Sequence[Claim], *, are_suspects: bool = False) -> None:
        taken.append((len(claims), are_suspects))

    worker = SimpleNamespace(
        id=UUID(int=1), nudge=None, reconcile=_nothing, adopt=adopt, tenures=with_room(1_000)
    )
    leases = Leases([SimpleNamespace(key=n, epoch=1) for n in range(count)])  # type: ignore[misc]
    rescuer = Rescuer(worker, leases, SetClock(), 30.0)  # type: ignore[arg-type]
    await rescuer.open()
    rescuer._quiet_until = 0.0  # the quiet lease after its start has passed
    pulse = asyncio.Event()
    running = asyncio.ensure_future(rescuer.run(pulse))
    pulse.set()
    await until(lambda: taken != [])
    running.cancel()
    await asyncio.wait([running])
    assert taken == [(count, are_suspects)]

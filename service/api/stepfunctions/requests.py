"""The actions' parameters as models, and what is wrong with them in the words of the service.

Shapes and limits: API reference of each action. A member that is not known is ignored, as the
service ignores it, so that newer SDKs can speak to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from service.api.stepfunctions.faults import Fault, validation

PAGE: Final = 100
"""How many items a page has unless the request says otherwise; 0 says the same."""

VALUE_CHARACTERS_SHOWN: Final = 1_024

_SENSITIVE: Final = frozenset(
    {
        "cause",
        "context",
        "definition",
        "error",
        "input",
        "stateName",
        "variables",
        "versionDescription",
    }
)
"""Members whose value no error tells: the service's model marks them so."""

Arn = Annotated[str, Field(min_length=1, max_length=256)]
LongArn = Annotated[str, Field(min_length=1, max_length=2000)]
Name = Annotated[str, Field(min_length=1, max_length=80)]
Definition = Annotated[str, Field(min_length=1, max_length=1_048_576)]
Data = Annotated[str, Field(max_length=262_144)]
TraceHeader = Annotated[str, Field(max_length=256)]
PageSize = Annotated[int, Field(ge=0, le=1000)]
PageToken = Annotated[str, Field(min_length=1, max_length=1024)]
ClientToken = Annotated[str, Field(min_length=1, max_length=64, pattern="^[!-~]+$")]
MachineKind = Literal["STANDARD", "EXPRESS"]
IncludedData = Literal["ALL_DATA", "METADATA_ONLY"]
StatusFilter = Literal["RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE"]


class Parameters(BaseModel):
    """The members of a request."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="ignore",
        strict=True,
        frozen=True,
        hide_input_in_errors=True,
    )


_Request = TypeVar("_Request", bound=Parameters)


class LogGroup(Parameters):
    log_group_arn: Arn | None = None


class LogDestination(Parameters):
    cloud_watch_logs_log_group: LogGroup | None = None


class Logging(Parameters):
    """What a machine's logging is set to: kept to be shown."""

    level: Literal["ALL", "ERROR", "FATAL", "OFF"] = "OFF"
    include_execution_data: bool = False
    destinations: list[LogDestination] = Field(default=[], max_length=100)


class Tracing(Parameters):
    """Whether X-Ray tracing is on: kept to be shown."""

    enabled: bool = False


class Encryption(Parameters):
    type: Literal["AWS_OWNED_KEY", "CUSTOMER_MANAGED_KMS_KEY"]


class _Machine(Parameters):
    """What CreateStateMachine and UpdateStateMachine have in common."""

    logging_configuration: Logging | None = None
    tracing_configuration: Tracing | None = None
    encryption_configuration: Encryption | None = None
    publish: bool = False
    version_description: str | None = None

    def unsupported(self) -> list[str]:
        """Return what of the request this service cannot do, as constraints."""
        encryption = self.encryption_configuration
        found = {
            "publish": self.publish,
            "versionDescription": self.version_description is not None,
            "encryptionConfiguration": encryption is not None
            and encryption.type != "AWS_OWNED_KEY",
        }
        return [f"'{name}' is not supported by this service" for name in found if found[name]]


class CreateStateMachine(_Machine):
    name: Name
    definition: Definition
    role_arn: Arn
    type: MachineKind = "STANDARD"
    tags: list[Any] = Field(default=[], max_length=50)

    def unsupported(self) -> list[str]:
        """Return what of the request this service cannot do, as constraints."""
        return super().unsupported() + (
            ["'tags' is not supported by this service"] if self.tags else []
        )


class UpdateStateMachine(_Machine):
    state_machine_arn: Arn
    definition: Definition | None = None
    role_arn: Arn | None = None


class OneMachine(Parameters):
    """DescribeStateMachine, DeleteStateMachine."""

    state_machine_arn: Arn
    included_data: IncludedData = "ALL_DATA"


class ListStateMachines(Parameters):
    max_results: PageSize = 0
    next_token: PageToken | None = None


class ValidateDefinition(Parameters):
    definition: Definition
    type: MachineKind = "STANDARD"
    severity: Literal["ERROR", "WARNING"] = "ERROR"
    max_results: Annotated[int, Field(ge=0, le=100)] = 0


class StartExecution(Parameters):
    state_machine_arn: Arn
    name: Name | None = None
    input: Data = "{}"
    trace_header: TraceHeader | None = None


class StartSyncExecution(StartExecution):
    included_data: IncludedData = "ALL_DATA"


class StopExecution(Parameters):
    execution_arn: Arn
    error: Annotated[str, Field(max_length=256)] | None = None
    cause: Annotated[str, Field(max_length=32_768)] | None = None


class RedriveExecution(Parameters):
    execution_arn: Arn
    client_token: ClientToken | None = None


class OneExecution(Parameters):
    """DescribeExecution, DescribeStateMachineForExecution."""

    execution_arn: Arn
    included_data: IncludedData = "ALL_DATA"


class ListExecutions(Parameters):
    state_machine_arn: Arn | None = None
    map_run_arn: LongArn | None = None
    status_filter: StatusFilter | None = None
    redrive_filter: Literal["REDRIVEN", "NOT_REDRIVEN"] | None = None
    max_results: PageSize = 0
    next_token: Annotated[str, Field(min_length=1, max_length=3096)] | None = None


class GetExecutionHistory(Parameters):
    execution_arn: Arn
    max_results: PageSize = 0
    reverse_order: bool = False
    include_execution_data: bool = True
    next_token: PageToken | None = None


def read(model: type[_Request], members: Mapping[str, Any]) -> _Request:
    """Return the request. Raise Fault: ValidationException with every constraint that is broken,
    or SerializationException for a value of another JSON type.

    A member that is null is one that is not there, as SDKs have it.
    """
    given = {name: value for name, value in members.items() if value is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True)
    constraints = []
    for one in found:
        constraint = _constraint(one)
        if constraint is None:
            place = ".".join(map(str, one["loc"]))
            raise Fault("SerializationException", f"{place}: {one['msg']}")
        constraints.append(constraint)
    raise validation(*constraints)


def _constraint(found: Any) -> str | None:
    """Return a broken constraint as the service tells it; None for a value of another type.

    Observed: "Value '1001' at 'maxResults' failed to satisfy constraint: Member must have value
    less than or equal to 1000"; an item of a list is "'routingConfiguration.1.member.weight'".
    """
    context = found.get("ctx", {})
    match found["type"]:
        case "missing":
            rule = "Member must not be null"
        case "string_too_short":
            rule = f"Member must have length greater than or equal to {context['min_length']}"
        case "string_too_long" | "too_long":
            rule = f"Member must have length less than or equal to {context['max_length']}"
        case "greater_than_equal":
            rule = f"Member must have value greater than or equal to {context['ge']}"
        case "less_than_equal":
            rule = f"Member must have value less than or equal to {context['le']}"
        case "string_pattern_mismatch":
            rule = f"Member must satisfy regular expression pattern: {context['pattern']}"
        case "literal_error":
            allowed = context["expected"].replace("'", "").replace(" or ", ", ")
            rule = f"Member must satisfy enum value set: [{allowed}]"
        case _:
            return None
    place = ".".join(
        f"{part + 1}.member" if isinstance(part, int) else part for part in found["loc"]
    )
    value = "" if place in _SENSITIVE else _value(found)
    return f"Value{value} at '{place}' failed to satisfy constraint: {rule}"


def _value(found: Any) -> str:
    if found["type"] == "missing":
        return " null"
    value = str(found["input"])
    return f" '{value}'" if len(value) <= VALUE_CHARACTERS_SHOWN else ""

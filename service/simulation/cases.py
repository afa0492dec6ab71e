"""The cases of a flow: what it is given, what its tasks answer, and what should come of it.

A cases file is JSON: `{"cases": [case, ...]}`, and beside `cases` the members `input` and
`results`, which hold for every case that has none of its own. `docs/simulate.md` tells of every
member.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from service.asl import Json
from service.asl.errors import CAUSE_CHARACTERS_MAX, ERROR_CHARACTERS_MAX
from service.asl.values import PAYLOAD_BYTES_MAX, exceeds
from service.documents import INPUT_DEPTH_MAX, dumps, loads

FILE_BYTES_MAX: Final = 1_048_576
CASES_MAX: Final = 1_000
NAME_CHARACTERS_MAX: Final = 80
PROBLEMS_SHOWN_MAX: Final = 20
VALUE_CHARACTERS_SHOWN: Final = 80

DURATION_SECONDS_MAX: Final = 10 * 366 * 86_400
"""Ten years: no case lasts longer, and nothing in one takes longer."""

SIGNUP_INPUT: Final[Json] = {
    "account_id": "01970000-0000-7000-8000-000000000001",
    "email_domain": "example.org",
    "locale": None,
}
"""The input of a case that names none: shaped as that of a signup's execution."""

_RULES: Final = {"missing": "is required", "extra_forbidden": "there is no such member"}


class BadCases(Exception):
    """A cases file that cannot be used; `problems` has what is wrong, each with its place."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__("\n".join([f"{path}:", *problems]))
        self.path = path
        more = len(problems) - PROBLEMS_SHOWN_MAX
        rest = [f"and {more} more"] if more > 0 else []
        self.problems = (*problems[:PROBLEMS_SHOWN_MAX], *rest)


def check_input(value: Json) -> Json:
    """Return an input as it is. Raise ValueError when no execution could be started with it."""
    if exceeds(value):
        raise ValueError(f"is larger than {PAYLOAD_BYTES_MAX} bytes as JSON, or nested too deep")
    return value


def _range_of(value: Any) -> Any:
    """Return the least and the most of an expected duration: one number stands for both."""
    numbers = value if isinstance(value, list) else [value, value]
    # Compared by type: true and false are no numbers.
    if len(numbers) != 2 or any(type(n) not in (int, float) or n < 0 for n in numbers):
        raise PydanticCustomError(
            "seconds", "is neither a number of seconds nor an array [least, most]"
        )
    if numbers[0] > numbers[1]:
        raise PydanticCustomError("seconds", "has the larger number first; it is [least, most]")
    return tuple(numbers)


Seconds: TypeAlias = Annotated[float, Field(ge=0, le=DURATION_SECONDS_MAX)]
Text: TypeAlias = Annotated[str, Field(max_length=CAUSE_CHARACTERS_MAX)]
ErrorName: TypeAlias = Annotated[str, Field(min_length=1, max_length=ERROR_CHARACTERS_MAX)]
Input: TypeAlias = Annotated[Any, AfterValidator(check_input)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def tells(self, member: str) -> bool:
        """Return whether the file has this member here, be it null."""
        return member in self.model_fields_set


class Result(_Part):
    """One answer of a task. With neither `output` nor `error` it is the function's own answer."""

    output: Any = None
    error: ErrorName | None = None
    cause: Text | None = None
    seconds: Seconds = 0.0

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> Result:
        if self.tells("output") and self.error is not None:
            raise PydanticCustomError("result", "has both output and error")
        if self.cause is not None and self.error is None:
            raise PydanticCustomError("result", "has a cause without an error")
        return self

    @property
    def is_told(self) -> bool:
        """Whether the file says what the answer is, and not only how long it takes."""
        return self.tells("output") or self.error is not None


Results: TypeAlias = dict[str, Annotated[list[Result], Field(min_length=1)]]


class Expectation(_Part):
    """What should come of a case. What it does not tell may be anything."""

    path: list[str] | None = None
    status: Literal["SUCCEEDED", "FAILED", "TIMED_OUT"] | None = None
    output: Any = None
    error: str | None = None
    cause: str | None = None
    seconds: Annotated[tuple[int | float, int | float], BeforeValidator(_range_of)] | None = None

    @model_validator(mode="after")
    def _tells_something(self) -> Expectation:
        if not self.model_fields_set:
            raise PydanticCustomError("expect", "tells nothing that should come of the case")
        return self


class Case(_Part):
    """One run of the flow."""

    name: Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS_MAX)]
    comment: str | None = None
    input: Input = None
    verified_at: Seconds | None = None
    data: dict[str, Any] | None = None
    results: Results = {}
    expect: Expectation | None = None


class CasesFile(_Part):
    """What a cases file holds."""

    comment: str | None = None
    input: Input = None
    results: Results = {}
    cases: Annotated[list[Case], Field(min_length=1, max_length=CASES_MAX)]

    @field_validator("cases")
    @classmethod
    def _names_differ(cls, cases: list[Case]) -> list[Case]:
        seen: set[str] = set()
        for case in cases:
            if case.name in seen:
                raise PydanticCustomError("names", f"two cases are named {case.name!r}")
            seen.add(case.name)
        return cases


def single_case(input: Json = SIGNUP_INPUT) -> Case:
    """Return the case of a run about which nothing is told but its input."""
    return Case(name="run", input=input)


def read_cases(path: Path, known: frozenset[str], input: Json = SIGNUP_INPUT) -> list[Case]:
    """Return the cases of a file, each complete with what the file says for all.

    `known` are the names that results may be told of. `input` is that of a case for which the file
    has none. Raise BadCases with all problems, OSError.
    """
    if path.stat().st_size > FILE_BYTES_MAX:
        raise BadCases(path, [f"larger than {FILE_BYTES_MAX} bytes"])
    try:
        document = loads(path.read_bytes(), depth_max=INPUT_DEPTH_MAX)
    except ValueError as error:
        raise BadCases(path, [f"not JSON: {error}"]) from error
    try:
        file = CasesFile.model_validate(document)
    except ValidationError as error:
        raise BadCases(path, [_problem(details) for details in error.errors()]) from None
    if problems := list(_unknown_names(file, known)):
        raise BadCases(path, problems)
    return [_completed(case, file, input) for case in file.cases]


def _completed(case: Case, file: CasesFile, input: Json) -> Case:
    """Return the case with what the file says for all cases, where it says nothing itself."""
    teller = next((part for part in (case, file) if part.tells("input")), None)
    return case.model_copy(
        update={
            "input": input if teller is None else teller.input,
            "results": file.results | case.results,
        }
    )


def _unknown_names(file: CasesFile, known: frozenset[str]) -> Iterator[str]:
    """Yield a problem for each name in `results` that the definition does not have."""
    places: dict[str, Mapping[str, list[Result]]] = {"results": file.results}
    places |= {f"cases[{index}].results": case.results for index, case in enumerate(file.cases)}
    for place, results in places.items():
        for name in sorted(results.keys() - known):
            yield (
                f"{place}.{name}: neither a Task state of the definition nor a function that it "
                f"calls or that ships; those are: {', '.join(sorted(known))}"
            )


def _problem(details: ErrorDetails) -> str:
    """Return place, value and rule of what pydantic found."""
    place = ""
    for step in details["loc"]:
        place += f"[{step}]" if isinstance(step, int) else f".{step}"
    rule = _RULES.get(details["type"]) or details["msg"].removeprefix("Value error, ")
    if details["type"] == "missing":
        return f"{place.lstrip('.')}: {rule}"
    shown = dumps(details["input"]).decode()
    if len(shown) > VALUE_CHARACTERS_SHOWN:
        shown = f"{shown[:VALUE_CHARACTERS_SHOWN]}…"
    return f"{place.lstrip('.') or 'the file'}: {shown}: {rule}"

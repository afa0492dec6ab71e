"""What a JSONPath template or intrinsic function is evaluated against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from service.asl.share import Work
from service.asl.values import Json, Random

NO_VARIABLES: Final[Mapping[str, Json]] = MappingProxyType({})


@dataclass(init=False, slots=True)
class Scope:
    """The value behind `$`, the Context Object behind `$$`, the variables behind `$name`.

    `work` is where the nodes that paths look at are counted, if anybody wants to know.
    """

    value: Final[Json]
    context: Final[Json]
    random: Final[Random]
    variables: Final[Mapping[str, Json]]
    work: Final[Work | None]

    def __init__(
        self,
        value: Json,
        context: Json,
        random: Random,
        variables: Mapping[str, Json] = NO_VARIABLES,
        work: Work | None = None,
    ) -> None:
        self.value = value
        self.context = context
        self.random = random
        self.variables = variables
        self.work = work

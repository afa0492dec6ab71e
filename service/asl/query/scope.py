"""What a JSONPath template or intrinsic function is evaluated against."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from service.asl.share import Work
from service.asl.values import Json, Random

NO_VARIABLES: Final[Mapping[str, Json]] = MappingProxyType({})


class Scope(NamedTuple):
    """The value behind `$`, the Context Object behind `$$`, the variables behind `$name`.

    `work` is where the nodes that paths look at are counted, if anybody wants to know.
    """

    value: Json
    context: Json
    random: Random
    variables: Mapping[str, Json] = NO_VARIABLES
    work: Work | None = None

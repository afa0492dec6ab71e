"""Members that the answers of several actions have."""

from __future__ import annotations

from service.api.stepfunctions.protocol import Members
from service.api.stepfunctions.requests import IncludedData


def present(**members: str | None) -> Members:
    """Return the members that have a value."""
    return {name: value for name, value in members.items() if value is not None}


def data(name: str, text: str | None, included: IncludedData) -> Members:
    """Return a document and its details; without a document neither."""
    if text is None:
        return {}
    if included == "METADATA_ONLY":
        return {f"{name}Details": {"included": False}}
    return {name: text, f"{name}Details": {"included": True}}

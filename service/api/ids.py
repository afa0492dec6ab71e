"""Ids in paths."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web


def path_id(request: web.Request) -> UUID | None:
    """Return the path's id, or None when it is no UUID in its usual form and so names nothing."""
    text = request.match_info["id"]
    try:
        id = UUID(text)
    except ValueError:
        return None
    return id if str(id) == text.lower() else None

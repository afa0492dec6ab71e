"""Page tokens: where the next page begins, for the request they were given to and no other."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from service.api.stepfunctions.faults import Fault

DIGEST_BYTES: Final = 12


def token_of(position: str, *request: str) -> str:
    """Return the token of a position in the list that this request asks for."""
    return base64.urlsafe_b64encode(_digest(request) + position.encode()).decode()


def position_of(token: str | None, *request: str) -> str | None:
    """Return the position in a token; None without one.

    Raise Fault InvalidToken for what `token_of` did not give to this request.
    """
    if token is None:
        return None
    try:
        data = base64.b64decode(token, altchars=b"-_", validate=True)
        position = data[DIGEST_BYTES:].decode()
    except ValueError:
        raise invalid_token() from None
    if not position or data[:DIGEST_BYTES] != _digest(request):
        raise invalid_token()
    return position


def invalid_token() -> Fault:
    """Return the fault of a token that no page gave (observed: ListStateMachineAliases)."""
    return Fault("InvalidToken", "Invalid Token: 'Invalid token'")


def _digest(request: tuple[str, ...]) -> bytes:
    return hashlib.sha256("\n".join(request).encode(errors="surrogatepass")).digest()[:DIGEST_BYTES]

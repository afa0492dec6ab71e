"""What an account is: its address and the secrets that prove a claim to it."""

from service.accounts.address import (
    IDENTITY_VERSION,
    Address,
    InvalidAddress,
    identity_bucket,
    parse_address,
)
from service.accounts.tokens import LinkToken, Tokens, UnknownToken

__all__ = [
    "IDENTITY_VERSION",
    "Address",
    "InvalidAddress",
    "LinkToken",
    "Tokens",
    "UnknownToken",
    "identity_bucket",
    "parse_address",
]

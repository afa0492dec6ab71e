"""Derived secrets: only the exact text stands for a token, and rotation loses none."""

import base64
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.accounts.tokens import LinkToken, Tokens, UnknownToken

ADA = UUID("01890000-0000-7000-8000-000000000001")
BOB = UUID("01890000-0000-7000-8000-000000000002")
OLD, NEW = b"o" * 32, b"n" * 32
TOKENS = Tokens([OLD])

UUIDS = st.uuids()
NUMBERS = st.integers(0, 2**32 - 1)


@given(account_id=UUIDS, n=NUMBERS)
def test_link_token_reads_back_as_what_it_was_made_of(account_id: UUID, n: int) -> None:
    assert TOKENS.read_link_token(TOKENS.link_token(account_id, n)) == LinkToken(account_id, n)


def test_link_token_never_changes() -> None:
    assert TOKENS.link_token(ADA, 1) == (
        "AQGJAAAAAHAAgAAAAAAAAAEAAAABt7ynN69Xw9CM689dtNdQE1xcoQkzJmQzKuwRZFzeflkrf0ip"
    )


def test_bearer_secret_never_changes() -> None:
    assert TOKENS.bearer_secret(ADA) == "p-QONwHHDksy77kyQ4NrKCEKSUyfiFmKjRZj9QCgaK0"


@given(account_id=UUIDS, n=NUMBERS, bit=st.integers(0, 57 * 8 - 1))
def test_any_flipped_bit_is_refused(account_id: UUID, n: int, bit: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(TOKENS.link_token(account_id, n)))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(UnknownToken):
        TOKENS.read_link_token(base64.urlsafe_b64encode(raw).decode())


@given(place=st.integers(0, 75), char=st.characters())
def test_any_changed_character_is_refused(place: int, char: str) -> None:
    token = TOKENS.link_token(ADA, 7)
    changed = token[:place] + char + token[place + 1 :]
    if changed == token:
        assert TOKENS.read_link_token(changed) == LinkToken(ADA, 7)
    else:
        with pytest.raises(UnknownToken):
            TOKENS.read_link_token(changed)


@given(st.text(max_size=200) | st.text("AZaz09-_", min_size=76, max_size=76))
def test_any_other_text_is_an_unknown_token(text: str) -> None:
    with pytest.raises(UnknownToken):
        TOKENS.read_link_token(text)


@pytest.mark.parametrize("tail", ["=", "\n", "A", "AAAA", "=" * 1_000_000])
def test_link_token_with_a_tail_is_refused(tail: str) -> None:
    with pytest.raises(UnknownToken):
        TOKENS.read_link_token(TOKENS.link_token(ADA, 1) + tail)


def test_standard_base64_is_refused() -> None:
    token = next(text for n in range(1000) if set("-_") & set(text := TOKENS.link_token(ADA, n)))
    with pytest.raises(UnknownToken):
        TOKENS.read_link_token(token.replace("-", "+").replace("_", "/"))


@given(st.sets(st.tuples(UUIDS, NUMBERS), min_size=2, max_size=20))
def test_tokens_of_different_links_differ(links: set[tuple[UUID, int]]) -> None:
    assert len({TOKENS.link_token(account_id, n) for account_id, n in links}) == len(links)


def test_link_number_beyond_32_bits_is_an_error() -> None:
    with pytest.raises(ValueError, match="n: 4294967296 is not between 0 and 4294967295"):
        TOKENS.link_token(ADA, 2**32)
    with pytest.raises(ValueError, match="n: -1"):
        TOKENS.link_token(ADA, -1)


def test_first_key_signs_and_every_listed_key_verifies() -> None:
    before, during, after = Tokens([OLD]), Tokens([NEW, OLD]), Tokens([NEW])
    old_link, old_secret = before.link_token(ADA, 1), before.bearer_secret(ADA)
    assert during.read_link_token(old_link) == LinkToken(ADA, 1)
    assert during.is_bearer_secret(ADA, old_secret)
    assert during.link_token(ADA, 1) == after.link_token(ADA, 1) != old_link
    assert during.bearer_secret(ADA) == after.bearer_secret(ADA) != old_secret


def test_key_no_longer_listed_verifies_nothing() -> None:
    before, after = Tokens([OLD]), Tokens([NEW])
    with pytest.raises(UnknownToken):
        after.read_link_token(before.link_token(ADA, 1))
    assert not after.is_bearer_secret(ADA, before.bearer_secret(ADA))


def test_bearer_secret_is_its_account_s_alone() -> None:
    assert TOKENS.is_bearer_secret(ADA, TOKENS.bearer_secret(ADA))
    assert not TOKENS.is_bearer_secret(BOB, TOKENS.bearer_secret(ADA))


@given(st.text(max_size=100) | st.text("AZaz09-_", min_size=43, max_size=43))
def test_any_other_text_is_no_bearer_secret(text: str) -> None:
    assert not TOKENS.is_bearer_secret(ADA, text)


@given(place=st.integers(0, 42), char=st.sampled_from("AQgwBz09-_"))
def test_bearer_secret_with_a_changed_character_is_refused(place: int, char: str) -> None:
    secret = TOKENS.bearer_secret(ADA)
    changed = secret[:place] + char + secret[place + 1 :]
    assert TOKENS.is_bearer_secret(ADA, changed) == (changed == secret)


def test_bearer_secret_is_not_the_signature_of_any_link() -> None:
    raw = base64.urlsafe_b64decode(TOKENS.link_token(ADA, 0))
    assert raw[-32:] != base64.urlsafe_b64decode(TOKENS.bearer_secret(ADA) + "=")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "SECRET_KEY: 0 keys given, 1 to 16 are allowed"),
        ([bytes([n]) * 32 for n in range(17)], "SECRET_KEY: 17 keys given, 1 to 16 are allowed"),
        ([OLD, b"short"], "SECRET_KEY: key 2 has 5 bytes, at least 32 needed"),
        ([OLD, NEW, OLD], "SECRET_KEY: the same key is listed twice"),
    ],
)
def test_unusable_keys_are_refused(keys: list[bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokens(keys)

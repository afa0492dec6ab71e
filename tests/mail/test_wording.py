"""Names made harmless, languages looked up, durations that never promise too much."""

import unicodedata

import pytest
from babel.core import Locale
from hypothesis import given
from hypothesis import strategies as st

from service.mail.wording import choose_language, harmless_name, word_expiry


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Ada Lovelace", "Ada Lovelace"),
        ("J.R.R. Tolkien", "J.R.R. Tolkien"),
        ("Dr. Grace Hopper, Jr.", "Dr. Grace Hopper, Jr."),
        ("Åsa-Märta O'Neil", "Åsa-Märta O'Neil"),
        ("山田 太郎", "山田 太郎"),
        ("  Ada\t\r\n Lovelace ", "Ada Lovelace"),
        ("Ada\x00\x1b[31m\u202e\u200b", "Ada[31m"),
        ("Ada\r\nBcc: eve", "Ada Bcc: eve"),
        ("n" * 100, "n" * 100),
    ],
)
def test_name_is_shown_without_what_cannot_be_seen(name: str, shown: str) -> None:
    assert harmless_name(name) == shown


@pytest.mark.parametrize(
    "name",
    [
        "",
        "\u200b\n",
        "n" * 101,
        "Win at https://evil.example",
        "ftp://x",
        "WWW.evil",
        "evil.com",
        "Visit evil.com/now, Ada",
        "eve@evil",
        "ev\u200bil.co\u200bm",
        "evil．com",  # noqa: RUF001 a full-width full stop, which mail programs take for one
        "evil。com",
        "http：//evil",  # noqa: RUF001 a full-width colon, likewise
    ],
)
def test_name_that_would_become_a_link_is_not_shown(name: str) -> None:
    assert harmless_name(name) == ""


@given(st.text(max_size=150))
def test_shown_name_is_one_visible_line(name: str) -> None:
    shown = harmless_name(name)
    assert len(shown) <= 100
    assert shown == " ".join(shown.split())
    assert not any(unicodedata.category(char)[0] == "C" for char in shown)
    assert "://" not in shown
    assert "@" not in shown


LANGUAGES = ["de", "en", "pt-BR", "zh-Hant", "zh-Hant-TW"]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("de", "de"),
        ("de-CH", "de"),
        ("de-CH-1996", "de"),
        ("DE_at", "de"),
        ("pt-br", "pt-BR"),
        ("pt", "en"),
        ("zh-Hant-CN-x-private1", "zh-Hant"),
        ("zh-hant-tw", "zh-Hant-TW"),
        ("de-x-y-private", "de"),
        ("fr", "en"),
        ("*", "en"),
        ("", "en"),
        (None, "en"),
        ("../../de", "en"),
        ("de" + "-abcdefgh" * 4, "en"),
    ],
)
def test_language_is_looked_up_from_special_to_general(wanted: str | None, chosen: str) -> None:
    assert choose_language(wanted, LANGUAGES, "en") == chosen


@given(st.text(max_size=50))
def test_any_wanted_language_gets_one_there_is(wanted: str) -> None:
    assert choose_language(wanted, LANGUAGES, "en") in LANGUAGES


@pytest.mark.parametrize(
    ("seconds", "language", "words"),
    [
        (1800, "en", "in 30 minutes"),
        (1799, "en", "in 29 minutes"),
        (5400, "en", "in 90 minutes"),
        (60, "en", "in 60 seconds"),
        (1, "en", "in 1 second"),
        (0, "en", "in 0 seconds"),
        (-5, "en", "in 0 seconds"),
        (7000, "en", "in 116 minutes"),
        (86_400, "en", "in 24 hours"),
        (604_800, "en", "in 7 days"),
        (1800, "de", "in 30 Minuten"),
        (172_800, "de", "in 2 Tagen"),
        (1800, "fr", "dans 30 minutes"),
        (1800, "es", "dentro de 30 minutos"),
    ],
)
def test_expiry_is_relative_and_rounded_down(seconds: int, language: str, words: str) -> None:
    assert word_expiry(seconds, Locale.parse(language)) == words

"""What goes into a mail's sentences: a visitor's name made harmless, durations, the language."""

import re
import unicodedata
from collections.abc import Collection
from datetime import timedelta
from functools import lru_cache

from babel.core import Locale
from babel.dates import TIMEDELTA_UNITS, format_timedelta

NAME_CHARACTERS_MAX = 100
LANGUAGE_TAG_CHARACTERS_MAX = 35
"""Long enough for every registered tag with a region, script and variant (RFC 5646 4.4.1)."""

DURATIONS_REMEMBERED = 1024

# What mail programs turn into a link by themselves: a scheme, www., an address, a domain.
_LINKLIKE = re.compile(r"://|\bwww\.|@|[^\W_]\.[^\W\d_]{2,}", re.IGNORECASE)
_LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")


def harmless_name(name: str) -> str:
    """Return a visitor's name fit for a greeting, or "" when it is not fit for one.

    The name goes to whoever owns the address, who need not be the one who typed it: a sign-up form
    is a favourite means of sending strangers an advertisement under a good sender. So control and
    format characters are dropped, and a name that is too long or that a mail program would turn
    into a link is not used at all.
    """
    if not name or len(name) > NAME_CHARACTERS_MAX:
        return ""
    visible = "".join(
        " " if char.isspace() else char
        for char in name
        if char.isspace() or unicodedata.category(char)[0] != "C"
    )
    name = " ".join(visible.split())
    # Compared in compatibility form: a full-width or ideographic full stop makes a link as well.
    if _LINKLIKE.search(unicodedata.normalize("NFKC", name).replace("\u3002", ".")):
        return ""
    return name


def choose_language(wanted: str | None, available: Collection[str], default: str) -> str:
    """Return the available language tag that comes closest to `wanted`, as RFC 4647 3.4 looks up.

    The tag is shortened from its end until one matches: de-CH-1996, de-CH, de, and then the
    default. Letter case and `_` for `-` make no difference; a malformed tag gets the default.
    """
    if wanted is None or len(wanted) > LANGUAGE_TAG_CHARACTERS_MAX:
        return default
    wanted = wanted.replace("_", "-").lower()
    if _LANGUAGE_TAG.fullmatch(wanted) is None:
        return default
    by_lower_case = {tag.lower(): tag for tag in available}
    subtags = wanted.split("-")
    while subtags:
        found = by_lower_case.get("-".join(subtags))
        if found is not None:
            return found
        subtags.pop()
        if subtags and len(subtags[-1]) == 1:
            subtags.pop()
    return default


@lru_cache(maxsize=DURATIONS_REMEMBERED)
def word_expiry(seconds: int, locale: Locale) -> str:
    """Return how far off the end of a link is: "in 30 minutes", "dans 2 jours".

    Relative, since nobody knows the reader's time zone; and rounded down, to the largest unit of
    which at least two are left, since a mail must not promise more than there is.
    """
    seconds = max(seconds, 0)
    for _, unit_seconds in TIMEDELTA_UNITS:
        if seconds >= 2 * unit_seconds:
            seconds -= seconds % unit_seconds
            break
    return format_timedelta(
        timedelta(seconds=seconds), threshold=2, add_direction=True, locale=locale
    )
